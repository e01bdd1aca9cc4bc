//! Who this server is to its peers, how much there may be of everything, and how long things may take.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use raft::group::Channel;

use crate::tls::{KeyHash, MutualTls};

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Says whether a peer with these credentials may link; called where it may take its time.
pub type Authorize = Arc<dyn Fn(Option<&Credentials>) -> bool + Send + Sync>;

/// How other servers are dialled.
#[derive(Debug, Clone, Default)]
pub struct Dialling {
    /// What to say where the peer's own address names nobody.
    pub credentials: Option<Credentials>,
    /// Encryption, when the cluster is encrypted.
    pub tls: Option<Arc<MutualTls>>,
    /// The keys of which a server must have one; any will do when there are none.
    pub pinned_keys: Arc<BTreeSet<KeyHash>>,
}

impl Dialling {
    /// Whether a server that has shown this key may be linked with.
    pub(crate) fn takes_key(&self, key: Option<&KeyHash>) -> bool {
        self.pinned_keys.is_empty() || key.is_some_and(|key| self.pinned_keys.contains(key))
    }
}

/// What a link begins with; it may change while the server runs.
#[derive(Debug, Default)]
pub struct Meeting {
    /// The name of the cluster.
    pub cluster: String,
    /// How others are dialled.
    pub dialling: Dialling,
}

/// How much there may be of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// The longest frame. Room for the longest message a server may take, and for a manifest.
    pub frame_bytes_max: usize,
    /// What may wait to be written on a control link.
    pub control_queue_bytes_max: usize,
    /// What may wait to be written on a bulk link.
    pub bulk_queue_bytes_max: usize,
    /// Questions to a peer without an answer yet, per channel.
    pub asked_max: usize,
    /// Questions of a peer that are being answered, per channel.
    pub answering_max: usize,
    /// How far slices may be ahead of whoever takes them.
    pub window_bytes: u32,
    /// How many bytes of slices a peer is sent per second; without a limit when `None`.
    pub slices_bytes_per_second: Option<u64>,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 80 * 1024 * 1024,
            control_queue_bytes_max: 32 * 1024 * 1024,
            bulk_queue_bytes_max: 32 * 1024 * 1024,
            asked_max: 4096,
            answering_max: 4096,
            window_bytes: 2 * 1024 * 1024,
            slices_bytes_per_second: None,
        }
    }
}

impl LinkLimits {
    pub(super) fn queue_bytes_max(&self, channel: Channel) -> usize {
        match channel {
            Channel::Control => self.control_queue_bytes_max,
            Channel::Bulk => self.bulk_queue_bytes_max,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkTiming {
    /// Both sides must know of each other within this time.
    pub handshake_timeout: Duration,
    /// How often a peer is asked for a sign of life.
    pub ping_interval: Duration,
    /// A connection on which nothing came for so long is given up.
    pub silent_after: Duration,
    /// A connection that takes nothing of what waits for it for so long is given up.
    pub stalled_after: Duration,
    /// The first pause after a peer could not be dialled; it doubles each time.
    pub redial_pause_min: Duration,
    /// And the longest.
    pub redial_pause_max: Duration,
    /// The server whose turn it is not to dial does so all the same when the other did not for this time.
    pub other_dials_within: Duration,
}

impl Default for LinkTiming {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_millis(500),
            silent_after: Duration::from_secs(3),
            stalled_after: Duration::from_secs(10),
            redial_pause_min: Duration::from_millis(50),
            redial_pause_max: Duration::from_secs(1),
            other_dials_within: Duration::from_secs(1),
        }
    }
}

/// How the links of a server are to behave, as long as there are any.
#[derive(Clone)]
pub struct LinkOptions {
    /// The name of this server, as its peers know it.
    pub server_name: String,
    /// The identity of this run of it.
    pub server_id: String,
    /// The version that it shows; for logs only.
    pub version: String,
    /// Who may link.
    pub authorize: Authorize,
    /// How much there may be.
    pub limits: LinkLimits,
    /// How long things may take.
    pub timing: LinkTiming,
}

impl std::fmt::Debug for LinkOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LinkOptions")
            .field("server_name", &self.server_name)
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}

impl LinkOptions {
    /// The usual, for a cluster that lets every server in.
    pub fn new(server_name: impl Into<String>, server_id: impl Into<String>) -> Self {
        Self {
            server_name: server_name.into(),
            server_id: server_id.into(),
            version: String::new(),
            authorize: Arc::new(|_| true),
            limits: LinkLimits::default(),
            timing: LinkTiming::default(),
        }
    }
}
