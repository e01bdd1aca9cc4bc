//! How long each operation took.

use std::time::Duration;

/// Tenths of a microsecond of all operations of a run.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn note(&mut self, took: Duration) {
        self.note_all(took, 1);
    }

    /// So many operations took that long each.
    pub fn note_all(&mut self, took: Duration, count: u64) {
        let tenths = took.as_secs() * 10_000_000 + u64::from(took.subsec_nanos() / 100);
        let tenths = u32::try_from(tenths).unwrap_or(u32::MAX);
        self.0.extend((0..count).map(|_| tenths));
    }

    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that so many of a hundred operations took at most.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        let at = (self.0.len() as f64 * percent / 100.0) as usize;
        let at = at.min(self.0.len() - 1);
        let (_, tenths, _) = self.0.select_nth_unstable(at);
        Duration::from_nanos(u64::from(*tenths) * 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50.0), Duration::ZERO);
        for micros in (1..=100).rev() {
            latencies.note(Duration::from_micros(micros));
        }
        assert_eq!(latencies.percentile(50.0), Duration::from_micros(51));
        assert_eq!(latencies.percentile(99.0), Duration::from_micros(100));
    }
}
