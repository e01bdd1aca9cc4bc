//! Push delivery: is anybody there, and can they keep up.

use bytes::Bytes;

use super::rules::Rules;
use super::{Consumer, Turn};
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::status;
use crate::jetstream::types::AckPolicy;
use crate::protocol::base62::{BASE, digit};

/// The most bytes that are sent ahead of the client.
const WINDOW_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The bytes sent ahead of a client that has shown nothing yet.
const WINDOW_BYTES_FIRST: u64 = WINDOW_BYTES_MAX / 16;

/// The state of push delivery.
#[derive(Debug, Default)]
pub(crate) struct Push {
    /// Whether somebody listens on the deliver subject.
    pub(crate) active: bool,
    /// Bytes that may be sent ahead; 0 without flow control.
    window: u64,
    /// Bytes sent ahead.
    ahead: u64,
    /// The flow control request that is not answered yet; empty for none.
    pub(crate) asked: Bytes,
    /// Bytes that its answer will cover.
    asked_bytes: u64,
    /// When the next heartbeat is due.
    pub(crate) heartbeat_at_ns: i64,
}

impl Push {
    pub(crate) fn new(rules: &Rules, active: bool) -> Self {
        Self {
            active,
            window: if rules.flow_control {
                WINDOW_BYTES_FIRST
            } else {
                0
            },
            ..Self::default()
        }
    }

    /// Whether another message may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.active && (self.window == 0 || self.ahead <= self.window)
    }

    /// Accounts for a message that was sent and says whether to ask the client to confirm.
    pub(crate) fn sent(&mut self, size: u64, acks_full: bool) -> bool {
        if self.window == 0 {
            return false;
        }
        self.ahead += size;
        if self.asked.is_empty() {
            return self.ahead > self.window / 2 || acks_full;
        }
        if self.ahead.saturating_sub(self.asked_bytes) >= self.window {
            self.asked_bytes += size;
        }
        false
    }

    /// Asks the client to confirm what it has, to a subject that begins so.
    pub(crate) fn ask(
        &mut self,
        prefix: String,
        to: &Bytes,
        mut random: u64,
        effects: &mut Effects,
    ) {
        let mut subject = prefix;
        for _ in 0..4 {
            subject.push(char::from(digit(random)));
            random /= BASE;
        }
        self.asked = Bytes::from(subject);
        self.asked_bytes = self.ahead;
        effects
            .outgoing
            .push(status::flow_control(to, self.asked.clone()));
    }

    /// The client confirms; `false` when that was not the last request.
    pub(crate) fn answered(&mut self, subject: &[u8]) -> bool {
        if self.asked.is_empty() || self.asked != subject {
            return false;
        }
        self.window = (self.window * 2).min(WINDOW_BYTES_MAX);
        self.ahead = self.ahead.saturating_sub(self.asked_bytes);
        self.asked = Bytes::new();
        self.asked_bytes = 0;
        true
    }

    /// The listener came or went.
    pub(crate) fn set_active(&mut self, active: bool) {
        if active && !self.active {
            self.ahead = 0;
            self.asked = Bytes::new();
            self.asked_bytes = 0;
        }
        self.active = active;
    }
}

impl Consumer {
    /// Whether anybody listens on the deliver subject has changed; says whether there is something to deliver now.
    pub(crate) fn interest(&mut self, active: bool, now_ns: i64) -> bool {
        let idle_heartbeat_ns = self.rules.idle_heartbeat_ns;
        let Some(live) = self.live.as_deref_mut() else {
            return false;
        };
        if live.push.active && !active {
            live.active_ns = now_ns;
        }
        if active && !live.push.active {
            live.push.heartbeat_at_ns = now_ns.saturating_add(idle_heartbeat_ns);
        }
        live.push.set_active(active);
        active
    }

    /// The client has answered a flow control request.
    pub(crate) fn flow_answered(
        &mut self,
        subject: &[u8],
        last: Option<(u64, u64)>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(live) = self.live.as_deref_mut() else {
            return false;
        };
        if !live.push.answered(subject) {
            return false;
        }
        if self.rules.ack == AckPolicy::FlowControl
            && let Some((consumer_sequence, stream_sequence)) = last
        {
            self.settle(consumer_sequence, stream_sequence, turn);
        }
        true
    }

    /// Sends the idle heartbeat of a push consumer when it is due.
    pub(crate) fn push_heartbeat(&mut self, turn: &mut Turn<'_>) {
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        if !rules.is_push()
            || !live.push.active
            || rules.idle_heartbeat_ns == 0
            || turn.now_ns < live.push.heartbeat_at_ns
        {
            return;
        }
        turn.effects.outgoing.push(status::heartbeat(
            &rules.deliver_subject,
            live.progress.delivered.consumer,
            live.cursor.saturating_sub(1),
            &live.push.asked,
        ));
        let acks_open = rules.ack == AckPolicy::FlowControl && !live.progress.pending.is_empty();
        if acks_open && live.push.asked.is_empty() {
            live.push.ask(
                turn.ack_names.flow_prefix(&self.name),
                &rules.deliver_subject,
                turn.world.random(),
                turn.effects,
            );
        }
        live.push.heartbeat_at_ns = turn.now_ns.saturating_add(rules.idle_heartbeat_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::types::ConsumerConfig;

    #[test]
    fn the_window_starts_at_two_mebibytes_and_doubles_with_every_answer() {
        let rules = Rules::new(&ConsumerConfig {
            deliver_subject: "d".to_owned(),
            flow_control: true,
            ..ConsumerConfig::default()
        });
        let mut push = Push::new(&rules, true);
        let mut effects = Effects::default();
        assert!(!push.sent(1024 * 1024, false));
        assert!(push.sent(1, false));
        push.ask(
            "$JS.FC.S.C.".to_owned(),
            &rules.deliver_subject,
            12345,
            &mut effects,
        );
        assert!(push.is_open());
        push.sent(1024 * 1024, false);
        assert!(!push.is_open());
        let subject = push.asked.clone();
        assert!(subject.starts_with(b"$JS.FC.S.C."));
        assert!(!push.answered(b"$JS.FC.S.C.xxxx"));
        assert!(push.answered(&subject));
        assert_eq!(push.window, 4 * 1024 * 1024);
        assert_eq!(push.ahead, 1024 * 1024);
        assert!(push.is_open());
    }
}
