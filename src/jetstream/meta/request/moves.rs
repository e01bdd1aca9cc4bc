//! Streams that move to other servers, and those that are to stay after all.

use serde::Deserialize;

use super::stream::progress;
use super::{Decision, Desk};
use crate::jetstream::meta::assignment::ChangeKind;
use crate::jetstream::meta::command::{Command, NewMembers};
use crate::jetstream::meta::placement::{Wish, place};
use crate::jetstream::types::{ApiError, ErrorCode, Placement, encode};

/// Which replica is to go elsewhere, and what the new server must be like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MoveRequest {
    /// The server that is to be left; any, when empty.
    pub server: String,
    /// The cluster of that server, should that need telling.
    pub cluster: String,
    /// Its domain, should that need telling.
    pub domain: String,
    /// Tags that the new server must have beside those of the stream.
    pub tags: Vec<String>,
}

/// A replica of a stream is to leave a server; in its own cluster if there is a place, else the whole stream moves to another.
pub fn start(desk: &Desk<'_>, stream: &str, request: &MoveRequest) -> Result<Decision, ApiError> {
    let assignment = desk.find(stream)?;
    let mut servers = assignment.group.servers();
    if !request.server.is_empty() {
        let known = desk.meta.peers().get(&request.server).is_some_and(|peer| {
            let profile = &peer.profile;
            (request.cluster.is_empty() || request.cluster == profile.cluster)
                && (request.domain.is_empty() || request.domain == profile.domain)
        });
        if !known {
            return Err(ErrorCode::ClusterServerNotMember.into());
        }
        let at = servers.iter().position(|server| *server == request.server);
        let at = at.ok_or(ErrorCode::ClusterPeerNotMember)?;
        // The one that leaves comes first.
        servers.get_mut(..=at).unwrap_or_default().rotate_right(1);
    }
    if assignment.group.is_changing() {
        return Err(ErrorCode::StreamMoveInProgress.with(progress(desk, assignment)));
    }
    let mut config = assignment.config().clone();
    let placement = config.placement.get_or_insert_with(Placement::default);
    placement.tags.extend(request.tags.iter().cloned());
    let count = config.replicas();
    let wish = Wish {
        replicas: servers.len() + 1,
        cluster: &assignment.group.cluster,
        config: &config,
        keep: &servers,
        leaving: 1,
        avoid: &[],
    };
    let here = place(desk.meta, desk.sightings, &desk.placement, &wish, desk.seed);
    let (cluster, servers) = match here {
        Ok(servers) => (String::new(), servers.into_iter().skip(1).collect()),
        Err(mut refused) => {
            let mut clusters: Vec<&str> = desk
                .meta
                .peers()
                .values()
                .map(|peer| peer.profile.cluster.as_str())
                .filter(|cluster| *cluster != assignment.group.cluster)
                .collect();
            clusters.sort_unstable();
            clusters.dedup();
            let elsewhere = clusters.into_iter().find_map(|cluster| {
                let wish = Wish {
                    replicas: count,
                    cluster,
                    keep: &[],
                    leaving: 0,
                    ..wish
                };
                match place(desk.meta, desk.sightings, &desk.placement, &wish, desk.seed) {
                    Ok(servers) => Some((cluster.to_owned(), servers)),
                    Err(reasons) => {
                        refused = std::mem::take(&mut refused).and(reasons);
                        None
                    }
                }
            });
            elsewhere.ok_or(refused)?
        }
    };
    Ok(Decision::Propose(Command::MembersReplace {
        of: desk.stream_ref(stream, assignment),
        revision: assignment.revision,
        members: NewMembers {
            kind: ChangeKind::Move,
            servers,
            preferred: String::new(),
            name: String::new(),
            cluster,
        },
    }))
}

/// A stream that moves is to stay where it was. When it was to move for tags that its servers do not have, it loses that placement.
pub fn cancel(desk: &Desk<'_>, stream: &str) -> Result<Decision, ApiError> {
    let assignment = desk.find(stream)?;
    let group = &assignment.group;
    if group.change != Some(ChangeKind::Move) {
        return Err(ErrorCode::StreamMoveNotInProgress.into());
    }
    let mut config = None;
    if let Some(placement) = &assignment.config().placement {
        for server in &group.before {
            let peer = desk.meta.peers().get(server).ok_or_else(|| {
                ErrorCode::StreamGeneral
                    .with(format_args!("peer {server} not present for tag validation"))
            })?;
            let profile = &peer.profile;
            let tags_fit = placement.tags.iter().all(|tag| {
                let (wanted, tag) = match tag.strip_prefix('!') {
                    Some(tag) => (false, tag),
                    None => (true, tag.as_str()),
                };
                profile.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)) == wanted
            });
            let cluster_fits = placement.cluster.is_empty() || placement.cluster == profile.cluster;
            if !tags_fit || !cluster_fits {
                let mut without = assignment.config().clone();
                without.placement = None;
                config = Some(encode(&without));
                break;
            }
        }
    }
    Ok(Decision::Propose(Command::MoveCancel {
        of: desk.stream_ref(stream, assignment),
        config,
    }))
}
