//! What is asked of an index, whichever kind it is.

use super::RecordIndex;
use super::memory::MemoryIndex;
use crate::filter::{Filter, Pattern};

/// Up to this many subjects are searched list by list; more are merged into one set of ordinals.
const NARROW_SUBJECTS_MAX: usize = 16;

/// A filter in terms of one block: which of its records match.
#[derive(Debug, Clone)]
pub(in crate::block) enum Matching {
    Nothing,
    Everything,
    /// The numbers of the subjects that match.
    Subjects(Vec<u32>),
    /// All ordinals that match, of a filter that matches many subjects.
    Ordinals(OrdinalSet),
}

impl Matching {
    /// Bytes of heap it takes.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::Everything => 0,
            Self::Subjects(subjects) => subjects.capacity() * 4,
            Self::Ordinals(OrdinalSet::Bits(words)) => words.capacity() * 8,
            Self::Ordinals(OrdinalSet::List(ordinals)) => ordinals.capacity() * 4,
        }
    }
}

/// Finds out which records match.
pub(in crate::block) fn resolve(index: &impl RecordIndex, filter: &Filter) -> Matching {
    if filter.is_everything() {
        return Matching::Everything;
    }
    let mut subjects = matching_subjects(index, filter);
    subjects.sort_unstable();
    subjects.dedup();
    if subjects.is_empty() {
        Matching::Nothing
    } else if subjects.len() == index.subjects() as usize {
        Matching::Everything
    } else if subjects.len() <= NARROW_SUBJECTS_MAX {
        Matching::Subjects(subjects)
    } else {
        Matching::Ordinals(ordinals_of(index, &subjects))
    }
}

/// All records of many subjects.
fn ordinals_of(index: &impl RecordIndex, subjects: &[u32]) -> OrdinalSet {
    let lists = || {
        subjects
            .iter()
            .filter_map(|&subject| index.postings(subject))
    };
    let matches: u64 = lists().map(|list| u64::from(list.count())).sum();
    let mut ordinals = match matches * 32 < u64::from(index.records()) {
        true => OrdinalSet::List(Vec::with_capacity(matches as usize)),
        false => OrdinalSet::Bits(vec![0; (index.records() as usize).div_ceil(64)]),
    };
    for list in lists() {
        list.visit(0, &mut |ordinal| {
            match &mut ordinals {
                OrdinalSet::List(ordinals) => ordinals.push(ordinal),
                OrdinalSet::Bits(words) => {
                    if let Some(word) = words.get_mut(ordinal as usize / 64) {
                        *word |= 1 << (ordinal % 64);
                    }
                }
            }
            true
        });
    }
    if let OrdinalSet::List(ordinals) = &mut ordinals {
        ordinals.sort_unstable();
    }
    ordinals
}

/// The numbers of the subjects that match, in no order and perhaps twice.
pub(in crate::block) fn matching_subjects(index: &impl RecordIndex, filter: &Filter) -> Vec<u32> {
    let mut subjects = Vec::new();
    for pattern in filter.patterns() {
        if pattern.is_literal() {
            subjects.extend(index.find_subject(pattern.as_bytes()));
        } else {
            index.visit_subjects(literal_prefix(pattern), &mut |number, text| {
                if pattern.matches(text) {
                    subjects.push(number);
                }
                true
            });
        }
    }
    subjects
}

/// What every subject that matches begins with.
pub(in crate::block) fn literal_prefix(pattern: &Pattern) -> &[u8] {
    let text = pattern.as_bytes();
    let mut length = 0;
    for token in text.split(|&byte| byte == b'.') {
        if token == b"*" || token == b">" {
            return text.get(..length).unwrap_or_default();
        }
        length += token.len() + 1;
    }
    text
}

/// The first record at or after `from` that matches.
pub(in crate::block) fn next(
    index: &impl RecordIndex,
    matching: &Matching,
    from: u32,
) -> Option<u32> {
    match matching {
        Matching::Nothing => None,
        Matching::Everything => (from < index.records()).then_some(from),
        Matching::Subjects(subjects) => subjects
            .iter()
            .filter_map(|&subject| index.postings(subject)?.at_or_after(from))
            .min(),
        Matching::Ordinals(set) => set.at_or_after(from),
    }
}

/// The last record at or before `upto` that matches.
pub(in crate::block) fn previous(
    index: &impl RecordIndex,
    matching: &Matching,
    upto: u32,
) -> Option<u32> {
    match matching {
        Matching::Nothing => None,
        Matching::Everything => Some(upto.min(index.records().checked_sub(1)?)),
        Matching::Subjects(subjects) => subjects
            .iter()
            .filter_map(|&subject| index.postings(subject)?.at_or_before(upto))
            .max(),
        Matching::Ordinals(set) => set.at_or_before(upto),
    }
}

