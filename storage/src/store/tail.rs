//! Messages in memory, in the order of their sequences.
//!
//! Every message knows the one before and the one after it on its subject, so that the neighbours of a
//! removed message cost nothing to find. Removed messages leave an empty slot, until it is at an end or
//! such slots are the majority.

#![expect(
    clippy::indexing_slicing,
    reason = "places come from searches of the same slots, and lengths were taken when a body was made"
)]

use std::collections::VecDeque;

use bytes::Bytes;

use super::shelf::{Ahead, Facts, Neighbors, Topic};
use super::{Accounting, Message, NewMessage};
use crate::filter::Filter;
use crate::index::SubjectId;

/// Messages that [`Tail::ahead`] looks at.
const AHEAD_MESSAGES_MAX: usize = 128;
/// Empty slots that are always tolerated.
const EMPTY_SLOTS_MIN: usize = 1024;

/// One message, or where one was.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) sequence: u64,
    pub(super) time_ns: i64,
    /// Subject, headers and payload, one after the other.
    body: Bytes,
    /// The neighbours on the same subject, 0 for none.
    previous: u64,
    next: u64,
    subject_bytes: u32,
    headers_bytes: u32,
    /// `None` when the message is gone.
    id: Option<SubjectId>,
}

impl Slot {
    pub(super) fn is_live(&self) -> bool {
        self.id.is_some()
    }

    pub(super) fn subject(&self) -> &[u8] {
        &self.body[..self.subject_bytes as usize]
    }

    /// Subject, headers and payload as they lie in memory, and where the first two end.
    pub(super) fn body(&self) -> (&Bytes, u32, u32) {
        (&self.body, self.subject_bytes, self.headers_bytes)
    }

    fn accounted_bytes(&self, accounting: Accounting) -> u64 {
        let subject = self.subject_bytes as usize;
        let headers = self.headers_bytes as usize;
        accounting.bytes(subject, headers, self.body.len() - subject - headers)
    }

    fn message(&self) -> Message {
        let subject_end = self.subject_bytes as usize;
        let headers_end = subject_end + self.headers_bytes as usize;
        Message {
            sequence: self.sequence,
            time_ns: self.time_ns,
            subject: self.body.slice(..subject_end),
            headers: self.body.slice(subject_end..headers_end),
            payload: self.body.slice(headers_end..),
        }
    }
}

/// A run of messages in memory.
#[derive(Debug, Default)]
pub(super) struct Tail {
    slots: VecDeque<Slot>,
    empty: usize,
}

impl Tail {
    /// Takes a message whose subject, headers and payload were copied to `body`.
    pub(super) fn push(
        &mut self,
        message: &NewMessage<'_>,
        body: Bytes,
        id: SubjectId,
        previous: u64,
    ) {
        debug_assert!(
            self.slots
                .back()
                .is_none_or(|slot| slot.sequence < message.sequence)
        );
        if let Some(place) = self.find(previous) {
            self.slots[place].next = message.sequence;
        }
        self.slots.push_back(Slot {
            sequence: message.sequence,
            time_ns: message.time_ns,
            body,
            previous,
            next: 0,
            subject_bytes: message.subject.len() as u32,
            headers_bytes: message.headers.len() as u32,
            id: Some(id),
        });
    }

