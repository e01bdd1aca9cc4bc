//! What a stream core talks to: one interface over messages kept in files or in memory.
//!
//! A store is changed only by `apply`, that is after the change is durable in the log; the same changes
//! in the same order give the same store, on every replica and in every replay.
//!
//! # Invariant
//! Sequences are handed in by the caller and only grow. `first_sequence` is the lowest live sequence, or
//! `last_sequence + 1` when nothing is live; only [`Store::truncate`] moves either of them back.
//!
//! What a change means is written once, in [`Ledger`]; where messages lie is a `Shelf` behind it: memory
//! for [`MemStore`], a tail in memory and block files for the file store.

mod file;
mod ledger;
mod memory;
mod shelf;
mod tail;

use bytes::Bytes;

use crate::filter::Filter;

pub(crate) use file::fuzz;
pub use file::{
    BLOCK_BYTES_MAX, CheckpointError, FLUSH_BYTES, FileOpenError, FileOptions, FileStore, Frozen,
    Opened, PrepareDirectory, SMALL_STREAM_BYTES, inspect,
};
pub use ledger::Ledger;
pub use memory::MemStore;

/// A stored message. Clones share the same memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// When it was stored, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Its subject.
    pub subject: Bytes,
    /// Its header block as on the wire (`NATS/1.0…`), empty when it has none.
    pub headers: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// A message about to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// Its place in the stream: always `last_sequence + 1`.
    pub sequence: u64,
    /// When the leader took it, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// Its subject.
    pub subject: &'a [u8],
    /// Its header block, empty when it has none.
    pub headers: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// When it dies by itself.
    pub expiry: Expiry,
}

/// When a message dies by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// When it is older than the stream's `max_age`.
    ByAge,
    /// At this time (nanoseconds since the Unix epoch), or by age if that is sooner.
    At(i64),
    /// Never, whatever the stream's `max_age`.
    Never,
}

/// How a store counts the bytes of a message in `bytes`, `max_bytes` and account limits: as the reference's stores do, so that
/// clients see the figures they know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accounting {
    /// As records in files.
    #[default]
    File,
    /// As messages in memory.
    Memory,
}

impl Accounting {
    /// The bytes that a message of these lengths counts for.
    pub fn bytes(self, subject: usize, headers: usize, payload: usize) -> u64 {
        match self {
            Self::File => accounted_bytes(subject, headers, payload),
            Self::Memory => (subject + headers + payload + 16) as u64,
        }
    }
}

/// The bytes a message counts for in a file.
pub fn accounted_bytes(subject: usize, headers: usize, payload: usize) -> u64 {
    let headers = if headers == 0 { 0 } else { headers + 4 };
    (22 + subject + headers + payload + 8) as u64
}

/// What a store does when a limit is reached. A new message that a `Discard::New` stream has no room for is refused before
/// it gets a sequence, by the stream core; a store applies what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// The oldest messages make room.
    Old,
    /// The store removes nothing by itself on append.
    New,
}

/// The limits a store keeps by itself. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Live messages.
    pub messages_max: Option<u64>,
    /// Accounted bytes of live messages.
    pub bytes_max: Option<u64>,
    /// Age of a message in nanoseconds.
    pub age_max_ns: Option<i64>,
    /// Live messages per subject; the oldest of the subject make room, under either [`Discard`].
    pub per_subject_max: Option<u64>,
    /// What happens at `messages_max` and `bytes_max`.
    pub discard: Discard,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_max: None,
            bytes_max: None,
            age_max_ns: None,
            per_subject_max: None,
            discard: Discard::Old,
        }
    }
}

/// The totals of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Live messages.
    pub messages: u64,
    /// Accounted bytes of the live messages.
    pub bytes: u64,
    /// Lowest live sequence, or `last_sequence + 1` when nothing is live (0 in a store that was never used).
    pub first_sequence: u64,
    /// Time of the message at `first_sequence`; 0 when nothing is live.
    pub first_time_ns: i64,
    /// Highest sequence ever used.
    pub last_sequence: u64,
    /// Time of the last message ever stored or skipped.
    pub last_time_ns: i64,
    /// Distinct subjects among the live messages.
    pub subjects: u64,
    /// Sequences between first and last that hold no live message.
    pub deleted: u64,
    /// Messages that are known to be unreadable through damage, still counted in `messages`.
    pub lost: u64,
}

