//! Servers that may hold replicas, and what is known of them at a moment.

use std::collections::BTreeMap;

use raft::types::NodeId;

use crate::jetstream::types::{PeerId, Time};

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerProfile {
    /// Its name: its identity in the cluster.
    pub server: String,
    /// The cluster that it is part of.
    pub cluster: String,
    /// Its JetStream domain; empty for none.
    pub domain: String,
    /// Its tags, in lower case.
    pub tags: Vec<String>,
    /// Bytes that its streams in memory may hold.
    pub memory_bytes_max: u64,
    /// Bytes that its streams on disk may hold.
    pub storage_bytes_max: u64,
    /// Whether it takes replicas at all.
    pub jetstream: bool,
}

/// A server of the meta group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// What it says of itself.
    pub profile: PeerProfile,
    /// Its id in the meta group, never given twice.
    pub node: NodeId,
}

impl Peer {
    /// Its id as the JSON of clusters shows it.
    pub fn id(&self) -> PeerId {
        PeerId::of(&self.profile.server)
    }
}

/// How a server was when it was last heard of. Every server has its own view of the others, and nothing that is replicated rests on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Whether it can be reached now.
    pub online: bool,
    /// When it was last heard of.
    pub last_seen: Time,
    /// Bytes that its streams in memory hold.
    pub memory_bytes: u64,
    /// Bytes that its streams on disk hold.
    pub storage_bytes: u64,
    /// Replicated groups that it takes part in.
    pub ha_assets: u64,
}

/// What is known of the servers, by name. A server that is not in it was never heard of.
pub type Sightings = BTreeMap<String, Sighting>;

/// Whether a server can be reached.
pub fn is_online(sightings: &Sightings, server: &str) -> bool {
    sightings.get(server).is_some_and(|seen| seen.online)
}
