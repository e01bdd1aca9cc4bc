//! The state of the meta group.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::group::GroupNumber;
use raft::types::NodeId;

use super::assignment::{Orphan, Released, StreamAssignment, StreamRef};
use super::peer::{Peer, PeerProfile};
use crate::subject::overlap;

/// The streams of one account, by name.
pub type Streams = BTreeMap<String, Arc<StreamAssignment>>;

/// Which servers there are, which streams, and where they live. The same on every server at the same index.
///
/// A clone shares what neither changes, so that a leader can look ahead and readers can keep what they read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub(super) applied: u64,
    pub(super) groups_next: u64,
    pub(super) nodes_next: NodeId,
    pub(super) peers: BTreeMap<String, Peer>,
    pub(super) accounts: BTreeMap<String, Arc<Streams>>,
    /// Replicas that are explicitly given up: their servers may delete what they hold.
    pub(super) released: BTreeMap<(GroupNumber, NodeId), Released>,
    /// What servers set aside, by server and by what they call it.
    pub(super) orphans: BTreeMap<(String, String), Orphan>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            applied: 0,
            // 0 is the meta group itself.
            groups_next: 1,
            nodes_next: 1,
            peers: BTreeMap::new(),
            accounts: BTreeMap::new(),
            released: BTreeMap::new(),
            orphans: BTreeMap::new(),
        }
    }
}

impl Meta {
    /// The state that the first servers of a cluster begin with: the same on all of them when they name the same servers. Their ids in the meta group follow
    /// the order of their names. What else they say of themselves they say later.
    pub fn founding<'a>(servers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<&str> = servers.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let mut meta = Self::default();
        for server in names {
            meta.admit(PeerProfile {
                server: server.to_owned(),
                ..PeerProfile::default()
            });
        }
        meta
    }

    /// The index of the last command that is in it.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// All servers, by name.
    pub fn peers(&self) -> &BTreeMap<String, Peer> {
        &self.peers
    }

    /// The accounts that have streams, and these.
    pub fn accounts(&self) -> &BTreeMap<String, Arc<Streams>> {
        &self.accounts
    }

    /// The streams of an account.
    pub fn streams(
        &self,
        account: &str,
    ) -> impl Iterator<Item = (&String, &Arc<StreamAssignment>)> {
        self.accounts
            .get(account)
            .into_iter()
            .flat_map(|all| all.iter())
    }

    /// A stream.
    pub fn stream(&self, account: &str, name: &str) -> Option<&Arc<StreamAssignment>> {
        self.accounts.get(account)?.get(name)
    }

    /// Exactly this stream, not a later one of the same name.
    pub fn stream_of(&self, of: &StreamRef) -> Option<&Arc<StreamAssignment>> {
        self.stream(&of.account, &of.stream)
            .filter(|stream| stream.group.number == of.group)
    }

    /// Every stream of every account.
    pub fn all_streams(&self) -> impl Iterator<Item = (StreamRef, &Arc<StreamAssignment>)> {
        self.accounts.iter().flat_map(|(account, streams)| {
            streams.iter().map(move |(name, stream)| {
                let of = StreamRef {
                    account: account.clone(),
                    stream: name.clone(),
                    group: stream.group.number,
                };
                (of, stream)
            })
        })
    }

    /// Replicas that were explicitly given up and are not known to be deleted yet.
    pub fn released(&self) -> &BTreeMap<(GroupNumber, NodeId), Released> {
        &self.released
    }

    /// What servers set aside.
    pub fn orphans(&self) -> &BTreeMap<(String, String), Orphan> {
        &self.orphans
    }

    /// Whether another stream of the account has one of these subjects.
    pub fn subjects_overlap(&self, account: &str, stream: &str, subjects: &[String]) -> bool {
        self.streams(account)
            .filter(|(name, _)| *name != stream)
            .any(|(_, other)| {
                let taken = &other.config().subjects;
                subjects
                    .iter()
                    .any(|subject| taken.iter().any(|other| overlap(subject, other)))
            })
    }

    /// How many streams there are.
    pub fn stream_count(&self) -> usize {
        self.accounts.values().map(|streams| streams.len()).sum()
    }

    /// Puts a server that was not there, under a new id.
    pub(super) fn admit(&mut self, profile: PeerProfile) -> NodeId {
        let node = self.nodes_next;
        self.nodes_next += 1;
        let server = profile.server.clone();
        self.peers.insert(server, Peer { profile, node });
        node
    }

    pub(super) fn stream_mut(&mut self, of: &StreamRef) -> Option<&mut StreamAssignment> {
        let streams = self.accounts.get_mut(&of.account)?;
        // Looked up before it is made unique, so that what is not there copies nothing.
        if streams.get(&of.stream)?.group.number != of.group {
            return None;
        }
        let stream = Arc::make_mut(streams).get_mut(&of.stream)?;
        Some(Arc::make_mut(stream))
    }
}
