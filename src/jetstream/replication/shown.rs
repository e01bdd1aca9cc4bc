//! The groups of this server as clients and monitoring see them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::group::{Role, Status};

use super::super::accounts::Accounts;
use super::super::api::handler::ClusterInfos;
use super::super::api::now;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::meta::{Follower, Form, Leadership, Sightings, StreamAssignment};
use super::super::monitor::{GroupDetail, GroupDetails, GroupPeer, StreamFault};
use super::super::registry::StreamPort;
use super::super::shard::ReplicaStatus;
use super::super::types::{
    ClusterInfo, MetaClusterInfo, PeerId, StreamAlternate, StreamState, Time,
};
use super::ask::RemotePort;
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::router::{Directory, StreamLeader};
use crate::cluster::link::Links;
use crate::config::duration::format_duration;

/// What the meta group is called, as in the reference.
const META_GROUP: &str = "_meta_";

/// Shows the groups of this server, and who holds copies of the streams of its cluster.
pub(super) struct Shown {
    pub own: Arc<str>,
    /// The cluster.
    pub cluster: String,
    pub machine: Arc<MetaMachine>,
    pub links: Arc<Links>,
    /// It knows what this server knows of who leads, which knows who answers requests, who knows this.
    pub replicated: Weak<Replicated>,
    pub runtime: tokio::runtime::Handle,
    /// What was seen last of the servers: a list of streams asks for it with every stream.
    pub seen: Mutex<Option<Seen>>,
}

/// What was seen of the servers at a moment.
pub(super) struct Seen {
    at: Instant,
    sightings: Arc<Sightings>,
}

/// How long that may be shown.
const SEEN_FOR: Duration = Duration::from_millis(100);

impl Shown {
    /// The meta group's servers as this one sees them.
    fn sightings(&self) -> Arc<Sightings> {
        let mut seen = self.seen.lock();
        if let Some(seen) = &*seen
            && seen.at.elapsed() < SEEN_FOR
        {
            return Arc::clone(&seen.sightings);
        }
        let Some(replicated) = self.replicated.upgrade() else {
            return Arc::default();
        };
        let sightings = Arc::new(replicated.view.sightings());
        *seen = Some(Seen {
            at: Instant::now(),
            sightings: Arc::clone(&sightings),
        });
        sightings
    }

    /// Who holds copies of a stream, as this server sees it: all that there is to see where it leads.
    pub fn seen_here(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let meta = self.machine.meta();
        let assignment = meta.stream(account, stream)?;
        Some(self.of_assignment(assignment))
    }

    fn of_assignment(&self, assignment: &StreamAssignment) -> ClusterInfo {
        let group = &assignment.group;
        if group.form == Form::Plain {
            let holder = group.members.first();
            // As in the reference, a stream with one replica has no group to show.
            return ClusterInfo {
                name: group.cluster.clone(),
                leader: holder.map_or_else(String::new, |holder| holder.server.clone()),
                ..ClusterInfo::default()
            };
        }
        let mut led = Leadership::default();
        if let Some(replicated) = self.replicated.upgrade() {
            if let Some((leader, since)) = replicated.view.leaders.leadership(group.number) {
                led.leader = leader.to_string();
                led.since = Some(since);
            }
            let status = replicated.group_status(group.number);
            led.by_leader = status
                .as_ref()
                .is_some_and(|status| matches!(status.role, Role::Leader { .. }));
            led.followers = status.map_or_else(BTreeMap::new, |status| followers(&status));
        }
        group.shown(&led, &self.sightings(), now())
    }

    /// Whether a copy of the stream is on this server, or is to be.
    pub fn holds(&self, account: &str, stream: &str) -> bool {
        let meta = self.machine.meta();
        let assignment = meta.stream(account, stream);
        assignment.is_some_and(|assignment| assignment.group.member_on(&self.own).is_some())
    }

    /// The meta group.
    pub fn meta(&self) -> MetaClusterInfo {
        let meta = self.machine.meta();
        let replicated = self.replicated.upgrade();
        let leader = replicated.and_then(|replicated| replicated.view.meta_leader());
        let mut led = Leadership {
            leader: leader.map_or_else(String::new, |leader| leader.to_string()),
            ..Leadership::default()
        };
        if let Some(group) = self.machine.group() {
            led.followers = followers(&group.status());
        }
        let snapshot = self.machine.snapshot_stats();
        let sightings = self.sightings();
        meta.shown(&self.own, &self.cluster, &led, &sightings, now(), snapshot)
    }

