//! Servers that go, replicas that are taken off a server, and who leads next.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Decision, Desk};
use crate::jetstream::meta::assignment::{ChangeKind, StreamAssignment, StreamRef};
use crate::jetstream::meta::command::{Command, NewMembers};
use crate::jetstream::meta::peer::{Peer, Sightings, is_online};
use crate::jetstream::meta::placement::{PlacementRules, Wish, place};
use crate::jetstream::meta::state::Meta;
use crate::jetstream::types::{ApiError, ErrorCode, PeerId, Placement};

/// A replica of a stream is to leave a server for good, which is named or given by its id. Another server takes its place, if there is one.
pub fn remove_from_stream(desk: &Desk<'_>, stream: &str, peer: &str) -> Result<Decision, ApiError> {
    if peer.is_empty() {
        return Err(ErrorCode::BadRequest.into());
    }
    let assignment = desk.find(stream)?;
    let mut everyone = assignment.group.everyone();
    let member = everyone
        .find(|member| member.server == peer || PeerId::of(&member.server).as_str() == peer)
        .ok_or(ErrorCode::ClusterPeerNotMember)?;
    let of = desk.stream_ref(stream, assignment);
    let gone = BTreeSet::from([member.server.clone()]);
    let members = without(
        desk.meta,
        desk.sightings,
        &desk.placement,
        assignment,
        &gone,
        desk.seed,
    );
    let members = members.ok_or(ErrorCode::PeerRemap)?;
    Ok(Decision::Propose(Command::MembersReplace {
        of,
        revision: assignment.revision,
        members,
    }))
}

/// Where a stream is to be when these servers are none for it any more. Without servers that could take their place it goes on with fewer replicas, but for the
/// last one: then there is no answer.
fn without(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    stream: &StreamAssignment,
    gone: &BTreeSet<String>,
    seed: u64,
) -> Option<NewMembers> {
    let servers = stream.group.servers();
    let (avoid, keep): (Vec<String>, Vec<String>) = servers
        .iter()
        .cloned()
        .partition(|server| gone.contains(server));
    let wish = Wish {
        replicas: servers.len().max(stream.config().replicas()),
        cluster: &stream.group.cluster,
        config: stream.config(),
        keep: &keep,
        leaving: 0,
        avoid: &avoid,
    };
    let servers = match place(meta, sightings, rules, &wish, seed) {
        Ok(servers) => servers,
        Err(_) if keep.is_empty() => return None,
        Err(_) => keep,
    };
    Some(NewMembers {
        kind: ChangeKind::Repair,
        servers,
        preferred: String::new(),
        name: String::new(),
        cluster: String::new(),
    })
}

/// What is to be proposed for streams that have a replica on a server that is not part of the cluster any more: as long as there are such, the leader of the meta
/// group proposes these again.
pub fn repairs(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    seed: u64,
) -> Vec<Command> {
    let is_gone = |server: &String| !meta.peers().contains_key(server);
    let broken = meta.all_streams().filter(|(_, stream)| {
        stream.stored.unsupported.is_none() && stream.group.servers().iter().any(is_gone)
    });
    broken
        .filter_map(|(of, stream)| repair(meta, sightings, rules, of, stream, seed))
        .collect()
}

fn repair(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    of: StreamRef,
    stream: &StreamAssignment,
    seed: u64,
) -> Option<Command> {
    let servers = stream.group.servers().into_iter();
    let (stay, gone): (BTreeSet<String>, BTreeSet<String>) =
        servers.partition(|server| meta.peers().contains_key(server));
    if stay.is_empty() {
        // All that it holds went with its servers, and may come back with them.
        return None;
    }
    let members = without(meta, sightings, rules, stream, &gone, seed)?;
    Some(Command::MembersReplace {
        of,
        revision: stream.revision,
        members,
    })
}

/// What is to be proposed when servers came to the cluster: streams that have fewer replicas than they are to have, because nobody could take the place of one that
/// left, get others on these servers.
pub fn refills(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    came: &BTreeSet<String>,
    seed: u64,
) -> Vec<Command> {
    let streams = meta.all_streams();
    let known = streams.filter(|(_, stream)| stream.stored.unsupported.is_none());
    known
        .filter_map(|(of, stream)| refill(meta, sightings, rules, of, stream, came, seed))
        .collect()
}

