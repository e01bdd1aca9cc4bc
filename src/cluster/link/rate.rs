//! How much a peer is sent per second: a bucket of bytes that fills with time.
//!
//! Pure: the moments are passed in.

use std::time::{Duration, Instant};

/// A bucket that holds what may be sent within this time.
const BURST: Duration = Duration::from_millis(100);

/// A limit of bytes per second.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    /// When all that was taken so far will have been earned.
    paid_until: Option<Instant>,
}

impl Rate {
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_until: None,
        }
    }

    /// Takes so many bytes, and says how long to wait before they are sent.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let begin = self.paid_until.map_or(now, |until| until.max(now));
        let nanoseconds = (bytes as u128) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.paid_until = Some(begin.checked_add(cost).unwrap_or(begin));
        begin.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_as_the_limit_passes_per_second_and_a_pause_saves_nothing_up() {
        let mut rate = Rate::new(1000);
        let begin = Instant::now();
        let mut now = begin;
        for _ in 0..50 {
            now += rate.take(100, now);
        }
        let spent = now - begin;
        let expected = Duration::from_millis(4900) - BURST;
        assert_eq!(spent, expected);
        now += Duration::from_secs(60);
        assert_eq!(rate.take(1000, now), Duration::ZERO);
        assert_eq!(rate.take(1000, now), Duration::from_millis(900));
    }
}
