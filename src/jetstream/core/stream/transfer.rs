//! Handing a replica's state to one that lacks it, and taking it over.
//!
//! The one that lacks it keeps what it has: its messages are the same ones wherever their sequences are live in both, because a sequence is
//! never used twice in a stream. So it removes what is gone, takes the newer records, and takes over the rest of the state from the
//! manifest, once its messages are those that the manifest counts.
//!
//! # Invariant
//! While a core receives, it applies nothing, and no checkpoint is taken of it: its messages are not those of its state.

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{ChangeError, Deletion, Limits, ReadError};
use thiserror::Error;

use super::{BeginError, StreamCore};
use crate::jetstream::core::codec::DecodeError;
use crate::jetstream::core::transfer::{Manifest, Records, RecordsWriter};
use crate::jetstream::types::StreamConfig;

/// Messages looked at in one step when those that are gone are removed.
const REMOVALS_IN_STEP: u64 = 8192;
/// Records in one step.
const RECORDS_IN_STEP: usize = 4096;

/// How far a core is in receiving a state.
#[derive(Debug, Clone)]
pub struct Receiving {
    manifest: Manifest,
    step: ReceivingStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceivingStep {
    /// Messages below this sequence have been looked at.
    Removing(u64),
    /// Records are taken.
    Taking,
}

/// What a core that receives needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivingNeeds {
    /// To go on by itself: call again.
    Time,
    /// Records from the first sequence to the last.
    Records(u64, u64),
    /// Nothing: it may finish.
    Nothing,
}

