//! Log entries: a batch of changes to a stream, decided by its leader, applied by everybody.
//!
//! An entry is a header and operations without padding:
//!
//! ```text
//! version u8 | term u64 | time i64 | base sequence u64 | base index u64 | ordinal u64 | operations…
//! ```
//!
//! Integers are little-endian; `number` is a variable-length integer and `blob` a number followed by as many bytes. `time` is
//! the leader's clock in nanoseconds since the epoch. Each operation starts with its kind in one byte.
//!
//! What a leader decides on top of one applied state is a chain: all its entries name that state by its index, the base index, and are
//! counted from 1. An entry is applied as a whole or, when it does not follow what was applied before, not at all: so that one of
//! which a predecessor was lost, or on which another chain got ahead, changes nothing, on no replica.

use bytes::Bytes;
use storage::store::Expiry;

use super::codec::{DecodeError, Reader, Writer};

/// The version written.
const VERSION: u8 = 2;
/// Bytes before the first operation.
pub(crate) const HEADER_BYTES: usize = 1 + 5 * 8;
/// An entry that is expected to be longer grows into its length.
const EXPECTED_BYTES_MAX: usize = 512 * 1024;

/// The start of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// In which term it was decided.
    pub term: u64,
    /// The leader's clock, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// The stream's last sequence before it.
    pub base_sequence: u64,
    /// The index of the last entry that was applied when its chain began.
    pub base_index: u64,
    /// Its place in its chain, from 1.
    pub ordinal: u64,
}

/// What a message replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rollup {
    /// Nothing.
    #[default]
    None,
    /// All earlier messages on its subject.
    Subject,
    /// All earlier messages.
    Everything,
}

/// A message to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageOp<'a> {
    /// Its subject.
    pub subject: &'a [u8],
    /// Its header block.
    pub headers: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// Its id for finding duplicates, empty when it has none.
    pub id: &'a [u8],
    /// When it dies by itself.
    pub expiry: Expiry,
    /// What it replaces.
    pub rollup: Rollup,
    /// When the schedule that it is fires, in nanoseconds since the epoch.
    pub schedule_ns: Option<i64>,
    /// The schedule that it came from.
    pub scheduler: Option<Scheduler<'a>>,
}

impl MessageOp<'_> {
    /// How often it removes other messages by what it says.
    pub(crate) fn purges(&self) -> u32 {
        let ends_schedule = self.scheduler.is_some_and(|one| one.next_ns.is_none());
        u32::from(self.rollup != Rollup::None) + u32::from(ends_schedule)
    }
}

