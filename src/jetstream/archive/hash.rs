//! The checksum of the reference's files: HighwayHash with 64 bits under a key that is the SHA-256 of a name.

use highway::{HighwayHash, HighwayHasher, Key};
use sha2::{Digest as _, Sha256};

/// Bytes of a checksum.
pub const SUM_BYTES: usize = 8;

/// Checksums under one name.
#[derive(Debug, Clone, Copy)]
pub struct Sums([u64; 4]);

impl Sums {
    /// Of whatever goes by this name: a stream, `stream/consumer`, or `stream-block`.
    pub fn named(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let mut key = [0; 4];
        for (word, bytes) in key.iter_mut().zip(digest.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(key)
    }

    /// Of a block of a stream.
    pub fn of_block(stream: &str, block: u64) -> Self {
        Self::named(&format!("{stream}-{block}"))
    }

    /// Of a consumer of a stream.
    pub fn of_consumer(stream: &str, consumer: &str) -> Self {
        Self::named(&format!("{stream}/{consumer}"))
    }

    /// Of bytes that are given in parts.
    pub fn sum(&self, parts: &[&[u8]]) -> [u8; SUM_BYTES] {
        let mut hasher = HighwayHasher::new(Key(self.0));
        for part in parts {
            hasher.append(part);
        }
        hasher.finalize64().to_le_bytes()
    }

    /// As text, the way it stands in `meta.sum`.
    pub fn text(&self, bytes: &[u8]) -> String {
        let sum = self.sum(&[bytes]);
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_whole() {
        let sums = Sums::of_block("S", 1);
        let whole = sums.sum(&[b"one two three, and some more than thirty-two bytes"]);
        let parts = [
            &b"one"[..],
            b" two three, and some more than",
            b"",
            b" thirty-two bytes",
        ];
        assert_eq!(sums.sum(&parts), whole);
        assert_ne!(Sums::of_block("S", 2).sum(&parts), whole);
        assert_eq!(sums.text(b"x").len(), 16);
    }
}
