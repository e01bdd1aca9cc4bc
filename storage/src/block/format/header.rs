//! The first 64 bytes of a block file: its identity. The rest of the first 4 KiB page is zero.
//!
//! ```text
//!  0  8  magic 0x89 "NBK" 0x0d 0x0a 0x1a 0x0a
//!  8  2  format version, 1
//! 10  1  cipher: 0 none, else as in the key ring
//! 11  1  compression that chunks are offered: 0 none, 1 S2, 2 LZ4
//! 12  4  zero
//! 16  8  stream
//! 24  8  block number
//! 32  4  generation
//! 36  4  where chunks begin: 4096, or 12288 with a cipher
//! 40  8  first sequence the block may hold
//! 48 12  zero
//! 60  4  crc32 of bytes 0 to 59
//! ```
//!
//! The magic is the trick of PNG: a first byte that is no text, both line endings and the byte that ends
//! a DOS text, so that a transfer that mangles text is noticed at once.

use crate::block::varint::Reader;
use crate::codec::Compression;
use crate::seal::Cipher;

/// The version this program writes, and the latest it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of the identity.
pub const HEADER_BYTES: usize = 64;
/// Bytes of the page the identity stands in.
pub const HEADER_PAGE_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"\x89NBK\r\n\x1a\n";
const CRC_AT: usize = HEADER_BYTES - 4;
const _: () = assert!(8 + 2 + 1 + 1 + 4 + 8 + 8 + 4 + 4 + 8 + 12 == CRC_AT);

/// What a block is: which part of which stream, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockIdentity {
    /// The stream's storage id.
    pub stream: u64,
    /// Its place among the stream's blocks.
    pub number: u64,
    /// How often this place has been rewritten.
    pub generation: u32,
    /// No record in it has a lower sequence.
    pub first_sequence: u64,
    /// The cipher of its chunks and footer.
    pub cipher: Option<Cipher>,
    /// The compression its chunks are offered; a chunk that does not shrink is stored as it is.
    pub compression: Compression,
}

/// Why bytes are no block header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They do not begin with the magic.
    #[error("not a block file")]
    NotABlock,
    /// They are too few, or changed.
    #[error("block header is damaged")]
    Damaged,
    /// A later version of this program wrote them.
    #[error("block format version {0}, this program reads up to {FORMAT_VERSION}")]
    LaterVersion(u16),
}

impl BlockIdentity {
    /// Where the first chunk begins.
    pub fn data_offset(&self) -> u64 {
        match self.cipher {
            None => HEADER_PAGE_BYTES as u64,
            Some(_) => super::keys::KEY_SLOTS_END as u64,
        }
    }

    /// As it stands in the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.push(self.cipher.map_or(0, Cipher::to_byte));
        bytes.push(self.compression.to_byte());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.stream.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&(self.data_offset() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().unwrap_or([0; HEADER_BYTES])
    }

    /// Reads it from the beginning of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let damaged = HeaderError::Damaged;
        if !bytes.starts_with(&MAGIC) {
            return Err(HeaderError::NotABlock);
        }
        let bytes = bytes.get(..HEADER_BYTES).ok_or(damaged)?;
        let (body, crc) = bytes.split_at(CRC_AT);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(damaged);
        }
        Self::fields(body).map_err(|error| error.unwrap_or(damaged))
    }

    fn fields(body: &[u8]) -> Result<Self, Option<HeaderError>> {
        let mut reader = Reader::at(body, MAGIC.len());
        let version = reader.u16().map_err(|_| None)?;
        if version > FORMAT_VERSION {
            return Err(Some(HeaderError::LaterVersion(version)));
        }
        let mut read = || {
            let cipher = match reader.u8()? {
                0 => Some(None),
                byte => Cipher::from_byte(byte).map(Some),
            };
            let compression = Compression::from_byte(reader.u8()?);
            let zero = reader.u32()?;
            let (stream, number) = (reader.u64()?, reader.u64()?);
            let (generation, data_offset) = (reader.u32()?, reader.u32()?);
            let first_sequence = reader.u64()?;
            let rest = reader.take(12)?;
            Ok::<_, super::super::varint::Malformed>((
                cipher,
                compression,
                stream,
                number,
                generation,
                data_offset,
                first_sequence,
                zero == 0 && rest.iter().all(|&byte| byte == 0),
            ))
        };
        let (cipher, compression, stream, number, generation, data_offset, first_sequence, zeros) =
            read().map_err(|_| None)?;
        let identity = Self {
            stream,
            number,
            generation,
            first_sequence,
            cipher: cipher.ok_or(None)?,
            compression: compression.ok_or(None)?,
        };
        let known = version == FORMAT_VERSION && zeros;
        (known && identity.data_offset() == u64::from(data_offset))
            .then_some(identity)
            .ok_or(None)
    }

    /// What every other checksum in the block starts from.
    pub fn seed(&self) -> u32 {
        crc32fast::hash(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_in_the_document_is_the_header_we_write() {
        let identity = BlockIdentity {
            stream: 7,
            number: 3,
            generation: 1,
            first_sequence: 1001,
            cipher: None,
            compression: Compression::S2,
        };
        #[rustfmt::skip]
        let written = [
            0x89, b'N', b'B', b'K', 0x0d, 0x0a, 0x1a, 0x0a, // magic
            1, 0,                                           // version
            0, 1, 0, 0, 0, 0,                               // no cipher, S2
            7, 0, 0, 0, 0, 0, 0, 0,                         // stream
            3, 0, 0, 0, 0, 0, 0, 0,                         // number
            1, 0, 0, 0,                                     // generation
            0, 0x10, 0, 0,                                  // chunks begin at 4096
            0xe9, 3, 0, 0, 0, 0, 0, 0,                      // first sequence
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let encoded = identity.encode();
        assert_eq!(encoded[..CRC_AT], written);
        assert_eq!(BlockIdentity::decode(&encoded), Ok(identity));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let identity = BlockIdentity {
            stream: 1,
            number: 2,
            generation: 0,
            first_sequence: 1,
            cipher: Some(Cipher::Aes256Gcm),
            compression: Compression::None,
        };
        let bytes = identity.encode();
        for at in 0..HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(BlockIdentity::decode(&changed).is_err(), "byte {at}");
            assert!(BlockIdentity::decode(&bytes[..at]).is_err());
        }
        let mut later = bytes;
        later[8] = 9;
        let crc = crc32fast::hash(&later[..CRC_AT]).to_le_bytes();
        later[CRC_AT..].copy_from_slice(&crc);
        assert_eq!(
            BlockIdentity::decode(&later),
            Err(HeaderError::LaterVersion(9))
        );
    }
}
