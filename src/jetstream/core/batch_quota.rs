//! How many batches may be open, how large and how long: what the operator allows, counted over all streams of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Atomic batches that may be open where the operator says nothing, per stream and per server.
const ATOMIC_MAX: (usize, usize) = (50, 1000);
/// Fast batches, likewise.
const FAST_MAX: (usize, usize) = (1000, 50_000);
/// Messages in one atomic batch, likewise.
const MESSAGES_MAX: usize = 1000;
/// How long a batch waits for its next message, likewise.
const IDLE_NS_MAX: i64 = 10_000_000_000;

/// What the operator allows batches; `None` is the default of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchLimits {
    /// Open batches of one stream.
    pub per_stream_max: Option<usize>,
    /// Open batches of all streams together.
    pub total_max: Option<usize>,
    /// Messages in one atomic batch.
    pub messages_max: Option<usize>,
    /// How long a batch waits for its next message, in nanoseconds.
    pub idle_ns_max: Option<i64>,
}

/// The two kinds of batches, which are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// Stored all together or not at all.
    Atomic,
    /// Stored as the messages come.
    Fast,
}

/// The limits of a server, and how many batches its streams have open.
#[derive(Debug, Default)]
pub struct BatchQuota {
    limits: BatchLimits,
    atomic: AtomicUsize,
    fast: AtomicUsize,
}

/// The place that one open batch takes; it is free again when this is dropped.
#[derive(Debug)]
pub struct BatchPlace {
    quota: Arc<BatchQuota>,
    kind: BatchKind,
}

impl BatchQuota {
    /// No batch is open yet.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many messages an atomic batch may have.
    pub fn messages_max(&self) -> usize {
        self.limits.messages_max.unwrap_or(MESSAGES_MAX)
    }

    /// How long a batch waits for its next message, in nanoseconds.
    pub fn idle_ns_max(&self) -> i64 {
        self.limits.idle_ns_max.unwrap_or(IDLE_NS_MAX)
    }

    /// How many fast batches of one stream may be open.
    pub(crate) fn fast_per_stream_max(&self) -> usize {
        self.limits.per_stream_max.unwrap_or(FAST_MAX.0)
    }

    /// Takes a place for one more batch of a stream that has so many open of the kind; `None` when there is none.
    pub fn enter(self: &Arc<Self>, kind: BatchKind, open: usize) -> Option<BatchPlace> {
        let (per_stream, total) = match kind {
            BatchKind::Atomic => ATOMIC_MAX,
            BatchKind::Fast => FAST_MAX,
        };
        if open >= self.limits.per_stream_max.unwrap_or(per_stream) {
            return None;
        }
        let total = self.limits.total_max.unwrap_or(total);
        let counted = self.counter(kind);
        // Nothing else is read by what this says.
        let entered = counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < total).then_some(count + 1)
        });
        entered.is_ok().then(|| BatchPlace {
            quota: Arc::clone(self),
            kind,
        })
    }

    fn counter(&self, kind: BatchKind) -> &AtomicUsize {
        match kind {
            BatchKind::Atomic => &self.atomic,
            BatchKind::Fast => &self.fast,
        }
    }
}

impl Drop for BatchPlace {
    fn drop(&mut self) {
        self.quota
            .counter(self.kind)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart_and_places_come_back() {
        let quota = Arc::new(BatchQuota::new(BatchLimits {
            per_stream_max: Some(2),
            total_max: Some(3),
            ..BatchLimits::default()
        }));
        let enter = |kind, open| quota.enter(kind, open);
        let held: Vec<_> = (0..3).map(|_| enter(BatchKind::Atomic, 1)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(enter(BatchKind::Atomic, 0).is_none());
        assert!(enter(BatchKind::Fast, 0).is_some());
        assert!(enter(BatchKind::Fast, 2).is_none());
        drop(held);
        assert!(enter(BatchKind::Atomic, 0).is_some());
    }
}
