//! How far a consumer has come: what was delivered, what waits for an ack, what was acknowledged.
//!
//! # Invariant
//! The floor never moves back except by [`Progress::reset`]; every pending message lies above the floor and at or below the
//! last delivery.

use std::collections::BTreeMap;

use crate::jetstream::core::codec::{DecodeError, Reader, Writer};
use crate::jetstream::types::AckPolicy;

/// A place in a consumer's deliveries and in its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The how-manieth delivery.
    pub consumer: u64,
    /// Which message.
    pub stream: u64,
}

/// A message that waits for its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The delivery with which it was first sent.
    pub consumer_sequence: u64,
    /// From when on the ack is waited for.
    pub time_ns: i64,
}

/// How far a consumer has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last delivery.
    pub delivered: Place,
    /// Everything up to here is settled.
    pub floor: Place,
    /// What waits for an ack, by stream sequence.
    pub pending: BTreeMap<u64, Pending>,
    /// How often a message was delivered beyond the first time, by stream sequence.
    pub redelivered: BTreeMap<u64, u64>,
    /// Deliveries up to this one may have happened without being logged.
    pub reserved: u64,
    /// Under `last_per_subject`: from here on every message is delivered.
    pub resume: u64,
    /// When something was last delivered; 0 is never.
    pub delivered_ns: i64,
    /// When something was last acknowledged; 0 is never.
    pub acked_ns: i64,
}

impl Progress {
    /// A consumer whose first message is at or after `start`.
    pub fn starting_at(start: u64, resume: u64) -> Self {
        let before = Place {
            consumer: 0,
            stream: start.saturating_sub(1),
        };
        Self {
            delivered: before,
            floor: before,
            resume,
            ..Self::default()
        }
    }

    /// A message was delivered for the `deliveries`th time.
    pub fn deliver(&mut self, policy: AckPolicy, place: Place, deliveries: u64, time_ns: i64) {
        let is_new = place.stream > self.delivered.stream;
        self.delivered.consumer = self.delivered.consumer.max(place.consumer);
        self.delivered.stream = self.delivered.stream.max(place.stream);
        self.delivered_ns = time_ns;
        if policy == AckPolicy::None {
            self.floor = self.delivered;
            return;
        }
        if !is_new && !self.pending.contains_key(&place.stream) {
            // It left the stream while this was on its way to the log: nobody waits for its ack any more, and its place may lie below the floor.
            if self.pending.is_empty() {
                self.floor = self.delivered;
            }
            return;
        }
        let pending = self.pending.entry(place.stream).or_insert(Pending {
            consumer_sequence: place.consumer,
            time_ns,
        });
        pending.time_ns = time_ns;
        if deliveries > 1 {
            self.redelivered.insert(place.stream, deliveries - 1);
        }
    }

    /// One message is acknowledged; `false` when it was not waiting for that.
    pub fn ack_one(&mut self, stream_sequence: u64, time_ns: i64) -> bool {
        self.redelivered.remove(&stream_sequence);
        let Some(pending) = self.pending.remove(&stream_sequence) else {
            return false;
        };
        self.acked_ns = time_ns;
        self.move_floor(Place {
            consumer: pending.consumer_sequence,
            stream: stream_sequence,
        });
        true
    }

    /// Everything up to a place is acknowledged; the stream sequences that had been waiting, or `None` when all of it was
    /// settled before. The stream sequence decides: deliveries are counted anew for what a crash has made uncertain.
    pub fn ack_upto(&mut self, place: Place, time_ns: i64) -> Option<Vec<u64>> {
        if place.stream <= self.floor.stream {
            return None;
        }
        self.floor = Place {
            consumer: place
                .consumer
                .min(self.delivered.consumer)
                .max(self.floor.consumer),
            stream: place.stream,
        };
        self.acked_ns = time_ns;
        let after = place.stream.saturating_add(1);
        let rest = self.pending.split_off(&after);
        let settled = std::mem::replace(&mut self.pending, rest);
        self.redelivered = self.redelivered.split_off(&after);
        if self.pending.is_empty() && self.delivered.stream <= place.stream {
            self.floor = self.delivered;
        }
        Some(settled.into_keys().collect())
    }

    /// A message has been delivered as often as it may: no longer waited for, but remembered.
    pub fn exhaust(&mut self, stream_sequence: u64, deliveries: u64) {
        self.redelivered
            .entry(stream_sequence)
            .or_insert(deliveries);
        if let Some(pending) = self.pending.remove(&stream_sequence) {
            self.move_floor(Place {
                consumer: pending.consumer_sequence,
                stream: stream_sequence,
            });
        }
    }

