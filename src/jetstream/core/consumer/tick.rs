//! What a consumer does when the clock moves on.

use super::{Consumer, Turn};
use crate::jetstream::core::entry::Op;

impl Consumer {
    /// Handles every deadline that has passed; says whether there may be something to deliver now.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) -> bool {
        if let Some(live) = self.live.as_deref_mut() {
            live.scheduled_ns = None;
        }
        self.check_acks(turn);
        let pin_until_ns = self
            .live
            .as_deref()
            .and_then(|live| live.pin.as_ref())
            .map(|pin| pin.until_ns);
        if pin_until_ns.is_some_and(|until_ns| until_ns <= turn.now_ns) {
            self.unpin("timeout", turn);
        }
        if !self.rules.is_push() {
            let nothing_left = self
                .live
                .as_deref()
                .is_some_and(|live| live.pending_messages == 0 && live.redeliver.is_empty());
            self.walk_waiting(nothing_left, turn);
        }
        self.push_heartbeat(turn);
        self.leave_if_idle(turn);
        true
    }

    /// A consumer that nobody has used for too long goes.
    fn leave_if_idle(&mut self, turn: &mut Turn<'_>) {
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        let Some(at_ns) = live.inactive_at_ns(rules) else {
            return;
        };
        if turn.now_ns < at_ns {
            return;
        }
        // Whoever pulled last may still be at work on what it got.
        let pending = self.progress.pending.values();
        let acked_by_ns = pending.map(|pending| pending.time_ns.saturating_add(rules.ack_wait_ns));
        if let Some(acked_by_ns) = acked_by_ns.max().filter(|at_ns| *at_ns > turn.now_ns)
            && !rules.is_push()
        {
            live.active_ns = acked_by_ns;
            return;
        }
        let in_use = if rules.is_push() {
            turn.world
                .is_heard(&rules.deliver_subject, self.config.deliver_group.as_bytes())
        } else {
            !live.waiting.is_empty()
        };
        live.active_ns = turn.now_ns;
        if rules.is_push() {
            live.push.set_active(in_use);
        }
        if !in_use {
            turn.draft.push(&Op::ConsumerDelete { id: self.id });
        }
    }
}
