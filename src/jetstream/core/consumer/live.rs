//! What a consumer's leader knows beyond the log: where it reads, who waits, what is due.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use storage::store::{Counting, Store};

use super::progress::Progress;
use super::push::Push;
use super::rules::Rules;
use super::waiting::WaitQueue;
use super::{Consumer, RESERVE_FIRST};
use crate::jetstream::core::ack_names::AckNames;
use crate::jetstream::core::effects::World;
use crate::jetstream::types::{AckPolicy, DeliverPolicy};

/// A client that alone is served.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) since_ns: i64,
    pub(crate) until_ns: i64,
}

/// The leader's side of a consumer.
#[derive(Debug)]
pub(crate) struct Live {
    /// The progress with everything that was delivered and acknowledged so far, logged or not.
    pub(crate) progress: Progress,
    /// The next stream sequence to look at.
    pub(crate) cursor: u64,
    /// Matching messages at or after the cursor (or in the list of last messages).
    pub(crate) pending_messages: u64,
    /// Under `last_per_subject`: what is delivered before `cursor` counts.
    pub(crate) last_messages: VecDeque<u64>,
    /// What is to be delivered again.
    pub(crate) redeliver: BTreeSet<u64>,
    /// When acks are due, by time; may hold what was settled long ago.
    pub(crate) due: BinaryHeap<Reverse<(i64, u64)>>,
    pub(crate) waiting: WaitQueue,
    pub(crate) push: Push,
    pub(crate) pin: Option<Pin>,
    /// The last sign of life of a client.
    pub(crate) active_ns: i64,
    /// Nothing is delivered before this time (rate limit, original speed).
    pub(crate) not_before_ns: i64,
    /// Time of the last message and of its delivery, for original speed.
    pub(crate) last_sent: Option<(i64, i64)>,
    /// Up to here messages keep their original distance.
    pub(crate) replay_upto: u64,
    /// Up to which delivery a reservation was asked for.
    pub(crate) reserve_asked: u64,
    /// What was reserved beyond this delivery is being given back: until that is applied, nothing is delivered beyond it.
    pub(crate) given_back: Option<u64>,
    /// So many resets are under way: until they are applied, nothing is delivered. What came before them would be logged after them, and be taken for what
    /// was delivered since.
    pub(crate) resets: u32,
    /// How far ahead reservations reach.
    pub(crate) reserve_ahead: u64,
    /// Up to this delivery, and for messages up to this sequence, an earlier leader may have sent the message before.
    pub(crate) suspect_upto: (u64, u64),
    /// For which time the consumer is on the stream's list of deadlines.
    pub(crate) scheduled_ns: Option<i64>,
    /// The constant start of ack subjects.
    pub(crate) ack_prefix: Bytes,
}

impl Live {
    /// Starts to lead from applied progress.
    pub(crate) fn new(
        ack_names: &AckNames,
        consumer: &Consumer,
        store: &dyn Store,
        world: &dyn World,
        now_ns: i64,
    ) -> Self {
        let progress = consumer.progress.clone();
        let rules = &consumer.rules;
        let mut live = Self {
            cursor: progress.delivered.stream.saturating_add(1),
            pending_messages: 0,
            last_messages: VecDeque::new(),
            redeliver: BTreeSet::new(),
            due: BinaryHeap::new(),
            waiting: WaitQueue::default(),
            push: Push::new(rules, rules.is_push() && consumer.is_heard(world)),
            pin: None,
            active_ns: now_ns,
            not_before_ns: 0,
            last_sent: None,
            replay_upto: if rules.original_speed {
                store.state().last_sequence
            } else {
                0
            },
            reserve_asked: progress.reserved,
            given_back: None,
            resets: 0,
            reserve_ahead: RESERVE_FIRST,
            suspect_upto: (progress.reserved, store.state().last_sequence),
            scheduled_ns: None,
            ack_prefix: ack_names.ack_prefix(&consumer.name),
            progress,
        };
        live.list_last_messages(consumer, store);
        live.recount(consumer, store);
        for (sequence, pending) in &live.progress.pending {
            let times = live
                .progress
                .redelivered
                .get(sequence)
                .copied()
                .unwrap_or(0);
            let due_ns = pending.time_ns.saturating_add(rules.wait_ns(times));
            live.due.push(Reverse((due_ns, *sequence)));
        }
        live
    }

    /// Takes over what does not rest on the log from an earlier lead of the same server: who waits, who listens, who is pinned.
    pub(crate) fn keep_waiting(&mut self, before: Self) {
        self.waiting = before.waiting;
        self.push = before.push;
        self.pin = before.pin;
        self.active_ns = before.active_ns;
        self.not_before_ns = before.not_before_ns;
        self.last_sent = before.last_sent;
        self.replay_upto = before.replay_upto;
        self.reserve_ahead = before.reserve_ahead;
    }

