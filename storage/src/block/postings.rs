//! Posting lists: the ordinals of one subject's records within a block, ascending.
//!
//! A list is cut into groups of [`GROUP`] ordinals. A group is a width byte and, bit-packed, for each
//! ordinal but the first its distance from the previous one minus 1, so that consecutive records cost no
//! bits at all. A list of one ordinal has no bytes (the subject's entry names it). A list of one group is
//! that group; a longer one begins with a skip table, for each group the first ordinal (u32) and where
//! the group begins after the table (u32). So a search touches the skip table and one group.

use super::packed::{Packed, pack, width_of};
use super::varint::{Malformed, Reader};

/// Ordinals per group.
pub(super) const GROUP: usize = 64;
const SKIP_BYTES: usize = 8;

/// Appends the list of `ordinals`, which ascend.
pub(super) fn encode(out: &mut Vec<u8>, ordinals: &[u32]) {
    if ordinals.len() < 2 {
        return;
    }
    if ordinals.len() <= GROUP {
        return encode_group(out, ordinals);
    }
    let mut groups = Vec::with_capacity(ordinals.len());
    for group in ordinals.chunks(GROUP) {
        let first = group.first().copied().unwrap_or_default();
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&(groups.len() as u32).to_le_bytes());
        encode_group(&mut groups, group);
    }
    out.extend_from_slice(&groups);
}

fn encode_group(out: &mut Vec<u8>, ordinals: &[u32]) {
    let gaps = || {
        ordinals
            .iter()
            .zip(ordinals.iter().skip(1))
            .map(|(before, after)| u64::from(after - before - 1))
    };
    let width = width_of(gaps().max().unwrap_or_default());
    out.push(width);
    pack(out, width, gaps());
}

/// One list in borrowed bytes, with what the subject's entry says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Postings<'a> {
    pub count: u32,
    pub first: u32,
    pub last: u32,
    /// The bytes from the list's beginning on; whatever follows the list is ignored.
    pub bytes: &'a [u8],
}

impl<'a> Postings<'a> {
    /// How many ordinals are below `from`.
    pub fn rank(&self, from: u32) -> u32 {
        if from <= self.first {
            return 0;
        }
        if from > self.last {
            return self.count;
        }
        let group = self.group_with(from);
        let below = self
            .group(group)
            .take_while(|&ordinal| ordinal < from)
            .count();
        (group * GROUP + below) as u32
    }

    /// The first ordinal at or after `from`.
    pub fn at_or_after(&self, from: u32) -> Option<u32> {
        if from <= self.first {
            return Some(self.first);
        }
        if from > self.last {
            return None;
        }
        let group = self.group_with(from);
        self.group(group)
            .chain(self.group(group + 1).take(1))
            .find(|&ordinal| ordinal >= from)
    }

    /// The last ordinal at or before `upto`.
    pub fn at_or_before(&self, upto: u32) -> Option<u32> {
        if upto >= self.last {
            return Some(self.last);
        }
        if upto < self.first {
            return None;
        }
        self.group(self.group_with(upto))
            .take_while(|&ordinal| ordinal <= upto)
            .last()
    }

    /// All ordinals at or after `from`, ascending.
    pub fn from(self, from: u32) -> impl Iterator<Item = u32> + 'a {
        let start = if from <= self.first || from > self.last {
            0
        } else {
            self.group_with(from)
        };
        let end = if from > self.last { 0 } else { self.groups() };
        (start..end)
            .flat_map(move |group| self.group(group))
            .skip_while(move |&ordinal| ordinal < from)
    }

    /// Checks that the bytes hold `count` ascending ordinals from `first` to `last`.
    pub fn check(&self) -> Result<(), Malformed> {
        let mut count = 0u32;
        let mut previous = None;
        for ordinal in self.from(0) {
            if previous.is_some_and(|previous| ordinal <= previous) {
                return Err(Malformed);
            }
            previous = Some(ordinal);
            count += 1;
        }
        let first = self.group(0).next();
        (count == self.count && first == Some(self.first) && previous == Some(self.last))
            .then_some(())
            .ok_or(Malformed)
    }

    fn groups(&self) -> usize {
        (self.count as usize).div_ceil(GROUP)
    }

    fn skip_table_bytes(&self) -> usize {
        match self.groups() {
            0 | 1 => 0,
            groups => groups * SKIP_BYTES,
        }
    }

    /// First ordinal and data offset of a group.
    fn skip(&self, group: usize) -> (u32, usize) {
        if self.groups() <= 1 {
            return (self.first, 0);
        }
        let mut reader = Reader::at(self.bytes, group * SKIP_BYTES);
        match (reader.u32(), reader.u32()) {
            (Ok(first), Ok(at)) => (first, at as usize),
            _ => (u32::MAX, 0),
        }
    }

    /// The last group whose first ordinal is at or below `ordinal`.
    fn group_with(&self, ordinal: u32) -> usize {
        let (mut low, mut high) = (0, self.groups());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.skip(middle).0 <= ordinal {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn group(self, group: usize) -> Group<'a> {
        let count = (self.count as usize)
            .saturating_sub(group * GROUP)
            .min(GROUP);
        let (first, at) = self.skip(group);
        let at = self.skip_table_bytes() + at;
        let gaps = match self.bytes.get(at..).and_then(<[u8]>::split_first) {
            _ if count < 2 => Packed::new(&[], 0, 0),
            Some((&width, rest)) => Packed::new(rest, width, count - 1),
            None => None,
        };
        Group {
            // Damaged bytes give an empty group: lists are read only after their footer's checksum held.
            left: if gaps.is_some() { count } else { 0 },
            position: 0,
            next: first,
            gaps,
        }
    }
}

