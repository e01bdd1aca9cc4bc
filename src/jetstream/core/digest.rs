//! The digest by which replicas of a stream are compared: a chain over the entries they applied and what those left behind.
//!
//! # Invariant
//! Depends on entries and the state alone. Equal replicas have equal digests at equal indices; the order in which a store tells of
//! removals does not count.

use std::collections::VecDeque;

use storage::store::State;

use super::codec::{DecodeError, Reader, Writer};

/// Digests at multiples of this index are remembered for comparison.
pub(crate) const MARK_INTERVAL: u64 = if cfg!(test) { 32 } else { 1024 };
/// So many of them.
const MARKS_MAX: usize = 64;

/// A digest and the entry after which it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The index of the entry.
    pub index: u64,
    /// The digest.
    pub digest: u64,
}

/// Two replicas that should be equal and are not. Which of them is wrong is not said by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divergence {
    /// Where they were compared.
    pub index: u64,
    /// The digest of this replica.
    pub ours: u64,
    /// The other's.
    pub theirs: u64,
}

/// What a replica knows of its digest at an earlier entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recollection {
    /// It was this.
    Was(u64),
    /// The entry is not applied yet.
    NotYet,
    /// It does not remember.
    Forgotten,
}

/// The chain, and where it stood lately.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    value: u64,
    marks: VecDeque<Mark>,
    /// The last mark that the leader told.
    compared: u64,
    /// Present until it is known which side is right.
    divergence: Option<Divergence>,
}

impl Digest {
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// An entry was applied: its content, what it left, and the [`mix`]ed sequences of what it removed.
    pub(crate) fn fold(&mut self, index: u64, entry: &[u8], state: &State, removed: u64) {
        let mut value = self.value;
        for word in [
            u64::from(crc32fast::hash(entry)) << 32 | (entry.len() as u64 & 0xffff_ffff),
            state.messages,
            state.bytes,
            state.first_sequence,
            state.last_sequence,
            removed,
        ] {
            value = mix(value ^ word);
        }
        self.value = value;
        self.mark(index);
    }

    /// An entry was passed over that changes nothing.
    pub(crate) fn mark(&mut self, index: u64) {
        if index.is_multiple_of(MARK_INTERVAL) {
            if self.marks.len() == MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back(Mark {
                index,
                digest: self.value,
            });
        }
    }

    /// The last mark, when no leader has told it yet.
    pub(crate) fn untold(&self) -> Option<Mark> {
        let last = self.marks.back().copied();
        last.filter(|mark| mark.index > self.compared)
    }

    /// A leader tells its digest.
    pub(crate) fn compare(&mut self, theirs: Mark) {
        self.compared = self.compared.max(theirs.index);
        self.contrast(theirs);
    }

    /// Another replica tells its digest. The newest difference counts.
    pub(crate) fn contrast(&mut self, theirs: Mark) {
        if let Recollection::Was(ours) = self.recall(theirs.index)
            && ours != theirs.digest
            && self
                .divergence
                .is_none_or(|known| known.index <= theirs.index)
        {
            self.divergence = Some(Divergence {
                index: theirs.index,
                ours,
                theirs: theirs.digest,
            });
        }
    }

    /// What the digest was after an entry.
    pub(crate) fn recall(&self, index: u64) -> Recollection {
        let known = self.marks.iter().find(|mark| mark.index == index);
        match (known, self.marks.back()) {
            (Some(mark), _) => Recollection::Was(mark.digest),
            (None, Some(last)) if last.index > index => Recollection::Forgotten,
            (None, _) => Recollection::NotYet,
        }
    }

    pub(crate) fn divergence(&self) -> Option<Divergence> {
        self.divergence
    }

    /// Differences up to an entry are the others' fault.
    pub(crate) fn is_right_upto(&mut self, index: u64) {
        self.divergence.take_if(|known| known.index <= index);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u64(self.value);
        writer.number(self.compared);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            value: reader.u64()?,
            compared: reader.number()?,
            ..Self::default()
        })
    }
}

/// Spreads a number over all bits. Sums of mixed sequences stand for sets of them.
pub(crate) fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(messages: u64) -> State {
        State {
            messages,
            ..State::default()
        }
    }

    #[test]
    fn every_difference_shows_in_all_that_follows() {
        let (mut one, mut two) = (Digest::default(), Digest::default());
        one.fold(1, b"a", &state(1), 0);
        two.fold(1, b"a", &state(1), 0);
        assert_eq!(one.value(), two.value());
        one.fold(2, b"b", &state(2), mix(1));
        two.fold(2, b"b", &state(2), mix(2));
        assert_ne!(one.value(), two.value());
        one.fold(3, b"c", &state(3), 0);
        two.fold(3, b"c", &state(3), 0);
        assert_ne!(one.value(), two.value());
    }

    #[test]
    fn a_replica_that_differs_at_a_mark_finds_out_when_the_leader_tells_it() {
        let (mut leader, mut equal, mut other) =
            (Digest::default(), Digest::default(), Digest::default());
        leader.fold(MARK_INTERVAL, b"a", &state(1), 0);
        equal.fold(MARK_INTERVAL, b"a", &state(1), 0);
        other.fold(MARK_INTERVAL, b"a", &state(2), 0);
        let mark = leader.untold().expect("a mark");
        for digest in [&mut leader, &mut equal, &mut other] {
            digest.compare(mark);
        }
        assert_eq!(equal.divergence(), None);
        let found = other.divergence().expect("differs");
        assert_eq!((found.index, found.theirs), (mark.index, mark.digest));
        assert_eq!(leader.untold(), None);
    }

    #[test]
    fn the_newest_difference_stands_until_it_is_the_others_fault() {
        let mut digest = Digest::default();
        for number in 1..=3 {
            digest.fold(number * MARK_INTERVAL, b"a", &state(number), 0);
        }
        let wrong = |number: u64| Mark {
            index: number * MARK_INTERVAL,
            digest: 1,
        };
        digest.contrast(wrong(2));
        digest.contrast(wrong(1));
        let index = |digest: &Digest| digest.divergence().map(|found| found.index);
        assert_eq!(index(&digest), Some(2 * MARK_INTERVAL));
        digest.contrast(wrong(3));
        digest.is_right_upto(2 * MARK_INTERVAL);
        assert_eq!(index(&digest), Some(3 * MARK_INTERVAL));
        digest.is_right_upto(3 * MARK_INTERVAL);
        assert_eq!(index(&digest), None);
    }

    #[test]
    fn what_is_not_applied_is_told_from_what_is_forgotten() {
        let mut digest = Digest::default();
        assert_eq!(digest.recall(MARK_INTERVAL), Recollection::NotYet);
        for number in 1..=MARKS_MAX as u64 + 1 {
            digest.fold(number * MARK_INTERVAL, b"a", &state(number), 0);
        }
        assert_eq!(digest.recall(MARK_INTERVAL), Recollection::Forgotten);
        let last = (MARKS_MAX as u64 + 1) * MARK_INTERVAL;
        assert_eq!(digest.recall(last), Recollection::Was(digest.value()));
        assert_eq!(digest.recall(last + 1), Recollection::NotYet);
    }

    #[test]
    fn a_digest_survives_a_snapshot() {
        let mut digest = Digest::default();
        digest.fold(1, b"a", &state(1), 0);
        let mut writer = Writer::default();
        digest.write(&mut writer);
        let read = Digest::read(&mut Reader::new(&writer.bytes)).expect("reads");
        assert_eq!(read.value(), digest.value());
    }
}
