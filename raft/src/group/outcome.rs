//! What became of a proposal, and of other requests to a group.

use std::time::Duration;

use super::machine::Member;
use super::members::Position;
use crate::types::NodeId;

/// What became of a proposal. Each is told exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A majority has it, at this place, and the state machine took it.
    Committed(Position),
    /// It was not logged, and never will be.
    Refused {
        /// Who could take it, if known. It may be this replica itself: then it may be proposed again.
        leader: Option<Member>,
    },
    /// It may be committed one day or never: its time is up, or leadership was lost with the proposal in flight.
    Unknown,
}

/// Why members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader can.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// An earlier change has not ended.
    #[error("another change of the members is under way")]
    InProgress,
    /// No voter would be left, or a member is named in a way that cannot be.
    #[error("these members cannot be: {0}")]
    Impossible(String),
    /// A new member did not catch up in time. It stays a learner, and the change can be asked for again.
    #[error("node {node:x} did not catch up within {waited:?}")]
    Lagging {
        /// The new member.
        node: NodeId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The replica takes no part any more.
    #[error("the replica was stopped")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("this replica does not lead")]
    NotLeader,
    /// Only to a voter.
    #[error("node {0:x} has no vote")]
    NotVoter(NodeId),
    /// It did not take over in time; this replica leads on, or somebody else does.
    #[error("node {0:x} did not take over in time")]
    TimedOut(NodeId),
    /// The replica takes no part any more.
    #[error("the replica was stopped")]
    Stopped,
}

/// Why a read could not be ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Only a leader that a majority follows can.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// A majority did not answer in time.
    #[error("a majority did not confirm the leader in time")]
    TimedOut,
    /// The replica takes no part any more.
    #[error("the replica was stopped")]
    Stopped,
}

/// Why what a replica has logged could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogReadError {
    /// It was purged.
    #[error("the log begins at entry {first}, and what follows entry {index} is asked for")]
    Gone {
        /// What was to go before the entries.
        index: u64,
        /// The first entry that the log holds, or would.
        first: u64,
    },
    /// The journal does not give it.
    #[error("the log cannot be read: {0}")]
    Unreadable(String),
}