fn refill(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    of: StreamRef,
    stream: &StreamAssignment,
    came: &BTreeSet<String>,
    seed: u64,
) -> Option<Command> {
    let keep = stream.group.servers();
    let wanted = stream.config().replicas();
    if keep.len() >= wanted || keep.is_empty() {
        return None;
    }
    let others = meta.peers().keys();
    let avoid: Vec<String> = others
        .filter(|server| !came.contains(*server))
        .cloned()
        .collect();
    // As many as can be had.
    let mut more = (1..=wanted - keep.len()).rev();
    let servers = more.find_map(|more| {
        let wish = Wish {
            replicas: keep.len() + more,
            cluster: &stream.group.cluster,
            config: stream.config(),
            keep: &keep,
            leaving: 0,
            avoid: &avoid,
        };
        place(meta, sightings, rules, &wish, seed).ok()
    })?;
    Some(Command::MembersReplace {
        of,
        revision: stream.revision,
        members: NewMembers {
            kind: ChangeKind::Repair,
            servers,
            preferred: String::new(),
            name: String::new(),
            cluster: String::new(),
        },
    })
}

/// Which server is to be removed from the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RemoveRequest {
    /// Its name.
    #[serde(rename = "peer")]
    pub server: String,
    /// Its id, which counts before its name.
    pub peer_id: String,
}

/// A server is to be removed from the cluster. `leader` is the one that decides this.
pub fn remove(meta: &Meta, request: &RemoveRequest) -> Result<Decision, ApiError> {
    let mut peers = meta.peers().values();
    let found = match request.peer_id.as_str() {
        "" => peers.find(|peer| peer.profile.server == request.server),
        id => peers.find(|peer| peer.id().as_str() == id),
    };
    let peer = found.ok_or(ErrorCode::ClusterServerNotMember)?;
    Ok(Decision::Propose(Command::PeerRemove {
        server: peer.profile.server.clone(),
    }))
}

/// Everything of an account is to be gone.
pub fn purge_account(account: &str) -> Result<Decision, ApiError> {
    if account.contains(['\\', '/']) {
        return Err(ErrorCode::StreamGeneral.with("account name can not contain path separators"));
    }
    Ok(Decision::Propose(Command::AccountPurge {
        account: account.to_owned(),
    }))
}

/// Who is to lead a group after `leader` stepped down: one of its members, chosen by the placement that was asked for. `None` leaves it to the members.
pub fn next_leader(
    meta: &Meta,
    sightings: &Sightings,
    members: &[String],
    leader: &str,
    placement: Option<&Placement>,
    seed: u64,
) -> Result<Option<String>, ApiError> {
    let Some(placement) = placement else {
        return Ok(None);
    };
    let preferred = &placement.preferred;
    let refuse = |text: String| Err(ErrorCode::ClusterNoPeers.with(text));
    if !preferred.is_empty() {
        if preferred == leader {
            return refuse(format!("preferred server {preferred:?} is already leader"));
        }
        return match members.contains(preferred) {
            true => Ok(Some(preferred.clone())),
            false => refuse(format!("preferred server {preferred:?} not known")),
        };
    }
    let fits = |peer: &Peer| {
        let profile = &peer.profile;
        let tags = placement.tags.iter();
        let has = |tag: &String| profile.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        (placement.cluster.is_empty() || placement.cluster == profile.cluster)
            && tags.into_iter().all(has)
    };
    let candidates: Vec<&String> = members
        .iter()
        .filter(|server| server.as_str() != leader && is_online(sightings, server))
        .filter(|server| meta.peers().get(*server).is_some_and(fits))
        .collect();
    let at = usize::try_from(seed % candidates.len().max(1) as u64).unwrap_or(0);
    match candidates.get(at) {
        Some(server) => Ok(Some((*server).clone())),
        None => refuse("no replacement peer connected".to_owned()),
    }
}