/// Live messages that are known to be unreadable through damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostMessages {
    /// The first of their sequences, ascending.
    pub sequences: Vec<u64>,
    /// What all of them count for, about.
    pub bytes: u64,
}

/// What a store knows of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectState {
    /// Live messages on it.
    pub messages: u64,
    /// Sequence of the oldest.
    pub first_sequence: u64,
    /// Sequence of the newest.
    pub last_sequence: u64,
}

/// How a message is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is no longer visible; its bytes go with the next rewrite.
    Unlink,
    /// Its bytes are overwritten wherever they are on disk.
    Erase,
}

/// Which messages a purge removes: those that match `filter`, have a sequence below `below_sequence` (if given) and are not
/// among the newest `keep` that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The subjects it is about.
    pub filter: Filter,
    /// Only sequences below this one.
    pub below_sequence: Option<u64>,
    /// Leave this many of the newest matching messages.
    pub keep: u64,
}

/// A message that has just been removed, as told to [`Removals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: &'a [u8],
    /// Its accounted bytes.
    pub bytes: u64,
}

/// Hears of every message that a change removes, in no promised order.
pub trait Removals {
    /// One message is gone.
    fn removed(&mut self, removal: Removal<'_>);

    /// Every live message is about to go at once: `messages` of them, `bytes` in all, none above `last_sequence`. Whoever
    /// answers `true` knows enough and is not told of each, so that the store need not read them.
    fn cleared(&mut self, messages: u64, bytes: u64, last_sequence: u64) -> bool {
        let _ = (messages, bytes, last_sequence);
        false
    }
}

/// For callers that do not care what was removed.
impl Removals for () {
    fn removed(&mut self, _removal: Removal<'_>) {}

    fn cleared(&mut self, _messages: u64, _bytes: u64, _last_sequence: u64) -> bool {
        true
    }
}

impl<F: FnMut(Removal<'_>)> Removals for F {
    fn removed(&mut self, removal: Removal<'_>) {
        self(removal);
    }
}

/// A change that could not be applied. The store is poisoned after `Failed`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// The sequence handed in is not the next one.
    #[error("sequence {given} does not follow {last}")]
    OutOfOrder {
        /// The sequence handed in.
        given: u64,
        /// The store's last sequence.
        last: u64,
    },
    /// An earlier write or sync failed; nothing more is accepted.
    #[error("store failed: {0}")]
    Failed(String),
}

/// A read that could not be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The message is there but its bytes are damaged.
    #[error("sequence {sequence} is damaged: {reason}")]
    Damaged {
        /// The sequence asked for.
        sequence: u64,
        /// What failed its check.
        reason: String,
    },
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] crate::disk::DiskError),
}

/// What [`Store::count`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Every live matching message.
    Every,
    /// Only messages that are the newest of their subject.
    LastPerSubject,
}

