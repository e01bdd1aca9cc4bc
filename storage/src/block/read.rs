//! Reading records, the same for open and sealed blocks.

use std::sync::Arc;

use super::body::{Body, Holder, Record};
use super::cache::{BlockCache, BlockTicket, Cached, Part};
use super::chunk::{ChunkCodec, PlacedChunk};
use super::error::{BlockReadError, Damage};
use super::index::memory::MemoryIndex;
use super::index::query::{self, Growing, Matching};
use super::index::sealed::SealedIndex;
use super::index::{IndexedChunk, RecordIndex};
use super::scan::Lost;
use super::source::{Source, SourceError};
use crate::disk::DiskErrorKind;
use crate::filter::{Filter, Pattern};
use crate::store::SubjectState;

/// Everything a read needs, borrowed from a block.
pub(super) struct View<'a, I> {
    pub codec: &'a ChunkCodec,
    pub source: &'a Source,
    pub index: &'a I,
    pub lost: &'a [Lost],
    pub ticket: BlockTicket,
    pub cache: &'a BlockCache,
}

impl<'a, I: RecordIndex> View<'a, I> {
    /// The record with this sequence.
    #[inline]
    pub fn load(&self, sequence: u64) -> Result<Option<Record>, BlockReadError> {
        match self.index.find(sequence) {
            Some((chunk, ordinal)) => self.record(chunk, ordinal).map(Some),
            None => match self.lost.iter().find(|lost| lost.may_hold(sequence)) {
                Some(lost) => Err(lost_error(lost)),
                None => Ok(None),
            },
        }
    }

    /// The record with this ordinal, after its checksum held.
    #[inline]
    fn record(&self, chunk: &IndexedChunk, ordinal: u32) -> Result<Record, BlockReadError> {
        let body = self.body(&chunk.placed)?;
        let offset = self.index.offset(ordinal) as usize;
        let expected = self.index.sequence_in(chunk, ordinal);
        match body.record(offset) {
            Ok(record) if record.message.sequence == expected => Ok(record),
            _ => Err(BlockReadError::Record {
                sequence: expected,
                offset: chunk.placed.offset,
                damage: Damage::Checksum,
            }),
        }
    }

    /// The plain body of a chunk: in place when it is plain and mapped, else through the cache.
    #[inline]
    pub fn body(&self, placed: &PlacedChunk) -> Result<Body<'a>, BlockReadError> {
        if let Source::Mapped(mapped) = self.source
            && self.codec.is_plain(&placed.header)
        {
            let length = placed.header.stored_length as usize;
            let start = placed.body_offset() as usize;
            if start + length > mapped.bytes.len() {
                return Err(chunk_error(placed, Damage::Truncated));
            }
            let numbers = || {
                let last = self.index.chunks().last();
                last.map_or(0, |last| last.placed.header.number + 1)
            };
            mapped
                .touch(placed.header.number, numbers, start as u64, length)
                .map_err(|error| unreadable(placed, error))?;
            return Ok(Body {
                facts: placed.header.facts(),
                stream: self.codec.identity.stream,
                holder: Holder::Mapped(&mapped.bytes),
                range: start..start + length,
            });
        }
        self.cached_body(placed)
    }

    fn cached_body(&self, placed: &PlacedChunk) -> Result<Body<'a>, BlockReadError> {
        let header = &placed.header;
        let part = Part::Chunk(header.number);
        if let Some(Cached::Chunk(plain)) = self.cache.get(self.ticket, &part) {
            return Ok(self.codec.body(header, plain));
        }
        let stored = self
            .source
            .read(placed.body_offset(), header.stored_length as usize)
            .map_err(|error| unreadable(placed, error))?;
        let plain = self
            .codec
            .decode(header, &stored)
            .map_err(|damage| chunk_error(placed, damage))?;
        self.cache
            .insert(self.ticket, part, Cached::Chunk(plain.clone()));
        Ok(self.codec.body(header, plain))
    }

    pub fn next(&self, from: u64, matching: &Matching) -> Option<u64> {
        let ordinal = query::next(self.index, matching, self.index.at_or_after(from))?;
        self.index.sequence(ordinal)
    }

    pub fn previous(&self, upto: u64, matching: &Matching) -> Option<u64> {
        let upto = query::at_or_before(self.index, upto)?;
        let ordinal = query::previous(self.index, matching, upto)?;
        self.index.sequence(ordinal)
    }

    pub fn count(&self, from: u64, matching: &Matching) -> u64 {
        query::count(self.index, matching, self.index.at_or_after(from))
    }

    /// Calls `visit` with every sequence at or after `from` that matches, ascending, until it returns `false`.
    pub fn sequences(&self, from: u64, matching: &Matching, visit: &mut dyn FnMut(u64) -> bool) {
        let mut from = self.index.at_or_after(from);
        while let Some(ordinal) = query::next(self.index, matching, from) {
            match self.index.sequence(ordinal) {
                Some(sequence) if visit(sequence) => from = ordinal + 1,
                _ => return,
            }
        }
    }

    /// What the block holds of one subject.
    pub fn state_of(&self, number: u32) -> Option<SubjectState> {
        let list = self.index.postings(number)?;
        Some(SubjectState {
            messages: list.count().into(),
            first_sequence: self.index.sequence(list.first())?,
            last_sequence: self.index.sequence(list.last())?,
        })
    }

    /// Calls `visit` for every subject that matches, until it returns `false`.
    pub fn subjects(&self, filter: &Filter, visit: &mut dyn FnMut(&[u8], SubjectState) -> bool) {
        let prefix = match filter.patterns() {
            [one] => query::literal_prefix(one),
            _ => &[],
        };
        self.index.visit_subjects(prefix, &mut |number, text| {
            if !filter.matches(text) {
                return true;
            }
            self.state_of(number).is_none_or(|state| visit(text, state))
        });
    }

    /// Calls `visit` for every subject with what it has among the sequences for which `live` holds, if that is anything.
    pub fn live_subjects(
        &self,
        live: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(&[u8], SubjectState),
    ) {
        self.index.visit_subjects(&[], &mut |number, text| {
            let mut state: Option<SubjectState> = None;
            if let Some(list) = self.index.postings(number) {
                list.visit(0, &mut |ordinal| {
                    let sequence = self.index.sequence(ordinal);
                    if let Some(sequence) = sequence.filter(|&sequence| live(sequence)) {
                        let state = state.get_or_insert(SubjectState {
                            messages: 0,
                            first_sequence: sequence,
                            last_sequence: sequence,
                        });
                        state.messages += 1;
                        state.last_sequence = sequence;
                    }
                    true
                });
            }
            if let Some(state) = state {
                visit(text, state);
            }
            true
        });
    }

    /// The first record at or after `from` whose time is at or after `time_ns`.
    pub fn sequence_at(&self, time_ns: i64, from: u64) -> Result<Option<u64>, BlockReadError> {
        for chunk in self.index.chunks() {
            let header = &chunk.placed.header;
            if header.last_time_ns < time_ns || header.last_sequence < from {
                continue;
            }
            let body = self.body(&chunk.placed)?;
            for record in body.walk() {
                let (_, record) =
                    record.map_err(|_| chunk_error(&chunk.placed, Damage::Malformed))?;
                if record.time_ns >= time_ns && record.sequence >= from {
                    return Ok(Some(record.sequence));
                }
            }
        }
        Ok(None)
    }

    /// Calls `visit` with every record at or after `from`, ascending, until it returns `false`. What cannot be read comes as an
    /// error in its place, and the walk goes on behind it.
    pub fn records(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Result<Record, BlockReadError>) -> bool,
    ) {
        for chunk in self.index.chunks() {
            if chunk.placed.header.last_sequence < from {
                continue;
            }
            let body = match self.body(&chunk.placed) {
                Ok(body) => body,
                Err(error) => match visit(Err(error)) {
                    true => continue,
                    false => return,
                },
            };
            let first = self.index.at_or_after(from).max(chunk.first_ordinal);
            for ordinal in first..chunk.end_ordinal() {
                let expected = self.index.sequence_in(chunk, ordinal);
                let record = body
                    .record(self.index.offset(ordinal) as usize)
                    .ok()
                    .filter(|record| record.message.sequence == expected)
                    .ok_or(BlockReadError::Record {
                        sequence: expected,
                        offset: chunk.placed.offset,
                        damage: Damage::Checksum,
                    });
                if !visit(record) {
                    return;
                }
            }
        }
    }
}

