//! What a journal has done, counted once per commit and once per sync: never per frame.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the sizes of commits, in frames.
pub const COMMIT_FRAMES_BOUNDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];
/// Upper bounds of how long a sync takes, in nanoseconds: 50 µs to 5 s.
pub const SYNC_NS_BOUNDS: [u64; 16] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
];

/// Counts what a journal does. Readers take no lock; a journal's thread writes a few counters for each commit.
#[derive(Debug)]
pub struct JournalMeter {
    /// Monotonic nanoseconds; without it syncs are counted and not timed.
    clock: Option<fn() -> u64>,
    frames: AtomicU64,
    bytes: AtomicU64,
    commit_frames: Histogram<{ COMMIT_FRAMES_BOUNDS.len() }>,
    sync_ns: Histogram<{ SYNC_NS_BOUNDS.len() }>,
}

/// How often what was measured lay below each of some bounds.
#[derive(Debug)]
struct Histogram<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    below: [AtomicU64; BOUNDS],
    above: AtomicU64,
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramFigures {
    /// Each upper bound, and how many values lay between it and the bound before.
    pub buckets: Vec<(u64, u64)>,
    /// How many lay above the last bound.
    pub above: u64,
    /// All values together.
    pub sum: u64,
}

/// A journal's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFigures {
    /// Frames that were written.
    pub frames: u64,
    /// Bytes that were written for them, padding included.
    pub bytes: u64,
    /// Frames of each commit.
    pub commit_frames: HistogramFigures,
    /// Nanoseconds of each sync; without a clock all are 0.
    pub sync_ns: HistogramFigures,
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    fn new(bounds: &'static [u64; BOUNDS]) -> Self {
        Self {
            bounds,
            below: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    fn add(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        let bucket = self.below.get(at).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn figures(&self) -> HistogramFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HistogramFigures {
            buckets: self
                .bounds
                .iter()
                .copied()
                .zip(self.below.iter().map(read))
                .collect(),
            above: read(&self.above),
            sum: read(&self.sum),
        }
    }
}

impl HistogramFigures {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum::<u64>() + self.above
    }
}

impl Default for JournalMeter {
    fn default() -> Self {
        Self::new(None)
    }
}

impl JournalMeter {
    /// A meter that asks this clock, which only goes forward, for nanoseconds.
    pub fn with_clock(clock: fn() -> u64) -> Self {
        Self::new(Some(clock))
    }

    fn new(clock: Option<fn() -> u64>) -> Self {
        Self {
            clock,
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            commit_frames: Histogram::new(&COMMIT_FRAMES_BOUNDS),
            sync_ns: Histogram::new(&SYNC_NS_BOUNDS),
        }
    }

    pub(super) fn committed(&self, frames: u32, bytes: usize) {
        self.frames.fetch_add(u64::from(frames), Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.commit_frames.add(u64::from(frames));
    }

    /// Runs a sync and measures it, also when it fails.
    pub(super) fn time<T>(&self, sync: impl FnOnce() -> T) -> T {
        let now = || self.clock.map_or(0, |clock| clock());
        let began = now();
        let result = sync();
        self.sync_ns.add(now().saturating_sub(began));
        result
    }

    /// The counters now.
    pub fn figures(&self) -> JournalFigures {
        JournalFigures {
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            commit_frames: self.commit_frames.figures(),
            sync_ns: self.sync_ns.figures(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_below_the_first_bound_that_it_does_not_exceed() {
        let meter = JournalMeter::default();
        for frames in [1, 2, 3, 4, 5000] {
            meter.committed(frames, 4096);
        }
        let figures = meter.figures();
        assert_eq!(figures.frames, 5010);
        assert_eq!(figures.bytes, 5 * 4096);
        assert_eq!(figures.commit_frames.buckets[..3], [(1, 1), (2, 1), (4, 2)]);
        assert_eq!(figures.commit_frames.above, 1);
        assert_eq!(figures.commit_frames.count(), 5);
        assert_eq!(figures.commit_frames.sum, 5010);
    }

    #[test]
    fn syncs_are_timed_by_the_clock_that_was_passed_in() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let meter = JournalMeter::with_clock(|| NOW.load(Ordering::Relaxed));
        let answer = meter.time(|| {
            NOW.fetch_add(150_000, Ordering::Relaxed);
            "done"
        });
        assert_eq!(answer, "done");
        let sync = meter.figures().sync_ns;
        assert_eq!(sync.sum, 150_000);
        assert_eq!(sync.buckets[2], (200_000, 1));
        JournalMeter::default().time(|| ());
    }
}