    /// Finds again which last messages are still to be delivered first.
    fn list_last_messages(&mut self, consumer: &Consumer, store: &dyn Store) {
        let resume = self.progress.resume;
        let wanted = consumer.config.deliver_policy == DeliverPolicy::LastPerSubject;
        if !wanted || self.cursor > resume {
            return;
        }
        let listed = store.last_sequences(&consumer.rules.filter, resume, usize::MAX);
        self.last_messages = listed
            .unwrap_or_default()
            .into_iter()
            .filter(|sequence| *sequence >= self.cursor)
            .collect();
        self.cursor = resume + 1;
    }

    /// Takes another configuration in.
    pub(crate) fn reconfigured(
        &mut self,
        consumer: &Consumer,
        store: &dyn Store,
        world: &dyn World,
        refiltered: bool,
    ) {
        let rules = &consumer.rules;
        if rules.is_push() {
            self.push.set_active(consumer.is_heard(world));
        }
        if refiltered {
            self.recount(consumer, store);
        }
        self.due.clear();
        for (sequence, pending) in &self.progress.pending {
            let times = self
                .progress
                .redelivered
                .get(sequence)
                .copied()
                .unwrap_or(0);
            let due_ns = pending.time_ns.saturating_add(rules.wait_ns(times));
            self.due.push(Reverse((due_ns, *sequence)));
        }
    }

    /// Counts anew what is still to be delivered.
    pub(crate) fn recount(&mut self, consumer: &Consumer, store: &dyn Store) {
        let rules = &consumer.rules;
        let counting = if consumer.config.deliver_policy == DeliverPolicy::LastPerSubject {
            Counting::LastPerSubject
        } else {
            Counting::Every
        };
        self.last_messages
            .retain(|sequence| store.next_sequence(*sequence, &rules.filter) == Some(*sequence));
        self.pending_messages = if self.last_messages.is_empty() {
            store.count(self.cursor, &rules.filter, Counting::Every)
        } else {
            let newer = store.count(self.cursor, &rules.filter, counting);
            newer + self.last_messages.len() as u64
        };
    }

    /// Remembers when the ack of a message is due.
    pub(crate) fn expect_ack(&mut self, rules: &Rules, sequence: u64) {
        if rules.ack == AckPolicy::None || rules.ack == AckPolicy::FlowControl {
            return;
        }
        let Some(pending) = self.progress.pending.get(&sequence) else {
            return;
        };
        let times = self
            .progress
            .redelivered
            .get(&sequence)
            .copied()
            .unwrap_or(0);
        let due_ns = pending.time_ns.saturating_add(rules.wait_ns(times));
        if self.due.len() > 2 * self.progress.pending.len() + 1024 {
            self.forget_settled();
        }
        self.due.push(Reverse((due_ns, sequence)));
    }

    fn forget_settled(&mut self) {
        let mut due = std::mem::take(&mut self.due).into_vec();
        due.retain(|Reverse((_, sequence))| self.progress.pending.contains_key(sequence));
        due.sort_unstable();
        due.dedup_by_key(|Reverse((_, sequence))| *sequence);
        self.due = BinaryHeap::from(due);
    }

    /// When the consumer next has to look at the clock.
    pub(crate) fn next_deadline_ns(&self, rules: &Rules, now_ns: i64) -> Option<i64> {
        let mut next: Option<i64> = None;
        let mut at = |time_ns: Option<i64>| {
            if let Some(time_ns) = time_ns {
                next = Some(next.map_or(time_ns, |next| next.min(time_ns)));
            }
        };
        at(self.due.peek().map(|Reverse((due_ns, _))| *due_ns));
        at(self.waiting.next_ns());
        at(rules.pause_until_ns.filter(|until| *until > now_ns));
        at(Some(self.not_before_ns).filter(|not_before| *not_before > now_ns));
        at(self.pin.as_ref().map(|pin| pin.until_ns));
        if rules.is_push() && self.push.active && rules.idle_heartbeat_ns > 0 {
            at(Some(self.push.heartbeat_at_ns));
        }
        at(self.inactive_at_ns(rules));
        next
    }

    /// When the consumer has been idle for too long.
    pub(crate) fn inactive_at_ns(&self, rules: &Rules) -> Option<i64> {
        if rules.is_push() && self.push.active {
            return None;
        }
        Some(self.active_ns.saturating_add(rules.inactive_ns?))
    }
}
