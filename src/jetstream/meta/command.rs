//! What can be asked of the meta group's state.
//!
//! # Invariant
//! A command says what is to be, not how it was found: placement and all checks that need a clock, limits or the servers' load happen on
//! the leader before it proposes. What could have changed meanwhile is checked again when the command is applied, the same on every server.

use raft::group::GroupNumber;
use raft::types::NodeId;

use super::assignment::{ChangeKind, StreamRef};
use super::peer::PeerProfile;
use crate::jetstream::types::Time;

/// Where the replicas of a stream are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMembers {
    /// Why they change.
    pub kind: ChangeKind,
    /// The servers, one for each replica.
    pub servers: Vec<String>,
    /// The one that is to lead; empty for any.
    pub preferred: String,
    /// What the group is called from then on; empty to keep its name.
    pub name: String,
    /// The cluster that it is placed in; empty to stay.
    pub cluster: String,
}

/// A change of what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A server is part of the cluster, and says this of itself.
    PeerPut {
        /// What it says.
        profile: PeerProfile,
        /// Whether it lost its log of the meta group, and needs a new id there.
        renew: bool,
    },
    /// A server is not part of the cluster any more.
    PeerRemove {
        /// Which one.
        server: String,
    },
    /// A stream is to be.
    StreamCreate {
        /// In which account.
        account: String,
        /// Under which name.
        stream: String,
        /// Its configuration as JSON.
        config: Vec<u8>,
        /// When it was created.
        created: Time,
        /// What its group is called.
        group_name: String,
        /// The cluster that it is placed in.
        cluster: String,
        /// The servers, one for each replica.
        servers: Vec<String>,
        /// The one that is to lead first; empty for any.
        preferred: String,
    },
    /// A stream came out of a backup, and is to be where it was taken in and on as many other servers as it has replicas.
    StreamRestored {
        /// In which account.
        account: String,
        /// Under which name.
        stream: String,
        /// Its configuration as JSON.
        config: Vec<u8>,
        /// When it was created, which is also how its server knows it by.
        created: Time,
        /// The server that has it, whole and durable.
        home: String,
        /// Where it is to be, its home among them.
        members: NewMembers,
    },
    /// A stream is to be different.
    StreamUpdate {
        /// Which one.
        of: StreamRef,
        /// The revision that this was decided on.
        revision: u64,
        /// Its configuration as JSON.
        config: Vec<u8>,
        /// Where it is to be, if that changes.
        members: Option<NewMembers>,
    },
    /// A stream is to be gone.
    StreamDelete {
        /// Which one.
        of: StreamRef,
    },
    /// A consumer is to be.
    ConsumerCreate {
        /// Of which stream.
        of: StreamRef,
        /// Under which name.
        name: String,
        /// Its configuration as JSON.
        config: Vec<u8>,
        /// When it was created.
        created: Time,
    },
    /// A consumer is to be different.
    ConsumerUpdate {
        /// Of which stream.
        of: StreamRef,
        /// Which one.
        name: String,
        /// The revision that this was decided on.
        revision: u64,
        /// Its configuration as JSON.
        config: Vec<u8>,
    },
    /// A consumer is to be gone.
    ConsumerDelete {
        /// Of which stream.
        of: StreamRef,
        /// Which one.
        name: String,
    },
    /// The replicas of a stream are to be elsewhere.
    MembersReplace {
        /// Of which stream.
        of: StreamRef,
        /// The revision that this was decided on.
        revision: u64,
        /// Where.
        members: NewMembers,
    },
    /// A stream that moves is to stay where it was.
    MoveCancel {
        /// Which one.
        of: StreamRef,
        /// Its configuration from then on, as JSON, if that changes.
        config: Option<Vec<u8>>,
    },
    /// Everything of an account is to be gone.
    AccountPurge {
        /// Which one.
        account: String,
    },
    /// A group has a leader for the first time in its present form.
    GroupBegun {
        /// Which one.
        of: StreamRef,
    },
    /// A group has the members that it was to have, and no others.
    GroupSettled {
        /// Which one.
        of: StreamRef,
        /// Their ids.
        nodes: Vec<NodeId>,
    },
    /// A member's log is lost: under its id it must not vote again.
    MemberLost {
        /// Of which group.
        of: StreamRef,
        /// Which one.
        node: NodeId,
    },
    /// A member has its log, and what else it holds is of no use: it differs from the others, or cannot be read. The server is to begin anew under another id, if
    /// the others can do without it meanwhile.
    MemberSpoilt {
        /// Of which group.
        of: StreamRef,
        /// Which one.
        node: NodeId,
    },
    /// A server deleted a replica that it was told to delete.
    ReplicaGone {
        /// Of which group.
        group: GroupNumber,
        /// Which one.
        node: NodeId,
    },
    /// A server set something aside that no assignment explains.
    OrphanNote {
        /// Which server.
        server: String,
        /// What it calls it: the name of its directory.
        place: String,
        /// The account that it says it is of.
        account: String,
        /// The stream that it says it is.
        stream: String,
        /// Why it was set aside.
        reason: String,
        /// When.
        since: Time,
    },
    /// What was set aside is not there any more.
    OrphanGone {
        /// On which server.
        server: String,
        /// What it called it.
        place: String,
    },
}
