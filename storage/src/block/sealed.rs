//! Sealed blocks: they never change, and their index is read where it lies.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::body::Record;
use super::cache::{BlockCache, BlockTicket, Cached, Part};
use super::chunk::ChunkCodec;
use super::error::{BlockOpenError, BlockReadError, Damage};
use super::format::chunk::body_crc;
use super::format::{
    BlockIdentity, FOOTER_HEADER_BYTES, FooterHeader, HeaderError, KEY_SLOTS_END, TRAILER_BYTES,
    Trailer,
};
use super::index::RecordIndex;
use super::index::sealed::{self, SealedIndex};
use super::keys::BlockKeys;
use super::read::View;
use super::scan::{self, Lost};
use super::source::{Mapped, Source, SourceError, read_what_can_be_read};
use super::writer::summarize;
use crate::disk::{Disk, DiskErrorKind};
use crate::filter::Filter;
use crate::seal::KeyRing;
use crate::store::SubjectState;

/// A sealed block, mapped.
pub struct SealedBlock {
    codec: ChunkCodec,
    source: Source,
    ticket: BlockTicket,
    footer: Option<(u64, FooterHeader)>,
    /// Of a plain block, whose index stays in the mapped file, and of any block whose index had to be rebuilt. The index of an
    /// encrypted block is opened into the cache instead.
    resident: OnceLock<Resident>,
}

struct Resident {
    index: Arc<SealedIndex>,
    summary: FooterHeader,
    /// What was wrong with the footer, when the index was rebuilt.
    rebuilt: Option<Damage>,
    lost: Vec<Lost>,
}

impl SealedBlock {
    /// Opens a block from its whole file in memory. A damaged footer is not an error: the index is rebuilt from the chunks then.
    pub fn open(file: Bytes, ring: Option<&KeyRing>) -> Result<Self, BlockOpenError> {
        Self::over(Mapped::memory(file), ring)
    }

    /// Opens a block from a file of `length` bytes. The file is mapped, and read once before the memory is touched.
    pub fn open_file(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        length: u64,
        ring: Option<&KeyRing>,
    ) -> Result<Self, BlockOpenError> {
        let mapped = Mapped::file(disk, path, length)?;
        let start = length.min(KEY_SLOTS_END as u64) as usize;
        match mapped.read(0, start) {
            Err(SourceError::Disk(error)) if !matches!(error.kind, DiskErrorKind::Io(_)) => {
                Err(error.into())
            }
            Err(_) => Err(HeaderError::Damaged.into()),
            Ok(_) => Self::over(mapped, ring),
        }
    }

    fn over(mapped: Mapped, ring: Option<&KeyRing>) -> Result<Self, BlockOpenError> {
        let file = &mapped.bytes;
        let identity = BlockIdentity::decode(file)?;
        let keys = BlockKeys::open(&identity, file, ring)?;
        let codec = ChunkCodec::new(identity, keys);
        let block = Self {
            footer: footer_of(&codec, &mapped)?,
            codec,
            source: Source::Mapped(mapped),
            ticket: BlockTicket::new(),
            resident: OnceLock::new(),
        };
        if block.footer.is_none() {
            block.rebuilt(Damage::Header);
        }
        Ok(block)
    }

    /// What the block is.
    pub fn identity(&self) -> &BlockIdentity {
        &self.codec.identity
    }

    /// The totals: from the footer or, when it is lost, from the chunks that can be read.
    pub fn summary(&self) -> &FooterHeader {
        match (&self.footer, self.resident.get()) {
            (_, Some(resident)) => &resident.summary,
            (Some((_, footer)), None) => footer,
            (None, None) => &self.rebuilt(Damage::Header).summary,
        }
    }

    /// Length of the file.
    pub fn file_length(&self) -> u64 {
        match &self.source {
            Source::Mapped(mapped) => mapped.bytes.len() as u64,
            Source::File(file) => file.length().unwrap_or_default(),
        }
    }

    /// What was wrong with the footer, when the index had to be rebuilt from the chunks.
    pub fn footer_damage(&self) -> Option<&Damage> {
        self.resident.get()?.rebuilt.as_ref()
    }

    /// What could not be read when the index was rebuilt. Empty while the footer is intact: then a damaged chunk shows when it
    /// is read.
    pub fn lost(&self) -> &[Lost] {
        self.resident
            .get()
            .map_or(&[], |resident| resident.lost.as_slice())
    }

    /// Bytes of heap this block takes by itself, about; what the cache holds for it is not counted.
    pub fn heap_bytes(&self) -> usize {
        let index = self.resident.get().map_or(0, |resident| {
            let rebuilt = match resident.rebuilt {
                Some(_) => resident.index.packed_bytes(),
                None => 0,
            };
            resident.index.heap_bytes() + rebuilt
        });
        size_of::<Self>() + index
    }

