//! Compression of self-contained pieces: chunks of a block, parts of a checkpoint.
//!
//! # Invariant
//! A decoder is told how long the result must be and allocates exactly that, after the length that
//! the compressed bytes announce has been compared with it. None of the codecs notices every damage
//! (S2 decodes most flipped bits to wrong bytes), so whatever is compressed carries a checksum of its own.

use std::fmt;

/// How a piece is compressed. The discriminant is its number on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// As it is.
    #[default]
    None = 0,
    /// S2 block format; Snappy decoders are not enough to read it, S2 decoders read Snappy.
    S2 = 1,
    /// LZ4 block format, without a length in front.
    Lz4 = 2,
}

/// Why compressed bytes could not be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The bytes announce another length than the one they must have.
    #[error("compressed data announces {announced} bytes where {expected} are expected")]
    Length {
        /// What the bytes say.
        announced: u64,
        /// What the surrounding format says.
        expected: usize,
    },
    /// The bytes are not what this codec writes.
    #[error("compressed data is corrupt")]
    Corrupt,
}

impl Compression {
    /// Its number on disk.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// The codec with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::S2),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }

    /// Compresses, or answers `None` when that would not make `plain` smaller.
    pub fn compress(self, plain: &[u8]) -> Option<Vec<u8>> {
        let compressed = match self {
            Self::None => return None,
            Self::S2 => minlz::s2::encode(plain),
            Self::Lz4 => lz4_flex::block::compress(plain),
        };
        (compressed.len() < plain.len()).then_some(compressed)
    }

    /// Restores `plain_length` bytes.
    pub fn decompress(
        self,
        compressed: &[u8],
        plain_length: usize,
    ) -> Result<Vec<u8>, DecompressError> {
        match self {
            Self::None if compressed.len() == plain_length => Ok(compressed.to_vec()),
            Self::None => Err(DecompressError::Length {
                announced: compressed.len() as u64,
                expected: plain_length,
            }),
            Self::S2 => decompress_s2(compressed, plain_length),
            Self::Lz4 => decompress_lz4(compressed, plain_length),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::S2 => "s2",
            Self::Lz4 => "lz4",
        })
    }
}

fn decompress_s2(compressed: &[u8], plain_length: usize) -> Result<Vec<u8>, DecompressError> {
    let (announced, _) = minlz::s2::decode_len(compressed).map_err(|_| DecompressError::Corrupt)?;
    if announced != plain_length {
        return Err(DecompressError::Length {
            announced: announced as u64,
            expected: plain_length,
        });
    }
    let mut plain = vec![0; plain_length];
    match minlz::s2::decode_into(&mut plain, compressed) {
        Ok(written) if written == plain_length => Ok(plain),
        _ => Err(DecompressError::Corrupt),
    }
}

fn decompress_lz4(compressed: &[u8], plain_length: usize) -> Result<Vec<u8>, DecompressError> {
    let mut plain = vec![0; plain_length];
    match lz4_flex::block::decompress_into(compressed, &mut plain) {
        Ok(written) if written == plain_length => Ok(plain),
        Ok(written) => Err(DecompressError::Length {
            announced: written as u64,
            expected: plain_length,
        }),
        Err(_) => Err(DecompressError::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 2] = [Compression::S2, Compression::Lz4];

    #[test]
    fn an_s2_chunk_may_be_a_snappy_block_of_another_program() {
        let plain = b"orders.eu.new orders.eu.old ".repeat(200);
        let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let read = Compression::S2.decompress(&snappy, plain.len());
        assert_eq!(read.unwrap(), plain);
    }

    fn text() -> Vec<u8> {
        b"orders.eu.1 and orders.eu.2; ".repeat(300)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for codec in CODECS {
            let compressed = codec.compress(&text()).unwrap();
            assert!(compressed.len() < text().len() / 4, "{codec}");
            assert_eq!(codec.decompress(&compressed, text().len()), Ok(text()));
            assert_eq!(Compression::from_byte(codec.to_byte()), Some(codec));
        }
        assert_eq!(
            Compression::None.decompress(b"as it is", 8),
            Ok(b"as it is".to_vec())
        );
        assert_eq!(Compression::from_byte(3), None);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        for codec in CODECS {
            assert_eq!(codec.compress(b""), None);
            assert_eq!(codec.compress(b"q8$z"), None);
        }
    }

    #[test]
    fn a_wrong_length_is_an_error_before_anything_is_allocated() {
        // An S2 block that announces 4 GiB.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert_eq!(
            Compression::S2.decompress(&bomb, 10),
            Err(DecompressError::Length {
                announced: 0xffff_ffff,
                expected: 10
            })
        );
        for codec in [Compression::None, Compression::S2, Compression::Lz4] {
            let compressed = codec.compress(&text()).unwrap_or_else(text);
            for length in [0, text().len() - 1, text().len() + 1] {
                assert!(codec.decompress(&compressed, length).is_err(), "{codec}");
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        for codec in CODECS {
            let compressed = codec.compress(&text()).unwrap();
            for at in 0..compressed.len() {
                let mut damaged = compressed.clone();
                damaged[at] ^= 0x55;
                let _ = codec.decompress(&damaged, text().len());
                let _ = codec.decompress(&compressed[..at], text().len());
            }
        }
    }
}
