//! Who is in a group, and where in the log a statement about it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{self, DecodeError, Reader};
use crate::types::{LogId, Membership, NodeId, Peer, SnapshotMeta, StoredMembership};

/// A place in a group's log: the term that the entry was written in, and its index. Places of one group are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The index of the entry; the same on every replica, and in the journal.
    pub index: u64,
}

impl Position {
    pub(crate) fn of(id: &LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }

    pub(crate) fn log_id(self) -> LogId {
        codec::log_id(self.term, self.index)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of term {}", self.index, self.term)
    }
}

/// The members of a group: voters (two sets while they change) and learners, each under its node id with the name of its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    voters: Vec<BTreeSet<NodeId>>,
    servers: BTreeMap<NodeId, String>,
}

impl Members {
    /// A group of voters.
    pub fn of_voters(voters: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        let servers: BTreeMap<NodeId, String> = voters.into_iter().collect();
        Self {
            voters: vec![servers.keys().copied().collect()],
            servers,
        }
    }

    /// The same with a learner more. A voter stays one.
    pub fn with_learner(mut self, node: NodeId, server: String) -> Self {
        self.servers.insert(node, server);
        self
    }

    /// The voters; those of both sets while they change.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().copied().collect()
    }

    /// Whether it has a vote.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }

    /// Whether those that are there are a majority of the voters; of both sets while they change.
    pub fn have_majority(&self, is_there: impl Fn(NodeId, &str) -> bool) -> bool {
        self.voters.iter().all(|set| {
            let there = set.iter().filter(|node| {
                let server = self.server_of(**node);
                server.is_some_and(|server| is_there(**node, server))
            });
            there.count() * 2 > set.len()
        })
    }

    /// Those without a vote.
    pub fn learners(&self) -> BTreeSet<NodeId> {
        let all = self.servers.keys().copied();
        all.filter(|node| !self.is_voter(*node)).collect()
    }

    /// Every member and the name of its server.
    pub fn servers(&self) -> &BTreeMap<NodeId, String> {
        &self.servers
    }

    /// The name of a member's server.
    pub fn server_of(&self, node: NodeId) -> Option<&str> {
        self.servers.get(&node).map(String::as_str)
    }

    /// The member on that server; the newest, should an earlier one still be listed.
    pub fn node_on(&self, server: &str) -> Option<NodeId> {
        let mut nodes = self.servers.iter().rev();
        nodes
            .find(|(_, name)| *name == server)
            .map(|(node, _)| *node)
    }

    /// Whether its voters are on the way from one set to another.
    pub fn is_changing(&self) -> bool {
        self.voters.len() > 1
    }

    pub(crate) fn from_membership(membership: &Membership) -> Self {
        let nodes = membership.nodes();
        Self {
            voters: membership.get_joint_config().clone(),
            servers: nodes
                .map(|(node, peer)| (*node, peer.server.clone()))
                .collect(),
        }
    }

    pub(crate) fn to_membership(&self) -> Result<Membership, DecodeError> {
        let nodes = self.servers.iter().map(|(node, server)| {
            let server = server.clone();
            (*node, Peer { server })
        });
        Membership::new(self.voters.clone(), nodes.collect::<BTreeMap<_, _>>())
            .map_err(|error| DecodeError::Membership(error.to_string()))
    }
}

/// What a durable checkpoint of a state machine says to its group: how far it reaches, and who the members were there.
///
/// A group begins as a checkpoint too: at index 0 with its first members, or where a log that was not replicated ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry that is in the state.
    pub at: Position,
    /// The members as of that entry.
    pub members: Members,
    /// The entry that made them so.
    pub members_at: Position,
}

/// The version of a checkpoint's bytes.
const VERSION: u8 = 1;

impl Checkpoint {
    /// The state that a group begins with, the same on all its first members: nothing applied beyond `index`, which is 0 unless a log that was not
    /// replicated goes before.
    pub fn founding(index: u64, members: Members) -> Self {
        let at = Position { term: 0, index };
        Self {
            at,
            members,
            members_at: at,
        }
    }

    /// Moves on over an entry that was applied.
    pub fn advance(&mut self, applied: &super::Applied) {
        self.at = applied.at;
        if let super::Content::Members(members) = &applied.content {
            self.members = members.clone();
            self.members_at = applied.at;
        }
    }

    /// As bytes, for the state machine to keep with its state: version u8 (1) | term u64 | index u64 | term u64 and index u64 of the entry that brought
    /// the members | the members as in a membership entry.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        codec::put_log_id(&mut out, &self.at.log_id());
        codec::put_log_id(&mut out, &self.members_at.log_id());
        codec::put_members(&mut out, &self.voters(), &self.members.servers);
        out.freeze()
    }

    /// Reads what [`Checkpoint::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::versioned(bytes, "checkpoint of a group")?;
        let at = Position::of(&reader.log_id()?);
        let members_at = Position::of(&reader.log_id()?);
        let members = codec::membership(reader)?;
        Ok(Self {
            at,
            members: Members::from_membership(&members),
            members_at,
        })
    }

    fn voters(&self) -> Vec<&BTreeSet<NodeId>> {
        self.members.voters.iter().collect()
    }

    pub(crate) fn from_meta(meta: &SnapshotMeta) -> Self {
        let members_at = meta.last_membership.log_id();
        Self {
            at: meta
                .last_log_id
                .as_ref()
                .map_or_else(Position::default, Position::of),
            members: Members::from_membership(meta.last_membership.membership()),
            members_at: members_at
                .as_ref()
                .map_or_else(Position::default, Position::of),
        }
    }

    pub(crate) fn to_meta(&self) -> Result<SnapshotMeta, DecodeError> {
        Ok(SnapshotMeta {
            last_log_id: Some(self.at.log_id()),
            last_membership: self.stored_membership()?,
        })
    }

    pub(crate) fn stored_membership(&self) -> Result<StoredMembership, DecodeError> {
        let membership = self.members.to_membership()?;
        Ok(StoredMembership::new(
            Some(self.members_at.log_id()),
            membership,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Members {
        Members::of_voters((1..=3).map(|node| (node, format!("s{node}"))))
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let mut checkpoint = Checkpoint::founding(7, three().with_learner(9, "s4".to_owned()));
        checkpoint.at = Position { term: 3, index: 12 };
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        assert!(Checkpoint::decode(b"\x02").is_err());
    }

    #[test]
    fn a_majority_is_one_of_the_voters() {
        let members = three().with_learner(9, "s4".to_owned());
        let there = |nodes: &[NodeId]| members.have_majority(|node, _| nodes.contains(&node));
        assert!(there(&[1, 3]) && there(&[1, 2, 3]));
        assert!(!there(&[2]) && !there(&[2, 9]) && !there(&[]));
    }

    #[test]
    fn a_learner_has_no_vote_and_a_server_is_found_under_its_newest_id() {
        let members = three()
            .with_learner(9, "s1".to_owned())
            .with_learner(2, "s2".to_owned());
        assert_eq!(members.learners(), BTreeSet::from([9]));
        assert_eq!(members.node_on("s1"), Some(9));
        assert!(members.is_voter(2) && !members.is_changing());
    }
}
