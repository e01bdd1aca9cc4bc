//! Which owners still need which segment.
//!
//! # Invariant
//! A segment is free only when every entry in it was released or taken back, and every mark in it has a newer copy.
//! Only the oldest segments are freed: what is left is a gapless run of numbers.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};

use super::buffer::CommitSummary;
use super::frame::{FrameKind, Location, Owner};

type Hash = foldhash::fast::FixedState;

/// How much of the journal is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PressureLevel {
    /// All is well.
    #[default]
    None,
    /// Checkpoints of the owners that hold back the oldest segment are wanted.
    Soft,
    /// Submitters should wait until checkpoints have caught up.
    Hard,
}

/// What the journal wants of its owners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pressure {
    /// How urgent it is.
    pub level: PressureLevel,
    /// Bytes of all segments that are still needed.
    pub live_bytes: u64,
    /// Owners whose entries hold back the oldest segment, ascending.
    pub owners: Vec<Owner>,
}

#[derive(Default)]
pub(super) struct Ledger {
    /// Oldest first; the last one is being written.
    segments: VecDeque<Needs>,
    marks: HashMap<(u64, FrameKind), Location, Hash>,
}

struct Needs {
    number: u64,
    length: u64,
    /// The highest entry of each owner that is not released.
    entries: HashMap<u64, u64, Hash>,
    /// How many of the current marks stand in it.
    marks: usize,
}

impl Ledger {
    /// A new segment is written from now on.
    pub fn begin(&mut self, number: u64, length: u64) {
        self.segments.push_back(Needs {
            number,
            length,
            entries: HashMap::default(),
            marks: 0,
        });
    }

    /// A commit went to the newest segment.
    pub fn committed(&mut self, summary: &CommitSummary, commit_at: u32) {
        for &(owner, index) in &summary.truncates {
            self.truncate(owner, index);
        }
        let Some(newest) = self.segments.back_mut() else {
            return;
        };
        let segment = newest.number;
        for (&owner, &index) in &summary.entries {
            newest.note_entry(owner, index);
        }
        for &(owner, kind, frame_at) in &summary.marks {
            let location = Location {
                segment,
                commit_at,
                frame_at,
            };
            self.mark(Owner(owner), kind, location);
        }
    }

    /// An entry stands in the newest segment.
    pub fn entry(&mut self, owner: Owner, index: u64) {
        if let Some(newest) = self.segments.back_mut() {
            newest.note_entry(owner.0, index);
        }
    }

    /// A mark stands there; it replaces the earlier one.
    pub fn mark(&mut self, owner: Owner, kind: FrameKind, location: Location) {
        let before = self.marks.insert((owner.0, kind), location);
        if let Some(before) = before {
            self.unmark(before.segment);
        }
        if let Some(needs) = self.needs_mut(location.segment) {
            needs.marks += 1;
        }
    }

    /// The owner took back its entries from `index` on.
    pub fn truncate(&mut self, owner: u64, index: u64) {
        for needs in &mut self.segments {
            if let Some(highest) = needs.entries.get_mut(&owner) {
                *highest = (*highest).min(index.saturating_sub(1));
            }
        }
    }

    /// The owner no longer needs its entries up to `upto`.
    pub fn release(&mut self, owner: Owner, upto: u64) {
        for needs in &mut self.segments {
            if needs
                .entries
                .get(&owner.0)
                .is_some_and(|&highest| highest <= upto)
            {
                needs.entries.remove(&owner.0);
            }
        }
    }

    /// The owner is gone, with all it ever appended.
    pub fn forget(&mut self, owner: Owner) {
        for needs in &mut self.segments {
            needs.entries.remove(&owner.0);
        }
        let Self { segments, marks } = self;
        marks.retain(|(of, _), location| {
            let gone = *of == owner.0;
            if gone && let Some(needs) = find(segments, location.segment) {
                needs.marks = needs.marks.saturating_sub(1);
            }
            !gone
        });
    }

    /// The owner no longer needs its mark of that kind.
    pub fn drop_mark(&mut self, owner: Owner, kind: FrameKind) {
        if let Some(location) = self.marks.remove(&(owner.0, kind)) {
            self.unmark(location.segment);
        }
    }

    /// The lowest segment that is needed: the newest one when nothing else is.
    pub fn floor(&self) -> u64 {
        let newest = self.segments.len().saturating_sub(1);
        let needed = |(at, needs): &(usize, &Needs)| *at == newest || needs.is_needed();
        let first = self.segments.iter().enumerate().find(needed);
        first.map_or(1, |(_, needs)| needs.number)
    }

    /// Whether the segment that is being written holds entries that somebody needs.
    pub fn needs_newest(&self) -> bool {
        let newest = self.segments.back();
        newest.is_some_and(|needs| !needs.entries.is_empty())
    }

    /// What the floor would be if every mark were appended again.
    pub fn floor_of_entries(&self) -> u64 {
        let newest = self.segments.back().map_or(1, |needs| needs.number);
        let holder = self.segments.iter().find(|needs| !needs.entries.is_empty());
        holder.map_or(newest, |needs| needs.number)
    }

