//! What a block file holds, and whether everything it promises is true. For tools; it keeps working while files are damaged.

use bytes::Bytes;

use super::chunk::{ChunkCodec, PlacedChunk};
use super::error::{BlockReadError, Damage};
use super::format::{
    BlockIdentity, CHUNK_HEADER_BYTES, ChunkHeader, FOOTER_HEADER_BYTES, FooterHeader,
    HEADER_PAGE_BYTES, HeaderError, KEY_SLOT_BYTES, KeySlot,
};
use super::index::RecordIndex;
use super::index::memory::MemoryIndex;
use super::index::sealed::{self, SealedIndex};
use super::keys::BlockKeys;
use super::read::chunk_error;
use super::scan::{self, Lost};
use super::sealed::{check_index, find_footer, read_index, trailer_is_intact};
use super::writer::summarize;
use crate::codec::Compression;
use crate::seal::KeyId;

/// How a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// No footer: the block is still written, or was when its server stopped.
    Open,
    /// Footer and trailer are where they must be.
    Sealed,
    /// There is a footer, but not at the very end, or the trailer is unreadable.
    Damaged,
}

/// What the headers of a block say; nothing of it needs a key.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What the block is.
    pub identity: BlockIdentity,
    /// Length of the file.
    pub file_length: u64,
    /// Its chunks, in order.
    pub chunks: Vec<PlacedChunk>,
    /// Stretches without a readable chunk header.
    pub lost: Vec<Lost>,
    /// The footer header, where it is readable.
    pub footer: Option<FooterHeader>,
    /// How the file ends.
    pub sealing: Sealing,
    /// The master key of each key epoch; `None` where both slots are unreadable, empty in a plain block.
    pub master_keys: Option<Vec<KeyId>>,
}

impl Outline {
    /// Reads the headers of a block file. Of a block that is still written, only the first `written` bytes count.
    pub fn read(file: &Bytes, written: Option<u64>) -> Result<Self, HeaderError> {
        let identity = BlockIdentity::decode(file)?;
        let codec = ChunkCodec::new(identity, BlockKeys::default());
        let limit = written.unwrap_or(file.len() as u64);
        let footer = match written {
            Some(_) => None,
            None => find_footer(&codec, file),
        };
        let end = footer.map_or(limit, |(at, _)| at);
        let walk = scan::walk(&codec, file, end);
        let sealing = match footer {
            None => Sealing::Open,
            Some(_) if trailer_is_intact(&codec, file) => Sealing::Sealed,
            Some(_) => Sealing::Damaged,
        };
        let master_keys = match identity.cipher {
            None => Some(Vec::new()),
            Some(_) => KeySlot::newest(file, &identity)
                .map(|slot| slot.keys.iter().map(|key| key.master).collect()),
        };
        Ok(Self {
            identity,
            file_length: file.len() as u64,
            chunks: walk.chunks,
            lost: walk.lost,
            footer: footer.map(|(_, footer)| footer),
            sealing,
            master_keys,
        })
    }

    /// Records in the chunks whose headers are readable.
    pub fn records(&self) -> u64 {
        let records = self.chunks.iter().map(|chunk| chunk.header.records);
        records.map(u64::from).sum()
    }

    /// Bytes of the chunks' bodies before compression and sealing.
    pub fn plain_bytes(&self) -> u64 {
        let lengths = self.chunks.iter().map(|chunk| chunk.header.plain_length);
        lengths.map(u64::from).sum()
    }

    /// Bytes of the chunks in the file, headers included.
    pub fn stored_bytes(&self) -> u64 {
        let chunks = self.chunks.iter();
        chunks.map(|chunk| chunk.end() - chunk.offset).sum()
    }

    /// How many chunks are stored under this compression.
    pub fn chunks_with(&self, compression: Compression) -> usize {
        let chunks = self.chunks.iter();
        chunks
            .filter(|chunk| chunk.header.compression == compression)
            .count()
    }

