//! Messages kept in memory only.

use bytes::Bytes;

use super::shelf::{Ahead, Facts, Neighbors, Shelf, Topic};
use super::tail::{Gaps, Tail};
use super::{Accounting, ChangeError, Deletion, Ledger, Limits, Message, NewMessage, ReadError};
use crate::filter::Filter;
use crate::index::{ExpiryQueue, SubjectId};

/// A store that holds its messages in memory. Each message is one allocation, so that memory follows what is live.
pub type MemStore = Ledger<Memory>;

/// The shelf of a [`MemStore`].
#[derive(Debug)]
pub struct Memory {
    tail: Tail,
    accounting: Accounting,
}

impl MemStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self::counting(limits, Accounting::Memory)
    }

    /// An empty store that counts in another way: it stands for a store of another kind.
    pub fn counting(limits: Limits, accounting: Accounting) -> Self {
        let tail = Tail::default();
        Ledger::over(Memory { tail, accounting }, limits)
    }
}

impl Shelf for Memory {
    fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn check(&self) -> Result<(), ChangeError> {
        Ok(())
    }

    fn upkeep(&mut self, _limits: &Limits, _expiry: &ExpiryQueue) {}

    fn push(&mut self, message: &NewMessage<'_>, id: SubjectId, previous: u64) {
        let length = message.subject.len() + message.headers.len() + message.payload.len();
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(message.subject);
        body.extend_from_slice(message.headers);
        body.extend_from_slice(message.payload);
        self.tail.push(message, Bytes::from(body), id, previous);
    }

    fn remove(&mut self, sequence: u64, _deletion: Deletion) -> Neighbors {
        self.tail.remove(sequence)
    }

    fn first_moved(&mut self, _first: u64) {}

    fn truncate(&mut self, _last: u64) {}

    fn clear(&mut self) {
        self.tail.clear();
    }

    fn is_live(&self, sequence: u64) -> bool {
        self.tail.is_live(sequence)
    }

    fn facts(&self, sequence: u64) -> Option<Facts> {
        self.tail.facts(sequence, self.accounting)
    }

    fn time_ns(&self, sequence: u64) -> Option<i64> {
        self.tail.time_ns(sequence)
    }

    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError> {
        Ok(self.tail.load(sequence))
    }

    fn load_next(&self, from: u64) -> Result<Option<Message>, ReadError> {
        Ok(self.tail.next_live(from).and_then(|at| self.tail.load(at)))
    }

    fn next_live(&self, from: u64) -> Option<u64> {
        self.tail.next_live(from)
    }

    fn previous_live(&self, upto: u64) -> Option<u64> {
        self.tail.previous_live(upto)
    }

    fn count_live(&self, from: u64, below: u64) -> u64 {
        self.tail.count_live(from, below)
    }

    fn next_on(&self, topic: &Topic<'_>, from: u64) -> Option<u64> {
        self.tail.next_on(topic, from)
    }

    fn previous_on(&self, topic: &Topic<'_>, upto: u64) -> Option<u64> {
        self.tail.previous_on(topic, upto)
    }

    fn count_on(&self, topic: &Topic<'_>, from: u64) -> u64 {
        self.tail.count_on(topic, from)
    }

    fn indexed_below(&self) -> u64 {
        0
    }

    fn ahead(&self, from: u64, filter: &Filter) -> Ahead {
        self.tail.ahead(from, filter)
    }

    fn next_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        self.tail.next_matching(from, upto, filter)
    }

    fn previous_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        self.tail.previous_matching(from, upto, filter)
    }

    fn count_matching(&self, from: u64, filter: &Filter) -> u64 {
        self.tail.count_matching(from, filter)
    }

    fn gaps(&self, first: u64, last: u64, visit: &mut dyn FnMut(u64, u64) -> bool) {
        let mut gaps = Gaps::new(first, last, visit);
        for slot in self.tail.slots_from(first).filter(|slot| slot.is_live()) {
            if !gaps.live(slot.sequence) {
                return;
            }
        }
        gaps.finish();
    }

    fn sequence_at(&self, time_ns: i64) -> Option<u64> {
        self.tail.sequence_at(time_ns)
    }

    fn lost(&self) -> u64 {
        0
    }
}