    /// Drops everything below `floor` from the books.
    pub fn drop_below(&mut self, floor: u64) {
        while self
            .segments
            .front()
            .is_some_and(|needs| needs.number < floor)
        {
            self.segments.pop_front();
        }
    }

    /// Bytes of the segments from the floor on.
    pub fn live_bytes(&self) -> u64 {
        let floor = self.floor();
        let live = self.segments.iter().filter(|needs| needs.number >= floor);
        live.map(|needs| needs.length).sum()
    }

    /// The owners of the entries in the oldest needed segment, unless that is the newest.
    pub fn holders(&self) -> Vec<Owner> {
        let floor = self.floor();
        let oldest = self.segments.iter().find(|needs| needs.number == floor);
        let newest = self.segments.back().map(|needs| needs.number);
        match oldest {
            Some(oldest) if newest != Some(floor) => {
                let mut owners: Vec<_> = oldest.entries.keys().copied().map(Owner).collect();
                owners.sort_unstable();
                owners
            }
            _ => Vec::new(),
        }
    }

    /// The marks to append again so that the oldest needed segment is freed: only when nothing else holds it back.
    pub fn marks_to_carry(&self) -> Vec<(Owner, FrameKind, Location)> {
        let floor = self.floor();
        let newest = self.segments.back().map(|needs| needs.number);
        let only_marks = self
            .segments
            .iter()
            .find(|needs| needs.number == floor)
            .is_some_and(|needs| needs.entries.is_empty() && needs.marks > 0);
        if !only_marks || newest == Some(floor) {
            return Vec::new();
        }
        let mut marks: Vec<_> = self
            .marks
            .iter()
            .filter(|(_, location)| location.segment == floor)
            .map(|(&(owner, kind), &location)| (Owner(owner), kind, location))
            .collect();
        marks.sort_unstable_by_key(|(_, _, location)| (location.commit_at, location.frame_at));
        marks
    }

    /// Owners that have entries or marks anywhere.
    pub fn owners(&self) -> HashSet<Owner> {
        let entries = self.segments.iter().flat_map(|needs| needs.entries.keys());
        let marks = self.marks.keys().map(|(owner, _)| owner);
        entries.chain(marks).copied().map(Owner).collect()
    }

    fn unmark(&mut self, segment: u64) {
        if let Some(needs) = self.needs_mut(segment) {
            needs.marks = needs.marks.saturating_sub(1);
        }
    }

    fn needs_mut(&mut self, number: u64) -> Option<&mut Needs> {
        find(&mut self.segments, number)
    }
}

fn find(segments: &mut VecDeque<Needs>, number: u64) -> Option<&mut Needs> {
    segments
        .iter_mut()
        .rev()
        .find(|needs| needs.number == number)
}

impl Needs {
    fn note_entry(&mut self, owner: u64, index: u64) {
        self.entries
            .entry(owner)
            .and_modify(|highest| *highest = index.max(*highest))
            .or_insert(index);
    }

    fn is_needed(&self) -> bool {
        self.marks > 0 || !self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64) -> Location {
        Location {
            segment,
            commit_at: 4096,
            frame_at: 64,
        }
    }

    #[test]
    fn a_segment_is_free_when_its_last_entry_is_released() {
        let mut ledger = Ledger::default();
        ledger.begin(1, 100);
        ledger.entry(Owner(7), 3);
        ledger.entry(Owner(8), 9);
        ledger.begin(2, 100);
        ledger.entry(Owner(7), 4);
        assert_eq!((ledger.floor(), ledger.live_bytes()), (1, 200));
        assert_eq!(ledger.holders(), [Owner(7), Owner(8)]);
        ledger.release(Owner(7), 3);
        ledger.release(Owner(8), 8);
        assert_eq!(ledger.holders(), [Owner(8)]);
        ledger.release(Owner(8), 9);
        assert_eq!((ledger.floor(), ledger.live_bytes()), (2, 100));
    }

    #[test]
    fn entries_taken_back_hold_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin(1, 100);
        ledger.entry(Owner(7), 20);
        ledger.begin(2, 100);
        ledger.truncate(7, 10);
        ledger.entry(Owner(7), 12);
        ledger.release(Owner(7), 9);
        assert_eq!(ledger.floor(), 2);
    }

    #[test]
    fn a_mark_holds_its_segment_until_there_is_a_newer_one() {
        let mut ledger = Ledger::default();
        ledger.begin(1, 100);
        ledger.mark(Owner(7), FrameKind::Vote, at(1));
        ledger.mark(Owner(7), FrameKind::Carry, at(1));
        ledger.begin(2, 100);
        assert_eq!(ledger.marks_to_carry().len(), 2);
        ledger.mark(Owner(7), FrameKind::Vote, at(2));
        assert_eq!(ledger.floor(), 1);
        ledger.forget(Owner(7));
        assert_eq!(ledger.floor(), 2);
    }
}
