//! The index in a sealed block's footer: packed so that every question is answered in place.
//!
//! ```text
//!   0  4  chunks
//!   4  4  records
//!   8  4  subjects
//!  12  4  1 when sequences have no gap, else 0
//!  16  section directory: for each section where it begins (u32, from the index's beginning), its length (u32) and,
//!      when it is a bit-packed array, its width (u32)
//!      sections:
//!       0  chunk table: for each chunk where it begins in the file (u64) and a copy of its header
//!       1  packed: where each record begins in its chunk's plain body
//!       2  packed: each record's sequence relative to its chunk's first; empty without gaps
//!       3  subject texts, sorted and front-coded in groups of 16
//!       4  packed: where each group of subjects begins in section 3
//!       5  packed, per subject: records on it, minus 1
//!       6  packed, per subject: ordinal of its first record
//!       7  packed, per subject: ordinal of its last record minus that of its first
//!       8  packed, per subject: where its posting list begins in section 9
//!       9  posting lists
//! ```
//!
//! The chunk table repeats the chunk headers, so that a damaged header of a sealed block costs nothing.

use bytes::Bytes;

use super::memory::MemoryIndex;
use super::{IndexedChunk, PostingList, RecordIndex};
use crate::block::chunk::PlacedChunk;
use crate::block::format::{CHUNK_HEADER_BYTES, ChunkHeader};
use crate::block::packed::{Packed, pack, width_of};
use crate::block::postings::{self, Postings};
use crate::block::subjects::{self, Subjects};
use crate::block::varint::{Malformed, Reader};

const SECTIONS: usize = 10;
const DIRECTORY_AT: usize = 16;
const SECTIONS_AT: usize = DIRECTORY_AT + SECTIONS * 12;
const CHUNK_ENTRY_BYTES: usize = 8 + CHUNK_HEADER_BYTES;

/// No block file is anywhere near as long; what claims to be is not believed.
const FILE_BYTES_MAX: u64 = 1 << 40;

const CHUNKS: usize = 0;
const OFFSETS: usize = 1;
const SEQUENCES: usize = 2;
const TEXTS: usize = 3;
const TEXT_GROUPS: usize = 4;
const COUNTS: usize = 5;
const FIRSTS: usize = 6;
const SPANS: usize = 7;
const LIST_OFFSETS: usize = 8;
const LISTS: usize = 9;

#[derive(Debug, Clone, Copy, Default)]
struct Section {
    at: u32,
    length: u32,
    width: u32,
}

/// Writes sections one after another.
struct Writer {
    out: Vec<u8>,
    sections: Vec<Section>,
}

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.sections.push(Section {
            at: (SECTIONS_AT + self.out.len()) as u32,
            length: bytes.len() as u32,
            width: 0,
        });
        self.out.extend_from_slice(bytes);
    }

    fn packed(&mut self, values: impl Iterator<Item = u64> + Clone) {
        let width = width_of(values.clone().max().unwrap_or_default());
        let at = self.out.len();
        pack(&mut self.out, width, values);
        self.sections.push(Section {
            at: (SECTIONS_AT + at) as u32,
            length: (self.out.len() - at) as u32,
            width: width.into(),
        });
    }
}

