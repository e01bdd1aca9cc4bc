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

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::EntryReader;
pub(crate) use write::EntryWriter;

use storage::store::Expiry;

/// The version written.
const VERSION: u8 = 2;
/// Bytes before the first operation.
pub(crate) const HEADER_BYTES: usize = 1 + 5 * 8;

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
