//! What went over the links.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use raft::group::Channel;

/// What went over a channel to a peer since the server began, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub frames_sent: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub frames_received: AtomicU64,
    pub bytes_received: AtomicU64,
    pub frames_dropped: AtomicU64,
    pub bytes_dropped: AtomicU64,
    pub connections: AtomicU64,
    round_trip_nanoseconds: AtomicU64,
    connected_since: Mutex<Option<SystemTime>>,
}

/// What went over a channel to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelStatistics {
    /// Which.
    pub channel: Channel,
    /// Since when the connection stands; `None` when there is none.
    pub connected_since: Option<SystemTime>,
    /// How many connections there were.
    pub connections: u64,
    /// How long the last sign of life took there and back.
    pub round_trip: Option<Duration>,
    /// Frames written.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames read.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames that did not fit, or for which there was no connection.
    pub frames_dropped: u64,
    /// Their bytes.
    pub bytes_dropped: u64,
}

/// What went over the links to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatistics {
    /// The name of the peer.
    pub server: String,
    /// The identity of its run, as far as it is connected.
    pub server_id: Option<String>,
    /// Control, then bulk.
    pub channels: [ChannelStatistics; 2],
}

impl Counters {
    pub fn sent(&self, frames: usize, bytes: usize) {
        self.frames_sent.fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn dropped(&self, bytes: usize) {
        self.frames_dropped.fetch_add(1, Ordering::Relaxed);
        self.bytes_dropped
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn received(&self, frames: usize, bytes: usize) {
        self.frames_received
            .fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes_received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn round_trip(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.round_trip_nanoseconds
            .store(nanoseconds, Ordering::Relaxed);
    }

    pub fn connected(&self, at: SystemTime) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        *self.connected_since.lock() = Some(at);
    }

    pub fn disconnected(&self) {
        *self.connected_since.lock() = None;
    }

    pub fn read(&self, channel: Channel) -> ChannelStatistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let round_trip = load(&self.round_trip_nanoseconds);
        ChannelStatistics {
            channel,
            connected_since: *self.connected_since.lock(),
            connections: load(&self.connections),
            round_trip: (round_trip > 0).then(|| Duration::from_nanos(round_trip)),
            frames_sent: load(&self.frames_sent),
            bytes_sent: load(&self.bytes_sent),
            frames_received: load(&self.frames_received),
            bytes_received: load(&self.bytes_received),
            frames_dropped: load(&self.frames_dropped),
            bytes_dropped: load(&self.bytes_dropped),
        }
    }
}
