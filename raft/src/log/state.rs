//! A group's log as it stands in memory: votes, marks, and of the entries that are not purged the newest in full and the older ones by their place in
//! the journal.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use storage::journal::Location;

use crate::codec::{entry_bytes, log_id};
use crate::types::{Entry, LogId, Payload, Vote};

/// What an entry takes in memory beside its command.
const ENTRY_BYTES: usize = 128;

/// What the log holds. The entries are consecutive and begin right after `purged`.
#[derive(Debug, Clone)]
pub struct LogImage {
    /// The last vote.
    pub vote: Option<Vote>,
    /// How far the log was known to be committed when that was last written down.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    slots: VecDeque<Slot>,
    /// How many slots at the front were emptied into the journal.
    evicted: usize,
    /// Bytes of the entries in memory.
    held_bytes: usize,
    /// Bytes that the entries are in the journal.
    logged_bytes: u64,
    /// More than this is emptied into the journal.
    tail_bytes_max: usize,
}

#[derive(Debug, Clone)]
struct Slot {
    term: u64,
    /// Names the append, so that a completion that comes after the entry was replaced is told apart.
    token: u64,
    location: Option<Location>,
    entry: Option<Entry>,
    /// How many it is in the journal.
    logged_bytes: u32,
}

/// An entry, or where it is to be read.
#[derive(Debug, Clone)]
pub enum Held {
    /// In memory.
    Entry(Entry),
    /// In the journal.
    Stored {
        /// Its identity, to check what is read.
        id: LogId,
        /// Where.
        location: Location,
    },
}

/// An operation that would tear a hole into the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} does not follow: the next of this log is {expected}")]
pub struct Hole {
    /// The index given.
    pub index: u64,
    /// The index that would follow.
    pub expected: u64,
}

impl Default for LogImage {
    fn default() -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            slots: VecDeque::new(),
            evicted: 0,
            held_bytes: 0,
            logged_bytes: 0,
            tail_bytes_max: usize::MAX,
        }
    }
}

impl LogImage {
    /// The index of the first entry that is held, or would be.
    pub fn first_index(&self) -> u64 {
        match (&self.purged, self.slots.front()) {
            (Some(purged), _) => purged.index + 1,
            (None, Some(slot)) => slot.entry.as_ref().map_or(0, |entry| entry.log_id.index),
            (None, None) => 0,
        }
    }

    /// The index that the next entry will have.
    pub fn next_index(&self) -> u64 {
        self.first_index() + self.slots.len() as u64
    }

