//! Variable-length numbers as Go writes them.

/// What cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The bytes end.
    #[error("it ends too early")]
    Short,
    /// A number, or what is counted by it, cannot be.
    #[error("{0} cannot be")]
    Range(&'static str),
}

/// Takes bytes apart.
pub(super) struct Scan<'a>(pub(super) &'a [u8]);

impl<'a> Scan<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], NumberError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NumberError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn chunk<const N: usize>(&mut self) -> Result<[u8; N], NumberError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NumberError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A number without a sign.
    pub(super) fn number(&mut self) -> Result<u64, NumberError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.chunk()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(NumberError::Range("a number of more than 64 bits"))
    }

    /// A number with a sign.
    pub(super) fn signed(&mut self) -> Result<i64, NumberError> {
        let number = self.number()?;
        let half = (number >> 1) as i64;
        Ok(if number & 1 == 0 { half } else { !half })
    }
}

/// Appends a number without a sign.
pub(super) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends a number with a sign.
pub(super) fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put_number(bytes, (number << 1 ^ number >> 63) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_too_long_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, u64::MAX, 1 << 63] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            put_signed(&mut bytes, number as i64);
            let mut scan = Scan(&bytes);
            assert_eq!(scan.number(), Ok(number));
            assert_eq!(scan.signed(), Ok(number as i64));
            assert!(scan.0.is_empty());
        }
        assert!(Scan(&[0xff; 10]).number().is_err());
        assert_eq!(Scan(&[0x80]).number(), Err(NumberError::Short));
    }
}
