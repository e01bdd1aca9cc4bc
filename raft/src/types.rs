//! What a group replicates: the one openraft type configuration that all groups share.
//!
//! One configuration for every group of a server, because openraft's core is compiled once per
//! configuration. What differs between the meta group and a stream's group is inside [`Command`].

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder, leader_id_std};

/// A server's identity in one group. Never used twice in a group: a server that comes back after
/// losing its log comes back under a new one, or it could vote twice in one term.
pub type NodeId = u64;

/// Where a member of a group is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The name of the server, as the transport knows it.
    pub server: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.server)
    }
}

/// What an entry asks the state machine to do: opaque to this crate, one batch per entry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What applying an entry gives back to the proposer: opaque to this crate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome(pub Bytes);

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Outcome({} bytes)", self.0.len())
    }
}

/// The type configuration: standard Raft, where a term has at most one leader and a log id is
/// (term, index).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group;

/// A term and the node that asked for votes in it.
pub type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
/// A term whose leader a majority has elected.
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// The identity of an entry: term and index.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote, granted or committed.
pub type Vote = openraft::Vote<LeaderId>;
/// What an entry holds: nothing, a command or a membership.
pub type Payload = openraft::EntryPayload<Command, NodeId, Peer>;
/// One entry of a group's log.
pub type Entry = openraft::Entry<CommittedLeaderId, Payload>;
/// The voters (two sets while they change) and learners of a group.
pub type Membership = openraft::Membership<NodeId, Peer>;

impl RaftTypeConfig for Group {
    type D = Command;
    type R = Outcome;
    type NodeId = NodeId;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}