impl View<'_, SealedIndex> {
    /// Which records match. A wildcard is worked out once and kept in the cache.
    pub fn matching(&self, filter: &Filter) -> Arc<Matching> {
        if is_cheap(filter) {
            return Arc::new(query::resolve(self.index, filter));
        }
        let part = Part::Filter(filter.clone());
        if let Some(Cached::Matching(matching)) = self.cache.get(self.ticket, &part) {
            return matching;
        }
        let matching = Arc::new(query::resolve(self.index, filter));
        self.cache
            .insert(self.ticket, part, Cached::Matching(matching.clone()));
        matching
    }
}

impl View<'_, MemoryIndex> {
    /// Asks `ask` with the records that match. A wildcard is kept in the cache, and follows the block as it grows.
    pub fn with_matching<T>(&self, filter: &Filter, ask: impl FnOnce(&Self, &Matching) -> T) -> T {
        if is_cheap(filter) {
            return ask(self, &query::resolve(self.index, filter));
        }
        let part = Part::Filter(filter.clone());
        let mut growing = match self.cache.get(self.ticket, &part) {
            Some(Cached::Growing(growing)) => growing,
            _ => Arc::new(Growing::new()),
        };
        if !growing.is_current(self.index) {
            let mut followed = Arc::unwrap_or_clone(growing);
            followed.follow(self.index, filter);
            growing = Arc::new(followed);
            self.cache
                .insert(self.ticket, part, Cached::Growing(growing.clone()));
        }
        ask(self, &growing.matching)
    }
}

/// Whether a filter costs a lookup per subject it names and nothing more.
fn is_cheap(filter: &Filter) -> bool {
    filter.is_everything() || filter.patterns().iter().all(Pattern::is_literal)
}

pub(super) fn chunk_error(placed: &PlacedChunk, damage: Damage) -> BlockReadError {
    BlockReadError::Chunk {
        first_sequence: placed.header.first_sequence,
        last_sequence: placed.header.last_sequence,
        offset: placed.offset,
        damage,
    }
}

/// A sector that cannot be read is damage to its chunk; anything else the disk reports may pass.
fn unreadable(placed: &PlacedChunk, error: SourceError) -> BlockReadError {
    match error {
        SourceError::Disk(error) if !matches!(error.kind, DiskErrorKind::Io(_)) => error.into(),
        error => chunk_error(placed, error.into()),
    }
}

fn lost_error(lost: &Lost) -> BlockReadError {
    BlockReadError::Chunk {
        first_sequence: lost.first_sequence,
        last_sequence: lost.last_sequence.unwrap_or(u64::MAX),
        offset: lost.offset,
        damage: lost.damage.clone(),
    }
}
