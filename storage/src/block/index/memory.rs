//! The index of a block that is still written. It takes some fifteen bytes per record and becomes a footer when the block is sealed.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::{IndexedChunk, PostingList, RecordIndex};
use crate::block::body::Body;
use crate::block::chunk::PlacedChunk;
use crate::block::varint::Malformed;
use crate::store::accounted_bytes;

/// Sums over all records of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::block) struct Totals {
    pub first_time_ns: i64,
    pub last_time_ns: i64,
    pub accounted_bytes: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            first_time_ns: i64::MAX,
            last_time_ns: i64::MIN,
            accounted_bytes: 0,
        }
    }
}

#[derive(Default)]
pub(in crate::block) struct MemoryIndex {
    chunks: Vec<IndexedChunk>,
    /// Where each record begins in its chunk: only a chunk's first record can be large, so all begin below 64 KiB.
    offsets: Vec<u16>,
    /// The subject of each record.
    subject_of: Vec<u32>,
    /// Sequences relative to their chunk's first; empty while the block has no gap.
    relative: Vec<u32>,
    dense: Option<bool>,
    texts: Vec<u8>,
    ends: Vec<u32>,
    numbers: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    lists: Vec<List>,
    pub totals: Totals,
}

/// A posting list that needs no allocation while it has one entry.
enum List {
    One([u32; 1]),
    Many(Vec<u32>),
}

impl List {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }

    fn push(&mut self, ordinal: u32) {
        match self {
            Self::One([first]) => *self = Self::Many(vec![*first, ordinal]),
            Self::Many(many) => many.push(ordinal),
        }
    }
}

impl MemoryIndex {
    /// Takes in the records of the next chunk; all of them or, when the body makes no sense, none.
    pub fn absorb(&mut self, placed: PlacedChunk, body: &Body<'_>) -> Result<(), Malformed> {
        let bytes = body.bytes();
        let mut records = Vec::with_capacity((placed.header.records as usize).min(1 << 16));
        let mut previous = None;
        for record in body.walk() {
            let (offset, record) = record?;
            let ascends = previous.is_none_or(|previous| record.sequence > previous);
            let text = body.facts.subject(bytes, record.subject)?;
            if !ascends || record.sequence > placed.header.last_sequence {
                return Err(Malformed);
            }
            previous = Some(record.sequence);
            let offset = u16::try_from(offset).map_err(|_| Malformed)?;
            let relative = (record.sequence - placed.header.first_sequence) as u32;
            records.push((offset, relative, text, record));
        }
        let first = records.first().map(|(.., record)| record.sequence);
        if records.len() != placed.header.records as usize
            || first != Some(placed.header.first_sequence)
            || previous != Some(placed.header.last_sequence)
        {
            return Err(Malformed);
        }
        self.note_gaps(&placed);
        let first_ordinal = self.records();
        self.chunks.push(IndexedChunk {
            placed,
            first_ordinal,
        });
        let mut numbers: Vec<Option<u32>> = vec![None; placed.header.subjects as usize];
        for (ordinal, (offset, relative, text, record)) in (first_ordinal..).zip(records) {
            let text = bytes.get(text).unwrap_or_default();
            let number = match numbers.get_mut(record.subject as usize) {
                Some(Some(number)) => *number,
                Some(known) => *known.insert(self.number_of(text)),
                None => self.number_of(text),
            };
            self.add_posting(number, ordinal);
            self.offsets.push(offset);
            self.subject_of.push(number);
            if self.dense == Some(false) {
                self.relative.push(relative);
            }
            let totals = &mut self.totals;
            totals.first_time_ns = totals.first_time_ns.min(record.time_ns);
            totals.last_time_ns = totals.last_time_ns.max(record.time_ns);
            totals.accounted_bytes +=
                accounted_bytes(text.len(), record.headers.len(), record.payload.len());
        }
        Ok(())
    }

