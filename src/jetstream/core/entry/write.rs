//! Entries as they are written.

use bytes::Bytes;
use storage::store::Expiry;

use super::super::codec::Writer;
use super::{EntryHeader, HEADER_BYTES, MessageOp, Op, Rollup, VERSION, flag, kind};

/// An entry that is expected to be longer grows into its length.
const EXPECTED_BYTES_MAX: usize = 512 * 1024;

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
