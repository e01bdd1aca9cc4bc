//! Where the records of a block are, and which subjects they are on.
//!
//! - `memory`: the growing index of a block that is still written.
//! - `sealed`: the index in a sealed block's footer, read in place.
//! - `query`: what is asked of either: the next match, how many, the first at a time.
//!
//! Records are known by their *ordinal*: their place in the block, from 0. Ordinals are dense whatever
//! sequences are missing, so that posting lists stay small.

pub(super) mod memory;
pub(super) mod query;
pub(super) mod sealed;

use super::chunk::PlacedChunk;
use super::postings::Postings;

/// How many chunks before and after the guessed one are looked at before all of them are.
const GUESS_REACH: usize = 1;

/// A chunk and the ordinal of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedChunk {
    pub placed: PlacedChunk,
    pub first_ordinal: u32,
}

impl IndexedChunk {
    pub fn end_ordinal(&self) -> u32 {
        self.first_ordinal
            .saturating_add(self.placed.header.records)
    }
}

/// The records of one subject.
#[derive(Debug, Clone, Copy)]
pub(super) enum PostingList<'a> {
    /// As a footer holds them.
    Packed(Postings<'a>),
    /// As memory holds them; never empty.
    Plain(&'a [u32]),
}

impl<'a> PostingList<'a> {
    pub fn count(&self) -> u32 {
        match self {
            Self::Packed(list) => list.count,
            Self::Plain(list) => list.len() as u32,
        }
    }

    pub fn first(&self) -> u32 {
        match self {
            Self::Packed(list) => list.first,
            Self::Plain(list) => list.first().copied().unwrap_or_default(),
        }
    }

    pub fn last(&self) -> u32 {
        match self {
            Self::Packed(list) => list.last,
            Self::Plain(list) => list.last().copied().unwrap_or_default(),
        }
    }

    /// How many ordinals are below `from`.
    pub fn rank(&self, from: u32) -> u32 {
        match self {
            Self::Packed(list) => list.rank(from),
            Self::Plain(list) => list.partition_point(|&ordinal| ordinal < from) as u32,
        }
    }

    pub fn at_or_after(&self, from: u32) -> Option<u32> {
        match self {
            Self::Packed(list) => list.at_or_after(from),
            Self::Plain(list) => list.get(self.rank(from) as usize).copied(),
        }
    }

    pub fn at_or_before(&self, upto: u32) -> Option<u32> {
        match self {
            Self::Packed(list) => list.at_or_before(upto),
            Self::Plain(list) => {
                let after = list.partition_point(|&ordinal| ordinal <= upto);
                list.get(after.checked_sub(1)?).copied()
            }
        }
    }

    /// Calls `visit` with every ordinal at or after `from`, ascending, until it returns `false`.
    pub fn visit(&self, from: u32, visit: &mut dyn FnMut(u32) -> bool) {
        match self {
            Self::Packed(list) => {
                let _ = list.from(from).all(visit);
            }
            Self::Plain(list) => {
                let rest = list.get(self.rank(from) as usize..).unwrap_or_default();
                let _ = rest.iter().copied().all(visit);
            }
        }
    }
}

/// What both kinds of index answer.
pub(super) trait RecordIndex {
    /// Records in the block.
    fn records(&self) -> u32;
    /// Its chunks, ascending.
    fn chunks(&self) -> &[IndexedChunk];
    /// Whether sequences follow each other without a gap.
    fn is_dense(&self) -> bool;
    /// Where a record begins in its chunk's plain body.
    fn offset(&self, ordinal: u32) -> u32;
    /// A record's sequence relative to its chunk's first. Only asked of chunks with gaps.
    fn relative_sequence(&self, ordinal: u32) -> u64;
    /// Distinct subjects.
    fn subjects(&self) -> u32;
    /// The number of a subject.
    fn find_subject(&self, subject: &[u8]) -> Option<u32>;
    /// Calls `visit` for every subject that begins with `prefix` until it returns `false`.
    fn visit_subjects(&self, prefix: &[u8], visit: &mut dyn FnMut(u32, &[u8]) -> bool);
    /// The records of a subject.
    fn postings(&self, subject: u32) -> Option<PostingList<'_>>;

    /// The chunk that holds a record.
    #[inline]
    fn chunk_of(&self, ordinal: u32) -> Option<&IndexedChunk> {
        let chunks = self.chunks();
        // Chunks mostly hold about the same number of records: the first guess is near, and each chunk looked at is a cache
        // line or two that a binary search from the ends would have fetched ten of.
        let guess = u64::from(ordinal) * chunks.len() as u64 / u64::from(self.records().max(1));
        let guess = (guess as usize).min(chunks.len().checked_sub(1)?);
        let first = guess.saturating_sub(GUESS_REACH);
        let near = chunks.get(first..=(guess + GUESS_REACH).min(chunks.len() - 1))?;
        let is_near =
            near.first()?.first_ordinal <= ordinal && ordinal < near.last()?.end_ordinal();
        let chunks = if is_near { near } else { chunks };
        let after = chunks.partition_point(|chunk| chunk.first_ordinal <= ordinal);
        chunks
            .get(after.checked_sub(1)?)
            .filter(|chunk| ordinal < chunk.end_ordinal())
    }

    /// A record's sequence, given its chunk.
    #[inline]
    fn sequence_in(&self, chunk: &IndexedChunk, ordinal: u32) -> u64 {
        let header = &chunk.placed.header;
        let relative = if is_gapless(chunk) {
            u64::from(ordinal - chunk.first_ordinal)
        } else {
            self.relative_sequence(ordinal)
        };
        header.first_sequence.saturating_add(relative)
    }

    /// A record's sequence.
    fn sequence(&self, ordinal: u32) -> Option<u64> {
        let chunk = self.chunk_of(ordinal)?;
        Some(self.sequence_in(chunk, ordinal))
    }

    /// The first record at or after a sequence; [`Self::records`] when there is none.
    #[inline]
    fn at_or_after(&self, sequence: u64) -> u32 {
        let Some(first) = self.chunks().first() else {
            return 0;
        };
        if self.is_dense() {
            let skipped = sequence.saturating_sub(first.placed.header.first_sequence);
            return u32::try_from(skipped)
                .unwrap_or(u32::MAX)
                .min(self.records());
        }
        let after = self
            .chunks()
            .partition_point(|chunk| chunk.placed.header.first_sequence <= sequence);
        let Some(chunk) = after.checked_sub(1).and_then(|at| self.chunks().get(at)) else {
            return 0;
        };
        let header = &chunk.placed.header;
        if sequence > header.last_sequence {
            return chunk.end_ordinal();
        }
        let relative = sequence - header.first_sequence;
        if is_gapless(chunk) {
            return chunk.first_ordinal + relative as u32;
        }
        let (mut low, mut high) = (chunk.first_ordinal, chunk.end_ordinal());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.relative_sequence(middle) < relative {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The record with exactly this sequence, and its chunk.
    #[inline]
    fn find(&self, sequence: u64) -> Option<(&IndexedChunk, u32)> {
        let ordinal = self.at_or_after(sequence);
        let chunk = self.chunk_of(ordinal)?;
        (self.sequence_in(chunk, ordinal) == sequence).then_some((chunk, ordinal))
    }
}

#[inline]
fn is_gapless(chunk: &IndexedChunk) -> bool {
    let header = &chunk.placed.header;
    header.last_sequence - header.first_sequence == u64::from(header.records - 1)
}
