//! Has other servers lead what this one leads, and carries out what else requests about the cluster ask for.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};

use raft::group::{Role, Status, TransferError};
use raft::types::NodeId;

use super::super::accounts::Accounts;
use super::super::api::administration::{Act, Administration, next_leader};
use super::super::api::elsewhere::AskingClient;
use super::super::api::handler::{ClusterInfos, Steward};
use super::super::api::now;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::meta::request::{Decision, Desk};
use super::super::meta::{Command, Form, Meta, Sightings, is_online};
use super::super::registry::{AccountStreams, Stream};
use super::super::types::{ApiError, ErrorCode, StreamConfig, StreamInfo, Strictness};
use super::assembly::random_id;
use super::maker::ClusterMaker;
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::shown::Shown;
use super::view::View;

/// Hands over the groups of one server.
pub(super) struct GroupSteward {
    pub own: String,
    pub machine: Arc<MetaMachine>,
    /// It knows the server, which knows who hands over.
    pub view: Weak<View>,
    /// It knows the view.
    pub replicated: Weak<Replicated>,
    /// Proposes to the meta group.
    pub maker: Arc<ClusterMaker>,
    pub accounts: Arc<Accounts>,
    pub shown: Arc<Shown>,
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

    /// A stream that moves, or stays after all, as it is now.
    fn show(&self, account: &str, stream: &str) -> Option<Box<StreamInfo>> {
        let found = self.accounts.get(account)?.get(stream)?;
        let StreamReply::Info { mut info, .. } =
            found.ask(StreamRequest::Info(InfoQuery::default()))
        else {
            return None;
        };
        info.cluster = info
            .cluster
            .or_else(|| self.shown.of_stream(account, stream));
        info.ts = now();
        info.config = info.config.with_reply_metadata();
        Some(info)
    }
}

impl Steward for GroupSteward {
    fn create_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<Arc<Stream>, ApiError> {
        self.maker.create_stream(account, name, config, pedantic)
    }

    fn update_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamInfo, ApiError> {
        self.maker.update_stream(account, name, config, pedantic)
    }

    fn delete_stream(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        self.maker.delete_stream(account, name)
    }

    fn remove_replica(
        &self,
        account: &AccountStreams,
        name: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError> {
        self.maker.remove_replica(account, name, body, strictness)
    }

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

    fn restore_elsewhere(
        &self,
        account: &AccountStreams,
        config: &StreamConfig,
        client: Option<&AskingClient>,
    ) -> Result<Option<String>, ApiError> {
        self.maker.restore_elsewhere(account, config, client)
    }

    fn administer(
        &self,
        asked: Administration<'_>,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<Option<Box<StreamInfo>>, ApiError> {
        let group = self.machine.group().ok_or(ErrorCode::ClusterNotAvail)?;
        let status = group.status();
        let servers = servers_of(&status);
        let account = asked.account().unwrap_or_default();
        let decide = |desk: &Desk<'_>| asked.decide(desk, &self.own, &servers, body, strictness);
        match self.maker.consider(account, decide)? {
            Act::StepDown(next) => {
                let next = match next {
                    Some(server) => node_on(&status, &server)?,
                    None => most_current(&status, &self.sightings()?)?,
                };
                let handed_over = self.runtime.block_on(group.transfer_leadership(next));
                return handed_over.map(|()| None).map_err(not_handed_over);
            }
            Act::Decided(decision) => {
                if let Decision::Propose(Command::PeerRemove { server }) = &*decision
                    && *server == self.own
                {
                    // Somebody has to take it out.
                    most_current(&status, &self.sightings()?)?;
                }
            }
        }
        self.maker
            .decide(account, None, |desk| match decide(desk)? {
                Act::Decided(decision) => Ok(*decision),
                Act::StepDown(_) => Err(ErrorCode::BadRequest.into()),
            })?;
        Ok(match asked {
            Administration::StreamMove { account, stream }
            | Administration::StreamMoveCancel { account, stream } => self.show(account, stream),
            _ => None,
        })
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
pub(super) fn most_current(status: &Status, sightings: &Sightings) -> Result<NodeId, ApiError> {
    if !matches!(status.role, Role::Leader { .. }) {
        return Err(ErrorCode::ClusterNotLeader.into());
    }
    let able = able_to_lead(status, sightings);
    let first = able.first().copied();
    first.ok_or_else(|| ErrorCode::ClusterNoPeers.with("no replacement peer connected"))
}

/// The voters that a leader can reach, those that lack the least first.
pub(super) fn able_to_lead(status: &Status, sightings: &Sightings) -> Vec<NodeId> {
    let followers = status.followers.iter();
    let able = followers.filter(|other| other.voter && is_online(sightings, &other.member.server));
    let mut able: Vec<_> = able.collect();
    able.sort_by_key(|other| Reverse(other.matched_index));
    able.into_iter().map(|other| other.member.node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use raft::group::{FollowerStatus, Member, Members};
    use raft::log::LogFigures;

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
            log: LogFigures::default(),
            waiting_proposals: 0,
            quiet: false,
            followers: (2..).zip(matched).map(follower).collect(),
            heard: BTreeMap::new(),
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
