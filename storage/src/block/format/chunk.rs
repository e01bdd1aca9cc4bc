//! The header in front of every chunk.
//!
//! ```text
//!  0  4  magic "NCHK"
//!  4  2  key epoch
//!  6  1  compression of this chunk
//!  7  1  zero
//!  8  4  number of the chunk in its block, from 0
//! 12  4  records
//! 16  4  stored length: bytes that follow this header, with the cipher's tag
//! 20  4  plain length of the body
//! 24  4  where the dictionary begins in the plain body
//! 28  4  subjects in the dictionary
//! 32  8  first sequence
//! 40  8  last sequence
//! 48  8  base time: of the first record, in nanoseconds since the Unix epoch
//! 56  8  latest time of any record
//! 64  4  crc32 of the stored body, seeded with the block's seed
//! 68  4  crc32 of bytes 0 to 67, seeded with the block's seed
//! ```
//!
//! The body is compressed, then sealed. The nonce is the chunk's number (8 bytes) and four zero bytes;
//! identity and bytes 0 to 63 are authenticated with it. The plain body is the records one after another,
//! then the dictionary: a width byte, the bit-packed ends of the subjects' texts, and the texts.

use super::seeded_crc;
use crate::block::varint::{Malformed, Reader};
use crate::codec::Compression;

/// A chunk is closed when its plain body would grow past this; a larger record is a chunk of its own.
pub const CHUNK_BYTES_TARGET: usize = 64 * 1024;
/// Bytes of the header.
pub const CHUNK_HEADER_BYTES: usize = 72;
/// No record is larger, so no body is either.
pub const CHUNK_BYTES_MAX: usize = 1 << 30;
/// A chunk's last sequence is less than this above its first, so that a huge gap costs no wide index.
pub const SEQUENCE_SPAN_MAX: u64 = 1 << 32;

/// What a chunk header begins with.
pub const CHUNK_MAGIC: [u8; 4] = *b"NCHK";
/// A checksum, a length and three fields.
const RECORD_BYTES_MIN: u64 = 8;
const AUTHENTICATED_BYTES: usize = 64;
const CRC_AT: usize = AUTHENTICATED_BYTES + 4;
const _: () = assert!(CRC_AT + 4 == CHUNK_HEADER_BYTES);

/// What a chunk says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Which of the block's data keys seals it.
    pub epoch: u16,
    /// How its body is compressed.
    pub compression: Compression,
    /// Its place in the block.
    pub number: u32,
    /// How many records it holds, at least one.
    pub records: u32,
    /// Bytes that follow the header.
    pub stored_length: u32,
    /// Bytes of the body when opened and unpacked.
    pub plain_length: u32,
    /// Where the records end and the dictionary begins.
    pub dictionary_at: u32,
    /// Distinct subjects.
    pub subjects: u32,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// Sequence of the last record.
    pub last_sequence: u64,
    /// What the records' times are relative to.
    pub base_time_ns: i64,
    /// The latest time of any record.
    pub last_time_ns: i64,
    /// Checksum of the stored body.
    pub body_crc: u32,
}

impl ChunkHeader {
    /// What is authenticated with the body: everything that is known before the body is sealed.
    pub fn authenticated(&self) -> [u8; AUTHENTICATED_BYTES] {
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES);
        bytes.extend_from_slice(&CHUNK_MAGIC);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.push(self.compression.to_byte());
        bytes.push(0);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.stored_length.to_le_bytes());
        bytes.extend_from_slice(&self.plain_length.to_le_bytes());
        bytes.extend_from_slice(&self.dictionary_at.to_le_bytes());
        bytes.extend_from_slice(&self.subjects.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.last_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.base_time_ns.to_le_bytes());
        bytes.extend_from_slice(&self.last_time_ns.to_le_bytes());
        bytes.try_into().unwrap_or([0; AUTHENTICATED_BYTES])
    }

    /// As it stands in the file of the block with this seed.
    pub fn encode(&self, seed: u32) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = self.authenticated().to_vec();
        bytes.extend_from_slice(&self.body_crc.to_le_bytes());
        let crc = seeded_crc(seed, &[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().unwrap_or([0; CHUNK_HEADER_BYTES])
    }

    /// Reads it; `None` when the bytes are no chunk header of the block with this seed.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.get(..CHUNK_HEADER_BYTES)?;
        let (body, crc) = bytes.split_at(CRC_AT);
        if !body.starts_with(&CHUNK_MAGIC) || crc != seeded_crc(seed, &[body]).to_le_bytes() {
            return None;
        }
        let header = Self::fields(body).ok().flatten()?;
        header.is_plausible().then_some(header)
    }

    fn fields(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::at(body, CHUNK_MAGIC.len());
        let epoch = reader.u16()?;
        let Some(compression) = Compression::from_byte(reader.u8()?) else {
            return Ok(None);
        };
        if reader.u8()? != 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            epoch,
            compression,
            number: reader.u32()?,
            records: reader.u32()?,
            stored_length: reader.u32()?,
            plain_length: reader.u32()?,
            dictionary_at: reader.u32()?,
            subjects: reader.u32()?,
            first_sequence: reader.u64()?,
            last_sequence: reader.u64()?,
            base_time_ns: reader.i64()?,
            last_time_ns: reader.i64()?,
            body_crc: reader.u32()?,
        }))
    }

    /// Whether the numbers can be true together.
    fn is_plausible(&self) -> bool {
        let span = self.last_sequence.checked_sub(self.first_sequence);
        self.records > 0
            && self.subjects > 0
            && self.subjects <= self.records
            && span
                .is_some_and(|span| span < SEQUENCE_SPAN_MAX && span >= u64::from(self.records - 1))
            && u64::from(self.records) * RECORD_BYTES_MIN <= u64::from(self.dictionary_at)
            && self.dictionary_at <= self.plain_length
            && self.plain_length as usize <= CHUNK_BYTES_MAX
            && (self.plain_length as usize <= CHUNK_BYTES_TARGET || self.records == 1)
            && u64::from(self.stored_length) <= u64::from(self.plain_length) + 16
    }

    /// The nonce under which the body is sealed.
    pub fn nonce(&self) -> [u8; 12] {
        nonce(u64::from(self.number))
    }
}

/// A nonce from a counter.
pub(super) fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(start) = nonce.first_chunk_mut::<8>() {
        *start = counter.to_le_bytes();
    }
    nonce
}

/// The checksum of a stored body.
pub fn body_crc(seed: u32, stored: &[u8]) -> u32 {
    seeded_crc(seed, &[stored])
}
