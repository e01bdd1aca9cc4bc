//! What became of a command.

use raft::group::{GroupNumber, Member};
use raft::types::NodeId;

use super::assignment::StreamRef;
use crate::jetstream::types::{ApiError, ErrorCode};

/// What a command changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: everything was so already.
    Unchanged,
    /// Nothing: it could not be, any more.
    Refused(Refusal),
    /// A server was put under an id of the meta group.
    PeerPut {
        /// Which one.
        server: String,
        /// Its id in the meta group.
        node: NodeId,
        /// The id that it had before, which must leave the meta group.
        earlier: Option<NodeId>,
    },
    /// A server is not part of the cluster any more.
    PeerRemoved {
        /// Which one.
        server: String,
        /// The id that must leave the meta group.
        node: NodeId,
    },
    /// A stream is there.
    StreamCreated(StreamRef),
    /// A stream has another configuration.
    StreamUpdated(StreamRef),
    /// A stream is gone.
    StreamDeleted {
        /// Which one.
        of: StreamRef,
        /// Those that held it, and may delete what they hold.
        released: Vec<Member>,
    },
    /// A group is to have other members.
    MembersChanged(StreamRef),
    /// A group has the members that it was to have.
    GroupSettled {
        /// Which one.
        of: StreamRef,
        /// Those that left, and may delete what they hold.
        released: Vec<Member>,
    },
    /// A group has a leader for the first time.
    GroupBegun(StreamRef),
    /// A member lost its log, and too few are left to replace it.
    MemberLost {
        /// Of which group.
        of: StreamRef,
        /// Which one.
        node: NodeId,
    },
    /// A consumer is there.
    ConsumerCreated {
        /// Of which stream.
        of: StreamRef,
        /// Its name.
        name: String,
    },
    /// A consumer has another configuration.
    ConsumerUpdated {
        /// Of which stream.
        of: StreamRef,
        /// Its name.
        name: String,
    },
    /// A consumer is gone.
    ConsumerDeleted {
        /// Of which stream.
        of: StreamRef,
        /// Its name.
        name: String,
    },
    /// A replica is deleted.
    ReplicaGone {
        /// Of which group.
        group: GroupNumber,
        /// Which one.
        node: NodeId,
    },
    /// Something was set aside, or is not there any more.
    OrphansChanged {
        /// On which server.
        server: String,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A stream of that name is there, and is different.
    #[error("a different stream has that name")]
    StreamExists,
    /// There is no such stream any more.
    #[error("there is no such stream")]
    NoStream,
    /// Another stream has one of its subjects.
    #[error("another stream has one of the subjects")]
    SubjectOverlap,
    /// A consumer of that name is there, and is different.
    #[error("a different consumer has that name")]
    ConsumerExists,
    /// There is no such consumer any more.
    #[error("there is no such consumer")]
    NoConsumer,
    /// It was changed since this was decided.
    #[error("it was changed meanwhile")]
    Outdated,
    /// A server that it was placed on is not part of the cluster any more, or it names none, or one twice.
    #[error("it cannot be placed there")]
    Unplaceable,
    /// There is no such server.
    #[error("there is no such server")]
    NoPeer,
    /// Nothing moves.
    #[error("no move is under way")]
    NoMove,
    /// The group has to do with other members, or cannot do without this one.
    #[error("the other members cannot do without it now")]
    Needed,
    /// The list of what was set aside is full.
    #[error("too much was set aside")]
    TooMany,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StreamExists => ErrorCode::StreamNameExist.into(),
            Refusal::NoStream => ErrorCode::StreamNotFound.into(),
            Refusal::SubjectOverlap => ErrorCode::StreamSubjectOverlap.into(),
            Refusal::ConsumerExists => ErrorCode::ConsumerAlreadyExists.into(),
            Refusal::NoConsumer => ErrorCode::ConsumerNotFound.into(),
            Refusal::Outdated | Refusal::Needed | Refusal::TooMany => {
                ErrorCode::ClusterNotAvail.into()
            }
            Refusal::Unplaceable => {
                ErrorCode::ClusterNoPeers.with("no suitable peers for placement, peer offline")
            }
            Refusal::NoPeer => ErrorCode::ClusterServerNotMember.into(),
            Refusal::NoMove => ErrorCode::StreamMoveNotInProgress.into(),
        }
    }
}
