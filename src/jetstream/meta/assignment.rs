//! Which streams and consumers there are, and on which servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::group::{GroupNumber, Member};
use raft::types::NodeId;
use serde::de::DeserializeOwned;

use crate::jetstream::types::{
    ConsumerConfig, StreamConfig, Strictness, Time, decode, encode, unsupported,
};

/// A configuration as it was proposed: the text, which is what is replicated, and what this server understands of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    json: Arc<[u8]>,
    /// As far as this server understands it.
    pub config: T,
    /// Why it cannot be run here: a later version wrote it.
    pub unsupported: Option<String>,
}

impl<T: DeserializeOwned + serde::Serialize + Default> Stored<T> {
    /// A configuration of this server's own version.
    pub fn of(config: T) -> Self {
        Self {
            json: encode(&config).into(),
            config,
            unsupported: None,
        }
    }

    /// A configuration as it came. What this version does not know is kept, and named.
    pub fn from_json(json: &[u8]) -> Self {
        Self {
            json: json.into(),
            config: decode(json, Strictness::Lenient).unwrap_or_default(),
            unsupported: unsupported::<T>(json),
        }
    }

    /// The text.
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Names a stream, and which of all the streams that ever had that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    /// Its account.
    pub account: String,
    /// Its name.
    pub stream: String,
    /// Its group, which no other stream ever has.
    pub group: GroupNumber,
}

/// In which form a stream's log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// One server, plain entries.
    #[default]
    Plain,
    /// Raft frames.
    Raft,
}

/// Why the members of a group change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is to have more or fewer replicas.
    Scale,
    /// It is to live on other servers.
    Move,
    /// A replica is lost, or its server is.
    Repair,
}

/// Where a stream lives.
///
/// # Invariant
/// A node id is given once in a group. `members` and `leaving` share no node and no server that is in use under two nodes at once, except where a server comes back
/// without its log: then its earlier node leaves and its new one joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number, never given twice.
    pub number: GroupNumber,
    /// Its name, as the JSON shows it.
    pub name: String,
    /// The cluster that it was placed in.
    pub cluster: String,
    /// How its log is kept.
    pub form: Form,
    /// Those that it began with in its present form. All of them begin with the same checkpoint, which names them.
    pub founders: Vec<Member>,
    /// Those that it is to have.
    pub members: Vec<Member>,
    /// Those that serve until the members do.
    pub leaving: Vec<Member>,
    /// Why the members change, while they do.
    pub change: Option<ChangeKind>,
    /// The servers that it had before the change: where a cancelled one leads back to.
    pub before: Vec<String>,
    /// Members that lost their log and could not be replaced yet.
    pub lost: BTreeSet<NodeId>,
    /// Whether it has had a leader in its present form.
    pub begun: bool,
    /// The server that is to lead; empty for any.
    pub preferred: String,
    /// The next node id.
    pub(super) nodes_next: NodeId,
}

impl Group {
    /// Everyone who has a part in it now.
    pub fn everyone(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.leaving)
    }

    /// The member on that server; the one that is to stay, should there be two.
    pub fn member_on(&self, server: &str) -> Option<&Member> {
        self.everyone().find(|member| member.server == server)
    }

    /// Whether the group is on its way to other members.
    pub fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// The servers that it is to be on.
    pub fn servers(&self) -> Vec<String> {
        let servers = self.members.iter().map(|member| member.server.clone());
        servers.collect()
    }

    /// The ids that it is to have.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// Hands out an id that was never used in this group.
    pub(super) fn join(&mut self, server: String) -> Member {
        let node = self.nodes_next;
        self.nodes_next += 1;
        Member { node, server }
    }
}

/// A stream, and where it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAssignment {
    /// What it is configured to do.
    pub stored: Stored<StreamConfig>,
    /// When it was created.
    pub created: Time,
    /// Where it lives.
    pub group: Group,
    /// Counts its changes, so that what was decided on an earlier state is seen.
    pub revision: u64,
    /// Its consumers, by name.
    pub consumers: BTreeMap<String, Arc<ConsumerAssignment>>,
}

impl StreamAssignment {
    /// What it is configured to do.
    pub fn config(&self) -> &StreamConfig {
        &self.stored.config
    }

    /// How many replicas it is to have.
    pub fn replicas(&self) -> usize {
        self.config().replicas()
    }
}

/// A consumer. It lives where its stream does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerAssignment {
    /// What it is configured to do.
    pub stored: Stored<ConsumerConfig>,
    /// When it was created.
    pub created: Time,
    /// Counts its changes.
    pub revision: u64,
}

impl ConsumerAssignment {
    /// What it is configured to do.
    pub fn config(&self) -> &ConsumerConfig {
        &self.stored.config
    }

    /// Whether it goes when nobody uses it any more.
    pub fn is_ephemeral(&self) -> bool {
        !self.config().is_durable()
    }

    /// How many replicas it says it has. They are those of its stream; the number is what was asked for.
    pub fn replicas(&self, stream: &StreamConfig) -> usize {
        self.config().replicas_on(stream)
    }
}

/// Something on a server's disk that no assignment explains. It was set aside, not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The account that it says it is of.
    pub account: String,
    /// The stream that it says it is.
    pub stream: String,
    /// Why it was set aside.
    pub reason: String,
    /// When.
    pub since: Time,
}

/// A replica that was given up: its server may delete what it holds of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// That server.
    pub server: String,
    /// The account of the stream that it was of.
    pub account: String,
    /// That stream.
    pub stream: String,
    /// When that stream was created, which tells it from others of its name.
    pub created: Time,
}
