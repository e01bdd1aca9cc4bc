//! Names that are made up: unique, short, of letters and digits only.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::base62::digit;

/// An id that is not used twice anywhere: 22 characters.
pub(crate) fn unique() -> String {
    random::<22>()
}

/// A name that is not used twice within a stream: 8 characters.
pub(crate) fn short() -> String {
    random::<8>()
}

fn random<const CHARACTERS: usize>() -> String {
    static SPARE: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0u8; CHARACTERS];
    if getrandom::fill(&mut bytes).is_err() {
        // Names only have to differ, they are no secret.
        let count = SPARE.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (byte, digit) in bytes.iter_mut().zip(count) {
            *byte = digit;
        }
    }
    bytes.iter().map(|byte| char::from(digit(*byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_tokens() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| unique()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 22));
        assert_eq!(short().len(), 8);
    }
}