/// The schedule that a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler<'a> {
    /// Its subject.
    pub subject: &'a [u8],
    /// When it fires next; without that it is over and is removed.
    pub next_ns: Option<i64>,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Store a message under the next sequence.
    Message(MessageOp<'a>),
    /// Store a message under its origin's sequence and time, which may leave a gap before it.
    Mirrored {
        /// Its sequence.
        sequence: u64,
        /// When the origin stored it.
        time_ns: i64,
        /// The message.
        message: MessageOp<'a>,
    },
    /// Use up sequences without storing anything.
    Skip {
        /// Up to this one.
        last_sequence: u64,
    },
    /// Remove a message.
    Delete {
        /// Which one.
        sequence: u64,
        /// Overwrite its bytes too.
        erase: bool,
    },
    /// Remove messages.
    Purge {
        /// Only these subjects; empty is every subject.
        filter: &'a str,
        /// Only below this sequence; 0 is no bound.
        below_sequence: u64,
        /// How many of the newest stay.
        keep: u64,
    },
    /// Remove what is dead at the entry's time, this many at most.
    Expire {
        /// How many at most.
        removals_max: u64,
    },
    /// Take a configuration (JSON).
    Config {
        /// The configuration.
        json: &'a [u8],
    },
    /// Create a consumer.
    ConsumerCreate {
        /// Its id within the stream, never used twice.
        id: u64,
        /// Its name.
        name: &'a str,
        /// Its configuration (JSON).
        json: &'a [u8],
    },
    /// Take another configuration for a consumer.
    ConsumerUpdate {
        /// Which one.
        id: u64,
        /// Its configuration (JSON).
        json: &'a [u8],
    },
    /// Remove a consumer.
    ConsumerDelete {
        /// Which one.
        id: u64,
    },
    /// A message was delivered.
    Delivered {
        /// By which consumer.
        id: u64,
        /// As its how-manieth delivery.
        consumer_sequence: u64,
        /// Which message.
        stream_sequence: u64,
        /// How often it has been delivered with this time.
        deliveries: u64,
    },
    /// A message was acknowledged; under `all`, with everything before it.
    Acked {
        /// To which consumer.
        id: u64,
        /// Which delivery.
        consumer_sequence: u64,
        /// Which message.
        stream_sequence: u64,
    },
    /// A message has been delivered as often as it may.
    Exhausted {
        /// By which consumer.
        id: u64,
        /// Which message.
        stream_sequence: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// The time from which a message's ack is waited for.
    Touched {
        /// By which consumer.
        id: u64,
        /// Which message.
        stream_sequence: u64,
        /// From when on.
        time_ns: i64,
    },
    /// Messages up to this delivery may have been sent before that was logged.
    Reserved {
        /// By which consumer.
        id: u64,
        /// Up to which delivery.
        consumer_sequence: u64,
    },
    /// A consumer starts anew.
    Reset {
        /// Which one.
        id: u64,
        /// At this stream sequence.
        stream_sequence: u64,
    },
    /// A consumer is gone with the memory that it was in. Other than for one that is deleted, what nobody wants now stays.
    ConsumerLost {
        /// Which one.
        id: u64,
    },
    /// A consumer is as it was created: the server has started again, and had its state in memory.
    ConsumerRestarted {
        /// Which one.
        id: u64,
    },
    /// A schedule does not fire any more, although its message is there.
    Unscheduled {
        /// Which message.
        sequence: u64,
    },
    /// The message after it belongs to a fast batch: for whoever leads next. Changes nothing that is kept.
    FastMessage {
        /// Where its ack goes, which says what it is to its batch.
        reply: &'a [u8],
    },
    /// A fast batch has come past a message that is not stored: for whoever leads next. Changes nothing that is kept.
    FastPassed {
        /// The last message of the batch that is stored, 0 for none.
        sequence: u64,
        /// Where the ack of the one that is not goes, which says what it is to the batch.
        reply: &'a [u8],
    },
    /// A fast batch is over, other than by a last message: for whoever leads next. Changes nothing that is kept.
    FastEnd {
        /// Which one.
        id: &'a str,
    },
    /// What the leader's digest was at an earlier entry. Changes nothing; whoever had another one there is not equal.
    Compare {
        /// At which entry.
        index: u64,
        /// The digest.
        digest: u64,
    },
}

mod kind {
    pub(super) const MESSAGE: u8 = 1;
    pub(super) const DELETE: u8 = 2;
    pub(super) const PURGE: u8 = 3;
    pub(super) const EXPIRE: u8 = 4;
    pub(super) const CONFIG: u8 = 5;
    pub(super) const CONSUMER_CREATE: u8 = 6;
    pub(super) const CONSUMER_UPDATE: u8 = 7;
    pub(super) const CONSUMER_DELETE: u8 = 8;
    pub(super) const DELIVERED: u8 = 9;
    pub(super) const ACKED: u8 = 10;
    pub(super) const EXHAUSTED: u8 = 11;
    pub(super) const TOUCHED: u8 = 12;
    pub(super) const RESERVED: u8 = 13;
    pub(super) const RESET: u8 = 14;
    pub(super) const COMPARE: u8 = 15;
    pub(super) const UNSCHEDULED: u8 = 16;
    pub(super) const MIRRORED: u8 = 17;
    pub(super) const SKIP: u8 = 18;
    pub(super) const CONSUMER_LOST: u8 = 19;
    pub(super) const CONSUMER_RESTARTED: u8 = 20;
    pub(super) const FAST_MESSAGE: u8 = 21;
    pub(super) const FAST_PASSED: u8 = 22;
    pub(super) const FAST_END: u8 = 23;
}

mod flag {
    pub(super) const ID: u8 = 1;
    pub(super) const EXPIRES: u8 = 2;
    pub(super) const NEVER_EXPIRES: u8 = 4;
    pub(super) const ROLLUP_SUBJECT: u8 = 8;
    pub(super) const ROLLUP_EVERYTHING: u8 = 16;
    pub(super) const SCHEDULE: u8 = 32;
    pub(super) const SCHEDULER: u8 = 64;
    pub(super) const SCHEDULER_ENDS: u8 = 128;
}

/// An entry being written.
#[derive(Debug)]
pub(crate) struct EntryWriter {
    writer: Writer,
    operations: u32,
    /// How long the entry before was: room for as much is made when the next one begins, and not while there is none.
    expected: usize,
}

impl EntryWriter {
    /// An entry without operations yet. The header is filled in by [`EntryWriter::finish`].
    pub(crate) fn new() -> Self {
        let mut writer = Writer::default();
        writer.bytes.resize(HEADER_BYTES, 0);
        Self {
            writer,
            operations: 0,
            expected: 0,
        }
    }

    /// How many operations it holds.
    pub(crate) fn operations(&self) -> u32 {
        self.operations
    }

    /// Its length so far.
    pub(crate) fn length(&self) -> usize {
        self.writer.bytes.len()
    }

    /// Adds an operation and says which one it is, from 0.
    pub(crate) fn push(&mut self, op: &Op<'_>) -> u32 {
        let writer = &mut self.writer;
        if self.operations == 0 {
            writer.bytes.reserve(self.expected);
        }
        match *op {
            Op::Message(message) => {
                writer.u8(kind::MESSAGE);
                write_message(writer, &message);
            }
            Op::Mirrored {
                sequence,
                time_ns,
                message,
            } => {
                writer.u8(kind::MIRRORED);
                writer.number(sequence);
                writer.i64(time_ns);
                write_message(writer, &message);
            }
            Op::Skip { last_sequence } => {
                writer.u8(kind::SKIP);
                writer.number(last_sequence);
            }
            Op::Delete { sequence, erase } => {
                writer.u8(kind::DELETE);
                writer.number(sequence);
                writer.u8(u8::from(erase));
            }
            Op::Purge {
                filter,
                below_sequence,
                keep,
            } => {
                writer.u8(kind::PURGE);
                writer.blob(filter.as_bytes());
                writer.number(below_sequence);
                writer.number(keep);
            }
            Op::Expire { removals_max } => {
                writer.u8(kind::EXPIRE);
                writer.number(removals_max);
            }
            Op::Config { json } => {
                writer.u8(kind::CONFIG);
                writer.blob(json);
            }
            Op::ConsumerCreate { id, name, json } => {
                writer.u8(kind::CONSUMER_CREATE);
                writer.number(id);
                writer.blob(name.as_bytes());
                writer.blob(json);
            }
            Op::ConsumerUpdate { id, json } => {
                writer.u8(kind::CONSUMER_UPDATE);
                writer.number(id);
                writer.blob(json);
            }
            Op::ConsumerDelete { id } => {
                writer.u8(kind::CONSUMER_DELETE);
                writer.number(id);
            }
            Op::Delivered {
                id,
                consumer_sequence,
                stream_sequence,
                deliveries,
            } => {
                writer.u8(kind::DELIVERED);
                writer.number(id);
                writer.number(consumer_sequence);
                writer.number(stream_sequence);
                writer.number(deliveries);
            }
            Op::Acked {
                id,
                consumer_sequence,
                stream_sequence,
            } => {
                writer.u8(kind::ACKED);
                writer.number(id);
                writer.number(consumer_sequence);
                writer.number(stream_sequence);
            }
            Op::Exhausted {
                id,
                stream_sequence,
                deliveries,
            } => {
                writer.u8(kind::EXHAUSTED);
                writer.number(id);
                writer.number(stream_sequence);
                writer.number(deliveries);
            }
            Op::Touched {
                id,
                stream_sequence,
                time_ns,
            } => {
                writer.u8(kind::TOUCHED);
                writer.number(id);
                writer.number(stream_sequence);
                writer.i64(time_ns);
            }
            Op::Reserved {
                id,
                consumer_sequence,
            } => {
                writer.u8(kind::RESERVED);
                writer.number(id);
                writer.number(consumer_sequence);
            }
            Op::Reset {
                id,
                stream_sequence,
            } => {
                writer.u8(kind::RESET);
                writer.number(id);
                writer.number(stream_sequence);
            }
            Op::ConsumerLost { id } => {
                writer.u8(kind::CONSUMER_LOST);
                writer.number(id);
            }
            Op::ConsumerRestarted { id } => {
                writer.u8(kind::CONSUMER_RESTARTED);
                writer.number(id);
            }
            Op::Unscheduled { sequence } => {
                writer.u8(kind::UNSCHEDULED);
                writer.number(sequence);
            }
            Op::FastMessage { reply } => {
                writer.u8(kind::FAST_MESSAGE);
                writer.blob(reply);
            }
            Op::FastPassed { sequence, reply } => {
                writer.u8(kind::FAST_PASSED);
                writer.number(sequence);
                writer.blob(reply);
            }
            Op::FastEnd { id } => {
                writer.u8(kind::FAST_END);
                writer.blob(id.as_bytes());
            }
            Op::Compare { index, digest } => {
                writer.u8(kind::COMPARE);
                writer.number(index);
                writer.u64(digest);
            }
        }
        let operation = self.operations;
        self.operations += 1;
        operation
    }

    /// Takes what was written as one entry and starts over.
    pub(crate) fn finish(&mut self, header: EntryHeader) -> Bytes {
        self.expected = self.writer.bytes.len().min(EXPECTED_BYTES_MAX);
        let mut bytes = std::mem::take(&mut self.writer.bytes);
        let mut head = Writer {
            bytes: Vec::with_capacity(HEADER_BYTES),
        };
        head.u8(VERSION);
        head.u64(header.term);
        head.i64(header.time_ns);
        head.u64(header.base_sequence);
        head.u64(header.base_index);
        head.u64(header.ordinal);
        if let Some(space) = bytes.get_mut(..HEADER_BYTES) {
            space.copy_from_slice(&head.bytes);
        }
        self.writer.bytes.resize(HEADER_BYTES, 0);
        self.operations = 0;
        Bytes::from(bytes)
    }
}

fn write_message(writer: &mut Writer, message: &MessageOp<'_>) {
    let mut flags = match message.rollup {
        Rollup::None => 0,
        Rollup::Subject => flag::ROLLUP_SUBJECT,
        Rollup::Everything => flag::ROLLUP_EVERYTHING,
    };
    flags |= match message.expiry {
        Expiry::ByAge => 0,
        Expiry::At(_) => flag::EXPIRES,
        Expiry::Never => flag::NEVER_EXPIRES,
    };
    if !message.id.is_empty() {
        flags |= flag::ID;
    }
    if message.schedule_ns.is_some() {
        flags |= flag::SCHEDULE;
    }
    if let Some(scheduler) = message.scheduler {
        flags |= match scheduler.next_ns {
            Some(_) => flag::SCHEDULER,
            None => flag::SCHEDULER_ENDS,
        };
    }
    let length = message.subject.len() + message.headers.len() + message.payload.len();
    writer.bytes.reserve(length + message.id.len() + 48);
    writer.u8(flags);
    writer.blob(message.subject);
    writer.blob(message.headers);
    writer.blob(message.payload);
    if !message.id.is_empty() {
        writer.blob(message.id);
    }
    if let Expiry::At(time_ns) = message.expiry {
        writer.i64(time_ns);
    }
    if let Some(schedule_ns) = message.schedule_ns {
        writer.i64(schedule_ns);
    }
    if let Some(scheduler) = message.scheduler {
        writer.blob(scheduler.subject);
        if let Some(next_ns) = scheduler.next_ns {
            writer.i64(next_ns);
        }
    }
}

/// An entry being read.
#[derive(Debug, Clone)]
pub(crate) struct EntryReader<'a> {
    reader: Reader<'a>,
    header: EntryHeader,
}