    /// The last entry's log id; the purged one's when none is held.
    pub fn last_log_id(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(log_id(slot.term, self.next_index() - 1)),
            None => self.purged,
        }
    }

    /// Whether nothing was ever logged, voted or purged here.
    pub fn is_blank(&self) -> bool {
        self.vote.is_none() && self.purged.is_none() && self.slots.is_empty()
    }

    /// The identities of the entries.
    pub fn log_ids(&self) -> impl ExactSizeIterator<Item = LogId> {
        let first = self.first_index();
        let slots = self.slots.iter().enumerate();
        slots.map(move |(at, slot)| log_id(slot.term, first + at as u64))
    }

    /// The term of the entry at that index, if the log holds it.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        let at = index.checked_sub(self.first_index())?;
        let slot = self.slots.get(usize::try_from(at).ok()?)?;
        Some(slot.term)
    }

    /// Bytes that the entries are in the journal.
    pub fn logged_bytes(&self) -> u64 {
        self.logged_bytes
    }

    /// Bytes of entries that are held in memory.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Says how many bytes of entries may stay in memory. A log that was never purged keeps all until it is.
    pub fn set_tail_bytes_max(&mut self, bytes: usize) {
        self.tail_bytes_max = bytes;
        self.evict();
    }

    /// Begins the log right after `at`, where the state machine stands, unless it is known to begin somewhere else.
    pub fn begin_after(&mut self, at: LogId) {
        let follows = self.slots.is_empty() || self.first_index() == at.index + 1;
        if self.purged.is_none() && follows {
            self.purged = Some(at);
        }
    }

    /// Adds the next entry; `token` names its append. A log that holds nothing and has purged nothing may begin anywhere.
    pub fn push(&mut self, entry: Entry, token: u64) -> Result<(), Hole> {
        self.add(entry, token, None)
    }

    /// Adds the next entry, as it was found in the journal.
    pub fn push_stored(&mut self, entry: Entry, location: Location) -> Result<(), Hole> {
        self.add(entry, 0, Some(location))
    }

    fn add(&mut self, entry: Entry, token: u64, location: Option<Location>) -> Result<(), Hole> {
        let index = entry.log_id.index;
        let expected = self.next_index();
        let anywhere = self.slots.is_empty() && self.purged.is_none();
        if index != expected && !anywhere {
            return Err(Hole { index, expected });
        }
        self.held_bytes += bytes_of(&entry);
        let logged_bytes = u32::try_from(entry_bytes(&entry)).unwrap_or(u32::MAX);
        self.logged_bytes += u64::from(logged_bytes);
        self.slots.push_back(Slot {
            term: entry.log_id.leader_id.term,
            token,
            location,
            entry: Some(entry),
            logged_bytes,
        });
        self.evict();
        Ok(())
    }

    /// The entry that was appended under `token` is durable, there.
    pub fn locate(&mut self, index: u64, token: u64, location: Location) {
        let at = index.checked_sub(self.first_index());
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.slots.get_mut(at))
            && slot.token == token
        {
            slot.location = Some(location);
        }
    }

    /// Empties the oldest entries into the journal until few enough bytes are left. Entries that are not durable yet stay, and so does the first of a
    /// log that was never purged, which alone says where the log begins.
    pub fn evict(&mut self) {
        if self.purged.is_none() {
            return;
        }
        while self.held_bytes > self.tail_bytes_max {
            let Some(slot) = self.slots.get_mut(self.evicted) else {
                return;
            };
            if slot.location.is_none() {
                return;
            }
            self.held_bytes -= slot.entry.take().as_ref().map_or(0, bytes_of);
            self.evicted += 1;
        }
    }

    /// Forgets the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        let keep = index.saturating_sub(self.first_index());
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        while self.slots.len() > keep {
            let Some(slot) = self.slots.pop_back() else {
                break;
            };
            self.held_bytes -= slot.entry.as_ref().map_or(0, bytes_of);
            self.logged_bytes -= u64::from(slot.logged_bytes);
        }
        self.evicted = self.evicted.min(self.slots.len());
    }

    /// Forgets the entries up to and including `upto`, which may lie beyond the last.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let mut first = self.first_index();
        while first <= upto.index {
            let Some(slot) = self.slots.pop_front() else {
                break;
            };
            self.held_bytes -= slot.entry.as_ref().map_or(0, bytes_of);
            self.logged_bytes -= u64::from(slot.logged_bytes);
            self.evicted = self.evicted.saturating_sub(1);
            first += 1;
        }
        self.purged = Some(upto);
        self.evict();
    }

    /// The entries in `range` that are not purged, as many of them as `bytes_max` allows, and one at least. What is not in memory counts as if it were empty.
    pub fn range(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Held> {
        let first = self.first_index();
        let begin = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => first,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => self.next_index(),
        };
        let begin = begin.max(first);
        let end = end.min(self.next_index());
        if begin >= end {
            return Vec::new();
        }
        let skip = usize::try_from(begin - first).unwrap_or(usize::MAX);
        let take = usize::try_from(end - begin).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut held = Vec::new();
        for (at, slot) in self.slots.iter().enumerate().skip(skip).take(take) {
            bytes += slot.entry.as_ref().map_or(ENTRY_BYTES, bytes_of);
            if bytes > bytes_max && !held.is_empty() {
                break;
            }
            held.extend(slot.held(first + at as u64));
        }
        held
    }
}

impl Slot {
    fn held(&self, index: u64) -> Option<Held> {
        match (&self.entry, self.location) {
            (Some(entry), _) => Some(Held::Entry(entry.clone())),
            (None, Some(location)) => Some(Held::Stored {
                id: log_id(self.term, index),
                location,
            }),
            (None, None) => None,
        }
    }
}

