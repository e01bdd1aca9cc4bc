//! What seals a block: a footer header, the index (packed as `index::sealed` describes) and the trailer that ends the file.
//!
//! ```text
//!   0  4  magic "NFTR"
//!   4  2  key epoch
//!   6  2  zero
//!   8  4  records
//!  12  4  chunks
//!  16  4  subjects
//!  20  4  plain length of the index
//!  24  4  stored length of the index, with the cipher's tag
//!  28  4  zero
//!  32  8  first sequence of any record
//!  40  8  last sequence of any record
//!  48  8  earliest time of any record
//!  56  8  latest time of any record
//!  64  8  accounted bytes of all records
//!  72 32  content digest: SHA-256 over the headers of all chunks, in order
//! 104  4  crc32 of the stored index, seeded with the block's seed
//! 108  4  crc32 of bytes 0 to 107, seeded with the block's seed
//! ```
//! ```text
//!   0  8  where the footer header begins
//!   8  4  magic "NEND"
//!  12  4  crc32 of bytes 0 to 11, seeded with the block's seed
//! ```
//!
//! The index is never compressed: it is read in place. It is sealed under the nonce 2^64 - 1, which no chunk has.

use super::chunk::nonce;
use super::seeded_crc;
use crate::block::varint::{Malformed, Reader};

/// Bytes of the footer header.
pub const FOOTER_HEADER_BYTES: usize = 112;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 16;

/// What a footer begins with.
pub const FOOTER_MAGIC: [u8; 4] = *b"NFTR";
const TRAILER_MAGIC: [u8; 4] = *b"NEND";
const AUTHENTICATED_BYTES: usize = 104;
const _: () = assert!(AUTHENTICATED_BYTES + 4 + 4 == FOOTER_HEADER_BYTES);

/// The totals of a sealed block, and how to read its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterHeader {
    /// Which of the block's data keys seals the index.
    pub epoch: u16,
    /// Records in the block.
    pub records: u32,
    /// Chunks in the block.
    pub chunks: u32,
    /// Distinct subjects in the block.
    pub subjects: u32,
    /// Bytes of the index when opened.
    pub plain_length: u32,
    /// Bytes of the index in the file.
    pub stored_length: u32,
    /// Sequence of the first record, 0 when there is none.
    pub first_sequence: u64,
    /// Sequence of the last record, 0 when there is none.
    pub last_sequence: u64,
    /// The earliest time of any record.
    pub first_time_ns: i64,
    /// The latest time of any record.
    pub last_time_ns: i64,
    /// What all records count for in a stream's `bytes`.
    pub accounted_bytes: u64,
    /// SHA-256 over the headers of all chunks, each of which has the checksum of its body.
    pub digest: [u8; 32],
    /// Checksum of the stored index.
    pub index_crc: u32,
}

impl FooterHeader {
    /// What is authenticated with the index.
    pub fn authenticated(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_HEADER_BYTES);
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for number in [
            self.records,
            self.chunks,
            self.subjects,
            self.plain_length,
            self.stored_length,
            0,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.last_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.first_time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.last_time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.accounted_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes
    }

    /// As it stands in the file of the block with this seed.
    pub fn encode(&self, seed: u32) -> Vec<u8> {
        let mut bytes = self.authenticated();
        bytes.extend_from_slice(&self.index_crc.to_le_bytes());
        let crc = seeded_crc(seed, &[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads it; `None` when the bytes are no footer header of the block with this seed.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.get(..FOOTER_HEADER_BYTES)?;
        let (body, crc) = bytes.split_at(FOOTER_HEADER_BYTES - 4);
        if !body.starts_with(&FOOTER_MAGIC) || crc != seeded_crc(seed, &[body]).to_le_bytes() {
            return None;
        }
        Self::fields(body).ok()
    }

    fn fields(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::at(body, FOOTER_MAGIC.len());
        let epoch = reader.u16()?;
        reader.u16()?;
        let (records, chunks, subjects) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (plain_length, stored_length) = (reader.u32()?, reader.u32()?);
        reader.u32()?;
        Ok(Self {
            epoch,
            records,
            chunks,
            subjects,
            plain_length,
            stored_length,
            first_sequence: reader.u64()?,
            last_sequence: reader.u64()?,
            first_time_ns: reader.i64()?,
            last_time_ns: reader.i64()?,
            accounted_bytes: reader.u64()?,
            digest: reader.take(32)?.try_into().map_err(|_| Malformed)?,
            index_crc: reader.u32()?,
        })
    }

    /// The nonce under which the index is sealed.
    pub fn nonce(&self) -> [u8; 12] {
        nonce(u64::MAX)
    }
}

/// The last bytes of a sealed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer header begins.
    pub footer_at: u64,
}

impl Trailer {
    /// As it stands in the file of the block with this seed.
    pub fn encode(&self, seed: u32) -> Vec<u8> {
        let mut bytes = self.footer_at.to_le_bytes().to_vec();
        bytes.extend_from_slice(&TRAILER_MAGIC);
        let crc = seeded_crc(seed, &[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the trailer; `None` when the bytes do not end in one.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.last_chunk::<TRAILER_BYTES>()?;
        let (body, crc) = bytes.split_at(TRAILER_BYTES - 4);
        let (footer_at, magic) = body.split_first_chunk::<8>()?;
        (magic == TRAILER_MAGIC && crc == seeded_crc(seed, &[body]).to_le_bytes()).then_some(Self {
            footer_at: u64::from_le_bytes(*footer_at),
        })
    }
}
