//! How an account's index of subscriptions is used.
//!
//! Producers keep what they have found (see the delivery's cache), so that nothing here is touched once per message: hits are
//! handed over with the next miss.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an index, kept by whoever uses it.
#[derive(Debug, Default)]
pub(super) struct IndexStatistics {
    inserts: AtomicU64,
    removes: AtomicU64,
    lookups: AtomicU64,
    hits: AtomicU64,
    cached: AtomicU64,
    fanout_total: AtomicU64,
    fanout_max: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexFigures {
    /// Subscriptions that were ever added.
    pub inserts: u64,
    /// Subscriptions that were ever removed.
    pub removes: u64,
    /// How often the index was asked for what matches.
    pub lookups: u64,
    /// How often a producer still knew.
    pub hits: u64,
    /// Subjects whose matches producers keep now.
    pub cached: u64,
    /// Matches found in all lookups together.
    pub fanout_total: u64,
    /// Matches found in the lookup that found most.
    pub fanout_max: u64,
}

impl IndexStatistics {
    pub(super) fn inserted(&self) {
        self.inserts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn removed(&self) {
        self.removes.fetch_add(1, Ordering::Relaxed);
    }

    /// A lookup found this many.
    pub(super) fn looked_up(&self, found: usize) {
        let found = found as u64;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.fanout_total.fetch_add(found, Ordering::Relaxed);
        // Read first: a maximum that stands is not written again by everybody.
        if self.fanout_max.load(Ordering::Relaxed) < found {
            self.fanout_max.fetch_max(found, Ordering::Relaxed);
        }
    }

    /// So often was no lookup needed.
    pub(super) fn hit(&self, times: u64) {
        if times > 0 {
            self.hits.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// A producer keeps the matches of one more subject.
    pub(super) fn kept(&self) {
        self.cached.fetch_add(1, Ordering::Relaxed);
    }

    /// A producer has forgotten those of one.
    pub(super) fn forgotten(&self) {
        self.cached.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> IndexFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IndexFigures {
            inserts: read(&self.inserts),
            removes: read(&self.removes),
            lookups: read(&self.lookups),
            hits: read(&self.hits),
            cached: read(&self.cached),
            fanout_total: read(&self.fanout_total),
            fanout_max: read(&self.fanout_max),
        }
    }
}

impl IndexFigures {
    /// These and those together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            inserts: self.inserts + other.inserts,
            removes: self.removes + other.removes,
            lookups: self.lookups + other.lookups,
            hits: self.hits + other.hits,
            cached: self.cached + other.cached,
            fanout_total: self.fanout_total + other.fanout_total,
            fanout_max: self.fanout_max.max(other.fanout_max),
        }
    }

    /// How often anybody wanted to know what matches.
    pub fn matches(&self) -> u64 {
        self.lookups + self.hits
    }

    /// The share of [`IndexFigures::matches`] that needed no lookup.
    pub fn hit_rate(&self) -> f64 {
        share(self.hits, self.matches())
    }

    /// Matches of the average lookup.
    pub fn fanout_average(&self) -> f64 {
        share(self.fanout_total, self.lookups)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}
