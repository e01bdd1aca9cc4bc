//! Streams: create, update, delete.

use super::{Decision, Desk};
use crate::jetstream::api::validate::{
    check_origins, check_stream, check_stream_creation, check_update,
};
use crate::jetstream::meta::assignment::{ChangeKind, StreamAssignment};
use crate::jetstream::meta::command::{Command, NewMembers};
use crate::jetstream::meta::peer::is_online;
use crate::jetstream::meta::placement::{NoPlace, Wish, place};
use crate::jetstream::meta::tiers::check_stream_limits;
use crate::jetstream::types::{ApiError, ErrorCode, StreamConfig, Time, encode};

/// A stream is asked for. `name` is that of the request's subject.
pub fn create(
    desk: &Desk<'_>,
    name: &str,
    config: StreamConfig,
    pedantic: bool,
) -> Result<Decision, ApiError> {
    let mut config = config;
    config.set_stored_metadata();
    check_stream_creation(name, &config)?;
    let (limits, _) = desk.tiers.select(config.replicas())?;
    let rules = desk.rules(limits, pedantic);
    let config = check_stream(config, &rules)?;
    let mut config = check_origins(config, &find_in(desk), &rules)?;
    if let Some(existing) = desk.meta.stream(desk.account, name) {
        config.take_stored_metadata(existing.config());
        return match config == *existing.config() {
            true => Ok(Decision::Already(desk.stream_ref(name, existing))),
            false => Err(ErrorCode::StreamNameExist.into()),
        };
    }
    if desk
        .meta
        .subjects_overlap(desk.account, name, &config.subjects)
    {
        return Err(ErrorCode::StreamSubjectOverlap.into());
    }
    check_stream_limits(desk.meta, desk.account, desk.tiers, &config)?;
    let (cluster, servers) = place_anew(desk, &config)?;
    let mut online = servers
        .iter()
        .filter(|server| is_online(desk.sightings, server));
    let preferred = online.next().cloned().unwrap_or_default();
    Ok(Decision::Propose(Command::StreamCreate {
        account: desk.account.to_owned(),
        stream: name.to_owned(),
        group_name: desk.group_name(servers.len(), config.storage),
        config: encode(&config),
        created: desk.now,
        cluster,
        servers,
        preferred,
    }))
}

/// Looks whether a stream can come out of a backup, and says on which server it is to be taken in.
pub fn home_of_restored(desk: &Desk<'_>, config: &StreamConfig) -> Result<String, ApiError> {
    check_restorable(desk, config)?;
    let (_, servers) = place_anew(desk, config)?;
    let mut online = servers
        .into_iter()
        .filter(|server| is_online(desk.sightings, server));
    let none = || ErrorCode::ClusterNoPeers.with("no peer of the stream is online");
    online.next().ok_or_else(none)
}

/// A stream that came out of a backup is durable on `home`: it and its replicas are to be.
pub fn restored(
    desk: &Desk<'_>,
    config: &StreamConfig,
    created: Time,
    home: &str,
) -> Result<Decision, ApiError> {
    let name = &config.name;
    if let Some(existing) = desk.meta.stream(desk.account, name)
        && existing.created == created
        && existing.config() == config
        && existing.group.member_on(home).is_some()
    {
        // It asks again, since it did not hear what became of it.
        return Ok(Decision::Already(desk.stream_ref(name, existing)));
    }
    check_restorable(desk, config)?;
    let Some(peer) = desk.meta.peers().get(home) else {
        return Err(ErrorCode::ClusterServerNotMember.into());
    };
    let keep = [home.to_owned()];
    let wish = Wish {
        replicas: config.replicas(),
        cluster: &peer.profile.cluster,
        config,
        keep: &keep,
        leaving: 0,
        avoid: &[],
    };
    let servers = place(desk.meta, desk.sightings, &desk.placement, &wish, desk.seed)?;
    Ok(Decision::Propose(Command::StreamRestored {
        account: desk.account.to_owned(),
        stream: name.clone(),
        config: encode(config),
        created,
        home: home.to_owned(),
        members: NewMembers {
            kind: ChangeKind::Scale,
            name: desk.group_name(servers.len(), config.storage),
            servers,
            preferred: home.to_owned(),
            cluster: peer.profile.cluster.clone(),
        },
    }))
}