/// How many records at or after `from` match.
pub(in crate::block) fn count(index: &impl RecordIndex, matching: &Matching, from: u32) -> u64 {
    match matching {
        Matching::Nothing => 0,
        Matching::Everything => u64::from(index.records().saturating_sub(from)),
        Matching::Subjects(subjects) => subjects
            .iter()
            .filter_map(|&subject| index.postings(subject))
            .map(|list| u64::from(list.count() - list.rank(from)))
            .sum(),
        Matching::Ordinals(set) => set.count_from(from),
    }
}

/// The last record at or before `upto` in terms of sequences: one below the first after it.
pub(in crate::block) fn at_or_before(index: &impl RecordIndex, sequence: u64) -> Option<u32> {
    let after = match sequence.checked_add(1) {
        Some(next) => index.at_or_after(next),
        None => index.records(),
    };
    after.checked_sub(1)
}

/// A set of ordinals of one block: a bit for each record or, where few match, a sorted list.
#[derive(Debug, Clone)]
pub(in crate::block) enum OrdinalSet {
    Bits(Vec<u64>),
    List(Vec<u32>),
}

impl OrdinalSet {
    fn at_or_after(&self, from: u32) -> Option<u32> {
        match self {
            Self::Bits(words) => bit_at_or_after(words, from),
            Self::List(ordinals) => {
                let below = ordinals.partition_point(|&ordinal| ordinal < from);
                ordinals.get(below).copied()
            }
        }
    }

    fn at_or_before(&self, upto: u32) -> Option<u32> {
        match self {
            Self::Bits(words) => bit_at_or_before(words, upto),
            Self::List(ordinals) => {
                let after = ordinals.partition_point(|&ordinal| ordinal <= upto);
                ordinals.get(after.checked_sub(1)?).copied()
            }
        }
    }

    fn count_from(&self, from: u32) -> u64 {
        match self {
            Self::Bits(words) => {
                let mut mask = u64::MAX << (from % 64);
                let mut count = 0;
                for word in words.iter().skip(from as usize / 64) {
                    count += u64::from((word & mask).count_ones());
                    mask = u64::MAX;
                }
                count
            }
            Self::List(ordinals) => {
                let below = ordinals.partition_point(|&ordinal| ordinal < from);
                (ordinals.len() - below) as u64
            }
        }
    }
}

fn bit_at_or_after(words: &[u64], from: u32) -> Option<u32> {
    let start = from as usize / 64;
    let mut mask = u64::MAX << (from % 64);
    for (at, word) in words.iter().enumerate().skip(start) {
        let rest = word & mask;
        if rest != 0 {
            return Some(at as u32 * 64 + rest.trailing_zeros());
        }
        mask = u64::MAX;
    }
    None
}

fn bit_at_or_before(words: &[u64], upto: u32) -> Option<u32> {
    let start = upto as usize / 64;
    let mut mask = u64::MAX >> (63 - upto % 64);
    for at in (0..=start.min(words.len().checked_sub(1)?)).rev() {
        if at != start {
            mask = u64::MAX;
        }
        let rest = words.get(at)? & mask;
        if rest != 0 {
            return Some(at as u32 * 64 + 63 - rest.leading_zeros());
        }
    }
    None
}

/// A filter in terms of a block that still grows: what has been worked out stays, and only what is new is looked at.
#[derive(Debug, Clone)]
pub(in crate::block) struct Growing {
    /// Always [`OrdinalSet::List`].
    pub matching: Matching,
    /// For each subject whether it matches.
    subjects: Vec<bool>,
    records: u32,
}

impl Growing {
    pub fn new() -> Self {
        Self {
            matching: Matching::Ordinals(OrdinalSet::List(Vec::new())),
            subjects: Vec::new(),
            records: 0,
        }
    }

    /// Whether every record of the index was looked at.
    pub fn is_current(&self, index: &MemoryIndex) -> bool {
        self.records == index.records()
    }

    /// Looks at what the index has taken in since.
    pub fn follow(&mut self, index: &MemoryIndex, filter: &Filter) {
        for number in self.subjects.len() as u32..index.subjects() {
            self.subjects.push(filter.matches(index.subject(number)));
        }
        let subjects = &self.subjects;
        let matches = |ordinal: &u32| {
            let subject = index.subject_of(*ordinal) as usize;
            subjects.get(subject).copied().unwrap_or_default()
        };
        if let Matching::Ordinals(OrdinalSet::List(ordinals)) = &mut self.matching {
            ordinals.extend((self.records..index.records()).filter(matches));
        }
        self.records = index.records();
    }

    /// Bytes of heap it takes.
    pub fn heap_bytes(&self) -> usize {
        self.matching.heap_bytes() + self.subjects.capacity()
    }
}