/// A stream's messages, in files or in memory.
pub trait Store: Send + std::any::Any {
    /// Stores a message, then removes what the limits no longer allow (under [`Discard::New`] only per-subject limits).
    fn append(
        &mut self,
        message: &NewMessage<'_>,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError>;
    /// Uses up the sequences up to and including `last_sequence`, which must lie above the last, without storing anything.
    fn skip(&mut self, last_sequence: u64, time_ns: i64) -> Result<(), ChangeError>;
    /// Removes one message; `false` when it is not live.
    fn delete(
        &mut self,
        sequence: u64,
        deletion: Deletion,
        removals: &mut dyn Removals,
    ) -> Result<bool, ChangeError>;
    /// Removes what `purge` describes and says how many that were. When everything is purged (all subjects, nothing kept),
    /// `first_sequence` becomes `last_sequence + 1`, or `below_sequence` if that is higher (then `last_sequence` follows).
    fn purge(&mut self, purge: &Purge, removals: &mut dyn Removals) -> Result<u64, ChangeError>;
    /// Removes everything below `first_sequence`, which may lie beyond the last; says how many messages went.
    fn compact(
        &mut self,
        first_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError>;
    /// Removes everything above `last_sequence`, which becomes the last again (0: as if never used). `last_time_ns` becomes
    /// that of the message there, if it is live. Nothing happens when `last_sequence` is not below the last.
    fn truncate(
        &mut self,
        last_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError>;
    /// Removes at most `removals_max` messages that are dead at `now_ns`; says how many. By age first, in the order of
    /// sequences up to the first that is too young (one that never expires is passed over); then by their own time, in the
    /// order of deadline and sequence.
    fn expire(
        &mut self,
        now_ns: i64,
        removals_max: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError>;
    /// Takes new limits and applies them at once: messages, bytes, then per subject (age at the next [`Store::expire`]).
    fn set_limits(
        &mut self,
        limits: Limits,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError>;

    /// The limits in force.
    fn limits(&self) -> Limits;
    /// The totals.
    fn state(&self) -> State;
    /// How it counts the bytes of its messages.
    fn accounting(&self) -> Accounting;
    /// How often the subject, the size or the time of a message had to be guessed for a change, because it could not be read: totals may be wrong since then, until
    /// the store is emptied.
    fn guesses(&self) -> u64 {
        0
    }
    /// How many bytes of messages are in memory only and wait to be written to files. Sees to it that they are; who brings more should wait while it is much, since
    /// both memory and the next checkpoint hold all of it.
    fn backlog_bytes(&mut self) -> usize {
        0
    }
    /// Whether [`Store::load`] of this sequence waits for no disk, as far as can be told without asking one: what was written lately is in memory still.
    fn is_at_hand(&self, _sequence: u64) -> bool {
        true
    }
    /// The message at `sequence`, `None` when it is not live.
    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError>;
    /// The first live message at or after `from` that matches.
    fn next(&self, from: u64, filter: &Filter) -> Result<Option<Message>, ReadError>;
    /// The sequence of the first live message at or after `from` that matches, without reading the message.
    fn next_sequence(&self, from: u64, filter: &Filter) -> Option<u64>;
    /// The sequence of the last live message at or before `upto` that matches.
    fn previous_sequence(&self, upto: u64, filter: &Filter) -> Option<u64>;
    /// The newest message on a literal subject.
    fn last_on(&self, subject: &[u8]) -> Result<Option<Message>, ReadError>;
    /// What was found first, at the start or by a read since, that cannot be read; `None` as long as all that was asked for was there.
    fn damage(&self) -> Option<&str> {
        None
    }
    /// For each subject that matches, the sequence of its newest message at or before `upto` (if it has one), ascending;
    /// `None` when that would be more than `results_max`.
    fn last_sequences(&self, filter: &Filter, upto: u64, results_max: usize) -> Option<Vec<u64>>;
    /// How many live messages at or after `from` match.
    fn count(&self, from: u64, filter: &Filter, counting: Counting) -> u64;
    /// What is known of one literal subject, `None` when nothing is live on it.
    fn subject(&self, subject: &[u8]) -> Option<SubjectState>;
    /// Calls `visit` for every live subject that matches, in byte order, until it returns `false`.
    fn subjects(&self, filter: &Filter, visit: &mut dyn FnMut(&[u8], SubjectState) -> bool);
    /// Calls `visit` with every maximal range (first, last) of sequences between the first and the last that are not live,
    /// ascending, until it returns `false`.
    fn deleted(&self, visit: &mut dyn FnMut(u64, u64) -> bool);
    /// The first of the live messages that are known to be unreadable, and what all of them count for.
    fn lost_messages(&self, _listed_max: usize) -> LostMessages {
        LostMessages::default()
    }
    /// The first live sequence whose time is at or after `time_ns`, `None` when there is none. Found by bisection: where times
    /// go back (a leader's clock did), a later sequence than the first may be found.
    fn sequence_at(&self, time_ns: i64) -> Option<u64>;
    /// When a live message dies by itself.
    fn expiry(&self, sequence: u64) -> Expiry;
    /// When [`Store::expire`] next has something to do.
    fn next_expiry_ns(&self) -> Option<i64>;
    /// The sequences that [`Store::expire`] would remove at `now_ns`, in its order.
    fn due(&self, now_ns: i64, removals_max: u64) -> Vec<u64>;
}
