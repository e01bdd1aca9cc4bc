//! The letters and digits that made-up names consist of: whatever is drawn, it is a token of a subject.

/// All of them, in the order of the reference.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How many there are.
pub const BASE: u64 = DIGITS.len() as u64;

/// The digit that stands for a number, or for what is left of it when it is divided by [`BASE`].
pub fn digit(number: impl Into<u64>) -> u8 {
    let at = usize::try_from(number.into() % BASE).unwrap_or_default();
    DIGITS.get(at).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_digit_and_they_differ() {
        let all: std::collections::BTreeSet<u8> = (0..BASE).map(digit).collect();
        assert_eq!(all.len(), 62);
        assert!(all.iter().all(u8::is_ascii_alphanumeric));
        assert_eq!((digit(0u8), digit(10u8), digit(61u8)), (b'0', b'A', b'z'));
        assert_eq!(digit(u64::MAX), digit(u64::MAX % 62));
    }
}
