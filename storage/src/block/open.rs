//! The written part of a block that is not sealed yet.

use std::sync::Arc;

use super::body::Record;
use super::cache::{BlockCache, BlockTicket};
use super::chunk::ChunkCodec;
use super::error::{BlockOpenError, BlockReadError};
use super::format::{BlockIdentity, KeySlot};
use super::index::memory::MemoryIndex;
use super::index::{IndexedChunk, RecordIndex};
use super::keys::BlockKeys;
use super::read::View;
use super::scan::{self, Lost};
use super::source::{Source, SourceError, read_what_can_be_read};
use super::writer::{BlockWriter, EncodedChunk};
use crate::disk::DiskFile;
use crate::filter::Filter;
use crate::seal::KeyRing;
use crate::store::SubjectState;

/// Reads the chunks of a block that have been written so far.
pub struct OpenBlock {
    pub(super) codec: ChunkCodec,
    pub(super) index: MemoryIndex,
    source: Source,
    ticket: BlockTicket,
    written: u64,
    next_number: u32,
    lost: Vec<Lost>,
}

impl OpenBlock {
    /// Of a block whose writer has just been created; `file` is where its bytes go.
    pub fn new(writer: &BlockWriter, file: Arc<dyn DiskFile>) -> Self {
        let codec = writer.codec().clone();
        Self {
            written: codec.identity.data_offset(),
            codec,
            index: MemoryIndex::default(),
            source: Source::File(file),
            ticket: BlockTicket::new(),
            next_number: 0,
            lost: Vec::new(),
        }
    }

    /// After a restart: finds the chunks in the first `written` bytes of the file again. What lies beyond is ignored, what is
    /// unreadable before costs itself and is named by [`Self::lost`].
    pub fn open(
        file: Arc<dyn DiskFile>,
        written: u64,
        ring: Option<&KeyRing>,
    ) -> Result<Self, BlockOpenError> {
        let bytes = read_what_can_be_read(&*file, written)?;
        let identity = BlockIdentity::decode(&bytes)?;
        let keys = BlockKeys::open(&identity, &bytes, ring)?;
        let codec = ChunkCodec::new(identity, keys);
        let (index, mut lost) = scan::rebuild(&codec, &bytes, written);
        let after = index.chunks().last().map(|chunk| chunk.placed.header);
        let next_number = after.map_or(0, |header| header.number + 1);
        if (bytes.len() as u64) < written {
            lost.push(Lost {
                first_sequence: after.map_or(identity.first_sequence, |header| {
                    header.last_sequence.saturating_add(1)
                }),
                last_sequence: None,
                offset: bytes.len() as u64,
                length: written - bytes.len() as u64,
                damage: super::Damage::Truncated,
            });
        }
        Ok(Self {
            codec,
            index,
            source: Source::File(file),
            ticket: BlockTicket::new(),
            written,
            // A lost chunk's number is not used again.
            next_number: next_number.saturating_add(lost.len() as u32),
            lost,
        })
    }

    /// Takes in a chunk after it has been written to the file.
    pub fn absorb(&mut self, chunk: &EncodedChunk) {
        assert_eq!(
            chunk.placed.offset, self.written,
            "chunks are absorbed in the order of their offsets"
        );
        let body = self.codec.body(&chunk.placed.header, chunk.plain.clone());
        let absorbed = self.index.absorb(chunk.placed, &body);
        assert!(absorbed.is_ok(), "a chunk just encoded is well-formed");
        self.written = chunk.placed.end();
        self.next_number = chunk.placed.header.number + 1;
    }

    /// What the block is.
    pub fn identity(&self) -> &BlockIdentity {
        &self.codec.identity
    }

    /// How many bytes of the file hold chunks that were absorbed; the next chunk goes here.
    pub fn written_length(&self) -> u64 {
        self.written
    }

    pub(super) fn next_number(&self) -> u32 {
        self.next_number
    }

    pub(super) fn read_key_slot(&self) -> Result<KeySlot, BlockOpenError> {
        let length = self.codec.identity.data_offset() as usize;
        let start = self.source.read(0, length).map_err(|error| match error {
            SourceError::Disk(error) => BlockOpenError::Disk(error),
            SourceError::Truncated => BlockOpenError::KeySlots,
        })?;
        KeySlot::newest(&start, &self.codec.identity).ok_or(BlockOpenError::KeySlots)
    }

