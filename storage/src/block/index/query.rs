//! What is asked of an index, whichever kind it is.

use super::RecordIndex;
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
            Self::Ordinals(set) => set.words.capacity() * 8,
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
        let mut set = OrdinalSet::new(index.records());
        for list in subjects
            .iter()
            .filter_map(|&subject| index.postings(subject))
        {
            list.visit(0, &mut |ordinal| {
                set.insert(ordinal);
                true
            });
        }
        Matching::Ordinals(set)
    }
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

/// A set of ordinals of one block.
#[derive(Debug, Clone)]
pub(in crate::block) struct OrdinalSet {
    words: Vec<u64>,
}

impl OrdinalSet {
    fn new(records: u32) -> Self {
        Self {
            words: vec![0; (records as usize).div_ceil(64)],
        }
    }

    fn insert(&mut self, ordinal: u32) {
        if let Some(word) = self.words.get_mut(ordinal as usize / 64) {
            *word |= 1 << (ordinal % 64);
        }
    }

    fn at_or_after(&self, from: u32) -> Option<u32> {
        let start = from as usize / 64;
        let mut mask = u64::MAX << (from % 64);
        for (at, word) in self.words.iter().enumerate().skip(start) {
            let rest = word & mask;
            if rest != 0 {
                return Some(at as u32 * 64 + rest.trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }

    fn at_or_before(&self, upto: u32) -> Option<u32> {
        let start = upto as usize / 64;
        let mut mask = u64::MAX >> (63 - upto % 64);
        for at in (0..=start.min(self.words.len().checked_sub(1)?)).rev() {
            if at != start {
                mask = u64::MAX;
            }
            let rest = self.words.get(at)? & mask;
            if rest != 0 {
                return Some(at as u32 * 64 + 63 - rest.leading_zeros());
            }
        }
        None
    }

    fn count_from(&self, from: u32) -> u64 {
        let mut mask = u64::MAX << (from % 64);
        let mut count = 0;
        for word in self.words.iter().skip(from as usize / 64) {
            count += u64::from((word & mask).count_ones());
            mask = u64::MAX;
        }
        count
    }
}
