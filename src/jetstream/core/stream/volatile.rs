//! Consumers that keep their state in memory, when their server starts again.
//!
//! Everything about a stream goes through one log, also what `mem_storage` consumers deliver and are acknowledged; so a start finds it, although
//! nobody was promised that. The reference has nothing of it then, and clients rely on that: what an ordered consumer leaves
//! behind does not wait for its threshold of inactivity after every restart. So a start ends such state, by an entry of its own.
//!
//! # Invariant
//! It is an entry like any other, durable before it is applied: what comes after it in the log was decided without those consumers.

use bytes::Bytes;

use super::apply::Failure;
use super::retention::Gone;
use super::start::starting_progress;
use super::{Consumer, StreamCore};
use crate::jetstream::core::consumer::Live;
use crate::jetstream::core::effects::{Effects, World};
use crate::jetstream::core::entry::Op;

/// What a start makes of consumers that kept their state in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolatileConsumers {
    /// Nothing else knows of them: they are gone.
    End,
    /// A cluster knows of them: they are there, and begin once more.
    Restart,
}

impl StreamCore {
    /// The entry by which a stream that was just taken up loses what its consumers had in memory, and its index; `None` when there are no such consumers.
    /// It is for a stream with one replica that does not lead yet, to be made durable and then [replayed](Self::replay).
    pub fn lose_volatile(&self, fate: VolatileConsumers, now_ns: i64) -> Option<(u64, Bytes)> {
        let mut lead = self.fresh_lead(0);
        for consumer in self.consumers.values() {
            if consumer.config.mem_storage {
                let id = consumer.id;
                lead.draft.push(&match fate {
                    VolatileConsumers::End => Op::ConsumerLost { id },
                    VolatileConsumers::Restart => Op::ConsumerRestarted { id },
                });
            }
        }
        lead.seal(now_ns);
        lead.into_outbox().pop()
    }

    /// The same for the leader of a group of which every server has started again: those consumers begin once more that were created before `since_ns`, when this
    /// server started. What was created later nobody has lost.
    pub fn restart_volatile(&mut self, since_ns: i64) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let volatile = self.consumers.values_mut();
        let is_lost = |consumer: &&mut Consumer| {
            consumer.config.mem_storage && consumer.created_ns < since_ns
        };
        for consumer in volatile.filter(is_lost) {
            let id = consumer.id;
            lead.push_structural(&Op::ConsumerRestarted { id });
            // Until that is applied nothing is delivered: it would be logged after it.
            if let Some(live) = consumer.live.as_deref_mut() {
                live.resets += 1;
            }
        }
    }

    /// A consumer is gone, and nobody has deleted it: messages that only it may have wanted stay, for whoever comes instead.
    pub(super) fn lose_consumer(
        &mut self,
        id: u64,
        time_ns: i64,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let Some(consumer) = self.consumers.remove(&id) else {
            return Ok(());
        };
        self.names.remove(&consumer.name);
        self.settle_finished(time_ns, effects)
    }

    /// A consumer is as it was when it was created, on the stream as it is now.
    pub(super) fn restart_consumer(
        &mut self,
        id: u64,
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Ok(());
        };
        let store = self.store.as_ref();
        consumer.progress = starting_progress(&self.config, &consumer.config, store);
        if let (Some(before), Some(world)) = (consumer.live.take(), world) {
            let mut live = Live::new(&self.ack_names, consumer, store, world, time_ns);
            live.resets = before.resets.saturating_sub(1);
            live.keep_waiting(*before);
            consumer.live = Some(Box::new(live));
        }
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.ready.insert(id);
        }
        self.settle_finished(time_ns, effects)
    }

    /// What the consumers that are left are done with leaves the stream.
    fn settle_finished(&mut self, time_ns: i64, effects: &mut Effects) -> Result<(), Failure> {
        let mut gone = Gone::default();
        self.sweep_finished(&mut gone)?;
        self.settle_gone(gone, time_ns, effects);
        Ok(())
    }
}
