//! From the reference's files to a stream of ours, whatever they come out of: a store directory or an archive.
//!
//! The messages go straight into the stream's store, block after block. Which of them are dead is known at the end only: tombstones stand in later blocks, and
//! the index comes last. Until the stream is finished nobody else knows of it.

use std::any::Any;
use std::io::Read;

use storage::filter::Filter;
use storage::store::{
    Accounting, ChangeError, Deletion, FileStore, Limits, NewMessage, State, Store,
};

use super::consumer::read_consumer_state;
use super::hash::{SUM_BYTES, Sums};
use super::index::{Index, IndexError};
use super::meta::{ConsumerMeta, StreamMeta};
use super::record::{Record, RecordError, RecordKind, RecordReader};
use crate::jetstream::core::{ArrivalError, ArrivedConsumer, StreamCore};
use crate::jetstream::types::StreamConfig;
use crate::subject;

/// Messages that may be in memory before the disk is waited for.
const UNWRITTEN_BYTES_MAX: usize = 16 << 20;
/// How often that is looked at, in bytes taken.
const LOOK_BYTES: usize = 1 << 20;
/// Damage that is kept to be told of; beyond it is only counted.
const DAMAGE_MAX: usize = 1_000;

/// Why a stream could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A block holds a record that cannot be used.
    #[error("{file}: {source}")]
    Record {
        /// Which file.
        file: String,
        /// What is wrong.
        source: RecordError,
    },
    /// A file cannot be taken.
    #[error("{file}: {reason}")]
    File {
        /// Which one.
        file: String,
        /// Why.
        reason: String,
    },
    /// The blocks do not come in order.
    #[error("block {number} comes after block {last}")]
    Order {
        /// The block.
        number: u64,
        /// The one before.
        last: u64,
    },
    /// What is there afterwards is not what the index says.
    #[error(
        "{messages} messages of {bytes} bytes were read where the index says {index_messages} of {index_bytes}"
    )]
    Totals {
        /// What is there.
        messages: u64,
        /// Its bytes.
        bytes: u64,
        /// What should be.
        index_messages: u64,
        /// Its bytes.
        index_bytes: u64,
    },
    /// The store does not take it.
    #[error("the store takes no more: {0}")]
    Store(#[from] ChangeError),
    /// The stream cannot be taken up.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
}

/// Damage that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// In which file.
    pub file: String,
    /// The sequences that are lost with it, as far as can be told: first and last.
    pub sequences: Option<(u64, u64)>,
    /// What is wrong.
    pub reason: String,
}

/// Above this there are marks, not sequences.
const SEQUENCE_MAX: u64 = (1 << 62) - 1;
/// The longest header block that is stored.
const HEADER_BYTES_MAX: usize = 65_535;

/// What was found beside the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Damage that was passed over.
    pub passed: Vec<Passed>,
    /// How often more damage was passed over than is listed.
    pub passed_more: u64,
    /// Why the index did not count, when it did not: what is live is told by the blocks alone.
    pub without_index: Option<String>,
}

/// What happens when a record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// The stream is not built.
    Fail,
    /// The record is passed over and told of.
    Pass,
}

/// A stream that is being built.
pub struct StreamBuilder {
    config: StreamConfig,
    created_ns: i64,
    /// The name under which its files have their checksums.
    name: String,
    store: Box<dyn Store>,
    on_damage: OnDamage,
    tombstones: Vec<u64>,
    last_block: Option<(u64, [u8; SUM_BYTES])>,
    blocks: u64,
    index: Option<Index>,
    consumers: Vec<ArrivedConsumer>,
    findings: Findings,
    unlooked_bytes: usize,
}

impl StreamBuilder {
    /// Of a stream as it is to be configured, over an empty store; its files have their checksums under `name`.
    pub fn new(
        meta: StreamMeta,
        name: &str,
        mut store: Box<dyn Store>,
        on_damage: OnDamage,
    ) -> Result<Self, BuildError> {
        // Limits apply to the finished stream: what they would remove now may be dead already.
        store.set_limits(Limits::default(), &mut ())?;
        Ok(Self {
            config: meta.config,
            created_ns: meta.created.nanoseconds(),
            name: name.to_owned(),
            store,
            on_damage,
            tombstones: Vec::new(),
            last_block: None,
            blocks: 0,
            index: None,
            consumers: Vec::new(),
            findings: Findings {
                without_index: Some("there is none".to_owned()),
                ..Findings::default()
            },
            unlooked_bytes: 0,
        })
    }