    /// The index, opened and checked on first use.
    fn index(&self, cache: &BlockCache) -> Arc<SealedIndex> {
        if let Some(resident) = self.resident.get() {
            return resident.index.clone();
        }
        let Some((at, footer)) = self.footer else {
            return self.rebuilt(Damage::Header).index.clone();
        };
        let sealed = self.codec.keys.is_sealed();
        if sealed && let Some(Cached::Index(index)) = cache.get(self.ticket, &Part::Index) {
            return index;
        }
        match self.read_index(at, &footer) {
            Ok(index) if sealed => {
                let index = Arc::new(index);
                cache.insert(self.ticket, Part::Index, Cached::Index(index.clone()));
                index
            }
            Ok(index) => {
                let resident = || Resident {
                    index: Arc::new(index),
                    summary: footer,
                    rebuilt: None,
                    lost: Vec::new(),
                };
                self.resident.get_or_init(resident).index.clone()
            }
            Err(damage) => self.rebuilt(damage).index.clone(),
        }
    }

    fn read_index(&self, at: u64, footer: &FooterHeader) -> Result<SealedIndex, Damage> {
        let offset = at + FOOTER_HEADER_BYTES as u64;
        let length = footer.stored_length as usize;
        let Source::Mapped(mapped) = &self.source else {
            return read_index(&self.codec, footer, self.source.read(offset, length)?);
        };
        let stored = mapped.read(offset, length)?;
        if self.codec.keys.is_sealed() {
            return read_index(&self.codec, footer, stored);
        }
        // What was read is checked, and then dropped: the index is used where it is mapped.
        check_index(&self.codec, footer, &stored)?;
        read_index(&self.codec, footer, mapped.slice(offset, length)?)
    }

    /// Builds the index from the chunks.
    fn rebuilt(&self, damage: Damage) -> &Resident {
        self.resident.get_or_init(|| {
            // A disk that reads nothing at all leaves what the map has.
            let file = match &self.source {
                Source::Mapped(mapped) => {
                    mapped.read_all().unwrap_or_else(|_| mapped.bytes.clone())
                }
                Source::File(file) => read_what_can_be_read(&**file, u64::MAX).unwrap_or_default(),
            };
            let (memory, lost) = scan::rebuild(&self.codec, &file, file.len() as u64);
            let summary = summarize(&memory, &memory.totals, self.codec.seed);
            let bytes = sealed::encode(&memory, self.codec.seed);
            // What was just encoded parses; an index of nothing is the answer if that were ever wrong.
            let index = SealedIndex::parse(bytes.into(), self.codec.seed)
                .unwrap_or_else(|_| SealedIndex::empty());
            Resident {
                index: Arc::new(index),
                summary,
                rebuilt: Some(damage),
                lost,
            }
        })
    }

