//! Arrays of integers that take only as many bits as the largest of them needs.
//!
//! Value `i` of width `w` stands in bits `i·w` to `i·w + w - 1`, counted from the lowest bit of the
//! first byte. The width is kept by whoever keeps the array; width 0 means that every value is 0.

/// The widest value: one unaligned 64-bit load must hold it wherever it begins.
pub(super) const WIDTH_MAX: u8 = 56;

/// How many bits `largest` needs.
pub(super) fn width_of(largest: u64) -> u8 {
    (64 - largest.leading_zeros()) as u8
}

/// How many bytes `count` values of `width` bits take.
pub(super) fn packed_bytes(count: usize, width: u8) -> usize {
    (count.saturating_mul(usize::from(width))).div_ceil(8)
}

/// Appends the values; each must fit `width`, which must not exceed [`WIDTH_MAX`].
pub(super) fn pack(out: &mut Vec<u8>, width: u8, values: impl Iterator<Item = u64>) {
    debug_assert!(width <= WIDTH_MAX);
    if width == 0 {
        return;
    }
    let mut pending = 0u64;
    let mut bits = 0u32;
    for value in values {
        debug_assert!(width_of(value) <= width);
        pending |= value << bits;
        bits += u32::from(width);
        while bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(pending as u8);
    }
}

/// A packed array in borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    width: u8,
}

impl<'a> Packed<'a> {
    /// `None` when the width is impossible or the bytes are too few for `count` values.
    pub fn new(bytes: &'a [u8], width: u8, count: usize) -> Option<Self> {
        (width <= WIDTH_MAX && bytes.len() >= packed_bytes(count, width))
            .then_some(Self { bytes, width })
    }

    /// Of bytes that [`Self::new`] has accepted before.
    pub fn unchecked(bytes: &'a [u8], width: u8) -> Self {
        let width = width.min(WIDTH_MAX);
        Self { bytes, width }
    }

    /// The value at `at`; 0 past the end.
    #[inline]
    pub fn get(&self, at: usize) -> u64 {
        if self.width == 0 {
            return 0;
        }
        let bit = at.saturating_mul(usize::from(self.width));
        let byte = bit / 8;
        let word = match self.bytes.get(byte..).and_then(<[u8]>::first_chunk::<8>) {
            Some(word) => u64::from_le_bytes(*word),
            None => last_word(self.bytes.get(byte..).unwrap_or_default()),
        };
        (word >> (bit % 8)) & ((1u64 << self.width) - 1)
    }
}

/// Fewer than eight bytes as a number.
fn last_word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_at_every_position() {
        for width in 0..=WIDTH_MAX {
            let mask = (1u64 << width) - 1;
            let values: Vec<u64> = (0..100u64)
                .map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask)
                .collect();
            let mut bytes = Vec::new();
            pack(&mut bytes, width, values.iter().copied());
            assert_eq!(bytes.len(), packed_bytes(values.len(), width));
            let packed = Packed::new(&bytes, width, values.len()).unwrap();
            for (at, &value) in values.iter().enumerate() {
                assert_eq!(packed.get(at), value, "width {width} at {at}");
            }
            assert_eq!(packed.get(usize::MAX), 0);
            assert!(Packed::new(&bytes, width, values.len() + 9).is_none() || width == 0);
        }
        assert!(Packed::new(&[0; 100], WIDTH_MAX + 1, 1).is_none());
    }
}