    /// The groups that this server takes part in.
    pub fn groups(&self) -> GroupDetails {
        let mut groups = GroupDetails::new();
        let meta = self.machine.meta();
        if let Some(group) = self.machine.group() {
            let status = group.status();
            let leader = status.leader.clone().map(|leader| leader.server);
            let since = self.machine.led_since();
            let detail = detail(&self.own, &status, leader.as_deref(), since, false);
            let of_nobody = groups.entry(String::new()).or_default();
            of_nobody.insert(META_GROUP.to_owned(), detail);
        }
        let Some(replicated) = self.replicated.upgrade() else {
            return groups;
        };
        for (of, stream) in meta.all_streams() {
            let group = &stream.group;
            let Some(replica) = replicated.replica(group.number) else {
                continue;
            };
            let led = replicated.view.leaders.leadership(group.number);
            let (leader, since) =
                led.map_or((None, None), |(leader, since)| (Some(leader), Some(since)));
            let catching_up = replica.port.status().catchup.is_some();
            let status = replica.group.status();
            let detail = detail(&self.own, &status, leader.as_deref(), since, catching_up);
            let of_account = groups.entry(of.account).or_default();
            of_account.insert(group.name.clone(), detail);
        }
        groups
    }

    /// A stream that is to be on this server, and is not as it is to be.
    pub fn stream_fault(&self, accounts: &Accounts) -> Option<StreamFault> {
        let meta = self.machine.meta();
        let replicated = self.replicated.upgrade()?;
        let mine = meta.all_streams().filter(|(_, stream)| {
            let is_here = stream.group.member_on(&self.own).is_some();
            is_here && stream.stored.unsupported.is_none()
        });
        for (of, stream) in mine {
            let reason = match stream.group.form {
                Form::Plain => {
                    let found = accounts
                        .get(&of.account)
                        .map(|account| account.find(&of.stream));
                    match found {
                        Some(Ok(_)) | None => None,
                        Some(Err(_)) => Some("stream not found"),
                    }
                }
                Form::Raft => match replicated.replica(of.group) {
                    None => Some("group node missing"),
                    // Nothing is wrong with it, but for this version.
                    Some(replica) if replica.port.status().unsupported.is_some() => None,
                    // A replica whose leader is out of reach, and that has no majority for another one, still follows it.
                    Some(replica) => fault_of(&replica.port.status()).or_else(|| {
                        let leader = replicated.view.stream_leader(&of.account, &of.stream);
                        let is_led = matches!(leader, StreamLeader::Server(_));
                        (!is_led).then_some("group node unhealthy")
                    }),
                },
            };
            if let Some(reason) = reason {
                return Some(StreamFault {
                    account: of.account,
                    stream: of.stream,
                    reason,
                });
            }
        }
        None
    }

    /// Asks the server that leads the stream. Waits for its answer.
    fn asked_elsewhere(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let replicated = self.replicated.upgrade()?;
        replicated.view.leader_elsewhere(account, stream)?;
        let port = RemotePort {
            account: account.to_owned(),
            stream: stream.to_owned(),
            links: Arc::clone(&self.links),
            view: Arc::downgrade(&replicated.view),
            runtime: self.runtime.clone(),
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let answer = Box::new(move |reply| {
            // Whoever asked may have gone.
            let _ = sender.send(reply);
        });
        port.ask(StreamRequest::Info(InfoQuery::default()), answer);
        match receiver.recv() {
            Ok(StreamReply::Info { info, .. }) => info.cluster,
            _ => None,
        }
    }
}

impl ClusterInfos for Shown {
    fn of_stream(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let elsewhere = self.asked_elsewhere(account, stream);
        elsewhere.or_else(|| self.seen_here(account, stream))
    }

