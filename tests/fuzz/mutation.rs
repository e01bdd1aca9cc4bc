//! Mutations that know what binary formats and text protocols hang on: single bits, numbers at their limits, lengths that are
//! off by one, parts cut, doubled, moved, or taken from another input.

use super::corpus::Sample;

/// The longest input made.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// The most changes to one input.
const CHANGES_MAX: u64 = 6;
/// The longest part that is moved in one piece.
const PART_BYTES_MAX: u64 = 300;
/// Numbers on which decoders go wrong.
const NUMBERS: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// What text protocols and JSON hang on.
const WORDS: [&[u8]; 16] = [
    b"\r\n",
    b"\0",
    b" ",
    b".",
    b"*",
    b">",
    b"\"",
    b"{",
    b"}",
    b"[",
    b":",
    b"null",
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"\xff\xfe",
];

/// Makes inputs from a seed.
pub struct Mutator(u64);

impl Mutator {
    /// The same seed makes the same input of the same samples.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A random number below `bound`; 0 when that is 0. xorshift64*, Vigna 2016.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(random) * u128::from(bound)) >> 64) as u64
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// One of the samples, changed.
    pub fn mutate(&mut self, samples: &[Sample]) -> Vec<u8> {
        let mut bytes = self.pick(samples).bytes.clone();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes, samples);
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, samples: &[Sample]) {
        let length = bytes.len();
        let at = self.below(length as u64 + 1) as usize;
        let end = (at + 1 + self.below(PART_BYTES_MAX) as usize).min(length);
        match self.below(10) {
            0 if at < length => bytes[at] ^= 1 << self.below(8),
            1 if at < length => bytes[at] = self.below(256) as u8,
            2 if at < length => {
                bytes[at] = bytes[at].wrapping_add([1, 255][self.below(2) as usize])
            }
            3 | 4 => {
                let number = self.pick(&NUMBERS).to_le_bytes();
                let width = 1 << self.below(4);
                for (to, from) in bytes.iter_mut().skip(at).zip(&number[..width]) {
                    *to = *from;
                }
            }
            5 => bytes.truncate(at),
            6 if at < end => drop(bytes.drain(at..end)),
            7 if at < end => {
                let part = bytes[at..end].to_vec();
                let to = self.below(length as u64) as usize;
                bytes.splice(to..to, part);
            }
            8 => {
                let other = &self.pick(samples).bytes;
                let from = self.below(other.len() as u64 + 1) as usize;
                let upto = (from + self.below(PART_BYTES_MAX) as usize).min(other.len());
                bytes.splice(at..end.max(at), other[from..upto].to_vec());
            }
            _ => {
                let word = *self.pick(&WORDS);
                bytes.splice(at..at, word.to_vec());
            }
        }
    }
}
