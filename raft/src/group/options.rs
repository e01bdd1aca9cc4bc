//! How groups are to behave: times, limits, and what they are given to work with.

use std::time::Duration;

use bytes::Bytes;

/// When things happen. The figures hang together: see [`Timing::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often two servers that share groups tell each other that they live.
    pub liveness_interval: Duration,
    /// A server that was not heard of for so long is taken for gone.
    pub peer_lost_after: Duration,
    /// How often the leader of a group that is awake and idle tells its followers that it leads.
    pub heartbeat_interval: Duration,
    /// A follower that is awake calls for an election after at least so long without its leader.
    pub election_timeout_min: Duration,
    /// And after at most so long. A follower that heard of its leader grants nobody a vote for this time: the leader's lease.
    pub election_timeout_max: Duration,
    /// A group without proposals for so long falls quiet.
    pub quiet_after: Duration,
    /// How long the second, third … in line waits before it calls for an election, so that two do not split the votes.
    pub campaign_stagger: Duration,
    /// How long one request to a peer may take before it is sent again.
    pub request_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            liveness_interval: Duration::from_millis(100),
            peer_lost_after: Duration::from_millis(500),
            heartbeat_interval: Duration::from_millis(250),
            election_timeout_min: Duration::from_millis(800),
            election_timeout_max: Duration::from_millis(1000),
            quiet_after: Duration::from_secs(2),
            campaign_stagger: Duration::from_millis(150),
            request_timeout: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// A lost peer is found out by several missed signs of life, and a lease outlasts several heartbeats.
    pub fn check(&self) -> Result<(), BadTiming> {
        let two_signs = self.liveness_interval * 2;
        if self.liveness_interval.is_zero() || self.peer_lost_after <= two_signs {
            return Err(BadTiming(
                "peer_lost_after must exceed two liveness intervals",
            ));
        }
        if self.election_timeout_min <= self.heartbeat_interval * 2 {
            return Err(BadTiming(
                "election_timeout_min must exceed two heartbeat intervals",
            ));
        }
        if self.election_timeout_max <= self.election_timeout_min {
            return Err(BadTiming(
                "election_timeout_max must exceed election_timeout_min",
            ));
        }
        Ok(())
    }
}

/// Times that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTiming(pub &'static str);

/// How much of everything there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of entries that one group keeps in memory; older ones are read back from the journal.
    pub log_tail_bytes_max: usize,
    /// Bytes of entries in one message to a follower, unless a single entry is longer.
    pub append_bytes_max: usize,
    /// Entries in one message to a follower.
    pub append_entries_max: u64,
    /// Bytes of entries in one batch to the state machine, unless a single entry is longer.
    pub apply_bytes_max: usize,
    /// Proposals that a group holds until they can be logged, in number.
    pub proposals_held_max: usize,
    /// A frame to a peer that has grown to this is handed over.
    pub frame_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_tail_bytes_max: 256 * 1024,
            append_bytes_max: 1024 * 1024,
            append_entries_max: 1024,
            apply_bytes_max: 1024 * 1024,
            proposals_held_max: 8192,
            frame_bytes_max: 256 * 1024,
        }
    }
}

/// How the groups of a server are to behave.
#[derive(Debug, Clone)]
pub struct GroupsOptions {
    /// The name of this server, as its peers know it.
    pub server: String,
    /// When things happen.
    pub timing: Timing,
    /// How much there may be.
    pub limits: Limits,
}

impl GroupsOptions {
    /// The usual for the server of that name.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// Which of the two connections to a peer a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Votes, heartbeats, entries, liveness.
    Control,
    /// Manifests: nothing that an election waits for.
    Bulk,
}

/// What carries frames to other servers.
pub trait Outbound: Send + Sync + 'static {
    /// Sends a frame to the server of that name, in order with earlier ones of the channel. Never blocks, and never calls the groups: what cannot be sent is
    /// dropped, and Raft repeats it.
    fn send(&self, to: &str, channel: Channel, frame: Bytes);
}