impl<'a> EntryReader<'a> {
    /// Reads the header.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let header = EntryHeader {
            term: reader.u64()?,
            time_ns: reader.i64()?,
            base_sequence: reader.u64()?,
            base_index: reader.u64()?,
            ordinal: reader.u64()?,
        };
        Ok(Self { reader, header })
    }

    /// What it starts with.
    pub(crate) fn header(&self) -> EntryHeader {
        self.header
    }

    /// The next operation, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Op<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        read_op(&mut self.reader).map(Some)
    }
}

fn read_op<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, DecodeError> {
    Ok(match reader.u8()? {
        kind::MESSAGE => Op::Message(read_message(reader)?),
        kind::MIRRORED => Op::Mirrored {
            sequence: reader.number()?,
            time_ns: reader.i64()?,
            message: read_message(reader)?,
        },
        kind::SKIP => Op::Skip {
            last_sequence: reader.number()?,
        },
        kind::DELETE => Op::Delete {
            sequence: reader.number()?,
            erase: reader.u8()? != 0,
        },
        kind::PURGE => Op::Purge {
            filter: reader.text()?,
            below_sequence: reader.number()?,
            keep: reader.number()?,
        },
        kind::EXPIRE => Op::Expire {
            removals_max: reader.number()?,
        },
        kind::CONFIG => Op::Config {
            json: reader.blob()?,
        },
        kind::CONSUMER_CREATE => Op::ConsumerCreate {
            id: reader.number()?,
            name: reader.text()?,
            json: reader.blob()?,
        },
        kind::CONSUMER_UPDATE => Op::ConsumerUpdate {
            id: reader.number()?,
            json: reader.blob()?,
        },
        kind::CONSUMER_DELETE => Op::ConsumerDelete {
            id: reader.number()?,
        },
        kind::DELIVERED => Op::Delivered {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
            stream_sequence: reader.number()?,
            deliveries: reader.number()?,
        },
        kind::ACKED => Op::Acked {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
            stream_sequence: reader.number()?,
        },
        kind::EXHAUSTED => Op::Exhausted {
            id: reader.number()?,
            stream_sequence: reader.number()?,
            deliveries: reader.number()?,
        },
        kind::TOUCHED => Op::Touched {
            id: reader.number()?,
            stream_sequence: reader.number()?,
            time_ns: reader.i64()?,
        },
        kind::RESERVED => Op::Reserved {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
        },
        kind::RESET => Op::Reset {
            id: reader.number()?,
            stream_sequence: reader.number()?,
        },
        kind::CONSUMER_LOST => Op::ConsumerLost {
            id: reader.number()?,
        },
        kind::CONSUMER_RESTARTED => Op::ConsumerRestarted {
            id: reader.number()?,
        },
        kind::UNSCHEDULED => Op::Unscheduled {
            sequence: reader.number()?,
        },
        kind::FAST_MESSAGE => Op::FastMessage {
            reply: reader.blob()?,
        },
        kind::FAST_PASSED => Op::FastPassed {
            sequence: reader.number()?,
            reply: reader.blob()?,
        },
        kind::FAST_END => Op::FastEnd { id: reader.text()? },
        kind::COMPARE => Op::Compare {
            index: reader.number()?,
            digest: reader.u64()?,
        },
        _ => return Err(DecodeError::Range { what: "operation" }),
    })
}

