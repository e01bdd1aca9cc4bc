//! The messages as values.

use bytes::Bytes;

use crate::group::{Checkpoint, GroupNumber};
use crate::types::{Entry, LogId, NodeId, Vote};

/// Whose message it is, for whom, and which request it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub group: GroupNumber,
    pub from: NodeId,
    pub to: NodeId,
    /// Number of the request, chosen by whoever asks.
    pub request: u64,
}

/// A call for a vote, real or tentative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VoteCall {
    pub vote: Vote,
    pub last: Option<LogId>,
    pub transfer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VoteAnswer {
    pub vote: Vote,
    pub granted: bool,
    pub last: Option<LogId>,
}

/// Entries that follow `previous`; none in a heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub vote: Vote,
    pub previous: Option<LogId>,
    pub committed: Option<LogId>,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendAnswer {
    All,
    UpTo(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

/// A state instead of entries that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestOffer {
    pub vote: Vote,
    pub checkpoint: Checkpoint,
    pub content: Bytes,
}

/// Why a request was not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedReason {
    NoSuchGroup,
    OtherNode,
    Failed,
}

/// What a message says.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Vote(VoteCall),
    PreVote(VoteCall),
    Append(Append),
    Transfer {
        leader: Vote,
        to: NodeId,
        last: Option<LogId>,
    },
    Manifest(ManifestOffer),
    Quiet {
        term: u64,
        index: u64,
    },
    Gone,
    VoteAnswer(VoteAnswer),
    PreVoteAnswer(VoteAnswer),
    AppendAnswer(AppendAnswer),
    TransferAnswer {
        taken: bool,
    },
    ManifestAnswer(Vote),
    Refused(RefusedReason),
}

impl Body {
    /// Whether it answers a request.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Vote(_)
            | Self::PreVote(_)
            | Self::Append(_)
            | Self::Transfer { .. }
            | Self::Manifest(_)
            | Self::Quiet { .. }
            | Self::Gone => false,
            Self::VoteAnswer(_)
            | Self::PreVoteAnswer(_)
            | Self::AppendAnswer(_)
            | Self::TransferAnswer { .. }
            | Self::ManifestAnswer(_)
            | Self::Refused(_) => true,
        }
    }
}
