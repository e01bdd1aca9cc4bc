//! What changes and reads mean, wherever the messages lie.
//!
//! The ledger keeps the totals, the limits, the subject index and the expiry queue; the messages lie on
//! a [`Shelf`]. Every store is a ledger over one kind of shelf, so that the meaning of a purge or of a
//! limit is written once. `change.rs` holds what changes, `read.rs` what only looks.
//!
//! # Invariant
//! For every subject the index holds the exact number of live messages and the exact newest one; its
//! `first` is a lower bound, exact whenever it is live: limits remove the oldest all the time, and the
//! next one on the subject is looked up only when somebody asks.

mod change;
mod read;

use std::cell::{Cell, OnceCell};

use super::shelf::{Shelf, Span, Topic};
use super::{
    Accounting, ChangeError, Counting, Deletion, Expiry, Limits, LostMessages, Message, NewMessage,
    Purge, ReadError, Removals, State, Store, SubjectState,
};
use crate::filter::Filter;
use crate::index::{ExpiryQueue, SubjectId, SubjectTree};

/// A store over one kind of shelf.
#[derive(Debug)]
pub struct Ledger<S> {
    pub(super) shelf: S,
    pub(super) limits: Limits,
    pub(super) index: SubjectTree<Span>,
    pub(super) expiry: ExpiryQueue,
    pub(super) totals: Totals,
    /// Every live message below this one never dies by age.
    age_cursor: u64,
    /// Time of the first live message, once somebody asked.
    first_time_ns: Cell<Option<i64>>,
    /// What was found first that cannot be read.
    damage: OnceCell<String>,
}

/// The totals of a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Totals {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) last_time_ns: i64,
}

impl<S: Shelf> Ledger<S> {
    /// A ledger over an empty shelf.
    pub(super) fn over(shelf: S, limits: Limits) -> Self {
        Self {
            shelf,
            limits,
            index: SubjectTree::new(),
            expiry: ExpiryQueue::default(),
            totals: Totals::default(),
            age_cursor: 0,
            first_time_ns: Cell::new(None),
            damage: OnceCell::new(),
        }
    }

    /// Remembers what could not be read.
    pub(super) fn note_damage(&self, reason: impl ToString) {
        self.damage.get_or_init(|| reason.to_string());
    }

    /// Hands a read on, and remembers that it failed.
    fn noted<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        read.inspect_err(|error| self.note_damage(error))
    }

    /// The oldest live message on a subject.
    fn exact_first(&self, topic: &Topic<'_>) -> u64 {
        let from = topic.span.first.max(self.totals.first_sequence);
        if from == topic.span.first && self.shelf.is_live(from) {
            return from;
        }
        self.shelf.next_on(topic, from).unwrap_or(topic.span.last)
    }

    fn topic<'a>(&self, subject: &'a [u8], id: SubjectId) -> Topic<'a> {
        Topic {
            subject,
            id,
            span: *self.index.value(id),
        }
    }
}

impl<S: Shelf> Store for Ledger<S> {
    fn append(
        &mut self,
        message: &NewMessage<'_>,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.append_message(message, removals)
    }

    fn skip(&mut self, last_sequence: u64, time_ns: i64) -> Result<(), ChangeError> {
        self.skip_to(last_sequence, time_ns)
    }

    fn delete(
        &mut self,
        sequence: u64,
        deletion: Deletion,
        removals: &mut dyn Removals,
    ) -> Result<bool, ChangeError> {
        self.begin()?;
        Ok(self.remove(sequence, deletion, removals))
    }

    fn purge(&mut self, purge: &Purge, removals: &mut dyn Removals) -> Result<u64, ChangeError> {
        self.purge_matching(purge, removals)
    }

    fn compact(
        &mut self,
        first_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        self.compact_below(first_sequence, removals)
    }

    fn truncate(
        &mut self,
        last_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.truncate_above(last_sequence, removals)
    }