    /// The lowest sequence that has a slot.
    pub(super) fn first_sequence(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.sequence)
    }

    /// Slots at or after `from`, empty ones too.
    pub(super) fn slots_from(&self, from: u64) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.range(self.lower_bound(from)..)
    }

    /// How many messages there are.
    pub(super) fn live(&self) -> usize {
        self.slots.len() - self.empty
    }

    /// The place of the first slot at or after `sequence`.
    fn lower_bound(&self, sequence: u64) -> usize {
        let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else {
            return 0;
        };
        if sequence <= front.sequence {
            return 0;
        }
        if sequence > back.sequence {
            return self.slots.len();
        }
        // Sequences grow by one or more per slot, which bounds the place from both ends; they meet
        // when there is no gap.
        let last = self.slots.len() - 1;
        let mut high = usize::try_from(sequence - front.sequence).map_or(last, |far| far.min(last));
        let mut low =
            last - usize::try_from(back.sequence - sequence).map_or(last, |far| far.min(last));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.slots[middle].sequence < sequence {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn find(&self, sequence: u64) -> Option<usize> {
        let place = self.lower_bound(sequence);
        self.slots
            .get(place)
            .is_some_and(|slot| slot.sequence == sequence && slot.is_live())
            .then_some(place)
    }

    fn live_slot(&self, sequence: u64) -> Option<&Slot> {
        self.find(sequence).map(|place| &self.slots[place])
    }

    pub(super) fn is_live(&self, sequence: u64) -> bool {
        self.find(sequence).is_some()
    }

    pub(super) fn facts(&self, sequence: u64, accounting: Accounting) -> Option<Facts> {
        let slot = self.live_slot(sequence)?;
        Some(Facts {
            subject: slot.body.slice(..slot.subject_bytes as usize),
            id: slot.id,
            bytes: slot.accounted_bytes(accounting),
        })
    }

    pub(super) fn time_ns(&self, sequence: u64) -> Option<i64> {
        self.live_slot(sequence).map(|slot| slot.time_ns)
    }

    /// Bytes of subject, headers and payload of a live message.
    pub(super) fn body_length(&self, sequence: u64) -> usize {
        self.live_slot(sequence).map_or(0, |slot| slot.body.len())
    }

    pub(super) fn load(&self, sequence: u64) -> Option<Message> {
        self.live_slot(sequence).map(Slot::message)
    }

    /// Empties the slot of a live message. A neighbour may lie before the tail and be gone.
    pub(super) fn remove(&mut self, sequence: u64) -> Neighbors {
        let Some(place) = self.find(sequence) else {
            return Neighbors::default();
        };
        let slot = &mut self.slots[place];
        slot.id = None;
        slot.body = Bytes::new();
        slot.subject_bytes = 0;
        slot.headers_bytes = 0;
        let (previous, next) = (slot.previous, slot.next);
        self.empty += 1;
        if let Some(place) = self.find(previous) {
            self.slots[place].next = next;
        }
        if let Some(place) = self.find(next) {
            self.slots[place].previous = previous;
        }
        self.trim();
        Neighbors {
            previous: (previous != 0).then_some(previous),
            next: (next != 0).then_some(next),
        }
    }

    fn trim(&mut self) {
        while self.slots.front().is_some_and(|slot| !slot.is_live()) {
            self.slots.pop_front();
            self.empty -= 1;
        }
        while self.slots.back().is_some_and(|slot| !slot.is_live()) {
            self.slots.pop_back();
            self.empty -= 1;
        }
        if self.empty > EMPTY_SLOTS_MIN && self.empty > self.slots.len() / 2 {
            self.slots.retain(Slot::is_live);
            self.empty = 0;
        }
        if self.slots.capacity() > 4 * EMPTY_SLOTS_MIN
            && self.slots.len() < self.slots.capacity() / 4
        {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// Forgets everything at or before `upto`: it lies elsewhere now. The answer is how long the forgotten bodies were.
    pub(super) fn forget_upto(&mut self, upto: u64) -> usize {
        let mut bytes = 0;
        while let Some(slot) = self.slots.front()
            && slot.sequence <= upto
        {
            if !slot.is_live() {
                self.empty -= 1;
            }
            bytes += slot.body.len();
            self.slots.pop_front();
        }
        self.trim();
        bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next_live(&self, from: u64) -> Option<u64> {
        self.slots_from(from)
            .find(|slot| slot.is_live())
            .map(|slot| slot.sequence)
    }

    fn slots_upto(&self, upto: u64) -> impl DoubleEndedIterator<Item = &Slot> {
        let end = match upto.checked_add(1) {
            Some(above) => self.lower_bound(above),
            None => self.slots.len(),
        };
        self.slots.range(..end)
    }

    pub(super) fn previous_live(&self, upto: u64) -> Option<u64> {
        self.slots_upto(upto)
            .rev()
            .find(|slot| slot.is_live())
            .map(|slot| slot.sequence)
    }

    pub(super) fn count_live(&self, from: u64, below: u64) -> u64 {
        let (start, end) = (self.lower_bound(from), self.lower_bound(below));
        if start >= end {
            return 0;
        }
        if self.empty == 0 {
            return (end - start) as u64;
        }
        self.slots.range(start..end).filter(|s| s.is_live()).count() as u64
    }

    /// The first message on a subject at or after `from`: from `from` upwards and from the newest downwards in turns, since
    /// one of them is near when the subject is frequent and the other when it is rare.
    pub(super) fn next_on(&self, topic: &Topic<'_>, from: u64) -> Option<u64> {
        if topic.span.last < from {
            return None;
        }
        let mut back = self.find(topic.span.last);
        for slot in self.slots_from(from) {
            if slot.id == Some(topic.id) {
                return Some(slot.sequence);
            }
            if let Some(place) = back {
                let slot = &self.slots[place];
                if slot.previous < from {
                    return Some(slot.sequence);
                }
                match self.find(slot.previous) {
                    Some(place) => back = Some(place),
                    // Before the tail: this is the first one in it.
                    None => return Some(slot.sequence),
                }
            }
        }
        None
    }

    /// The last message on a subject at or before `upto`, looked for from both sides as in [`Tail::next_on`].
    pub(super) fn previous_on(&self, topic: &Topic<'_>, upto: u64) -> Option<u64> {
        let mut back = self.find(topic.span.last);
        for seen in self.slots_upto(upto).rev() {
            if seen.id == Some(topic.id) {
                return Some(seen.sequence);
            }
            if let Some(place) = back {
                let slot = &self.slots[place];
                if slot.sequence <= upto {
                    return Some(slot.sequence);
                }
                // Nothing on the subject lies before the first one in the tail.
                back = Some(self.find(slot.previous)?);
            }
        }
        None
    }

    pub(super) fn count_on(&self, topic: &Topic<'_>, from: u64) -> u64 {
        let mut count = 0;
        let mut back = self.find(topic.span.last);
        while let Some(place) = back {
            let slot = &self.slots[place];
            if slot.sequence < from {
                break;
            }
            count += 1;
            back = self.find(slot.previous);
        }
        count
    }

    pub(super) fn ahead(&self, from: u64, filter: &Filter) -> Ahead {
        let mut last = from;
        for slot in self.slots_from(from).take(AHEAD_MESSAGES_MAX) {
            if slot.is_live() && filter.matches(slot.subject()) {
                return Ahead::Found(slot.sequence);
            }
            last = slot.sequence + 1;
        }
        Ahead::Unknown(last)
    }

    pub(super) fn next_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        self.slots_from(from)
            .take_while(|slot| slot.sequence <= upto)
            .find(|slot| slot.is_live() && filter.matches(slot.subject()))
            .map(|slot| slot.sequence)
    }

    pub(super) fn previous_matching(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        self.slots_upto(upto)
            .rev()
            .take_while(|slot| slot.sequence >= from)
            .find(|slot| slot.is_live() && filter.matches(slot.subject()))
            .map(|slot| slot.sequence)
    }

    pub(super) fn count_matching(&self, from: u64, filter: &Filter) -> u64 {
        self.slots_from(from)
            .filter(|slot| slot.is_live() && filter.matches(slot.subject()))
            .count() as u64
    }

    /// The first live message at or after the time.
    pub(super) fn sequence_at(&self, time_ns: i64) -> Option<u64> {
        let place = self.slots.partition_point(|slot| slot.time_ns < time_ns);
        self.slots
            .range(place..)
            .find(|slot| slot.is_live())
            .map(|slot| slot.sequence)
    }
}

/// Turns an ascending series of live sequences into the ranges between them.
pub(super) struct Gaps<'a> {
    expected: u64,
    last: u64,
    visit: &'a mut dyn FnMut(u64, u64) -> bool,
    stopped: bool,
}

impl<'a> Gaps<'a> {
    /// Between `first` and `last`, both included.
    pub(super) fn new(first: u64, last: u64, visit: &'a mut dyn FnMut(u64, u64) -> bool) -> Self {
        Self {
            expected: first,
            last,
            visit,
            stopped: false,
        }
    }

    /// The next live one; `false` when no more is wanted.
    pub(super) fn live(&mut self, sequence: u64) -> bool {
        self.live_range(sequence, sequence)
    }

    /// All of a range is live.
    pub(super) fn live_range(&mut self, first: u64, last: u64) -> bool {
        if self.stopped || first > self.last {
            return false;
        }
        if first > self.expected && !(self.visit)(self.expected, first - 1) {
            self.stopped = true;
        }
        self.expected = self.expected.max(last.saturating_add(1));
        !self.stopped
    }

    /// What lies behind the last live one.
    pub(super) fn finish(self) {
        if !self.stopped && self.expected <= self.last {
            (self.visit)(self.expected, self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 80, "{}", size_of::<Slot>());
    }
}
