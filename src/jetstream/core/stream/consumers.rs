//! Consumers as entries change them.
//!
//! # Invariant
//! That of `apply`, of which this is a part: nothing but the entry and the state before it decides.

use std::sync::LazyLock;

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::Store;

use super::StreamCore;
use super::apply::{Failure, Outcome};
use super::retention::Gone;
use super::start::starting_progress;
use crate::jetstream::core::consumer::{Consumer, Live, Place};
use crate::jetstream::core::effects::{Advisory, ConsumerChange, Effects, World};
use crate::jetstream::core::entry::Op;
use crate::jetstream::types::{AckPolicy, ConsumerConfig, Retention};

impl StreamCore {
    pub(super) fn create_consumer(
        &mut self,
        id: u64,
        name: &str,
        config: ConsumerConfig,
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) {
        if self.names.contains_key(name) {
            return;
        }
        let progress = starting_progress(&self.config, &config, self.store.as_ref());
        let mut consumer = Consumer::new(id, name.to_owned(), time_ns, config, progress);
        self.consumer_id_last = self.consumer_id_last.max(id);
        self.names.insert(name.to_owned(), id);
        if let (Some(lead), Some(world)) = (self.lead.as_deref_mut(), world) {
            let store = self.store.as_ref();
            let live = Live::new(&self.ack_names, &consumer, store, world, time_ns);
            consumer.live = Some(Box::new(live));
            lead.ready.insert(id);
            effects.consumers.push(present(&consumer));
            effects.advisories.push(Advisory::ConsumerCreated {
                consumer: name.to_owned(),
            });
        }
        self.consumers.insert(id, consumer);
    }

    pub(super) fn update_consumer(
        &mut self,
        id: u64,
        config: ConsumerConfig,
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Ok(());
        };
        let paused_before = consumer.rules.pause_until_ns;
        let refiltered = consumer.config.filters() != config.filters();
        consumer.configure(config);
        if let (Some(mut live), Some(world)) = (consumer.live.take(), world) {
            live.reconfigured(consumer, self.store.as_ref(), world, refiltered);
            consumer.live = Some(live);
            effects.consumers.push(present(consumer));
            if paused_before != consumer.rules.pause_until_ns {
                effects.advisories.push(Advisory::ConsumerPaused {
                    consumer: consumer.name.clone(),
                    until_ns: consumer.rules.pause_until_ns,
                });
            }
        }
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.ready.insert(id);
        }
        if refiltered {
            let mut gone = Gone::default();
            self.sweep(&mut gone)?;
            self.settle_gone(gone, time_ns, effects);
        }
        Ok(())
    }

    pub(super) fn delete_consumer(
        &mut self,
        id: u64,
        time_ns: i64,
        effects: &mut Effects,
    ) -> Result<bool, Failure> {
        let Some(mut consumer) = self.consumers.remove(&id) else {
            return Ok(false);
        };
        self.names.remove(&consumer.name);
        if let Some(live) = consumer.live.as_deref_mut() {
            live.waiting.end_all("409 Consumer Deleted", false, effects);
            effects.consumers.push(ConsumerChange::Absent {
                id,
                name: consumer.name.clone(),
            });
            effects.advisories.push(Advisory::ConsumerDeleted {
                consumer: consumer.name.clone(),
            });
        }
        let mut gone = Gone::default();
        self.sweep(&mut gone)?;
        self.settle_gone(gone, time_ns, effects);
        Ok(true)
    }

    pub(super) fn reset_consumer(
        &mut self,
        id: u64,
        stream_sequence: u64,
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return Ok(());
        };
        consumer.progress.reset(stream_sequence);
        if let (Some(mut live), Some(_)) = (consumer.live.take(), world) {
            live.progress.reset(stream_sequence);
            live.resets = live.resets.saturating_sub(1);
            live.cursor = stream_sequence;
            live.redeliver.clear();
            live.last_messages.clear();
            live.recount(consumer, self.store.as_ref());
            consumer.live = Some(live);
        }
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.ready.insert(id);
        }
        let mut gone = Gone::default();
        self.sweep(&mut gone)?;
        self.settle_gone(gone, time_ns, effects);
        Ok(())
    }

    pub(super) fn apply_progress(
        &mut self,
        op: &Op<'_>,
        time_ns: i64,
        effects: &mut Effects,
    ) -> Result<Outcome, Failure> {
        let releases = self.config.retention != Retention::Limits;
        let mut settled = Vec::new();
        match *op {
            Op::Delivered {
                id,
                consumer_sequence,
                stream_sequence,
                deliveries,
            } => {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    let place = Place {
                        consumer: consumer_sequence,
                        stream: stream_sequence,
                    };
                    let policy = consumer.rules.ack;
                    consumer
                        .progress
                        .deliver(policy, place, deliveries, time_ns);
                    // It may have left while this was on its way to the log. Explicit acks are told of that by an ack that follows; one for all would settle too much.
                    if matches!(policy, AckPolicy::All | AckPolicy::FlowControl)
                        && !is_there(self.store.as_ref(), stream_sequence)
                    {
                        let acked_ns = consumer.progress.acked_ns;
                        consumer.progress.ack_one(stream_sequence, acked_ns);
                    }
                    if policy == AckPolicy::None {
                        settled.push(stream_sequence);
                    }
                }
            }
            Op::Acked {
                id,
                consumer_sequence,
                stream_sequence,
            } => {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    let place = Place {
                        consumer: consumer_sequence,
                        stream: stream_sequence,
                    };
                    if consumer.rules.ack == AckPolicy::Explicit {
                        consumer.progress.ack_one(stream_sequence, time_ns);
                        settled.push(stream_sequence);
                    } else {
                        let upto = consumer.progress.ack_upto(place, time_ns);
                        settled.extend(upto.unwrap_or_default());
                    }
                }
            }
            Op::Exhausted {
                id,
                stream_sequence,
                deliveries,
            } => {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.progress.exhaust(stream_sequence, deliveries);
                }
            }
            Op::Touched {
                id,
                stream_sequence,
                time_ns,
            } => {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.progress.touch(stream_sequence, time_ns);
                }
            }
            Op::Reserved {
                id,
                consumer_sequence,
            } => {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.reserved(consumer_sequence);
                    if let Some(lead) = self.lead.as_deref_mut() {
                        lead.ready.insert(id);
                    }
                }
            }
            _ => {}
        }
        if releases && !settled.is_empty() {
            let mut gone = Gone::default();
            for sequence in settled {
                self.release(sequence, &mut gone)?;
            }
            self.settle_gone(gone, time_ns, effects);
        }
        Ok(Outcome::Nothing)
    }
}

/// Whether a message is in the stream, readable or not.
pub(super) fn is_there(store: &dyn Store, sequence: u64) -> bool {
    static EVERYTHING: LazyLock<Filter> = LazyLock::new(Filter::everything);
    store.next_sequence(sequence, &EVERYTHING) == Some(sequence)
}

/// What the shell is told of a consumer.
pub(super) fn present(consumer: &Consumer) -> ConsumerChange {
    ConsumerChange::Present {
        id: consumer.id,
        name: consumer.name.clone(),
        deliver_subject: consumer.rules.deliver_subject.clone(),
        deliver_group: Bytes::copy_from_slice(consumer.config.deliver_group.as_bytes()),
    }
}