    fn alternates(&self, account: &str, stream: &str) -> Vec<StreamAlternate> {
        let meta = self.machine.meta();
        let Some(streams) = meta.accounts().get(account) else {
            return Vec::new();
        };
        let holds_the_same = |assigned: &&Arc<StreamAssignment>| {
            let config = assigned.config();
            let mirrored = config.mirror.as_ref().map(|origin| origin.name.as_str());
            let is_it = config.name == stream || mirrored == Some(stream);
            is_it && assigned.stored.unsupported.is_none()
        };
        let mut all: Vec<_> = streams.values().filter(holds_the_same).collect();
        if all.len() < 2 {
            return Vec::new();
        }
        // Those that are nearest to who asks first: in this cluster, and the stream before its mirrors.
        all.sort_by_key(|one| {
            (
                one.group.cluster != self.cluster,
                one.config().name != stream,
            )
        });
        let alternate = |one: &Arc<StreamAssignment>| StreamAlternate {
            name: one.config().name.clone(),
            domain: String::new(),
            cluster: one.group.cluster.clone(),
        };
        all.into_iter().map(alternate).collect()
    }
}

/// What is wrong with a replica, in the reference's words.
fn fault_of(status: &ReplicaStatus) -> Option<&'static str> {
    if status.divergence.is_some() || status.offline.is_some() {
        return Some("stream write error");
    }
    if status.catchup.is_some() {
        return Some("stream catching up");
    }
    match status.role {
        Role::Leader { .. } | Role::Follower { .. } => None,
        Role::Leaderless | Role::Stopped { .. } => Some("group node unhealthy"),
    }
}

/// A group as monitoring shows it.
fn detail(
    own: &str,
    status: &Status,
    leader: Option<&str>,
    since: Option<Time>,
    catching_up: bool,
) -> GroupDetail {
    let (members, log) = (&status.members, &status.log);
    let voters = members.voters().len();
    let others = members.servers().iter();
    let others = others.filter(|(node, _)| **node != status.node);
    let peers = others.map(|(node, server)| {
        let mut followers = status.followers.iter();
        let follower = followers.find(|follower| follower.member.node == *node);
        let peer = GroupPeer {
            name: server.clone(),
            known: members.is_voter(*node),
            last_replicated_index: follower.map_or(0, |follower| follower.matched_index),
            last_seen: status
                .heard
                .get(node)
                .map_or_else(String::new, |ago| format_duration(*ago)),
        };
        (PeerId::of(server), peer)
    });
    GroupDetail {
        id: PeerId::of(own),
        state: match status.role {
            Role::Leader { .. } => "LEADER",
            Role::Follower { .. } => "FOLLOWER",
            Role::Leaderless => "CANDIDATE",
            Role::Stopped { .. } => "CLOSED",
        },
        size: voters,
        quorum_needed: voters / 2 + 1,
        observer: !members.is_voter(status.node),
        committed: status.committed_index,
        applied: status.applied_index,
        catching_up,
        leader: leader.map(PeerId::of),
        leader_since: since.filter(|_| leader == Some(own)),
        ever_had_leader: status.committed_index > 0,
        term: status.term,
        voted_for: log
            .voted_for
            .and_then(|node| members.server_of(node))
            .map(PeerId::of),
        pterm: log.last_term,
        pindex: log.last_index,
        system_account: true,
        // Who asks knows its name.
        traffic_account: String::new(),
        ipq_proposal_len: status.waiting_proposals,
        ipq_entry_len: 0,
        ipq_resp_len: 0,
        ipq_apply_len: status.committed_index.saturating_sub(status.applied_index),
        wal: StreamState {
            messages: log.entries,
            bytes: log.bytes,
            first_seq: log.first_index,
            last_seq: log.last_index,
            ..StreamState::default()
        },
        peers: peers.collect(),
    }
}

/// What a leader knows of the others, by server.
fn followers(status: &Status) -> BTreeMap<String, Follower> {
    let followers = status.followers.iter().map(|follower| {
        let silent = follower.last_contact;
        let known = Follower {
            lag: status
                .committed_index
                .saturating_sub(follower.matched_index),
            silent_ns: silent.map(|silent| i64::try_from(silent.as_nanos()).unwrap_or(i64::MAX)),
        };
        (follower.member.server.clone(), known)
    });
    followers.collect()
}