    /// Starts to keep relative sequences when the block turns out to have a gap.
    fn note_gaps(&mut self, placed: &PlacedChunk) {
        let header = &placed.header;
        let gapless = header.last_sequence - header.first_sequence == u64::from(header.records - 1);
        let follows = self.chunks.last().is_none_or(|last| {
            last.placed.header.last_sequence.checked_add(1) == Some(header.first_sequence)
        });
        if gapless && follows && self.dense != Some(false) {
            self.dense = Some(true);
        } else if self.dense != Some(false) {
            self.dense = Some(false);
            // Everything so far was without gaps.
            self.relative = self
                .chunks
                .iter()
                .flat_map(|chunk| 0..chunk.placed.header.records)
                .collect();
        }
    }

    fn number_of(&mut self, subject: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(subject);
        let (texts, ends) = (&self.texts, &self.ends);
        let known = self
            .numbers
            .find(hash, |&number| text(texts, ends, number) == Some(subject));
        if let Some(&number) = known {
            return number;
        }
        let number = ends.len() as u32;
        self.numbers.insert_unique(hash, number, |&number| {
            self.hasher
                .hash_one(text(texts, ends, number).unwrap_or_default())
        });
        self.texts.extend_from_slice(subject);
        self.ends.push(self.texts.len() as u32);
        number
    }

    fn add_posting(&mut self, number: u32, ordinal: u32) {
        match self.lists.get_mut(number as usize) {
            Some(list) => list.push(ordinal),
            None => self.lists.push(List::One([ordinal])),
        }
    }

    /// The number of a record's subject.
    pub fn subject_of(&self, ordinal: u32) -> u32 {
        let subject = self.subject_of.get(ordinal as usize);
        subject.copied().unwrap_or(u32::MAX)
    }

    /// The text of a subject.
    pub fn subject(&self, number: u32) -> &[u8] {
        text(&self.texts, &self.ends, number).unwrap_or_default()
    }

    /// Bytes of heap this index takes, about.
    pub fn heap_bytes(&self) -> usize {
        let lists: usize = self
            .lists
            .iter()
            .map(|list| match list {
                List::One(_) => 0,
                List::Many(many) => many.capacity() * 4,
            })
            .sum();
        self.chunks.capacity() * size_of::<IndexedChunk>()
            + self.offsets.capacity() * 2
            + self.subject_of.capacity() * 4
            + self.relative.capacity() * 4
            + self.texts.capacity()
            + self.ends.capacity() * 4
            + self.numbers.capacity() * 5
            + self.lists.capacity() * size_of::<List>()
            + lists
    }
}

fn text<'a>(texts: &'a [u8], ends: &[u32], number: u32) -> Option<&'a [u8]> {
    let number = number as usize;
    let start = number
        .checked_sub(1)
        .and_then(|before| ends.get(before).copied())
        .unwrap_or_default();
    texts.get(start as usize..*ends.get(number)? as usize)
}

impl RecordIndex for MemoryIndex {
    fn records(&self) -> u32 {
        self.offsets.len() as u32
    }

    fn chunks(&self) -> &[IndexedChunk] {
        &self.chunks
    }

    fn is_dense(&self) -> bool {
        self.dense != Some(false)
    }

    fn offset(&self, ordinal: u32) -> u32 {
        self.offsets
            .get(ordinal as usize)
            .copied()
            .unwrap_or_default()
            .into()
    }

    fn relative_sequence(&self, ordinal: u32) -> u64 {
        self.relative
            .get(ordinal as usize)
            .copied()
            .unwrap_or_default()
            .into()
    }

    fn subjects(&self) -> u32 {
        self.ends.len() as u32
    }

    fn find_subject(&self, subject: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(subject);
        self.numbers
            .find(hash, |&number| self.subject(number) == subject)
            .copied()
    }

    fn visit_subjects(&self, prefix: &[u8], visit: &mut dyn FnMut(u32, &[u8]) -> bool) {
        for number in 0..self.subjects() {
            let text = self.subject(number);
            if text.starts_with(prefix) && !visit(number, text) {
                return;
            }
        }
    }

    fn postings(&self, subject: u32) -> Option<PostingList<'_>> {
        let list = self.lists.get(subject as usize)?;
        Some(PostingList::Plain(list.as_slice()))
    }
}
