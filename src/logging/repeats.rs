//! Warnings that say the same again and again: once a second is enough.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A warning is not told again within this time.
const PAUSE: Duration = Duration::from_secs(1);
/// Warnings that are remembered. When there are more within a second, the others are all told.
const REMEMBERED_MAX: usize = 1024;

/// The warnings of the last second.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    told: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
}

impl Repeats {
    /// Whether a warning is to be told now.
    pub(super) fn admits(&self, text: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(text);
        let mut told = self.told.lock();
        let is_recent = |then: &Instant| now.duration_since(*then) < PAUSE;
        if told.get(&hash).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= REMEMBERED_MAX {
            told.retain(|_, then| is_recent(then));
        }
        if told.len() < REMEMBERED_MAX {
            told.insert(hash, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_warning_is_told_once_a_second() {
        let repeats = Repeats::default();
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        assert!(repeats.admits("a", at(0)) && repeats.admits("b", at(0)));
        assert!(!repeats.admits("a", at(10)) && !repeats.admits("a", at(999)));
        assert!(repeats.admits("a", at(1000)));
        assert!(!repeats.admits("a", at(1500)));
        for number in 0..REMEMBERED_MAX * 2 {
            assert!(repeats.admits(&number.to_string(), at(1600)));
        }
        assert!(repeats.told.lock().len() <= REMEMBERED_MAX);
    }
}