    /// What its messages come to so far.
    pub fn state(&self) -> State {
        self.store.state()
    }

    /// Takes the records of a block, which must be the next one.
    pub fn block(&mut self, number: u64, file: &str, source: impl Read) -> Result<(), BuildError> {
        let last = self.last_block.map(|(last, _)| last);
        if let Some(last) = last.filter(|last| *last >= number) {
            return Err(BuildError::Order { number, last });
        }
        let mut records = RecordReader::new(source, Sums::of_block(&self.name, number));
        loop {
            let taken = match records.next_record() {
                Ok(Some(record)) => self.take(file, &record),
                Ok(None) => break,
                Err(error) => self.damaged(file, error),
            };
            taken?;
        }
        self.last_block = Some((number, records.last_sum().unwrap_or_default()));
        self.blocks += 1;
        Ok(())
    }

    fn take(&mut self, file: &str, record: &Record<'_>) -> Result<(), BuildError> {
        let state = self.store.state();
        let (sequence, last) = (record.sequence, state.last_sequence);
        match record.kind {
            RecordKind::Tombstone => self.tombstones.push(sequence),
            // The sequence only ever moves up; what stands there again is dead.
            _ if sequence <= last => {}
            RecordKind::Erased => self
                .store
                .skip(sequence, record.time_ns.max(state.last_time_ns))?,
            RecordKind::Message => {
                if let Some(reason) = unusable(record) {
                    let reason = format!("the message of sequence {sequence} {reason}");
                    return self.unusable(file, sequence, reason);
                }
                if sequence > last + 1 {
                    self.store.skip(sequence - 1, state.last_time_ns)?;
                }
                let expiry =
                    StreamCore::arrival_expiry(&self.config, record.headers, record.time_ns);
                let message = NewMessage {
                    sequence,
                    time_ns: record.time_ns,
                    subject: record.subject,
                    headers: record.headers,
                    payload: record.payload,
                    expiry,
                };
                self.store.append(&message, &mut ())?;
                self.unlooked_bytes += record.subject.len() + record.headers.len();
                self.unlooked_bytes += record.payload.len();
            }
        }
        if self.unlooked_bytes >= LOOK_BYTES {
            self.unlooked_bytes = 0;
            self.relieve()?;
        }
        Ok(())
    }

    /// Waits for the disk where messages come faster than they are written.
    fn relieve(&mut self) -> Result<(), ChangeError> {
        let store: &mut dyn Any = self.store.as_mut();
        match store.downcast_mut::<FileStore>() {
            Some(files) => files.relieve(UNWRITTEN_BYTES_MAX),
            None => Ok(()),
        }
    }

    fn damaged(&mut self, file: &str, error: RecordError) -> Result<(), BuildError> {
        let is_readable = !matches!(error, RecordError::Read { .. });
        if self.on_damage == OnDamage::Fail || !is_readable {
            return Err(BuildError::Record {
                file: file.to_owned(),
                source: error,
            });
        }
        let next = self.store.state().last_sequence + 1;
        let sequences = match &error {
            RecordError::Checksum { sequence, .. } if *sequence >= next => {
                Some((*sequence, *sequence))
            }
            _ => None,
        };
        self.pass(file, sequences, error.to_string());
        Ok(())
    }

    fn pass(&mut self, file: &str, sequences: Option<(u64, u64)>, reason: String) {
        if self.findings.passed.len() >= DAMAGE_MAX {
            self.findings.passed_more += 1;
            return;
        }
        self.findings.passed.push(Passed {
            file: file.to_owned(),
            sequences,
            reason,
        });
    }

    fn unusable(&mut self, file: &str, sequence: u64, reason: String) -> Result<(), BuildError> {
        if self.on_damage == OnDamage::Fail {
            return Err(BuildError::File {
                file: file.to_owned(),
                reason,
            });
        }
        self.pass(file, Some((sequence, sequence)), reason);
        Ok(())
    }

    /// A whole block is unusable.
    pub fn lost_block(&mut self, file: &str, reason: String) -> Result<(), BuildError> {
        if self.on_damage == OnDamage::Fail {
            return Err(BuildError::File {
                file: file.to_owned(),
                reason,
            });
        }
        self.pass(file, None, reason);
        Ok(())
    }