fn check_restorable(desk: &Desk<'_>, config: &StreamConfig) -> Result<(), ApiError> {
    if desk.meta.stream(desk.account, &config.name).is_some() {
        return Err(ErrorCode::StreamNameExistRestoreFailed.into());
    }
    if (desk.meta).subjects_overlap(desk.account, &config.name, &config.subjects) {
        return Err(ErrorCode::StreamSubjectOverlap.into());
    }
    check_stream_limits(desk.meta, desk.account, desk.tiers, config)
}

/// Looks up the streams of the account.
fn find_in(desk: &Desk<'_>) -> impl Fn(&str) -> Option<StreamConfig> {
    move |name| {
        let stream = desk.meta.stream(desk.account, name)?;
        Some(stream.config().clone())
    }
}

/// Finds servers for all replicas of a stream, in the cluster that it names, or the one that the request came from, or another.
pub(super) fn place_anew(
    desk: &Desk<'_>,
    config: &StreamConfig,
) -> Result<(String, Vec<String>), NoPlace> {
    let named = config
        .placement
        .as_ref()
        .map(|placement| placement.cluster.as_str());
    let clusters: Vec<&str> = match named {
        Some(cluster) if !cluster.is_empty() => vec![cluster],
        _ => {
            let alternates = desk.alternates.iter().map(String::as_str);
            std::iter::once(desk.cluster).chain(alternates).collect()
        }
    };
    let mut refused = NoPlace::default();
    for cluster in clusters {
        let wish = Wish {
            replicas: config.replicas(),
            cluster,
            config,
            keep: &[],
            leaving: 0,
            avoid: &[],
        };
        match place(desk.meta, desk.sightings, &desk.placement, &wish, desk.seed) {
            Ok(servers) => return Ok((cluster.to_owned(), servers)),
            Err(reasons) => refused = refused.and(reasons),
        }
    }
    Err(refused)
}

/// A stream is to be different. `leader` is the server that leads it, if known: it stays when replicas go.
pub fn update(
    desk: &Desk<'_>,
    name: &str,
    config: StreamConfig,
    pedantic: bool,
    leader: Option<&str>,
) -> Result<Decision, ApiError> {
    let (limits, _) = desk.tiers.select(config.replicas())?;
    let rules = desk.rules(limits, pedantic);
    let mut config = check_stream(config, &rules)?;
    if config.name != name {
        return Err(ErrorCode::StreamMismatch.into());
    }
    let stream = desk.find(name)?;
    if desk.is_out_of_reach(stream) {
        return Err(ErrorCode::StreamOffline.into());
    }
    config.set_stored_metadata();
    let old = stream.config();
    // What the first check switched on may break a rule that stands before it.
    let config = check_stream(config, &rules)?;
    let config = check_update(old, config)?;
    let config = check_origins(config, &find_in(desk), &rules)?;
    if desk
        .meta
        .subjects_overlap(desk.account, name, &config.subjects)
    {
        return Err(ErrorCode::StreamSubjectOverlap.into());
    }
    check_consumers(stream, &config)?;
    check_stream_limits_of_update(desk, old, &config)?;
    let members = new_members(desk, stream, &config, leader)?;
    Ok(Decision::Propose(Command::StreamUpdate {
        of: desk.stream_ref(name, stream),
        revision: stream.revision,
        config: encode(&config),
        members,
    }))
}

/// What a stream reserves more than before must be there, and so must be what it reserves in another tier.
fn check_stream_limits_of_update(
    desk: &Desk<'_>,
    old: &StreamConfig,
    new: &StreamConfig,
) -> Result<(), ApiError> {
    let grows =
        new.max_bytes != old.max_bytes && (new.max_bytes < 0 || new.max_bytes > old.max_bytes);
    let more_consumers = new.max_consumers != old.max_consumers;
    if grows || more_consumers || new.replicas() > old.replicas() {
        check_stream_limits(desk.meta, desk.account, desk.tiers, new)?;
    }
    Ok(())
}