/// What a core could not receive.
#[derive(Debug, Clone, Error)]
pub enum ReceiveError {
    /// It cannot be read.
    #[error("what was received cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The store does not take it.
    #[error("the store does not take what was received: {0}")]
    Store(#[from] ChangeError),
    /// The state that came with it cannot be taken over.
    #[error("the state that was received: {0}")]
    Begin(#[from] BeginError),
    /// Messages that the manifest counts are not there: the sender had removed them when they were asked for. A newer manifest is needed.
    #[error("messages have left the stream meanwhile")]
    Outdated,
}

impl StreamCore {
    /// Describes the state after the last applied entry. The newest records from a sequence on come along, if they have room.
    pub fn manifest(&self, records_after: u64, records_bytes_max: usize) -> Manifest {
        let state = self.store.state();
        let mut live = Vec::new();
        if state.messages > 0 {
            let mut first = state.first_sequence;
            self.store.deleted(&mut |gone_first, gone_last| {
                if gone_first > first {
                    live.push((first, gone_first - 1));
                }
                first = gone_last + 1;
                true
            });
            if first <= state.last_sequence {
                live.push((first, state.last_sequence));
            }
        }
        let records = match self.records(records_after + 1, state.last_sequence, records_bytes_max)
        {
            Ok(records) if is_complete(&records, state.last_sequence) => records,
            _ => Bytes::new(),
        };
        Manifest::new(&state, self.snapshot(), records, live)
    }

    /// Live records from one sequence to another, as many as have room, at least one.
    pub fn records(&self, from: u64, upto: u64, bytes_max: usize) -> Result<Bytes, ReadError> {
        let everything = Filter::everything();
        let mut writer = RecordsWriter::new(from);
        let mut next = from;
        let mut count = 0;
        while let Some(message) = self.store.next(next, &everything)? {
            if message.sequence > upto {
                break;
            }
            next = message.sequence + 1;
            writer.push(&message, self.store.expiry(message.sequence));
            count += 1;
            if writer.length() >= bytes_max || count >= RECORDS_IN_STEP {
                return Ok(writer.finish(next - 1));
            }
        }
        Ok(writer.finish(upto.max(from.saturating_sub(1))))
    }

    /// Begins to receive a state. A replica whose messages cannot be trusted keeps none of them.
    pub fn begin_receiving(
        &mut self,
        manifest: Manifest,
        keeps_nothing: bool,
    ) -> Result<Receiving, ReceiveError> {
        self.lead = None;
        self.store.set_limits(Limits::default(), &mut ())?;
        if keeps_nothing || self.store.state().last_sequence > manifest.last_sequence {
            self.store.truncate(0, &mut ())?;
        }
        let last = self.store.state().last_sequence;
        if last > 0 {
            // Not beyond what is here: what follows is passed over with its time.
            let first = manifest.first_sequence.min(last + 1);
            self.store.compact(first, &mut ())?;
        }
        let step = ReceivingStep::Removing(manifest.first_sequence);
        Ok(Receiving { manifest, step })
    }

    /// Does the next bit of what needs no records, and says what is needed.
    pub fn go_on_receiving(
        &mut self,
        receiving: &mut Receiving,
    ) -> Result<ReceivingNeeds, ReceiveError> {
        let manifest = &receiving.manifest;
        if let ReceivingStep::Removing(from) = receiving.step {
            let last = self.store.state().last_sequence;
            let end = from.saturating_add(REMOVALS_IN_STEP);
            let next = self.remove_dead(manifest, from, end.min(last + 1))?;
            if next <= last {
                receiving.step = ReceivingStep::Removing(next);
                return Ok(ReceivingNeeds::Time);
            }
            receiving.step = ReceivingStep::Taking;
            // Something that should be here is not: none of it can be relied upon.
            if self.store.state().messages != manifest.live_upto(last) {
                self.store.truncate(0, &mut ())?;
            }
        }
        let last = self.store.state().last_sequence;
        Ok(match manifest.run_at(last + 1) {
            Some((first, _)) => {
                ReceivingNeeds::Records(first.max(last + 1), manifest.last_sequence)
            }
            None => ReceivingNeeds::Nothing,
        })
    }

    fn remove_dead(
        &mut self,
        manifest: &Manifest,
        from: u64,
        end: u64,
    ) -> Result<u64, ChangeError> {
        let everything = Filter::everything();
        let mut next = from;
        while next < end {
            let Some(sequence) = self.store.next_sequence(next, &everything) else {
                return Ok(u64::MAX);
            };
            match manifest.run_at(sequence) {
                Some((first, last)) if first <= sequence => next = last + 1,
                _ => {
                    self.store.delete(sequence, Deletion::Unlink, &mut ())?;
                    next = sequence + 1;
                }
            }
        }
        Ok(next)
    }

    /// Takes records; says up to which sequence there are some now.
    pub fn receive(&mut self, receiving: &Receiving, records: &[u8]) -> Result<u64, ReceiveError> {
        let manifest = &receiving.manifest;
        let mut records = Records::new(records)?;
        let last = self.store.state().last_sequence;
        let missing = manifest.run_at(last + 1);
        if missing.is_some_and(|(first, _)| first.max(last + 1) < records.from) {
            // They do not follow what is here.
            return Ok(last);
        }
        while let Some(record) = records.next()? {
            let state = self.store.state();
            let (last, sequence) = (state.last_sequence, record.sequence);
            let is_live = || {
                manifest
                    .run_at(sequence)
                    .is_some_and(|run| run.0 <= sequence)
            };
            if sequence <= last || !is_live() {
                continue;
            }
            if sequence > last + 1 {
                self.store.skip(sequence - 1, state.last_time_ns)?;
            }
            self.store.append(&record, &mut ())?;
        }
        let last = self.store.state().last_sequence;
        let covered = records.covered.min(manifest.last_sequence);
        if covered > last {
            let time_ns = match covered == manifest.last_sequence {
                true => manifest.last_time_ns,
                false => self.store.state().last_time_ns,
            };
            self.store.skip(covered, time_ns)?;
        }
        Ok(covered.max(last))
    }

    /// Takes the records that came with the manifest.
    pub fn receive_enclosed(&mut self, receiving: &Receiving) -> Result<(), ReceiveError> {
        let records = receiving.manifest.records.clone();
        if !records.is_empty() {
            self.receive(receiving, &records)?;
        }
        Ok(())
    }

    /// The same stream as if nothing had happened in it, over the same store: for a replica that is given everything anew.
    pub fn forgotten(self) -> Result<Self, ChangeError> {
        let mut store = self.store;
        store.truncate(0, &mut ())?;
        let config = StreamConfig::clone(&self.config);
        Self::create(config, &self.domain, self.created_ns, store)
    }

    /// Takes over the state, when the messages are those that belong to it. The core follows then.
    pub fn finish_receiving(&mut self, receiving: &Receiving) -> Result<(), ReceiveError> {
        let manifest = &receiving.manifest;
        let state = self.store.state();
        if state.last_sequence < manifest.last_sequence {
            self.store
                .skip(manifest.last_sequence, manifest.last_time_ns)?;
        }
        let state = self.store.state();
        let here = (state.messages, state.bytes, state.last_sequence);
        if here != (manifest.messages, manifest.bytes, manifest.last_sequence) {
            return Err(ReceiveError::Outdated);
        }
        self.take_over(&manifest.core)?;
        Ok(())
    }
}

fn is_complete(records: &[u8], last_sequence: u64) -> bool {
    Records::new(records).is_ok_and(|records| records.covered >= last_sequence)
}

impl Receiving {
    /// How many messages the state holds.
    pub fn messages(&self) -> u64 {
        self.manifest.messages()
    }
}
