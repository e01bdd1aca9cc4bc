//! Which messages are known to be unreadable: those of blocks that are not what the checkpoint lists, and those that somebody came upon.

use roaring::RoaringTreemap;

use super::files::Files;
use super::part::{Content, Part};
use crate::block::Record;
use crate::store::{LostMessages, ReadError};

impl Files {
    /// Reads a record, and remembers what cannot be read with it.
    pub(super) fn read(&self, part: &Part, sequence: u64) -> Result<Option<Record>, ReadError> {
        let unreadable = match part.load(sequence, self.cache()) {
            Ok(record) => return Ok(record),
            Err(unreadable) => unreadable,
        };
        if let Some((first, last)) = unreadable.sequences {
            self.note_unreadable(part, first, last);
        }
        Err(unreadable.error)
    }

    /// A chunk holds a range, and not every sequence of it has a record.
    fn note_unreadable(&self, part: &Part, first: u64, last: u64) {
        let is_known = |(from, upto): (u64, u64)| from <= first && first <= upto;
        if self.lost_ranges().into_iter().any(is_known) {
            return;
        }
        let mut unreadable = self.unreadable.borrow_mut();
        part.sequences(first, self.everything(), self.cache(), &mut |sequence| {
            sequence <= last && {
                unreadable.insert(sequence);
                true
            }
        });
    }

    /// Sequence ranges of blocks that are known to be unreadable since they were opened.
    pub(super) fn lost_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        for part in self.parts_from(self.first) {
            let lost = match &part.content {
                Content::Lost(_) => {
                    ranges.push((part.first.max(self.first), part.last));
                    continue;
                }
                Content::Sealed(block) => block.lost(),
                Content::Open(block) => block.lost(),
            };
            ranges.extend(lost.iter().map(|lost| {
                let last = lost.last_sequence.unwrap_or(part.last).min(part.last);
                (lost.first_sequence.max(part.first).max(self.first), last)
            }));
        }
        ranges.retain(|(first, last)| first <= last);
        ranges
    }

    /// How many live messages are known to be unreadable.
    pub(super) fn lost_count(&self) -> u64 {
        if !self.unreadable.borrow().is_empty() {
            return self.lost_set().len();
        }
        let lost = |(first, last): (u64, u64)| {
            let dead = match self.dead.is_empty() {
                true => 0,
                false => self.dead.range_cardinality(first..=last),
            };
            (last + 1 - first).saturating_sub(dead)
        };
        self.lost_ranges().into_iter().map(lost).sum()
    }

    fn lost_set(&self) -> RoaringTreemap {
        let mut set = self.unreadable.borrow().clone();
        set.remove_range(..self.first);
        for (first, last) in self.lost_ranges() {
            set.insert_range(first..=last);
        }
        set - &self.dead
    }

    /// The first of the live messages that are known to be unreadable, and what all of them count for: each as much as the others of its block do.
    pub(super) fn lost_messages(&self, listed_max: usize) -> LostMessages {
        let set = self.lost_set();
        let mut bytes = 0_u64;
        for part in self.parts_from(self.first) {
            let lost = match part.first <= part.last {
                true => set.range_cardinality(part.first..=part.last),
                false => 0,
            };
            bytes = bytes.saturating_add(lost.saturating_mul(part.accounted_bytes_mean()));
        }
        LostMessages {
            sequences: set.iter().take(listed_max).collect(),
            bytes,
        }
    }

    /// What comes above a sequence may have it again.
    pub(super) fn forget_unreadable_above(&mut self, last: u64) {
        if let Some(above) = last.checked_add(1) {
            self.unreadable.get_mut().remove_range(above..);
        }
    }
}
