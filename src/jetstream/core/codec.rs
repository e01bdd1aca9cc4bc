//! Reading and writing the core's own binary values: entries and snapshots.
//!
//! # Invariant
//! A reader never trusts a length: whatever the bytes, it answers with a value or a [`DecodeError`] and allocates no more than
//! the bytes it was given.

use thiserror::Error;

/// Bytes that are no entry or snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by a later version.
    #[error("format version {0} is not known")]
    Version(u8),
    /// They end in the middle of a value.
    #[error("cut short at byte {0}")]
    Short(usize),
    /// A value that cannot be.
    #[error("{what} is out of range")]
    Range {
        /// Which value.
        what: &'static str,
    },
    /// An embedded configuration cannot be read.
    #[error("configuration: {0}")]
    Config(String),
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Seven bits a byte, lowest first.
    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A length, then the bytes.
    pub(crate) fn blob(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }
}

/// Takes values off the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.position >= self.bytes.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.position.checked_add(length);
        let slice = end.and_then(|end| self.bytes.get(self.position..end));
        let slice = slice.ok_or(DecodeError::Short(self.position))?;
        self.position += length;
        Ok(slice)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        match self.take(1)? {
            [byte] => Ok(*byte),
            _ => Err(DecodeError::Short(self.position)),
        }
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.take(8)?.try_into();
        Ok(u64::from_le_bytes(
            bytes.map_err(|_| DecodeError::Range { what: "integer" })?,
        ))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(self.u64()? as i64)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Range { what: "number" })
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Range { what: "length" })?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.blob()?).map_err(|_| DecodeError::Range { what: "text" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_overlong_ones_are_refused() {
        let mut writer = Writer::default();
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            writer.number(value);
        }
        let mut reader = Reader::new(&writer.bytes);
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            assert_eq!(reader.number(), Ok(value));
        }
        assert!(reader.is_empty());
        assert!(Reader::new(&[0xff; 10]).number().is_err());
        assert!(Reader::new(&[0xff; 3]).number().is_err());
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        let mut writer = Writer::default();
        writer.number(u64::MAX);
        assert!(Reader::new(&writer.bytes).blob().is_err());
        assert!(Reader::new(&[5, 1, 2]).blob().is_err());
    }
}