fn bytes_of(entry: &Entry) -> usize {
    ENTRY_BYTES
        + match &entry.payload {
            Payload::Normal(command) => command.0.len(),
            Payload::Blank | Payload::Membership(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ENTRY_HEAD_BYTES;

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: log_id(1, index),
            payload: Payload::Blank,
        }
    }

    fn image(range: std::ops::Range<u64>) -> LogImage {
        let mut image = LogImage::default();
        for index in range {
            image.push(entry(index), index).unwrap();
        }
        image
    }

    fn location(at: u32) -> Location {
        Location {
            segment: 1,
            commit_at: 0,
            frame_at: at,
        }
    }

    fn indexes(held: &[Held]) -> Vec<u64> {
        let index = |held: &Held| match held {
            Held::Entry(entry) => entry.log_id.index,
            Held::Stored { id, .. } => id.index,
        };
        held.iter().map(index).collect()
    }

    fn stored(held: &[Held]) -> usize {
        let stored = held.iter();
        stored
            .filter(|held| matches!(held, Held::Stored { .. }))
            .count()
    }

    #[test]
    fn an_entry_that_does_not_follow_is_refused() {
        let mut image = image(3..6);
        let (index, expected) = (7, 6);
        assert_eq!(image.push(entry(7), 7), Err(Hole { index, expected }));
        assert_eq!(image.push(entry(6), 6), Ok(()));
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_beginning_there() {
        let mut image = image(0..4);
        image.purge(log_id(2, 9));
        assert_eq!(image.first_index(), 10);
        assert_eq!(image.last_log_id(), Some(log_id(2, 9)));
        image.push(entry(10), 10).unwrap();
        assert_eq!(indexes(&image.range(.., usize::MAX)), [10]);
    }

    #[test]
    fn ranges_give_what_is_held_and_no_more() {
        let mut image = image(0..10);
        image.purge(log_id(1, 3));
        assert_eq!(indexes(&image.range(0..6, usize::MAX)), [4, 5]);
        assert_eq!(indexes(&image.range(8..=20, usize::MAX)), [8, 9]);
        assert_eq!(indexes(&image.range(4.., 1)), [4]);
        assert_eq!(indexes(&image.range(4.., 2 * ENTRY_BYTES)), [4, 5]);
        assert!(image.range(20..30, usize::MAX).is_empty());
        image.truncate(6);
        assert_eq!(indexes(&image.range(.., usize::MAX)), [4, 5]);
        image.truncate(0);
        assert!(image.range(.., usize::MAX).is_empty());
        assert_eq!(image.next_index(), 4);
    }

    #[test]
    fn only_durable_entries_leave_memory_and_the_oldest_first() {
        let mut image = image(1..11);
        image.begin_after(log_id(0, 0));
        image.set_tail_bytes_max(3 * ENTRY_BYTES);
        assert_eq!(stored(&image.range(.., usize::MAX)), 0);
        for index in 1..=9 {
            image.locate(index, index, location(index as u32));
        }
        image.evict();
        let held = image.range(.., usize::MAX);
        assert_eq!(indexes(&held), (1..11).collect::<Vec<_>>());
        assert_eq!(stored(&held), 7);
        assert_eq!(image.held_bytes(), 3 * ENTRY_BYTES);
        assert_eq!(image.logged_bytes(), 10 * ENTRY_HEAD_BYTES as u64);
        image.truncate(4);
        assert_eq!(image.held_bytes(), 0);
        image.push(entry(4), 20).unwrap();
        image.purge(log_id(1, 2));
        assert_eq!(indexes(&image.range(.., usize::MAX)), [3, 4]);
        assert_eq!(image.logged_bytes(), 2 * ENTRY_HEAD_BYTES as u64);
    }

    #[test]
    fn a_completion_of_a_replaced_entry_locates_nothing() {
        let mut image = image(1..4);
        image.begin_after(log_id(0, 0));
        image.truncate(3);
        image.push(entry(3), 9).unwrap();
        image.locate(3, 3, location(3));
        image.locate(1, 1, location(1));
        image.locate(2, 2, location(2));
        image.set_tail_bytes_max(0);
        assert_eq!(stored(&image.range(.., usize::MAX)), 2);
    }
}