    /// The ack of a message is waited for from now on.
    pub fn touch(&mut self, stream_sequence: u64, time_ns: i64) -> bool {
        match self.pending.get_mut(&stream_sequence) {
            Some(pending) => {
                pending.time_ns = time_ns;
                true
            }
            None => false,
        }
    }

    /// Starts anew at a stream sequence, as if nothing had been delivered before.
    pub fn reset(&mut self, stream_sequence: u64) {
        self.pending.clear();
        self.redelivered.clear();
        self.delivered = Place {
            consumer: 0,
            stream: stream_sequence.saturating_sub(1),
        };
        self.floor = self.delivered;
        (self.delivered_ns, self.acked_ns) = (0, 0);
        self.resume = 0;
    }

    /// Everything below `first_sequence` has left the stream by a purge.
    pub fn purged_below(&mut self, first_sequence: u64) {
        let last_gone = first_sequence.saturating_sub(1);
        let kept = self.pending.split_off(&first_sequence);
        let gone = std::mem::replace(&mut self.pending, kept);
        self.redelivered = self.redelivered.split_off(&first_sequence);
        if let Some(highest) = gone.values().map(|pending| pending.consumer_sequence).max() {
            self.floor.consumer = self.floor.consumer.max(highest);
        }
        self.delivered.stream = self.delivered.stream.max(last_gone);
        self.floor.stream = self.floor.stream.max(last_gone);
        if self.pending.is_empty() {
            self.floor = self.delivered;
        }
    }

    /// Whether the stream must keep a message that this consumer's filters match.
    pub fn needs(&self, policy: AckPolicy, stream_sequence: u64) -> bool {
        let waiting = stream_sequence > self.floor.stream
            && (policy != AckPolicy::Explicit
                || stream_sequence > self.delivered.stream
                || self.pending.contains_key(&stream_sequence));
        waiting || self.redelivered.contains_key(&stream_sequence)
    }

    /// Whether an ack of something before it is waited for. That may have been delivered after it: under `all` the place of what was acknowledged is that of its last
    /// delivery, and what it does not settle may have been delivered for the first time long before.
    fn waits_below(&self, stream_sequence: u64) -> bool {
        let first = self.pending.first_key_value();
        first.is_some_and(|(first, _)| *first < stream_sequence)
    }

