//! Where messages lie: what [`super::Ledger`] needs of the place that holds them.
//!
//! # Invariant
//! A shelf knows no limit, no expiry and no total: it holds messages by sequence, forgets those it is
//! told to forget, and finds messages by subject. The ledger never asks for sequences below its
//! `first_sequence`, so that a shelf may drop those without noting each.

use bytes::Bytes;

use super::{
    Accounting, ChangeError, Deletion, Limits, LostMessages, Message, NewMessage, ReadError,
};
use crate::filter::Filter;
use crate::index::{ExpiryQueue, SubjectId};

/// What is needed to remove a message.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its subject.
    pub subject: Bytes,
    /// The subject's place in the index, when the shelf knows it.
    pub id: Option<SubjectId>,
    /// Its accounted bytes.
    pub bytes: u64,
}

/// The live messages of one subject: how many, and between which sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Live messages.
    pub messages: u64,
    /// Not above the oldest; a message that is or was on the subject.
    pub first: u64,
    /// The newest.
    pub last: u64,
}

/// One subject as the index knows it.
#[derive(Debug, Clone, Copy)]
pub struct Topic<'a> {
    /// Its text.
    pub subject: &'a [u8],
    /// Its place in the index.
    pub id: SubjectId,
    /// Its messages.
    pub span: Span,
}

/// The live messages on the same subject next to one that was removed, where that is known without a search.
#[derive(Debug, Clone, Copy, Default)]
pub struct Neighbors {
    /// The one before.
    pub previous: Option<u64>,
    /// The one after.
    pub next: Option<u64>,
}

/// How far a short look ahead came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// A match.
    Found(u64),
    /// No match below this sequence.
    Unknown(u64),
}

/// A place that holds messages.
pub trait Shelf: Send + 'static {
    /// How it counts bytes.
    fn accounting(&self) -> Accounting;

    /// Refuses changes after an earlier one failed.
    fn check(&self) -> Result<(), ChangeError>;
    /// A change is about to begin: the time to see to what goes on beside changes.
    fn upkeep(&mut self, limits: &Limits, expiry: &ExpiryQueue);
    /// Takes a message. `previous` is the newest earlier one on its subject (0 for none).
    fn push(&mut self, message: &NewMessage<'_>, id: SubjectId, previous: u64);
    /// Forgets a live message.
    fn remove(&mut self, sequence: u64, deletion: Deletion) -> Neighbors;
    /// Nothing below `first` is live any more.
    fn first_moved(&mut self, first: u64);
    /// Nothing above `last` is live any more, and sequences above it will be used again.
    fn truncate(&mut self, last: u64);
    /// Nothing is live any more.
    fn clear(&mut self);

    /// Whether a message is live.
    fn is_live(&self, sequence: u64) -> bool;
    /// What is needed to remove a live message.
    fn facts(&self, sequence: u64) -> Option<Facts>;
    /// When a live message was stored.
    fn time_ns(&self, sequence: u64) -> Option<i64>;
    /// The same for a change that depends on it: a guess counts as one.
    fn deciding_time_ns(&self, sequence: u64) -> Option<i64> {
        self.time_ns(sequence)
    }
    /// How many bytes of messages wait to be written to files.
    fn backlog_bytes(&self) -> usize {
        0
    }
    /// Whether [`Shelf::load`] waits for no disk.
    fn is_at_hand(&self, _sequence: u64) -> bool {
        true
    }
    /// A live message.
    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError>;
    /// The first live message at or after `from`.
    fn load_next(&self, from: u64) -> Result<Option<Message>, ReadError>;
    /// The sequence of the first live message at or after `from`.
    fn next_live(&self, from: u64) -> Option<u64>;
    /// The last live message at or before `upto`.
    fn previous_live(&self, upto: u64) -> Option<u64>;
    /// How many live messages have a sequence in `from..below`.
    fn count_live(&self, from: u64, below: u64) -> u64;
    /// The first live message on a subject at or after `from`.
    fn next_on(&self, topic: &Topic<'_>, from: u64) -> Option<u64>;
    /// The last live message on a subject at or before `upto`.
    fn previous_on(&self, topic: &Topic<'_>, upto: u64) -> Option<u64>;
    /// How many live messages on a subject are at or after `from`.
    fn count_on(&self, topic: &Topic<'_>, from: u64) -> u64;
    /// Below this sequence [`Shelf::next_matching`] costs what it matches.
    fn indexed_below(&self) -> u64;
    /// The first live match at or after `from`, if it is among the next few messages.
    fn ahead(&self, from: u64, filter: &Filter) -> Ahead;
    /// The first live match in `from..=upto`.
    fn next_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64>;
    /// The last live match in `from..=upto`.
    fn previous_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64>;
    /// How many live messages at or after `from` match.
    fn count_matching(&self, from: u64, filter: &Filter) -> u64;
    /// Calls `visit` with every maximal range without a live message between `first` and `last`.
    fn gaps(&self, first: u64, last: u64, visit: &mut dyn FnMut(u64, u64) -> bool);
    /// The first live message at or after the time.
    fn sequence_at(&self, time_ns: i64) -> Option<u64>;
    /// Live messages that are known to be unreadable.
    fn lost(&self) -> u64;
    /// The first of them, and what all of them count for.
    fn lost_messages(&self, _listed_max: usize) -> LostMessages {
        LostMessages::default()
    }
    /// How often [`Shelf::facts`] or [`Shelf::deciding_time_ns`] had to guess since there was nothing.
    fn guesses(&self) -> u64 {
        0
    }
}
