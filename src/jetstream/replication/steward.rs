//! Has other servers lead what this one leads, when somebody asks for it.

use std::sync::{Arc, Weak};

use raft::group::{Role, Status, TransferError};
use raft::types::NodeId;

use super::super::api::administration::next_leader;
use super::super::api::handler::Steward;
use super::super::meta::{Form, Meta, Sightings, is_online};
use super::super::types::{ApiError, ErrorCode, Strictness};
use super::assembly::random_id;
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::view::View;

/// Hands over the groups of one server.
pub(super) struct GroupSteward {
    pub own: String,
    pub machine: Arc<MetaMachine>,
    /// It knows the server, which knows who hands over.
    pub view: Weak<View>,
    /// It knows the view.
    pub replicated: Weak<Replicated>,
    pub runtime: tokio::runtime::Handle,
}

impl GroupSteward {
    fn sightings(&self) -> Result<Sightings, ApiError> {
        let view = self.view.upgrade();
        let view = view.ok_or(ErrorCode::ClusterNotAvail)?;
        Ok(view.sightings())
    }

    /// Who is to lead a group that this server leads: whom the request names, or the most current of the others.
    fn next_leader(
        &self,
        meta: &Meta,
        status: &Status,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<NodeId, ApiError> {
        let sightings = self.sightings()?;
        let members = servers_of(status);
        let named = next_leader(meta, &sightings, &members, &self.own, random_id());
        match named(body, strictness)? {
            Some(server) => node_on(status, &server),
            None => most_current(status, &sightings),
        }
    }
}

impl Steward for GroupSteward {
    fn hand_stream_over(
        &self,
        account: &str,
        stream: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError> {
        let meta = self.machine.meta();
        let assignment = meta.stream(account, stream);
        let group = &assignment.ok_or(ErrorCode::StreamNotFound)?.group;
        if group.form == Form::Plain {
            // The only replica has nobody to hand over to, and leads on: that counts as done.
            return Ok(());
        }
        let replicated = self.replicated.upgrade();
        let replica = replicated
            .and_then(|replicated| replicated.replica(group.number))
            .ok_or(ErrorCode::ClusterNotLeader)?;
        let status = replica.group.status();
        let next = self.next_leader(&meta, &status, body, strictness)?;
        let handed_over = self.runtime.block_on(replica.hand_over(next));
        handed_over.map_err(not_handed_over)
    }
}

fn not_handed_over(error: TransferError) -> ApiError {
    match error {
        TransferError::NotLeader => ErrorCode::ClusterNotLeader.into(),
        error => ErrorCode::RaftGeneral.with(error),
    }
}

/// The servers of a group's voters.
fn servers_of(status: &Status) -> Vec<String> {
    let voters = status.members.voters();
    let servers = voters
        .iter()
        .filter_map(|node| status.members.server_of(*node));
    servers.map(str::to_owned).collect()
}

fn node_on(status: &Status, server: &str) -> Result<NodeId, ApiError> {
    let voters = status.members.voters();
    let mut voters = voters.into_iter();
    voters
        .find(|node| status.members.server_of(*node) == Some(server))
        .ok_or_else(|| ErrorCode::ClusterPeerNotMember.into())
}

/// The voter that can be reached and lacks the least.
fn most_current(status: &Status, sightings: &Sightings) -> Result<NodeId, ApiError> {
    if !matches!(status.role, Role::Leader { .. }) {
        return Err(ErrorCode::ClusterNotLeader.into());
    }
    let followers = status.followers.iter();
    let able = followers.filter(|other| other.voter && is_online(sightings, &other.member.server));
    able.max_by_key(|other| other.matched_index)
        .map(|other| other.member.node)
        .ok_or_else(|| ErrorCode::ClusterNoPeers.with("no replacement peer connected"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use raft::group::{FollowerStatus, Member, Members};

    use super::super::super::meta::Sighting;
    use super::*;

    fn status(matched: [u64; 2]) -> Status {
        let servers = ["n1", "n2", "n3"].into_iter().zip(1..);
        let nodes: BTreeMap<NodeId, String> = servers
            .map(|(server, node)| (node, server.to_owned()))
            .collect();
        let follower = |(node, matched_index)| FollowerStatus {
            member: Member {
                node,
                server: format!("n{node}"),
            },
            voter: true,
            matched_index,
            last_contact: None,
        };
        Status {
            node: 1,
            term: 1,
            role: Role::Leader { term: 1 },
            leader: None,
            members: Members::of_voters(nodes),
            last_log_index: 0,
            committed_index: 0,
            applied_index: 0,
            purged_index: 0,
            quiet: false,
            followers: (2..).zip(matched).map(follower).collect(),
        }
    }

    fn reached(servers: &[&str]) -> Sightings {
        let online = Sighting {
            online: true,
            ..Sighting::default()
        };
        let servers = servers.iter();
        servers.map(|name| ((*name).to_owned(), online)).collect()
    }

    #[test]
    fn the_most_current_that_can_be_reached_leads_next() {
        let all = reached(&["n1", "n2", "n3"]);
        assert_eq!(most_current(&status([5, 7]), &all), Ok(3));
        assert_eq!(most_current(&status([7, 5]), &all), Ok(2));
        assert_eq!(
            most_current(&status([5, 7]), &reached(&["n1", "n2"])),
            Ok(2)
        );
        let code = |result: Result<NodeId, ApiError>| result.expect_err("refused").err_code;
        assert_eq!(
            code(most_current(&status([5, 7]), &reached(&["n1"]))),
            10005
        );
        let follows = Status {
            role: Role::Leaderless,
            ..status([5, 7])
        };
        assert_eq!(code(most_current(&follows, &all)), 10009);
    }

    #[test]
    fn a_server_is_found_among_the_voters() {
        let status = status([1, 1]);
        assert_eq!(servers_of(&status), ["n1", "n2", "n3"]);
        assert_eq!(node_on(&status, "n2"), Ok(2));
        let refused = node_on(&status, "n9").expect_err("no member");
        assert_eq!(refused.err_code, 10040);
    }
}
