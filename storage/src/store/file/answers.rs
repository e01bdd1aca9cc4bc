//! The shelf of a file store as its ledger uses it: every answer is put together from the blocks and the
//! tail, whichever may hold the sequences it is about.

use bytes::BytesMut;
use roaring::RoaringTreemap;

use super::files::Files;
use super::part::Part;
use crate::filter::Filter;
use crate::index::{ExpiryQueue, SubjectId};
use crate::store::shelf::{Ahead, Facts, Neighbors, Shelf, Topic};
use crate::store::tail::Gaps;
use crate::store::{
    Accounting, ChangeError, Deletion, Expiry, Limits, LostMessages, Message, NewMessage,
    ReadError, accounted_bytes,
};

/// Bodies are cut from pieces of memory that grow with the tail up to this, so that neither many small streams nor a message that
/// lives long keep much. Larger bodies get their own.
const ARENA_BYTES_MAX: usize = 256 << 10;
const ARENA_BYTES_MIN: usize = 1 << 10;

impl Shelf for Files {
    fn accounting(&self) -> Accounting {
        Accounting::File
    }

    fn check(&self) -> Result<(), ChangeError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(ChangeError::Failed(reason.clone())),
        }
    }

    fn upkeep(&mut self, limits: &Limits, expiry: &ExpiryQueue) {
        self.look_after(limits, expiry);
    }

    fn push(&mut self, message: &NewMessage<'_>, id: SubjectId, previous: u64) {
        let length = message.subject.len() + message.headers.len() + message.payload.len();
        if self.arena.capacity() - self.arena.len() < length {
            let arena_bytes = (self.tail_bytes / 8).clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX);
            self.arena = BytesMut::with_capacity(length.max(arena_bytes));
        }
        self.arena.extend_from_slice(message.subject);
        self.arena.extend_from_slice(message.headers);
        self.arena.extend_from_slice(message.payload);
        let body = self.arena.split().freeze();
        self.tail.push(message, body, id, previous);
        self.tail_bytes += length;
        if message.expiry != Expiry::ByAge {
            self.unsaved
                .expiries
                .push((message.sequence, message.expiry));
        }
    }

    fn remove(&mut self, sequence: u64, deletion: Deletion) -> Neighbors {
        if !self.in_tail(sequence) {
            self.forget_in_block(sequence, deletion);
            return Neighbors::default();
        }
        if deletion == Deletion::Erase && self.is_busy() {
            self.erased.insert(sequence);
        }
        let length = self.tail.body_length(sequence);
        self.tail_bytes = self.tail_bytes.saturating_sub(length);
        let mut neighbors = self.tail.remove(sequence);
        // Before the tail nobody keeps up who is next to whom.
        neighbors.previous = neighbors.previous.filter(|&at| self.is_live(at));
        neighbors
    }

    fn first_moved(&mut self, first: u64) {
        self.first = first;
        while !self.is_busy()
            && let Some(part) = self.sealed.first()
            && part.last < first
        {
            let part = self.sealed.remove(0);
            self.retire(&part);
        }
    }

    fn truncate(&mut self, last: u64) {
        self.unsaved.whole = true;
        if last == 0 {
            self.guesses.set(0);
        }
        if self.is_busy() {
            self.truncated = Some(self.truncated.map_or(last, |lower| lower.min(last)));
        }
        if let Some(above) = last.checked_add(1) {
            self.dead.remove_range(above..);
            self.unsaved.dead.remove_range(above..);
        }
        self.forget_unreadable_above(last);
        self.truncate_blocks(last);
    }

    fn clear(&mut self) {
        self.unsaved.whole = true;
        self.unsaved.files.clear();
        self.unsaved.expiries.clear();
        self.epoch += 1;
        self.flushing = false;
        for part in std::mem::take(&mut self.sealed) {
            self.retire(&part);
        }
        if let Some(open) = self.open.take() {
            self.retire(&open.part);
        }
        self.dead = RoaringTreemap::new();
        self.unreadable.get_mut().clear();
        self.unsaved.dead = RoaringTreemap::new();
        self.tail.clear();
        self.tail_bytes = 0;
        // Of nothing everything is known.
        self.guesses.set(0);
    }

    fn is_live(&self, sequence: u64) -> bool {
        if sequence < self.first {
            return false;
        }
        if self.in_tail(sequence) {
            return self.tail.is_live(sequence);
        }
        self.part_of(sequence)
            .is_some_and(|part| part.contains(sequence, self.everything(), self.cache()))
            && !self.is_dead(sequence)
    }

    fn facts(&self, sequence: u64) -> Option<Facts> {
        if self.in_tail(sequence) {
            return self.tail.facts(sequence, Accounting::File);
        }
        if self.is_dead(sequence) {
            return None;
        }
        let part = self.part_of(sequence)?;
        match self.read(part, sequence) {
            Ok(record) => {
                let message = record?.message;
                Some(Facts {
                    bytes: accounted_bytes(
                        message.subject.len(),
                        message.headers.len(),
                        message.payload.len(),
                    ),
                    subject: message.subject,
                    id: None,
                })
            }
            Err(_) => {
                self.guesses.set(self.guesses.get() + 1);
                let subject = part.subject_of(sequence, self.cache());
                Some(Facts {
                    subject: subject.unwrap_or_default().into(),
                    id: None,
                    bytes: part.accounted_bytes_mean(),
                })
            }
        }
    }

    fn time_ns(&self, sequence: u64) -> Option<i64> {
        self.time_or_guess(sequence).map(|(time_ns, _)| time_ns)
    }

    fn deciding_time_ns(&self, sequence: u64) -> Option<i64> {
        let (time_ns, is_guess) = self.time_or_guess(sequence)?;
        if is_guess {
            self.guesses.set(self.guesses.get() + 1);
        }
        Some(time_ns)
    }

    fn backlog_bytes(&self) -> usize {
        self.tail_bytes
    }

    fn is_at_hand(&self, sequence: u64) -> bool {
        // A sealed block is read where it is mapped, and its pages may be anywhere.
        self.in_tail(sequence)
            || self.is_dead(sequence)
            || self.part_of(sequence).is_none_or(Part::is_recent)
    }

    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError> {
        if self.in_tail(sequence) {
            return Ok(self.tail.load(sequence));
        }
        if self.is_dead(sequence) {
            return Ok(None);
        }
        let Some(part) = self.part_of(sequence) else {
            return Ok(None);
        };
        let record = self.read(part, sequence)?;
        Ok(record.map(|record| record.message))
    }

    fn load_next(&self, from: u64) -> Result<Option<Message>, ReadError> {
        // Most often it is the very next one of a block without gaps.
        if !self.in_tail(from)
            && !self.is_dead(from)
            && let Some(part) = self.part_of(from)
            && part.is_dense()
        {
            let record = self.read(part, from)?;
            return Ok(record.map(|record| record.message));
        }
        match self.next_live(from) {
            Some(sequence) => self.load(sequence),
            None => Ok(None),
        }
    }

    fn next_live(&self, from: u64) -> Option<u64> {
        if !self.in_tail(from)
            && let Some(found) = self.next_in_blocks(from, u64::MAX, self.everything())
        {
            return Some(found);
        }
        self.tail.next_live(from)
    }

    fn previous_live(&self, upto: u64) -> Option<u64> {
        if let Some(found) = self.tail.previous_live(upto) {
            return Some(found);
        }
        self.previous_in_blocks(self.first, upto, self.everything())
    }

    fn count_live(&self, from: u64, below: u64) -> u64 {
        let mut count = 0;
        if !self.in_tail(from) {
            for part in self.parts_from(from) {
                if part.first >= below {
                    break;
                }
                let start = from.max(part.first);
                let end = below.min(part.last.saturating_add(1));
                if start >= end {
                    continue;
                }
                count += part.count(start, end, self.everything(), self.cache());
                count -= self.dead.range_cardinality(start..end).min(count);
            }
        }
        count + self.tail.count_live(from, below)
    }

    fn next_on(&self, topic: &Topic<'_>, from: u64) -> Option<u64> {
        if !self.in_tail(from) {
            let filter = Filter::literal(topic.subject);
            if let Some(found) = self.next_in_blocks(from, topic.span.last, &filter) {
                return Some(found);
            }
        }
        match self.in_tail(topic.span.last) {
            true => self.tail.next_on(topic, from),
            false => None,
        }
    }

    fn previous_on(&self, topic: &Topic<'_>, upto: u64) -> Option<u64> {
        if self.in_tail(upto)
            && let Some(found) = self.tail.previous_on(topic, upto)
        {
            return Some(found);
        }
        let from = self.first.max(topic.span.first);
        self.previous_in_blocks(from, upto, &Filter::literal(topic.subject))
    }

    fn count_on(&self, topic: &Topic<'_>, from: u64) -> u64 {
        let tail = match self.in_tail(topic.span.last) {
            true => self.tail.count_on(topic, from),
            false => 0,
        };
        match self.in_tail(from) {
            true => tail,
            false => tail + self.count_in_blocks(from, &Filter::literal(topic.subject)),
        }
    }

    fn indexed_below(&self) -> u64 {
        self.tail.first_sequence().unwrap_or(u64::MAX)
    }

    fn ahead(&self, from: u64, filter: &Filter) -> Ahead {
        match self.in_tail(from) {
            true => self.tail.ahead(from, filter),
            false => Ahead::Unknown(from),
        }
    }

    fn next_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        if !self.in_tail(from)
            && let Some(found) = self.next_in_blocks(from, upto, filter)
        {
            return Some(found);
        }
        self.tail.next_matching(from, upto, filter)
    }

    fn previous_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        if let Some(found) = self.tail.previous_matching(from, upto, filter) {
            return Some(found);
        }
        self.previous_in_blocks(from, upto, filter)
    }

    fn count_matching(&self, from: u64, filter: &Filter) -> u64 {
        let tail = self.tail.count_matching(from, filter);
        match self.in_tail(from) {
            true => tail,
            false => tail + self.count_in_blocks(from, filter),
        }
    }

    fn gaps(&self, first: u64, last: u64, visit: &mut dyn FnMut(u64, u64) -> bool) {
        let mut gaps = Gaps::new(first, last, visit);
        for part in self.parts_from(first) {
            if part.is_dense() && self.dead_within(part) == 0 {
                gaps.live_range(part.first.max(first), part.last);
                continue;
            }
            part.sequences(first, self.everything(), self.cache(), &mut |sequence| {
                self.is_dead(sequence) || gaps.live(sequence)
            });
        }
        for slot in self.tail.slots_from(first).filter(|slot| slot.is_live()) {
            if !gaps.live(slot.sequence) {
                return;
            }
        }
        gaps.finish();
    }

    fn sequence_at(&self, time_ns: i64) -> Option<u64> {
        for part in self.parts_from(self.first) {
            if part.last_time_ns().is_some_and(|last| last < time_ns) {
                continue;
            }
            if let Some(found) = part.sequence_at(time_ns, self.first, self.cache()) {
                return self.next_live(found);
            }
        }
        self.tail.sequence_at(time_ns)
    }

    fn guesses(&self) -> u64 {
        self.guesses.get()
    }

    fn lost(&self) -> u64 {
        self.lost_count()
    }

    fn lost_messages(&self, listed_max: usize) -> LostMessages {
        Files::lost_messages(self, listed_max)
    }
}