    fn expire(
        &mut self,
        now_ns: i64,
        removals_max: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        self.expire_at(now_ns, removals_max, removals)
    }

    fn set_limits(
        &mut self,
        limits: Limits,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.apply_limits(limits, removals)
    }

    fn guesses(&self) -> u64 {
        self.shelf.guesses()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn accounting(&self) -> Accounting {
        self.shelf.accounting()
    }

    fn state(&self) -> State {
        self.read_state()
    }

    fn backlog_bytes(&mut self) -> usize {
        self.shelf.upkeep(&self.limits, &self.expiry);
        self.shelf.backlog_bytes()
    }

    fn is_at_hand(&self, sequence: u64) -> bool {
        let range = self.totals.first_sequence..=self.totals.last_sequence;
        !range.contains(&sequence) || self.shelf.is_at_hand(sequence)
    }

    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError> {
        if sequence < self.totals.first_sequence || sequence > self.totals.last_sequence {
            return Ok(None);
        }
        self.noted(self.shelf.load(sequence))
    }

    fn next(&self, from: u64, filter: &Filter) -> Result<Option<Message>, ReadError> {
        let from = from.max(self.totals.first_sequence);
        if self.totals.messages == 0 || from > self.totals.last_sequence {
            return Ok(None);
        }
        if filter.is_everything() {
            return self.noted(self.shelf.load_next(from));
        }
        match self.find_next(from, filter) {
            Some(sequence) => self.noted(self.shelf.load(sequence)),
            None => Ok(None),
        }
    }

    fn next_sequence(&self, from: u64, filter: &Filter) -> Option<u64> {
        self.find_next(from, filter)
    }

    fn previous_sequence(&self, upto: u64, filter: &Filter) -> Option<u64> {
        self.find_previous(upto, filter)
    }

    fn last_on(&self, subject: &[u8]) -> Result<Option<Message>, ReadError> {
        match self.index.get(subject) {
            Some(span) => self.noted(self.shelf.load(span.last)),
            None => Ok(None),
        }
    }

    fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    fn last_sequences(&self, filter: &Filter, upto: u64, results_max: usize) -> Option<Vec<u64>> {
        self.find_last_sequences(filter, upto, results_max)
    }

    fn count(&self, from: u64, filter: &Filter, counting: Counting) -> u64 {
        match counting {
            Counting::Every => self.count_every(from, filter),
            Counting::LastPerSubject => self.count_newest(from, filter),
        }
    }

    fn subject(&self, subject: &[u8]) -> Option<SubjectState> {
        let id = self.index.find(subject)?;
        Some(self.subject_state(&self.topic(subject, id)))
    }

    fn subjects(&self, filter: &Filter, visit: &mut dyn FnMut(&[u8], SubjectState) -> bool) {
        self.index.matching(filter, |subject, id, span| {
            let span = *span;
            let topic = Topic { subject, id, span };
            visit(subject, self.subject_state(&topic))
        });
    }

    fn deleted(&self, visit: &mut dyn FnMut(u64, u64) -> bool) {
        if self.totals.messages > 0 {
            let Totals {
                first_sequence,
                last_sequence,
                ..
            } = self.totals;
            self.shelf.gaps(first_sequence, last_sequence, visit);
        }
    }

    fn lost_messages(&self, listed_max: usize) -> LostMessages {
        self.shelf.lost_messages(listed_max)
    }

    fn sequence_at(&self, time_ns: i64) -> Option<u64> {
        self.shelf.sequence_at(time_ns)
    }

    fn expiry(&self, sequence: u64) -> Expiry {
        self.expiry.get(sequence)
    }

    fn next_expiry_ns(&self) -> Option<i64> {
        self.find_next_expiry()
    }

    fn due(&self, now_ns: i64, removals_max: u64) -> Vec<u64> {
        self.find_due(now_ns, removals_max)
    }
}
