//! As much DER as a certificate needs: values with a tag and a length, one inside the other.
//!
//! # Invariant
//! Lengths are believed only as far as there are bytes, and nothing is read twice: hostile input costs no more than its size.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)
)]

/// Tags of the values that a certificate consists of.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const TELETEX_STRING: u8 = 0x14;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// A value: its tag, what is in it, and all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    pub(super) whole: &'a [u8],
}

/// Reads one value after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value; `None` at the end, or where there is none.
    pub(super) fn next(&mut self) -> Option<Value<'a>> {
        let (tag, rest) = self.0.split_first()?;
        // Tags of several bytes occur in no certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // Four bytes of length are more than any certificate has.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let add = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
                (bytes.iter().fold(0, add), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - after.len())?;
        self.0 = after;
        Some(Value {
            tag: *tag,
            content,
            whole,
        })
    }

    /// The next value, when it has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.next().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value)
    }
}

impl<'a> Value<'a> {
    /// What is in it.
    pub(super) fn inside(self) -> Reader<'a> {
        Reader(self.content)
    }

    /// Its text, of the kinds of strings there are.
    pub(super) fn text(self) -> Option<String> {
        match self.tag {
            UTF8_STRING | PRINTABLE_STRING | IA5_STRING => {
                String::from_utf8(self.content.to_vec()).ok()
            }
            TELETEX_STRING => Some(self.content.iter().map(|byte| char::from(*byte)).collect()),
            BMP_STRING => {
                let units = self.content.chunks_exact(2).map(|pair| match pair {
                    [high, low] => u16::from_be_bytes([*high, *low]),
                    _ => 0,
                });
                String::from_utf16(&units.collect::<Vec<_>>()).ok()
            }
            _ => None,
        }
    }
}