/// Packs an index for the footer of the block with this seed.
pub(in crate::block) fn encode(index: &MemoryIndex, seed: u32) -> Vec<u8> {
    let mut writer = Writer {
        out: Vec::new(),
        sections: Vec::with_capacity(SECTIONS),
    };
    let mut chunks = Vec::with_capacity(index.chunks().len() * CHUNK_ENTRY_BYTES);
    for chunk in index.chunks() {
        chunks.extend_from_slice(&chunk.placed.offset.to_le_bytes());
        chunks.extend_from_slice(&chunk.placed.header.encode(seed));
    }
    writer.bytes(&chunks);
    writer.packed((0..index.records()).map(|ordinal| index.offset(ordinal).into()));
    let sparse = if index.is_dense() { 0 } else { index.records() };
    writer.packed((0..sparse).map(|ordinal| index.relative_sequence(ordinal)));
    encode_subjects(index, &mut writer);

    let mut out = Vec::with_capacity(SECTIONS_AT + writer.out.len());
    for number in [
        index.chunks().len() as u32,
        index.records(),
        index.subjects(),
        u32::from(index.is_dense()),
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for section in &writer.sections {
        for number in [section.at, section.length, section.width] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    debug_assert_eq!(out.len(), SECTIONS_AT);
    out.append(&mut writer.out);
    out
}

fn encode_subjects(index: &MemoryIndex, writer: &mut Writer) {
    let mut sorted: Vec<u32> = (0..index.subjects()).collect();
    sorted.sort_unstable_by(|&a, &b| index.subject(a).cmp(index.subject(b)));
    let (texts, groups) = subjects::encode(sorted.iter().map(|&number| index.subject(number)));
    writer.bytes(&texts);
    writer.packed(groups.iter().copied());

    let list = |&number: &u32| index.postings(number).unwrap_or(PostingList::Plain(&[]));
    let lists = || sorted.iter().map(list);
    writer.packed(lists().map(|list| u64::from(list.count().saturating_sub(1))));
    writer.packed(lists().map(|list| list.first().into()));
    writer.packed(lists().map(|list| (list.last() - list.first()).into()));
    let mut encoded = Vec::new();
    let offsets: Vec<u64> = lists()
        .map(|list| {
            let at = match list.count() {
                0 | 1 => 0,
                _ => encoded.len() as u64,
            };
            if let PostingList::Plain(ordinals) = list {
                postings::encode(&mut encoded, ordinals);
            }
            at
        })
        .collect();
    writer.packed(offsets.iter().copied());
    writer.bytes(&encoded);
}

/// An index in a footer.
#[derive(Debug)]
pub(in crate::block) struct SealedIndex {
    bytes: Bytes,
    records: u32,
    subjects: u32,
    dense: bool,
    sections: [Section; SECTIONS],
    /// The chunk table is small and asked on every read: it alone is kept unpacked.
    chunks: Vec<IndexedChunk>,
}

impl SealedIndex {
    /// Reads the directory and the chunk table; the bytes were checked against their checksum before.
    pub fn parse(bytes: Bytes, seed: u32) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&bytes);
        let chunk_count = reader.u32()? as usize;
        let (records, subjects, dense) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let mut sections = [Section::default(); SECTIONS];
        for section in &mut sections {
            *section = Section {
                at: reader.u32()?,
                length: reader.u32()?,
                width: reader.u32()?,
            };
            let end = section.at as usize + section.length as usize;
            if end > bytes.len() {
                return Err(Malformed);
            }
        }
        let mut index = Self {
            bytes,
            records,
            subjects,
            dense: dense == 1,
            sections,
            chunks: Vec::new(),
        };
        index.chunks = index.parse_chunks(chunk_count, seed)?;
        index.check_arrays()?;
        Ok(index)
    }

    /// The index of a block without records.
    pub fn empty() -> Self {
        Self {
            bytes: Bytes::new(),
            records: 0,
            subjects: 0,
            dense: true,
            sections: [Section::default(); SECTIONS],
            chunks: Vec::new(),
        }
    }

    fn parse_chunks(&self, count: usize, seed: u32) -> Result<Vec<IndexedChunk>, Malformed> {
        let table = self.section(CHUNKS);
        if table.len() != count.checked_mul(CHUNK_ENTRY_BYTES).ok_or(Malformed)? {
            return Err(Malformed);
        }
        let mut chunks: Vec<IndexedChunk> = Vec::with_capacity(count);
        let mut next_ordinal = 0u32;
        for entry in table.chunks_exact(CHUNK_ENTRY_BYTES) {
            let mut reader = Reader::new(entry);
            let offset = reader.u64()?;
            let header = reader.take(CHUNK_HEADER_BYTES)?;
            let header = ChunkHeader::decode(header, seed).ok_or(Malformed)?;
            let placed = PlacedChunk { offset, header };
            if offset > FILE_BYTES_MAX
                || chunks.last().is_some_and(|last| {
                    offset < last.placed.end()
                        || header.first_sequence <= last.placed.header.last_sequence
                })
            {
                return Err(Malformed);
            }
            chunks.push(IndexedChunk {
                placed,
                first_ordinal: next_ordinal,
            });
            next_ordinal = next_ordinal.checked_add(header.records).ok_or(Malformed)?;
        }
        (next_ordinal == self.records)
            .then_some(chunks)
            .ok_or(Malformed)
    }

    /// Checks that every array is as long as it must be, so that reads need not.
    fn check_arrays(&self) -> Result<(), Malformed> {
        let records = self.records as usize;
        let subjects = self.subjects as usize;
        let sparse = if self.dense { 0 } else { records };
        // Arrays of width 0 have no bytes that would limit what they claim to hold.
        if subjects > records || subjects > self.section(TEXTS).len() {
            return Err(Malformed);
        }
        for (section, count) in [
            (OFFSETS, records),
            (SEQUENCES, sparse),
            (TEXT_GROUPS, subjects.div_ceil(subjects::GROUP)),
            (COUNTS, subjects),
            (FIRSTS, subjects),
            (SPANS, subjects),
            (LIST_OFFSETS, subjects),
        ] {
            let width = u8::try_from(self.width(section)).map_err(|_| Malformed)?;
            Packed::new(self.section(section), width, count).ok_or(Malformed)?;
        }
        Ok(())
    }

    /// Checks what reads take for granted: subjects ascend, lists are what their entries say and together hold every record once.
    pub fn check(&self) -> Result<(), Malformed> {
        self.texts().check()?;
        let mut total = 0u64;
        for subject in 0..self.subjects {
            let list = self.list(subject);
            list.check()?;
            if list.last >= self.records {
                return Err(Malformed);
            }
            total += u64::from(list.count);
        }
        (total == u64::from(self.records))
            .then_some(())
            .ok_or(Malformed)
    }

    fn section(&self, section: usize) -> &[u8] {
        let Some(section) = self.sections.get(section) else {
            return &[];
        };
        let at = section.at as usize;
        self.bytes
            .get(at..at + section.length as usize)
            .unwrap_or_default()
    }

    fn width(&self, section: usize) -> u32 {
        self.sections
            .get(section)
            .map_or(0, |section| section.width)
    }

    #[inline]
    fn packed(&self, section: usize) -> Packed<'_> {
        Packed::unchecked(self.section(section), self.width(section) as u8)
    }

    fn texts(&self) -> Subjects<'_> {
        Subjects {
            text: self.section(TEXTS),
            groups: self.packed(TEXT_GROUPS),
            count: self.subjects,
        }
    }

    fn list(&self, subject: u32) -> Postings<'_> {
        let at = subject as usize;
        let first = self.packed(FIRSTS).get(at) as u32;
        let list_at = self.packed(LIST_OFFSETS).get(at) as usize;
        Postings {
            count: (self.packed(COUNTS).get(at) as u32)
                .saturating_add(1)
                .min(self.records),
            first,
            last: first.saturating_add(self.packed(SPANS).get(at) as u32),
            bytes: self.section(LISTS).get(list_at..).unwrap_or_default(),
        }
    }

    /// Bytes of heap this index takes beside the bytes it reads.
    pub fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<IndexedChunk>()
    }

    /// The index as it stands in the footer.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the index itself.
    pub fn packed_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl RecordIndex for SealedIndex {
    fn records(&self) -> u32 {
        self.records
    }

    fn chunks(&self) -> &[IndexedChunk] {
        &self.chunks
    }

    fn is_dense(&self) -> bool {
        self.dense
    }

    #[inline]
    fn offset(&self, ordinal: u32) -> u32 {
        self.packed(OFFSETS).get(ordinal as usize) as u32
    }

    #[inline]
    fn relative_sequence(&self, ordinal: u32) -> u64 {
        self.packed(SEQUENCES).get(ordinal as usize)
    }

    fn subjects(&self) -> u32 {
        self.subjects
    }

    fn find_subject(&self, subject: &[u8]) -> Option<u32> {
        self.texts().find(subject)
    }

    fn visit_subjects(&self, prefix: &[u8], visit: &mut dyn FnMut(u32, &[u8]) -> bool) {
        self.texts().with_prefix(prefix, visit);
    }

    fn postings(&self, subject: u32) -> Option<PostingList<'_>> {
        (subject < self.subjects).then(|| PostingList::Packed(self.list(subject)))
    }
}