/// Limits that the stream's consumers already exceed are refused.
fn check_consumers(stream: &StreamAssignment, new: &StreamConfig) -> Result<(), ApiError> {
    let (was, is) = (&stream.config().consumer_limits, &new.consumer_limits);
    let idle = is.inactive_threshold > 0 && is.inactive_threshold != was.inactive_threshold;
    let pending = is.max_ack_pending > 0 && is.max_ack_pending != was.max_ack_pending;
    if !idle && !pending {
        return Ok(());
    }
    let violating: Vec<&str> = stream
        .consumers
        .iter()
        .filter(|(_, consumer)| {
            let config = consumer.config();
            (is.inactive_threshold > 0 && config.inactive_threshold > is.inactive_threshold)
                || (is.max_ack_pending > 0 && config.max_ack_pending > is.max_ack_pending)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if violating.is_empty() {
        return Ok(());
    }
    Err(ErrorCode::StreamUpdate.with(format_args!(
        "change to limits violates consumers: {}",
        violating.join(", ")
    )))
}

/// Where the stream is to be, if the new configuration moves or scales it.
fn new_members(
    desk: &Desk<'_>,
    stream: &StreamAssignment,
    config: &StreamConfig,
    leader: Option<&str>,
) -> Result<Option<NewMembers>, ApiError> {
    let old = stream.config();
    let moves = config.placement.is_some() && config.placement != old.placement;
    let scales = config.replicas() != old.replicas();
    if moves && stream.group.is_changing() {
        let detail = progress(desk, stream);
        return Err(ErrorCode::StreamMoveInProgress.with(detail));
    }
    if moves && scales {
        return Err(ErrorCode::StreamMoveAndScale.into());
    }
    if moves {
        let (cluster, servers) = place_anew(desk, config)?;
        let preferred = servers.first().cloned().unwrap_or_default();
        let stays = servers
            .iter()
            .all(|server| stream.group.member_on(server).is_some());
        // Everyone is where the new placement would have them.
        if stays && servers.len() == stream.group.members.len() {
            return Ok(None);
        }
        return Ok(Some(NewMembers {
            kind: ChangeKind::Move,
            servers,
            preferred,
            name: String::new(),
            cluster,
        }));
    }
    match scales {
        true => scaled(desk, stream, config, leader).map(Some),
        false => Ok(None),
    }
}

/// How far a change has come, for people.
pub(super) fn progress(desk: &Desk<'_>, stream: &StreamAssignment) -> String {
    let total = stream.group.everyone().count();
    if desk.is_out_of_reach(stream) {
        return format!("all {total} peers offline");
    }
    let mut everyone = stream.group.everyone();
    let online = everyone
        .by_ref()
        .filter(|member| is_online(desk.sightings, &member.server))
        .count();
    format!("total peers: {total}, current peers: {online}")
}

fn scaled(
    desk: &Desk<'_>,
    stream: &StreamAssignment,
    config: &StreamConfig,
    leader: Option<&str>,
) -> Result<NewMembers, ApiError> {
    let wanted = config.replicas();
    let keep = stream.group.servers();
    let group = |servers: Vec<String>, preferred: String| NewMembers {
        kind: ChangeKind::Scale,
        name: desk.group_name(servers.len(), config.storage),
        servers,
        preferred,
        cluster: String::new(),
    };
    if wanted < keep.len() {
        let servers = remaining(desk, &keep, leader, wanted);
        let preferred = leader.map(str::to_owned).unwrap_or_default();
        let preferred = match servers.contains(&preferred) {
            true => preferred,
            false => String::new(),
        };
        return Ok(group(servers, preferred));
    }
    let cluster = match stream.group.cluster.as_str() {
        "" => desk.cluster,
        cluster => cluster,
    };
    let wish = Wish {
        replicas: wanted,
        cluster,
        config,
        keep: &keep,
        leaving: 0,
        avoid: &[],
    };
    let servers = place(desk.meta, desk.sightings, &desk.placement, &wish, desk.seed)?;
    // The only one that has the stream leads until the others have it too.
    let preferred = match keep.as_slice() {
        [only] => only.clone(),
        _ => String::new(),
    };
    Ok(group(servers, preferred))
}

/// Who stays when replicas go: the leader, then those that can be reached.
fn remaining(
    desk: &Desk<'_>,
    servers: &[String],
    leader: Option<&str>,
    count: usize,
) -> Vec<String> {
    let mut ordered: Vec<&String> = servers.iter().collect();
    ordered.sort_by_key(|server| {
        let leads = Some(server.as_str()) == leader;
        (!leads, !is_online(desk.sightings, server))
    });
    ordered.into_iter().take(count).cloned().collect()
}

/// A stream is to be gone.
pub fn delete(desk: &Desk<'_>, name: &str) -> Result<Decision, ApiError> {
    let stream = desk.find(name)?;
    Ok(Decision::Propose(Command::StreamDelete {
        of: desk.stream_ref(name, stream),
    }))
}