    fn move_floor(&mut self, settled: Place) {
        if self.pending.is_empty() {
            self.floor = Place {
                consumer: self.delivered.consumer.max(self.floor.consumer),
                stream: self.delivered.stream.max(self.floor.stream),
            };
        } else if settled.consumer == self.floor.consumer + 1 && !self.waits_below(settled.stream) {
            self.floor = settled;
            let next = self
                .pending
                .range(settled.stream.saturating_add(1)..)
                .next();
            if let Some((stream, pending)) = next
                && pending.consumer_sequence > settled.consumer
            {
                self.floor = Place {
                    consumer: pending.consumer_sequence - 1,
                    stream: stream - 1,
                };
            }
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        for number in [
            self.delivered.consumer,
            self.delivered.stream,
            self.floor.consumer,
            self.floor.stream,
            self.reserved,
            self.resume,
        ] {
            writer.number(number);
        }
        writer.i64(self.delivered_ns);
        writer.i64(self.acked_ns);
        writer.number(self.pending.len() as u64);
        for (sequence, pending) in &self.pending {
            writer.number(*sequence);
            writer.number(pending.consumer_sequence);
            writer.i64(pending.time_ns);
        }
        writer.number(self.redelivered.len() as u64);
        for (sequence, times) in &self.redelivered {
            writer.number(*sequence);
            writer.number(*times);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let delivered = Place {
            consumer: reader.number()?,
            stream: reader.number()?,
        };
        let floor = Place {
            consumer: reader.number()?,
            stream: reader.number()?,
        };
        let mut progress = Self {
            delivered,
            floor,
            reserved: reader.number()?,
            resume: reader.number()?,
            delivered_ns: reader.i64()?,
            acked_ns: reader.i64()?,
            ..Self::default()
        };
        for _ in 0..reader.number()? {
            let sequence = reader.number()?;
            let pending = Pending {
                consumer_sequence: reader.number()?,
                time_ns: reader.i64()?,
            };
            progress.pending.insert(sequence, pending);
        }
        for _ in 0..reader.number()? {
            let sequence = reader.number()?;
            progress.redelivered.insert(sequence, reader.number()?);
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(upto: u64) -> Progress {
        let mut progress = Progress::starting_at(1, 0);
        for sequence in 1..=upto {
            progress.deliver(AckPolicy::Explicit, at(sequence), 1, 10);
        }
        progress
    }

    fn at(sequence: u64) -> Place {
        Place {
            consumer: sequence,
            stream: sequence,
        }
    }

    #[test]
    fn the_floor_moves_only_over_what_is_settled_in_order() {
        let mut progress = delivered(5);
        assert!(progress.ack_one(3, 20));
        assert_eq!(progress.floor, at(0));
        assert!(progress.ack_one(1, 20));
        assert_eq!(progress.floor, at(1));
        assert!(progress.ack_one(2, 20));
        assert_eq!(progress.floor, at(3));
        assert!(progress.ack_one(5, 20));
        assert!(progress.ack_one(4, 20));
        assert_eq!(progress.floor, at(5));
        assert!(!progress.ack_one(4, 20));
    }

    #[test]
    fn an_ack_of_all_settles_everything_before_it() {
        let mut progress = delivered(5);
        assert_eq!(progress.ack_upto(at(3), 20), Some(vec![1, 2, 3]));
        assert_eq!(progress.floor, at(3));
        assert_eq!(progress.ack_upto(at(3), 20), None);
        assert_eq!(progress.pending.len(), 2);
    }

    #[test]
    fn what_leaves_the_stream_moves_the_floor_past_nothing_that_waits() {
        let mut progress = delivered(4);
        let again = Place {
            consumer: 5,
            stream: 1,
        };
        progress.deliver(AckPolicy::All, again, 2, 10);
        assert_eq!(progress.ack_upto(again, 20), Some(vec![1]));
        let fifth = Place {
            consumer: 6,
            stream: 5,
        };
        progress.deliver(AckPolicy::All, fifth, 1, 10);
        assert!(progress.ack_one(5, 20));
        assert_eq!(progress.floor, again);
        let fourth = Place {
            consumer: 4,
            stream: 4,
        };
        assert_eq!(progress.ack_upto(fourth, 20), Some(vec![2, 3, 4]));
    }

    #[test]
    fn without_acks_the_floor_follows_the_deliveries() {
        let mut progress = Progress::starting_at(4, 0);
        assert_eq!(
            progress.delivered,
            Place {
                consumer: 0,
                stream: 3
            }
        );
        progress.deliver(
            AckPolicy::None,
            Place {
                consumer: 1,
                stream: 7,
            },
            1,
            10,
        );
        assert_eq!(
            progress.floor,
            Place {
                consumer: 1,
                stream: 7
            }
        );
        assert!(progress.pending.is_empty());
    }

    #[test]
    fn a_redelivery_keeps_its_first_place_for_the_floor() {
        let mut progress = delivered(2);
        progress.deliver(
            AckPolicy::Explicit,
            Place {
                consumer: 3,
                stream: 1,
            },
            2,
            30,
        );
        assert_eq!(progress.pending[&1].consumer_sequence, 1);
        assert_eq!(progress.redelivered[&1], 1);
        assert!(progress.ack_one(1, 40));
        assert_eq!(
            progress.floor,
            Place {
                consumer: 1,
                stream: 1
            }
        );
        assert!(progress.redelivered.is_empty());
    }

    #[test]
    fn a_redelivery_of_what_has_left_is_not_waited_for() {
        let again = |stream, consumer| Place { consumer, stream };
        let mut progress = delivered(3);
        progress.ack_one(1, 20);
        progress.ack_one(2, 20);
        assert_eq!(progress.floor, at(2));
        progress.deliver(AckPolicy::Explicit, again(1, 4), 2, 30);
        assert_eq!(progress.pending.len(), 1);
        assert!(progress.redelivered.is_empty());
        assert_eq!(progress.floor, at(2));
        assert!(progress.ack_one(3, 40));
        progress.deliver(AckPolicy::Explicit, again(3, 5), 2, 50);
        assert!(progress.pending.is_empty());
        assert_eq!(progress.floor, again(3, 5));
    }

    #[test]
    fn an_exhausted_message_is_kept_in_the_stream_but_not_waited_for() {
        let mut progress = delivered(1);
        progress.exhaust(1, 1);
        assert!(progress.pending.is_empty());
        assert!(progress.needs(AckPolicy::Explicit, 1));
    }

    #[test]
    fn a_purge_settles_what_it_takes() {
        let mut progress = delivered(5);
        progress.purged_below(4);
        assert_eq!(progress.pending.len(), 2);
        assert_eq!(progress.floor, at(3));
        progress.purged_below(10);
        assert_eq!(
            progress.floor,
            Place {
                consumer: 5,
                stream: 9
            }
        );
    }

    #[test]
    fn progress_survives_a_snapshot() {
        let mut progress = delivered(5);
        progress.ack_one(2, 20);
        progress.deliver(
            AckPolicy::Explicit,
            Place {
                consumer: 6,
                stream: 1,
            },
            2,
            30,
        );
        progress.reserved = 1000;
        let mut writer = Writer::default();
        progress.write(&mut writer);
        assert_eq!(
            Progress::read(&mut Reader::new(&writer.bytes)),
            Ok(progress)
        );
    }
}