    /// Records written.
    pub fn records(&self) -> u32 {
        self.index.records()
    }

    /// Distinct subjects written.
    pub fn subject_count(&self) -> u32 {
        self.index.subjects()
    }

    /// What the records written count for in a stream's `bytes`.
    pub fn accounted_bytes(&self) -> u64 {
        self.index.totals.accounted_bytes
    }

    /// The lowest sequence written.
    pub fn first_sequence(&self) -> Option<u64> {
        let first: &IndexedChunk = self.index.chunks().first()?;
        Some(first.placed.header.first_sequence)
    }

    /// The highest sequence written.
    pub fn last_sequence(&self) -> Option<u64> {
        let last: &IndexedChunk = self.index.chunks().last()?;
        Some(last.placed.header.last_sequence)
    }

    /// The latest time of any record written.
    pub fn last_time_ns(&self) -> Option<i64> {
        let totals = &self.index.totals;
        (self.index.records() > 0).then_some(totals.last_time_ns)
    }

    /// What could not be read when the block was opened.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Bytes of heap the index takes, about.
    pub fn heap_bytes(&self) -> usize {
        self.index.heap_bytes()
    }

    fn view<'a>(&'a self, cache: &'a BlockCache) -> View<'a, MemoryIndex> {
        View {
            codec: &self.codec,
            source: &self.source,
            index: &self.index,
            lost: &self.lost,
            ticket: self.ticket,
            cache,
        }
    }

    /// The record with this sequence, `None` when it was not written.
    pub fn load(
        &self,
        sequence: u64,
        cache: &BlockCache,
    ) -> Result<Option<Record>, BlockReadError> {
        self.view(cache).load(sequence)
    }

    /// The sequence of the first record at or after `from` that matches.
    pub fn next(&self, from: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        self.view(cache)
            .with_matching(filter, |view, matching| view.next(from, matching))
    }

    /// The sequence of the last record at or before `upto` that matches.
    pub fn previous(&self, upto: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        self.view(cache)
            .with_matching(filter, |view, matching| view.previous(upto, matching))
    }

    /// How many records at or after `from` match.
    pub fn count(&self, from: u64, filter: &Filter, cache: &BlockCache) -> u64 {
        self.view(cache)
            .with_matching(filter, |view, matching| view.count(from, matching))
    }

    /// Calls `visit` with every sequence at or after `from` that matches, ascending, until it returns `false`.
    pub fn sequences(
        &self,
        from: u64,
        filter: &Filter,
        cache: &BlockCache,
        visit: &mut dyn FnMut(u64) -> bool,
    ) {
        self.view(cache).with_matching(filter, |view, matching| {
            view.sequences(from, matching, visit);
        });
    }

    /// What the block holds of one literal subject.
    pub fn subject(&self, subject: &[u8], cache: &BlockCache) -> Option<SubjectState> {
        self.view(cache).state_of(self.index.find_subject(subject)?)
    }

    /// Calls `visit` for every subject that matches, in no order, until it returns `false`.
    pub fn subjects(
        &self,
        filter: &Filter,
        cache: &BlockCache,
        visit: &mut dyn FnMut(&[u8], SubjectState) -> bool,
    ) {
        self.view(cache).subjects(filter, visit);
    }

    /// Calls `visit` for every subject with what it has among the sequences for which `live` holds, if that is anything.
    pub fn live_subjects(
        &self,
        cache: &BlockCache,
        live: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(&[u8], SubjectState),
    ) {
        self.view(cache).live_subjects(live, visit);
    }

    /// The first sequence at or after `from` whose time is at or after `time_ns`.
    pub fn sequence_at(
        &self,
        time_ns: i64,
        from: u64,
        cache: &BlockCache,
    ) -> Result<Option<u64>, BlockReadError> {
        self.view(cache).sequence_at(time_ns, from)
    }

    /// Calls `visit` with every record at or after `from`, ascending, until it returns `false`. What cannot be read comes as an
    /// error in its place.
    pub fn for_each(
        &self,
        from: u64,
        cache: &BlockCache,
        visit: &mut dyn FnMut(Result<Record, BlockReadError>) -> bool,
    ) {
        self.view(cache).records(from, visit);
    }
}
