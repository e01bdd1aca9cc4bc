//! What a group replicates: the one openraft type configuration that all groups share.
//!
//! One configuration for every group of a server, because openraft's core is compiled once per
//! configuration. What differs between the meta group and a stream's group is inside [`Command`].

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::{BoxedErrorSource, InlineBatch, leader_id_std};

use crate::runtime::RaftRuntime;

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

/// That an entry was applied: what there is to say about it goes from the state machine to whom it concerns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done;

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("done")
    }
}

/// Hears the outcome of one proposal.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// Calls `hear` with the outcome.
    pub fn new(hear: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(hear))
    }
}

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The type configuration: standard Raft, where a term has at most one leader and a log id is
/// (term, index).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

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
/// A membership and the entry that brought it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Peer>;
/// The voters (two sets while they change) and learners of a group.
pub type Membership = openraft::Membership<NodeId, Peer>;

/// What a state machine holds, from the group's point of view.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Peer>;

impl RaftTypeConfig for Types {
    type D = Command;
    type R = Done;
    type NodeId = NodeId;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = RaftRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}
