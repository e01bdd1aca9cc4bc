//! Chunks as they stand in the file: a header, and a body that is compressed and then sealed.

use std::borrow::Cow;

use bytes::Bytes;

use super::body::{Body, BodyFacts, Holder};
use super::error::Damage;
use super::format::chunk::body_crc;
use super::format::{BlockIdentity, CHUNK_HEADER_BYTES, ChunkHeader};
use super::keys::BlockKeys;
use crate::codec::Compression;

/// A chunk and where it begins in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedChunk {
    /// Where its header begins.
    pub offset: u64,
    /// What it says of itself.
    pub header: ChunkHeader,
}

impl PlacedChunk {
    /// Where its stored body begins.
    pub fn body_offset(&self) -> u64 {
        self.offset + CHUNK_HEADER_BYTES as u64
    }

    /// Where the next chunk begins.
    pub fn end(&self) -> u64 {
        self.body_offset() + u64::from(self.header.stored_length)
    }
}

impl ChunkHeader {
    pub(super) fn facts(&self) -> BodyFacts {
        BodyFacts {
            records: self.records,
            subjects: self.subjects,
            dictionary_at: self.dictionary_at,
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
            base_time_ns: self.base_time_ns,
            last_time_ns: self.last_time_ns,
        }
    }
}

/// What is the same for every chunk of a block.
#[derive(Debug, Clone)]
pub(super) struct ChunkCodec {
    pub identity: BlockIdentity,
    pub encoded_identity: [u8; 64],
    pub seed: u32,
    pub keys: BlockKeys,
}

impl ChunkCodec {
    pub fn new(identity: BlockIdentity, keys: BlockKeys) -> Self {
        Self {
            identity,
            encoded_identity: identity.encode(),
            seed: identity.seed(),
            keys,
        }
    }

    /// Compresses and seals a plain body; the bytes are header and stored body.
    pub fn encode(&self, number: u32, facts: &BodyFacts, plain: &[u8]) -> (ChunkHeader, Vec<u8>) {
        let offered = self.identity.compression;
        let packed = offered.compress(plain);
        let compression = match packed {
            Some(_) => offered,
            None => Compression::None,
        };
        let mut stored = packed.map_or(Cow::Borrowed(plain), Cow::Owned);
        let mut header = ChunkHeader {
            epoch: self.keys.current().0,
            compression,
            number,
            records: facts.records,
            stored_length: (stored.len() + self.keys.overhead()) as u32,
            plain_length: plain.len() as u32,
            dictionary_at: facts.dictionary_at,
            subjects: facts.subjects,
            first_sequence: facts.first_sequence,
            last_sequence: facts.last_sequence,
            base_time_ns: facts.base_time_ns,
            last_time_ns: facts.last_time_ns,
            body_crc: 0,
        };
        if self.keys.is_sealed() {
            let associated = [&self.encoded_identity[..], &header.authenticated()];
            self.keys.seal(header.nonce(), &associated, stored.to_mut());
        }
        header.body_crc = body_crc(self.seed, &stored);
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES + stored.len());
        bytes.extend_from_slice(&header.encode(self.seed));
        bytes.extend_from_slice(&stored);
        (header, bytes)
    }

    /// Whether the stored body of such a chunk is its plain body, readable in place.
    #[inline]
    pub fn is_plain(&self, header: &ChunkHeader) -> bool {
        header.compression == Compression::None && self.identity.cipher.is_none()
    }

    /// Checks the stored body against its checksum.
    pub fn check(&self, header: &ChunkHeader, stored: &[u8]) -> Result<(), Damage> {
        if stored.len() != header.stored_length as usize {
            Err(Damage::Truncated)
        } else if body_crc(self.seed, stored) != header.body_crc {
            Err(Damage::Checksum)
        } else {
            Ok(())
        }
    }

    /// The plain body of a chunk, everything checked but the records' own checksums.
    pub fn decode(&self, header: &ChunkHeader, stored: &Bytes) -> Result<Bytes, Damage> {
        self.check(header, stored)?;
        if self.identity.cipher.is_none() {
            return self.unpack(header, stored.clone());
        }
        let associated = [&self.encoded_identity[..], &header.authenticated()];
        let opened = self
            .keys
            .open_sealed(header.epoch, header.nonce(), &associated, stored)
            .ok_or(Damage::Authentication)?;
        self.unpack(header, opened.into())
    }

    fn unpack(&self, header: &ChunkHeader, packed: Bytes) -> Result<Bytes, Damage> {
        let length = header.plain_length as usize;
        if header.compression == Compression::None {
            return match packed.len() == length {
                true => Ok(packed),
                false => Err(Damage::Malformed),
            };
        }
        Ok(header.compression.decompress(&packed, length)?.into())
    }

    /// A plain body for reading records from.
    pub fn body(&self, header: &ChunkHeader, plain: Bytes) -> Body<'static> {
        Body {
            facts: header.facts(),
            stream: self.identity.stream,
            range: 0..plain.len(),
            holder: Holder::Unpacked(plain),
        }
    }
}
