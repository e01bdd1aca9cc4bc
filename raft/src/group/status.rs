//! How a replica sees its group.

use std::collections::BTreeMap;
use std::time::Duration;

use super::machine::{Member, Role};
use super::members::Members;
use crate::log::LogFigures;
use crate::types::NodeId;

/// How a replica sees its group at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its own id.
    pub node: NodeId,
    /// The term it is in.
    pub term: u64,
    /// What it was last told to be.
    pub role: Role,
    /// Who leads, if known; itself included.
    pub leader: Option<Member>,
    /// The members, also such as are not committed yet.
    pub members: Members,
    /// The index of the last entry of its log.
    pub last_log_index: u64,
    /// The last index known to be committed.
    pub committed_index: u64,
    /// The last index that the state machine took.
    pub applied_index: u64,
    /// The last index that was purged.
    pub purged_index: u64,
    /// Its log.
    pub log: LogFigures,
    /// Proposals that Raft has not been handed yet.
    pub waiting_proposals: usize,
    /// Whether the group is quiet.
    pub quiet: bool,
    /// What a leader knows of the others; empty on other replicas.
    pub followers: Vec<FollowerStatus>,
    /// How long ago anything was heard of the servers of the others, as far as anything was.
    pub heard: BTreeMap<NodeId, Duration>,
}

/// What a leader knows of another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The replica.
    pub member: Member,
    /// Whether it has a vote.
    pub voter: bool,
    /// The last index known to be equal there.
    pub matched_index: u64,
    /// How long ago anything was heard of its server. `None` when nothing was yet.
    pub last_contact: Option<Duration>,
}
