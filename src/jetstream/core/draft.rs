//! The entry a leader is about to submit, and who waits for it.

use bytes::Bytes;

use super::entry::{EntryHeader, EntryWriter, Op};
use super::request::{DirectQuery, Outgoing};
use crate::jetstream::types::ApiError;

/// Who waits for an entry to be durable and applied.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Which operation of the entry, or past the last one for those that wait for all of it.
    pub(crate) operation: u32,
    pub(crate) waiting: Waiting,
}

/// What happens once it is.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A publisher hears the sequence of its message.
    Stored {
        reply: Bytes,
        /// What a counter came to.
        value: Option<Box<str>>,
    },
    /// A publisher hears that its message was stored before.
    Duplicate { reply: Bytes, sequence: u64 },
    /// A publisher hears that a message was refused for what is in flight.
    Refused { reply: Bytes, error: Box<ApiError> },
    /// A client hears that its ack counts.
    Confirmed { reply: Bytes },
    /// A batch is stored as a whole.
    Batch {
        reply: Bytes,
        id: Box<str>,
        count: u64,
    },
    /// What a message of a fast batch came to. Its reply subject says which one it is.
    Fast { reply: Bytes },
    /// The only message of a fast batch was stored before.
    DuplicateBatch {
        reply: Bytes,
        id: Box<str>,
        sequence: u64,
    },
    /// A direct get may be about what is on its way.
    Direct {
        reply: Bytes,
        query: Box<DirectQuery>,
    },
    /// An origin hears how far its copy is.
    Flow { answer: Box<Outgoing> },
    /// A request is answered with what its operation came to.
    Request { token: u64, answer: Answer },
}

/// Which answer a changing request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Updated,
    Purged,
    Deleted,
    ConsumerCreated(u64),
    ConsumerUpdated(u64),
    ConsumerDeleted,
    ConsumerPaused(u64),
    ConsumerReset(u64),
}

/// The entry being filled.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) entry: EntryWriter,
    pub(crate) waiters: Vec<Waiter>,
    /// Whether it must be submitted now rather than with the next urgent one.
    pub(crate) urgent: bool,
    /// When the first operation came that is not urgent.
    pub(crate) lazy_since_ns: Option<i64>,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self {
            entry: EntryWriter::new(),
            waiters: Vec::new(),
            urgent: false,
            lazy_since_ns: None,
        }
    }

    /// Adds an operation that is to be submitted without delay.
    pub(crate) fn push(&mut self, op: &Op<'_>) -> u32 {
        self.urgent = true;
        self.entry.push(op)
    }

    /// Adds an operation that may ride with a later one.
    pub(crate) fn push_lazy(&mut self, op: &Op<'_>, now_ns: i64) {
        self.lazy_since_ns.get_or_insert(now_ns);
        self.entry.push(op);
    }

    pub(crate) fn wait(&mut self, operation: u32, waiting: Waiting) {
        self.waiters.push(Waiter { operation, waiting });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entry.operations() == 0
    }

    pub(crate) fn finish(&mut self, header: EntryHeader) -> (Bytes, Vec<Waiter>) {
        self.urgent = false;
        self.lazy_since_ns = None;
        (self.entry.finish(header), std::mem::take(&mut self.waiters))
    }
}
