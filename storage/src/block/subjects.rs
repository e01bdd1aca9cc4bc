//! The subjects of a block, sorted and front-coded: what the footer's dictionary is made of.
//!
//! Subjects stand in byte order, in groups of [`GROUP`]. A group's first subject is `varint length, bytes`,
//! each other one `varint shared, varint length, bytes`: how many bytes it shares with the one before it,
//! and the rest. A bit-packed array gives where each group begins, so that a lookup is a binary search over
//! the groups' first subjects and a walk through one group.

use super::packed::Packed;
use super::varint::{Malformed, Reader, put_varint};

/// Subjects per group.
pub(super) const GROUP: usize = 16;

/// Encodes sorted subjects. Returns the text and where each group begins in it.
pub(super) fn encode<'a>(subjects: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<u64>) {
    let mut text = Vec::new();
    let mut groups = Vec::new();
    let mut previous: &[u8] = &[];
    for (at, subject) in subjects.enumerate() {
        let shared = if at % GROUP == 0 {
            groups.push(text.len() as u64);
            0
        } else {
            let pairs = previous.iter().zip(subject);
            let shared = pairs.take_while(|(before, after)| before == after).count();
            put_varint(&mut text, shared as u64);
            shared
        };
        put_varint(&mut text, (subject.len() - shared) as u64);
        text.extend(subject.iter().skip(shared));
        previous = subject;
    }
    (text, groups)
}

/// A dictionary in borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subjects<'a> {
    pub text: &'a [u8],
    pub groups: Packed<'a>,
    pub count: u32,
}

impl<'a> Subjects<'a> {
    /// The number of a subject, `None` when it is not there.
    pub fn find(&self, subject: &[u8]) -> Option<u32> {
        let mut walk = self.walk(self.group_at_or_before(subject));
        while let Some((number, text)) = walk.next() {
            match text.cmp(subject) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(number),
                std::cmp::Ordering::Greater => return None,
            }
            if (number as usize + 1).is_multiple_of(GROUP) {
                return None;
            }
        }
        None
    }

    /// Calls `visit` with every subject that begins with `prefix`, in order, until it returns `false`.
    pub fn with_prefix(&self, prefix: &[u8], visit: &mut dyn FnMut(u32, &[u8]) -> bool) {
        let mut walk = self.walk(self.group_at_or_before(prefix));
        while let Some((number, text)) = walk.next() {
            if text.starts_with(prefix) {
                if !visit(number, text) {
                    return;
                }
            } else if text > prefix {
                return;
            }
        }
    }

    /// Checks that every subject can be read and that they ascend.
    pub fn check(&self) -> Result<(), Malformed> {
        let mut walk = self.walk(0);
        let mut previous: Option<Vec<u8>> = None;
        let mut count = 0;
        while let Some((number, text)) = walk.next() {
            let group = number as usize / GROUP;
            if (number as usize).is_multiple_of(GROUP) {
                let head = self.head(group);
                if head != Some(text) {
                    return Err(Malformed);
                }
            }
            if previous.as_deref().is_some_and(|previous| previous >= text) {
                return Err(Malformed);
            }
            previous = Some(text.to_vec());
            count += 1;
        }
        (count == self.count).then_some(()).ok_or(Malformed)
    }

    fn group_count(&self) -> usize {
        (self.count as usize).div_ceil(GROUP)
    }

    /// The first subject of a group.
    fn head(&self, group: usize) -> Option<&'a [u8]> {
        let mut reader = Reader::at(self.text, self.groups.get(group) as usize);
        let length = reader.varint().ok()?;
        reader.take(usize::try_from(length).ok()?).ok()
    }

    /// The last group whose first subject is at or before `subject`, or the first group.
    fn group_at_or_before(&self, subject: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.group_count());
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            if self.head(middle).is_some_and(|head| head <= subject) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn walk(&self, group: usize) -> Walk<'a> {
        let start = if group < self.group_count() {
            self.groups.get(group) as usize
        } else {
            self.text.len()
        };
        Walk {
            reader: Reader::at(self.text, start),
            number: (group * GROUP) as u32,
            count: self.count,
            current: Vec::new(),
        }
    }
}

/// Steps through subjects in order, rebuilding each from the one before.
struct Walk<'a> {
    reader: Reader<'a>,
    number: u32,
    count: u32,
    current: Vec<u8>,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<(u32, &[u8])> {
        if self.number >= self.count {
            return None;
        }
        let number = self.number;
        let shared = if (number as usize).is_multiple_of(GROUP) {
            0
        } else {
            usize::try_from(self.reader.varint().ok()?).ok()?
        };
        let length = usize::try_from(self.reader.varint().ok()?).ok()?;
        let rest = self.reader.take(length).ok()?;
        if shared > self.current.len() {
            return None;
        }
        self.current.truncate(shared);
        self.current.extend_from_slice(rest);
        self.number += 1;
        Some((number, &self.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::packed::{pack, width_of};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn with_dictionary(subjects: &[Vec<u8>], test: impl FnOnce(Subjects<'_>)) {
        let (text, groups) = encode(subjects.iter().map(Vec::as_slice));
        let width = width_of(text.len() as u64);
        let mut packed = Vec::new();
        pack(&mut packed, width, groups.iter().copied());
        test(Subjects {
            text: &text,
            groups: Packed::new(&packed, width, groups.len()).unwrap(),
            count: subjects.len() as u32,
        });
    }

    #[test]
    fn common_beginnings_are_stored_once_per_group() {
        let subjects: Vec<Vec<u8>> = (0..160)
            .map(|at| format!("orders.europe.north.{at:03}").into_bytes())
            .collect();
        let (text, groups) = encode(subjects.iter().map(Vec::as_slice));
        assert_eq!(groups.len(), 10);
        assert!(text.len() < 160 * 6, "{}", text.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lookups_agree_with_a_sorted_set(
            subjects in prop::collection::btree_set("[ab.]{0,6}", 0..80),
            probes in prop::collection::vec("[ab.]{0,6}", 20),
        ) {
            let subjects: BTreeSet<Vec<u8>> = subjects.into_iter().map(String::into_bytes).collect();
            let sorted: Vec<Vec<u8>> = subjects.iter().cloned().collect();
            with_dictionary(&sorted, |dictionary| {
                assert_eq!(dictionary.check(), Ok(()));
                for probe in probes.iter().map(String::as_bytes).chain(sorted.iter().map(Vec::as_slice)) {
                    let expected = sorted.iter().position(|subject| subject == probe);
                    assert_eq!(dictionary.find(probe), expected.map(|at| at as u32));
                    let mut found = Vec::new();
                    dictionary.with_prefix(probe, &mut |number, text| {
                        assert_eq!(sorted[number as usize], text);
                        found.push(text.to_vec());
                        true
                    });
                    let expected: Vec<_> = sorted.iter().filter(|subject| subject.starts_with(probe)).cloned().collect();
                    assert_eq!(found, expected);
                }
            });
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            text in prop::collection::vec(any::<u8>(), 0..200),
            groups in prop::collection::vec(any::<u8>(), 0..30),
            width in 0..=56u8,
            probe in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let count = groups.len() * 8 / usize::from(width.max(1));
            let Some(groups) = Packed::new(&groups, width, count) else { return Ok(()) };
            let dictionary = Subjects { text: &text, groups, count: (count * GROUP) as u32 };
            let _ = (dictionary.find(&probe), dictionary.check());
            let mut visited = 0;
            dictionary.with_prefix(&probe, &mut |_, _| { visited += 1; visited < 1000 });
        }
    }
}