    #[inline]
    fn with_view<T>(&self, cache: &BlockCache, read: impl FnOnce(View<'_, SealedIndex>) -> T) -> T {
        let opened;
        let index: &SealedIndex = match self.resident.get() {
            // The usual case: nothing is counted up and down for it.
            Some(resident) => &resident.index,
            None => {
                opened = self.index(cache);
                &opened
            }
        };
        read(View {
            codec: &self.codec,
            source: &self.source,
            index,
            lost: self.lost(),
            ticket: self.ticket,
            cache,
        })
    }

    /// The record with this sequence, `None` when the block does not hold it.
    pub fn load(
        &self,
        sequence: u64,
        cache: &BlockCache,
    ) -> Result<Option<Record>, BlockReadError> {
        self.with_view(cache, |view| view.load(sequence))
    }

    /// The sequence of the first record at or after `from` that matches.
    pub fn next(&self, from: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        self.with_view(cache, |view| view.next(from, &view.matching(filter)))
    }

    /// The sequence of the last record at or before `upto` that matches.
    pub fn previous(&self, upto: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        self.with_view(cache, |view| view.previous(upto, &view.matching(filter)))
    }

    /// How many records at or after `from` match.
    pub fn count(&self, from: u64, filter: &Filter, cache: &BlockCache) -> u64 {
        self.with_view(cache, |view| view.count(from, &view.matching(filter)))
    }

    /// Calls `visit` with every sequence at or after `from` that matches, ascending, until it returns `false`.
    pub fn sequences(
        &self,
        from: u64,
        filter: &Filter,
        cache: &BlockCache,
        visit: &mut dyn FnMut(u64) -> bool,
    ) {
        self.with_view(cache, |view| {
            view.sequences(from, &view.matching(filter), visit);
        });
    }

    /// What the block holds of one literal subject.
    pub fn subject(&self, subject: &[u8], cache: &BlockCache) -> Option<SubjectState> {
        self.with_view(cache, |view| {
            view.state_of(view.index.find_subject(subject)?)
        })
    }

    /// Calls `visit` for every subject that matches, in byte order, until it returns `false`.
    pub fn subjects(
        &self,
        filter: &Filter,
        cache: &BlockCache,
        visit: &mut dyn FnMut(&[u8], SubjectState) -> bool,
    ) {
        self.with_view(cache, |view| view.subjects(filter, visit));
    }

    /// Calls `visit` for every subject with what it has among the sequences for which `live` holds, if that is anything.
    pub fn live_subjects(
        &self,
        cache: &BlockCache,
        live: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(&[u8], SubjectState),
    ) {
        self.with_view(cache, |view| view.live_subjects(live, visit));
    }

    /// The first sequence at or after `from` whose time is at or after `time_ns`.
    pub fn sequence_at(
        &self,
        time_ns: i64,
        from: u64,
        cache: &BlockCache,
    ) -> Result<Option<u64>, BlockReadError> {
        if self.summary().last_time_ns < time_ns {
            return Ok(None);
        }
        self.with_view(cache, |view| view.sequence_at(time_ns, from))
    }

    /// Calls `visit` with every record at or after `from`, ascending, until it returns `false`. What cannot be read comes as an
    /// error in its place.
    pub fn for_each(
        &self,
        from: u64,
        cache: &BlockCache,
        visit: &mut dyn FnMut(Result<Record, BlockReadError>) -> bool,
    ) {
        self.with_view(cache, |view| view.records(from, visit));
    }
}

/// The footer header: where the trailer says or, when that is damaged, at the end of the chunks.
pub(super) fn find_footer(codec: &ChunkCodec, file: &[u8]) -> Option<(u64, FooterHeader)> {
    let at = Trailer::decode(file, codec.seed).map(|trailer| trailer.footer_at);
    let header = |at: u64| {
        let at = usize::try_from(at).ok()?;
        FooterHeader::decode(file.get(at..)?, codec.seed)
    };
    if let Some(at) = at
        && let Some(header) = header(at)
    {
        return Some((at, header));
    }
    scan::walk(codec, file, file.len() as u64).footer
}

/// Whether the file ends in an intact trailer that points at an intact footer header.
pub(super) fn trailer_is_intact(codec: &ChunkCodec, file: &[u8]) -> bool {
    let footer = find_footer(codec, file);
    let trailer = Trailer::decode(file, codec.seed);
    match (footer, trailer) {
        (Some((at, header)), Some(trailer)) => {
            let end = at + FOOTER_HEADER_BYTES as u64 + u64::from(header.stored_length);
            trailer.footer_at == at && end + TRAILER_BYTES as u64 == file.len() as u64
        }
        _ => false,
    }
}

/// The footer of a mapped block, of which only what is looked at is read.
fn footer_of(
    codec: &ChunkCodec,
    mapped: &Mapped,
) -> Result<Option<(u64, FooterHeader)>, BlockOpenError> {
    let length = mapped.bytes.len() as u64;
    let trailer_at = length.saturating_sub(TRAILER_BYTES as u64);
    let read = |at: u64, length: usize| mapped.read(at, length).ok();
    if let Some(trailer) = read(trailer_at, (length - trailer_at) as usize)
        && let Some(Trailer { footer_at }) = Trailer::decode(&trailer, codec.seed)
        && let Some(header) = read(footer_at, FOOTER_HEADER_BYTES)
        && let Some(header) = FooterHeader::decode(&header, codec.seed)
    {
        return Ok(Some((footer_at, header)));
    }
    Ok(find_footer(codec, &mapped.read_all()?))
}

/// Checks a stored index against its checksum.
pub(super) fn check_index(
    codec: &ChunkCodec,
    footer: &FooterHeader,
    stored: &[u8],
) -> Result<(), Damage> {
    match body_crc(codec.seed, stored) == footer.index_crc {
        true => Ok(()),
        false => Err(Damage::Checksum),
    }
}

/// Opens the index of a footer and checks everything that its checksum and its header promise.
pub(super) fn read_index(
    codec: &ChunkCodec,
    footer: &FooterHeader,
    stored: Bytes,
) -> Result<SealedIndex, Damage> {
    check_index(codec, footer, &stored)?;
    let plain = if codec.identity.cipher.is_some() {
        let associated = [&codec.encoded_identity[..], &footer.authenticated()];
        codec
            .keys
            .open_sealed(footer.epoch, footer.nonce(), &associated, &stored)
            .ok_or(Damage::Authentication)?
            .into()
    } else {
        stored
    };
    let index = SealedIndex::parse(plain, codec.seed).map_err(|_| Damage::Malformed)?;
    let agrees = index.records() == footer.records
        && index.chunks().len() == footer.chunks as usize
        && index.subjects() == footer.subjects;
    agrees.then_some(index).ok_or(Damage::Malformed)
}