/// The ordinals of one group.
struct Group<'a> {
    left: usize,
    position: usize,
    next: u32,
    gaps: Option<Packed<'a>>,
}

impl Iterator for Group<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let ordinal = self.next;
        if self.left > 0 {
            let gap = self.gaps.as_ref()?.get(self.position);
            self.position += 1;
            self.next = ordinal.saturating_add(gap as u32).saturating_add(1);
        }
        Some(ordinal)
    }
}

/// The bytes that the list at the beginning of `bytes` takes, for `count` ordinals.
#[cfg(test)]
pub(super) fn encoded_length(bytes: &[u8], count: usize) -> usize {
    if count < 2 {
        return 0;
    }
    let groups = count.div_ceil(GROUP);
    let (table, last) = if groups == 1 {
        (0, 0)
    } else {
        let mut reader = Reader::at(bytes, (groups - 1) * SKIP_BYTES + 4);
        (groups * SKIP_BYTES, reader.u32().unwrap() as usize)
    };
    let in_last = count - (groups - 1) * GROUP;
    let width = if in_last > 0 { bytes[table + last] } else { 0 };
    table + last + 1 + crate::block::packed::packed_bytes(in_last - 1, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list<'a>(ordinals: &[u32], bytes: &'a [u8]) -> Postings<'a> {
        Postings {
            count: ordinals.len() as u32,
            first: ordinals[0],
            last: *ordinals.last().unwrap(),
            bytes,
        }
    }

    #[test]
    fn a_run_of_records_costs_next_to_nothing() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &(500..564).collect::<Vec<_>>());
        assert_eq!(bytes, [0]);
        bytes.clear();
        encode(&mut bytes, &(0..64_000).collect::<Vec<_>>());
        assert_eq!(bytes.len(), 9 * 1000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn searches_agree_with_the_plain_list(
            gaps in prop::collection::vec(prop_oneof![Just(1u32), 1..5u32, 1..2000u32], 1..300),
            probes in prop::collection::vec(0..20_000u32, 30),
        ) {
            let ordinals: Vec<u32> = gaps
                .iter()
                .scan(0, |at, gap| { *at += gap; Some(*at) })
                .collect();
            let mut bytes = Vec::new();
            encode(&mut bytes, &ordinals);
            prop_assert_eq!(encoded_length(&bytes, ordinals.len()), bytes.len());
            bytes.extend_from_slice(&[0xaa; 3]);
            let list = list(&ordinals, &bytes);
            prop_assert_eq!(list.check(), Ok(()));
            let edges = ordinals.iter().flat_map(|&ordinal| [ordinal - 1, ordinal, ordinal + 1]);
            for probe in probes.into_iter().chain(edges) {
                let below = ordinals.partition_point(|&ordinal| ordinal < probe);
                prop_assert_eq!(list.rank(probe), below as u32);
                prop_assert_eq!(list.at_or_after(probe), ordinals.get(below).copied());
                let upto = ordinals.iter().rev().find(|&&ordinal| ordinal <= probe);
                prop_assert_eq!(list.at_or_before(probe), upto.copied());
                prop_assert!(list.from(probe).eq(ordinals[below..].iter().copied()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            count in 1..300u32,
            first in any::<u32>(),
            span in any::<u32>(),
            probe in any::<u32>(),
        ) {
            let last = first.saturating_add(span);
            let list = Postings { count, first, last, bytes: &bytes };
            let _ = (list.rank(probe), list.at_or_after(probe), list.at_or_before(probe));
            prop_assert!(list.from(probe).count() <= 300);
            let _ = list.check();
        }
    }
}