fn read_message<'a>(reader: &mut Reader<'a>) -> Result<MessageOp<'a>, DecodeError> {
    let flags = reader.u8()?;
    let subject = reader.blob()?;
    let headers = reader.blob()?;
    let payload = reader.blob()?;
    let id = if flags & flag::ID != 0 {
        reader.blob()?
    } else {
        &[]
    };
    let expiry = match flags & (flag::EXPIRES | flag::NEVER_EXPIRES) {
        0 => Expiry::ByAge,
        flag::EXPIRES => Expiry::At(reader.i64()?),
        flag::NEVER_EXPIRES => Expiry::Never,
        _ => return Err(DecodeError::Range { what: "expiry" }),
    };
    let rollup = match flags & (flag::ROLLUP_SUBJECT | flag::ROLLUP_EVERYTHING) {
        0 => Rollup::None,
        flag::ROLLUP_SUBJECT => Rollup::Subject,
        flag::ROLLUP_EVERYTHING => Rollup::Everything,
        _ => return Err(DecodeError::Range { what: "rollup" }),
    };
    let schedule_ns = match flags & flag::SCHEDULE {
        0 => None,
        _ => Some(reader.i64()?),
    };
    let scheduler = match flags & (flag::SCHEDULER | flag::SCHEDULER_ENDS) {
        0 => None,
        flag::SCHEDULER => Some(Scheduler {
            subject: reader.blob()?,
            next_ns: Some(reader.i64()?),
        }),
        flag::SCHEDULER_ENDS => Some(Scheduler {
            subject: reader.blob()?,
            next_ns: None,
        }),
        _ => return Err(DecodeError::Range { what: "scheduler" }),
    };
    Ok(MessageOp {
        subject,
        headers,
        payload,
        id,
        expiry,
        rollup,
        schedule_ns,
        scheduler,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: EntryHeader = EntryHeader {
        term: 3,
        time_ns: -5,
        base_sequence: 7,
        base_index: 11,
        ordinal: 2,
    };

    fn samples() -> Vec<Op<'static>> {
        vec![
            Op::Message(MessageOp {
                subject: b"a.b",
                headers: b"NATS/1.0\r\n\r\n",
                payload: b"hello",
                id: b"id",
                expiry: Expiry::At(9),
                rollup: Rollup::Subject,
                schedule_ns: Some(-7),
                scheduler: Some(Scheduler {
                    subject: b"s",
                    next_ns: Some(11),
                }),
            }),
            Op::Message(MessageOp {
                subject: b"a",
                headers: b"",
                payload: b"",
                id: b"",
                expiry: Expiry::Never,
                rollup: Rollup::Everything,
                schedule_ns: None,
                scheduler: Some(Scheduler {
                    subject: b"",
                    next_ns: None,
                }),
            }),
            Op::Delete {
                sequence: 300,
                erase: true,
            },
            Op::Purge {
                filter: "a.>",
                below_sequence: 4,
                keep: 0,
            },
            Op::Expire { removals_max: 1000 },
            Op::Config { json: b"{}" },
            Op::ConsumerCreate {
                id: 1,
                name: "c",
                json: b"{}",
            },
            Op::ConsumerUpdate { id: 1, json: b"{}" },
            Op::ConsumerDelete { id: 1 },
            Op::Delivered {
                id: 1,
                consumer_sequence: 2,
                stream_sequence: 3,
                deliveries: 4,
            },
            Op::Acked {
                id: 1,
                consumer_sequence: 2,
                stream_sequence: u64::MAX,
            },
            Op::Exhausted {
                id: 1,
                stream_sequence: 2,
                deliveries: 3,
            },
            Op::Touched {
                id: 1,
                stream_sequence: 2,
                time_ns: i64::MIN,
            },
            Op::Reserved {
                id: 1,
                consumer_sequence: 1000,
            },
            Op::Reset {
                id: 1,
                stream_sequence: 5,
            },
            Op::ConsumerLost { id: 1 },
            Op::ConsumerRestarted { id: 1 },
            Op::Unscheduled { sequence: 7 },
            Op::FastMessage {
                reply: b"inbox.id.9.ok.1.0.$FI",
            },
            Op::FastPassed {
                sequence: 300,
                reply: b"inbox.id.9.ok.2.1.$FI",
            },
            Op::FastEnd { id: "id" },
            Op::Mirrored {
                sequence: 12,
                time_ns: -3,
                message: MessageOp {
                    subject: b"a",
                    headers: b"",
                    payload: b"x",
                    id: b"",
                    expiry: Expiry::ByAge,
                    rollup: Rollup::None,
                    schedule_ns: None,
                    scheduler: None,
                },
            },
            Op::Skip { last_sequence: 99 },
            Op::Compare {
                index: 300,
                digest: u64::MAX,
            },
        ]
    }

    fn written() -> Bytes {
        let mut writer = EntryWriter::new();
        for (at, op) in samples().iter().enumerate() {
            assert_eq!(writer.push(op), at as u32);
        }
        writer.finish(HEADER)
    }

    fn read_all(bytes: &[u8]) -> Result<(EntryHeader, usize), DecodeError> {
        let mut reader = EntryReader::new(bytes)?;
        let mut operations = 0;
        while reader.next()?.is_some() {
            operations += 1;
        }
        Ok((reader.header(), operations))
    }

    #[test]
    fn every_operation_reads_back_as_written() {
        let bytes = written();
        let mut reader = EntryReader::new(&bytes).expect("header");
        assert_eq!(reader.header(), HEADER);
        for op in samples() {
            assert_eq!(reader.next(), Ok(Some(op)));
        }
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn an_entry_cut_anywhere_is_an_error_or_a_shorter_entry() {
        let bytes = written();
        for cut in 0..bytes.len() {
            if let Ok((_, operations)) = read_all(&bytes[..cut]) {
                assert!(operations < samples().len());
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = written().to_vec();
        bytes[0] = 9;
        assert_eq!(read_all(&bytes).unwrap_err(), DecodeError::Version(9));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
            let mut entry = written().to_vec();
            entry.truncate(HEADER_BYTES);
            entry.extend_from_slice(&bytes);
            let _ = read_all(&entry);
        }

        #[test]
        fn a_flipped_byte_never_makes_the_reader_panic(at in 0usize..300, with in any::<u8>()) {
            let mut entry = written().to_vec();
            let at = at % entry.len();
            entry[at] = with;
            let _ = read_all(&entry);
        }
    }
}
