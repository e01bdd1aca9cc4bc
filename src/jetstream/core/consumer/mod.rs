//! A consumer: its durable progress, and what its leader knows beyond that.
//!
//! [`Progress`](progress::Progress) exists twice on a leader: as applied from the log, and ahead of it in [`Live`](live::Live),
//! where deliveries and acks count at once. The same methods change both; what the leader does is logged and reaches the
//! applied one when it is durable.

mod acks;
mod live;
mod progress;
mod pulls;
mod push;
mod rules;
mod serve;
mod tick;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use storage::store::Store;

pub(crate) use live::Live;
pub use progress::{Pending, Place, Progress};
pub(crate) use rules::Rules;
pub(crate) use serve::Stop;

use super::draft::Draft;
use super::effects::{Effects, World};
use crate::jetstream::core::ack_names::AckNames;
use crate::jetstream::types::{ConsumerConfig, Retention};

/// How many deliveries may be ahead of the log before one must wait, to begin with.
pub(crate) const RESERVE_FIRST: u64 = 1024;
/// The most deliveries that may be ahead of the log.
pub(crate) const RESERVE_MAX: u64 = 64 * 1024;

/// A consumer of a stream.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) created_ns: i64,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) rules: Rules,
    /// As applied from the log.
    pub(crate) progress: Progress,
    /// Present on the leader.
    pub(crate) live: Option<Box<Live>>,
}

/// What a consumer works with during one step of its leader.
pub(crate) struct Turn<'a> {
    pub(crate) now_ns: i64,
    pub(crate) ack_names: &'a AckNames,
    pub(crate) retention: Retention,
    /// Other servers have the stream too: what is damaged here can be delivered by one of them.
    pub(crate) has_replicas: bool,
    pub(crate) store: &'a dyn Store,
    pub(crate) draft: &'a mut Draft,
    /// Acks to confirm once all that is in flight now is durable.
    pub(crate) confirmations: &'a mut Vec<Bytes>,
    pub(crate) world: &'a dyn World,
    pub(crate) effects: &'a mut Effects,
}

impl Consumer {
    /// Whether anybody hears what it pushes.
    pub(crate) fn is_heard(&self, world: &dyn World) -> bool {
        let group = self.config.deliver_group.as_bytes();
        world.is_heard(&self.rules.deliver_subject, group)
    }

    pub(crate) fn new(
        id: u64,
        name: String,
        created_ns: i64,
        config: ConsumerConfig,
        progress: Progress,
    ) -> Self {
        Self {
            id,
            name,
            created_ns,
            rules: Rules::new(&config),
            config: Arc::new(config),
            progress,
            live: None,
        }
    }

    /// Takes another configuration.
    pub(crate) fn configure(&mut self, config: ConsumerConfig) {
        self.rules = Rules::new(&config);
        self.config = Arc::new(config);
    }

    /// A message that waits for its ack, and of whose first delivery the log does not know yet: as which delivery.
    pub(crate) fn first_delivery_under_way(&self, sequence: u64) -> Option<u64> {
        let pending = self.live.as_deref()?.progress.pending.get(&sequence)?;
        let is_known = self.progress.pending.contains_key(&sequence);
        (!is_known).then_some(pending.consumer_sequence)
    }

    /// A message has left the stream.
    ///
    /// The leader's own view follows at once; a message that was waiting for its ack is settled.
    pub(crate) fn message_gone(&mut self, sequence: u64, subject: &[u8], now_ns: i64) -> bool {
        let was_pending = self.progress.ack_one(sequence, self.progress.acked_ns);
        let Some(live) = self.live.as_deref_mut() else {
            return was_pending;
        };
        let listed = live.last_messages.binary_search(&sequence);
        if let Ok(at) = listed {
            live.last_messages.remove(at);
        }
        if listed.is_ok() || (sequence >= live.cursor && self.rules.matches(subject)) {
            live.pending_messages = live.pending_messages.saturating_sub(1);
        }
        live.redeliver.remove(&sequence);
        live.progress.ack_one(sequence, now_ns) || was_pending
    }
}
