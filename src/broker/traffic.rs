//! Counters of what passed through: kept per batch, read by the monitoring endpoints.

use std::sync::atomic::{AtomicU64, Ordering};

/// What passed through a server since it started.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages that clients published.
    pub in_messages: AtomicU64,
    /// Their bytes, headers included.
    pub in_bytes: AtomicU64,
    /// Messages delivered to clients.
    pub out_messages: AtomicU64,
    /// Their bytes, headers included.
    pub out_bytes: AtomicU64,
    /// Clients closed because they did not keep up.
    pub slow_consumers: AtomicU64,
    /// Clients closed because they did not answer pings.
    pub stale_connections: AtomicU64,
    /// How often a publisher was made to wait for a receiver.
    pub stalled_clients: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficSnapshot {
    /// Messages that clients published.
    pub in_messages: u64,
    /// Their bytes, headers included.
    pub in_bytes: u64,
    /// Messages delivered to clients.
    pub out_messages: u64,
    /// Their bytes, headers included.
    pub out_bytes: u64,
    /// Clients closed because they did not keep up.
    pub slow_consumers: u64,
    /// Clients closed because they did not answer pings.
    pub stale_connections: u64,
    /// How often a publisher was made to wait for a receiver.
    pub stalled_clients: u64,
}

impl Traffic {
    /// Adds one to a counter.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters now.
    pub fn snapshot(&self) -> TrafficSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficSnapshot {
            in_messages: read(&self.in_messages),
            in_bytes: read(&self.in_bytes),
            out_messages: read(&self.out_messages),
            out_bytes: read(&self.out_bytes),
            slow_consumers: read(&self.slow_consumers),
            stale_connections: read(&self.stale_connections),
            stalled_clients: read(&self.stalled_clients),
        }
    }
}