    /// The first and the last sequence of any record.
    pub fn sequences(&self) -> Option<(u64, u64)> {
        let first = self.chunks.first()?.header.first_sequence;
        Some((first, self.chunks.last()?.header.last_sequence))
    }

    /// The earliest and the latest time: exact with a footer, else as far as chunk headers tell.
    pub fn times_ns(&self) -> Option<(i64, i64)> {
        if let Some(footer) = &self.footer {
            return (footer.records > 0).then_some((footer.first_time_ns, footer.last_time_ns));
        }
        let headers = || self.chunks.iter().map(|chunk| &chunk.header);
        Some((
            headers().map(|header| header.base_time_ns).min()?,
            headers().map(|header| header.last_time_ns).max()?,
        ))
    }
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Finding {
    /// A key slot is neither intact nor empty. The block is readable while the other one is.
    #[error("key slot {slot} is damaged")]
    KeySlot {
        /// Which of the two, 0 or 1.
        slot: usize,
    },
    /// A stretch that holds no chunk. Its sequences are lost.
    #[error("{} bytes at {} are no chunk: sequences from {} {} are unreadable", .0.length, .0.offset, .0.first_sequence, upto(.0))]
    Lost(Lost),
    /// A chunk or record cannot be read. Its sequences are lost.
    #[error(transparent)]
    Unreadable(BlockReadError),
    /// A chunk's header is damaged where it stands. The footer has a copy, so nothing is lost.
    #[error("the header of the chunk at byte {offset} is damaged, the footer's copy is intact")]
    ChunkHeader {
        /// Where it begins.
        offset: u64,
    },
    /// The footer or its trailer is damaged. It is rebuilt from the chunks whenever the block is opened; nothing is lost.
    #[error("footer: {0}")]
    Footer(Damage),
    /// The trailer is damaged or not at the end of the file; nothing is lost.
    #[error("the trailer is damaged")]
    Trailer,
    /// The index in the footer is not the one that follows from the records.
    #[error("the index in the footer disagrees with the records")]
    Index,
    /// The totals or the digest in the footer are not those that follow from the records.
    #[error("the totals in the footer disagree with the records")]
    Totals,
}

fn upto(lost: &Lost) -> String {
    lost.last_sequence
        .map_or("on".to_owned(), |last| format!("to {last}"))
}

impl Finding {
    /// Whether records are lost by it.
    pub fn loses_records(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Unreadable(_))
    }
}

/// How much is checked.
#[derive(Debug, Clone)]
pub enum Depth {
    /// The checksums of what is stored: all that can be done without the keys of an encrypted block.
    Checksums,
    /// Every record too, and the index against the records. A plain block has no keys.
    Records(BlockKeys),
}