    /// Takes the index. One that cannot be read does not count.
    pub fn index(&mut self, bytes: &[u8]) {
        match Index::read(bytes, &self.name) {
            Ok(index) => {
                self.index = Some(index);
                self.findings.without_index = None;
            }
            Err(error) => self.without_index(&error),
        }
    }

    fn without_index(&mut self, reason: &IndexError) {
        self.findings.without_index = Some(reason.to_string());
    }

    /// Takes a consumer: its configuration, and its state if there is any.
    pub fn consumer(
        &mut self,
        file: &str,
        meta: ConsumerMeta,
        state: Option<&[u8]>,
    ) -> Result<(), BuildError> {
        let progress = state
            .map(read_consumer_state)
            .transpose()
            .map_err(|error| BuildError::File {
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
        self.consumers.push(ArrivedConsumer {
            name: meta.name,
            created_ns: meta.created.nanoseconds(),
            config: meta.config,
            progress,
        });
        Ok(())
    }

    /// Makes it the stream that it was.
    pub fn finish(mut self, now_ns: i64) -> Result<(StreamCore, Findings), BuildError> {
        let index = self.index.take().filter(|index| {
            let fits = self.fits(index);
            if !fits {
                self.findings.without_index = Some("it does not belong to the blocks".to_owned());
            }
            fits
        });
        for sequence in std::mem::take(&mut self.tombstones) {
            self.store.delete(sequence, Deletion::Unlink, &mut ())?;
        }
        if let Some(index) = index {
            self.apply(&index)?;
        }
        self.consumers
            .sort_by(|a, b| (a.created_ns, &a.name).cmp(&(b.created_ns, &b.name)));
        let core = StreamCore::arrive(
            self.config,
            "",
            self.created_ns,
            self.store,
            self.consumers,
            now_ns,
        )?;
        Ok((core, self.findings))
    }

    /// Whether the index was written when the blocks were as they are, and ends where a stream can go on.
    fn fits(&self, index: &Index) -> bool {
        let numbers_fit = index.blocks.len() as u64 == self.blocks;
        let last_fits = match self.last_block {
            Some(last) => last == (index.last_block, index.last_sum),
            None => index.blocks.is_empty(),
        };
        numbers_fit && last_fits && index.last_sequence <= SEQUENCE_MAX
    }

    /// What the index does not list as live is dead.
    fn apply(&mut self, index: &Index) -> Result<(), BuildError> {
        let last = self.store.state().last_sequence;
        if index.last_sequence > last {
            self.store.skip(index.last_sequence, index.last_time_ns)?;
        }
        let mut next = 0;
        for block in &index.blocks {
            self.remove(next, block.first)?;
            for sequence in block.deleted() {
                self.store.delete(sequence, Deletion::Unlink, &mut ())?;
            }
            next = next.max(block.last.saturating_add(1));
        }
        self.remove(next, u64::MAX)?;
        self.remove(0, index.first_sequence)?;
        let state = self.store.state();
        let lost = self.findings.passed_more > 0 || !self.findings.passed.is_empty();
        // The index counts records in files; a stream that is to live in memory counts in another way.
        let counts_alike = self.store.accounting() == Accounting::File;
        let same_bytes = !counts_alike || state.bytes == index.bytes;
        if (state.messages != index.messages || !same_bytes) && !lost {
            return Err(BuildError::Totals {
                messages: state.messages,
                bytes: state.bytes,
                index_messages: index.messages,
                index_bytes: index.bytes,
            });
        }
        Ok(())
    }

    /// Removes what is live from a sequence up to but not including another one.
    fn remove(&mut self, from: u64, below: u64) -> Result<(), BuildError> {
        let everything = Filter::everything();
        let mut next = from;
        while let Some(sequence) = self.store.next_sequence(next, &everything) {
            if sequence >= below {
                break;
            }
            self.store.delete(sequence, Deletion::Unlink, &mut ())?;
            next = sequence + 1;
        }
        Ok(())
    }
}

/// What no server can have stored.
fn unusable(record: &Record<'_>) -> Option<&'static str> {
    if !subject::is_valid_literal(record.subject) {
        return Some("has a subject that is none");
    }
    if record.headers.len() > HEADER_BYTES_MAX {
        return Some("has headers that are too long");
    }
    if record.sequence > SEQUENCE_MAX {
        return Some("has a sequence that cannot be");
    }
    None
}
