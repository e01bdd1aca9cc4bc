//! What a replica is started with.

use storage::journal::Owner;

use super::members::{Checkpoint, Position};
use crate::log::LogImage;
use crate::types::NodeId;

/// Names a group on every server. Given by the meta layer; 0 is the meta group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNumber(pub u64);

impl GroupNumber {
    /// The group of the meta layer.
    pub const META: Self = Self(0);
}

impl std::fmt::Display for GroupNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Whether a node id was here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// One of the first members, for the first time. All of them begin with the same checkpoint, which names them.
    Founder,
    /// For the first time, into a group that exists: it knows nobody and waits for a leader that adds it.
    Joiner,
    /// It was here before: what it has voted on must be in its log.
    Again,
}

/// One replica, about to be started.
#[derive(Debug)]
pub struct GroupSpec {
    /// The group.
    pub number: GroupNumber,
    /// Whose frames its log is in this server's journal.
    pub owner: Owner,
    /// The id of this replica in the group, never used there by another one, nor by this one after it lost its log.
    pub node: NodeId,
    /// Whether that id was here before.
    pub begin: Begin,
    /// Its log, as [`recover`](crate::log::recover) found it.
    pub image: LogImage,
    /// Where the state machine stands, durably. `None` for one that joined and was given no state yet.
    pub checkpoint: Option<Checkpoint>,
}

/// Why a replica was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A replica of that group runs already.
    #[error("group {0} runs already")]
    Running(GroupNumber),
    /// The node id was here before, and its log is not. It may have voted: it must come back as a learner under a new id.
    #[error("group {group}: node {node:x} was here before, and its log is lost")]
    Amnesia {
        /// The group.
        group: GroupNumber,
        /// The id, which must not be used again.
        node: NodeId,
    },
    /// A node id that is used for the first time finds a log: the id was here before.
    #[error("group {group}: the log of node {node:x} is to begin, and is there already")]
    NotFresh {
        /// The group.
        group: GroupNumber,
        /// The id.
        node: NodeId,
    },
    /// A founder without a checkpoint that names it, or a joiner with one.
    #[error("group {group}: node {node:x} cannot begin this way")]
    Checkpoint {
        /// The group.
        group: GroupNumber,
        /// The id.
        node: NodeId,
    },
    /// Entries between the checkpoint and the log are missing.
    #[error("group {group}: the state ends at {checkpoint}, and the log begins after {purged}")]
    Gap {
        /// The group.
        group: GroupNumber,
        /// Where the state machine stands.
        checkpoint: Position,
        /// The last entry that the log does not hold any more.
        purged: Position,
    },
    /// The log, or what stands in it, is not usable.
    #[error("group {group}: {reason}")]
    Failed {
        /// The group.
        group: GroupNumber,
        /// What is wrong.
        reason: String,
    },
    /// The groups of this server are being stopped.
    #[error("no group is started any more")]
    Closed,
}