/// Checks a block. `progress` hears how far in the file the check is. Of a block that is still written, only the first `written`
/// bytes count.
pub fn verify(
    file: &Bytes,
    written: Option<u64>,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Finding>, HeaderError> {
    let outline = Outline::read(file, written)?;
    let (locked, keys) = match depth {
        Depth::Checksums => (true, BlockKeys::default()),
        Depth::Records(keys) => (false, keys),
    };
    let mut check = Check {
        codec: ChunkCodec::new(outline.identity, keys),
        file,
        locked,
        index: MemoryIndex::default(),
        findings: damaged_slots(&outline.identity, file),
    };
    let footer = match written {
        Some(_) => None,
        None => check.footer(),
    };
    if outline.sealing == Sealing::Damaged {
        check.findings.push(Finding::Trailer);
    }
    // The chunk table in an intact footer knows chunks whose own headers are damaged.
    let chunks = match &footer {
        Some((_, table)) => table.chunks().iter().map(|chunk| chunk.placed).collect(),
        None => {
            let lost = outline.lost.iter().cloned().map(Finding::Lost);
            check.findings.extend(lost);
            outline.chunks
        }
    };
    for placed in &chunks {
        progress(placed.offset);
        check.chunk(placed);
    }
    if let Some((footer, table)) = footer
        && !check.findings.iter().any(Finding::loses_records)
    {
        check.agreement(&footer, &table);
    }
    progress(file.len() as u64);
    Ok(check.findings)
}

fn damaged_slots(identity: &BlockIdentity, file: &[u8]) -> Vec<Finding> {
    if identity.cipher.is_none() {
        return Vec::new();
    }
    let slot = |slot: usize| {
        let at = HEADER_PAGE_BYTES + slot * KEY_SLOT_BYTES;
        let bytes = file.get(at..at + KEY_SLOT_BYTES).unwrap_or_default();
        let empty = bytes.iter().all(|&byte| byte == 0);
        (!empty && KeySlot::decode(bytes, identity).is_none()).then_some(Finding::KeySlot { slot })
    };
    (0..2).filter_map(slot).collect()
}

/// A check under way.
struct Check<'a> {
    codec: ChunkCodec,
    file: &'a Bytes,
    /// Only stored checksums can be checked.
    locked: bool,
    /// What follows from the records.
    index: MemoryIndex,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// The footer and its index, where both are intact and can be read.
    fn footer(&mut self) -> Option<(FooterHeader, SealedIndex)> {
        let (at, footer) = find_footer(&self.codec, self.file)?;
        let start = at as usize + FOOTER_HEADER_BYTES;
        let end = start.saturating_add(footer.stored_length as usize);
        if end > self.file.len() {
            self.findings.push(Finding::Footer(Damage::Truncated));
            return None;
        }
        let stored = self.file.slice(start..end);
        let read = match self.locked {
            true => check_index(&self.codec, &footer, &stored).map(|()| None),
            false => read_index(&self.codec, &footer, stored).map(Some),
        };
        match read {
            Ok(index) => index.map(|index| (footer, index)),
            Err(damage) => {
                self.findings.push(Finding::Footer(damage));
                None
            }
        }
    }

    /// Checks one chunk with all its records, and takes it into the index.
    fn chunk(&mut self, placed: &PlacedChunk) {
        let at = placed.offset as usize;
        let header = self.file.get(at..);
        let header = header.and_then(|rest| ChunkHeader::decode(rest, self.codec.seed));
        if header != Some(placed.header) {
            let offset = placed.offset;
            self.findings.push(Finding::ChunkHeader { offset });
        }
        if let Err(damage) = self.body(placed) {
            let error = chunk_error(placed, damage);
            self.findings.push(Finding::Unreadable(error));
        }
    }

    fn body(&mut self, placed: &PlacedChunk) -> Result<(), Damage> {
        let start = placed.offset as usize + CHUNK_HEADER_BYTES;
        let end = start + placed.header.stored_length as usize;
        if end > self.file.len() {
            return Err(Damage::Truncated);
        }
        let stored = self.file.slice(start..end);
        if self.locked {
            return self.codec.check(&placed.header, &stored);
        }
        let plain = self.codec.decode(&placed.header, &stored)?;
        let body = self.codec.body(&placed.header, plain);
        for (offset, record) in body.walk().flatten() {
            if body.checked(offset as usize).is_err() {
                let error = BlockReadError::Record {
                    sequence: record.sequence,
                    offset: placed.offset,
                    damage: Damage::Checksum,
                };
                self.findings.push(Finding::Unreadable(error));
            }
        }
        let absorbed = self.index.absorb(*placed, &body);
        absorbed.map_err(|_| Damage::Malformed)
    }

    /// The footer must be, byte by byte, the one that follows from the records.
    fn agreement(&mut self, footer: &FooterHeader, table: &SealedIndex) {
        let seed = self.codec.seed;
        if table.check().is_err() || table.bytes() != sealed::encode(&self.index, seed) {
            self.findings.push(Finding::Index);
        }
        let totals = FooterHeader {
            epoch: footer.epoch,
            plain_length: footer.plain_length,
            stored_length: footer.stored_length,
            index_crc: footer.index_crc,
            ..summarize(&self.index, &self.index.totals, seed)
        };
        if totals != *footer {
            self.findings.push(Finding::Totals);
        }
    }
}
