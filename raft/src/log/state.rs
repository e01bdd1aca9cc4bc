//! A group's log as it stands in memory: votes, marks and the entries that are not purged.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use crate::types::{Entry, LogId, Vote};

/// What the log holds. The entries are consecutive and begin right after `purged`.
#[derive(Debug, Clone, Default)]
pub struct LogImage {
    /// The last vote.
    pub vote: Option<Vote>,
    /// How far the log was known to be committed when that was last written down.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    entries: VecDeque<Entry>,
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

impl LogImage {
    /// The index of the first entry that is held, or would be.
    pub fn first_index(&self) -> u64 {
        match &self.purged {
            Some(purged) => purged.index + 1,
            None => self.entries.front().map_or(0, |entry| entry.log_id.index),
        }
    }

    /// The index that the next entry will have.
    pub fn next_index(&self) -> u64 {
        self.first_index() + self.entries.len() as u64
    }

    /// The last entry's log id; the purged one's when none is held.
    pub fn last_log_id(&self) -> Option<LogId> {
        self.entries
            .back()
            .map(|entry| entry.log_id)
            .or(self.purged)
    }

    /// The entries held.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Adds the next entry. A log that holds nothing and has purged nothing may begin anywhere.
    pub fn push(&mut self, entry: Entry) -> Result<(), Hole> {
        let index = entry.log_id.index;
        let expected = self.next_index();
        let anywhere = self.entries.is_empty() && self.purged.is_none();
        if index != expected && !anywhere {
            return Err(Hole { index, expected });
        }
        self.entries.push_back(entry);
        Ok(())
    }

    /// Forgets the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        let keep = index.saturating_sub(self.first_index());
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Forgets the entries up to and including `upto`, which may lie beyond the last.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.log_id.index <= upto.index)
        {
            self.entries.pop_front();
        }
        self.purged = Some(upto);
    }

    /// The entries in `range` that are held.
    pub fn range(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
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
        let end = end.min(self.next_index());
        let begin = begin.max(first);
        if begin >= end {
            return Vec::new();
        }
        let skip = usize::try_from(begin - first).unwrap_or(usize::MAX);
        let take = usize::try_from(end - begin).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).take(take).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::log_id;
    use crate::types::Payload;

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: log_id(1, index),
            payload: Payload::Blank,
        }
    }

    fn image(range: std::ops::Range<u64>) -> LogImage {
        let mut image = LogImage::default();
        for index in range {
            image.push(entry(index)).unwrap();
        }
        image
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn an_entry_that_does_not_follow_is_refused() {
        let mut image = image(3..6);
        assert_eq!(
            image.push(entry(7)),
            Err(Hole {
                index: 7,
                expected: 6
            })
        );
        assert_eq!(image.push(entry(6)), Ok(()));
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_beginning_there() {
        let mut image = image(0..4);
        image.purge(log_id(2, 9));
        assert_eq!(image.first_index(), 10);
        assert_eq!(image.last_log_id(), Some(log_id(2, 9)));
        image.push(entry(10)).unwrap();
        assert_eq!(indexes(&image.range(..)), [10]);
    }

    #[test]
    fn ranges_give_what_is_held_and_no_more() {
        let mut image = image(0..10);
        image.purge(log_id(1, 3));
        assert_eq!(indexes(&image.range(0..6)), [4, 5]);
        assert_eq!(indexes(&image.range(8..=20)), [8, 9]);
        assert!(image.range(20..30).is_empty());
        image.truncate(6);
        assert_eq!(indexes(&image.range(..)), [4, 5]);
        image.truncate(0);
        assert!(image.range(..).is_empty());
        assert_eq!(image.next_index(), 4);
    }
}
