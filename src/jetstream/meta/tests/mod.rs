//! What the meta layer promises.

mod ahead;
mod commands;
mod model;
mod placement;
mod plan;
mod reconcile;
mod requests;
mod shown;
mod world;

use super::*;
use crate::jetstream::types::{ConsumerConfig, StreamConfig, Time, encode};

pub(super) fn profile(server: &str) -> PeerProfile {
    PeerProfile {
        server: server.to_owned(),
        cluster: "C1".to_owned(),
        domain: String::new(),
        tags: vec![format!("az:{server}")],
        memory_bytes_max: 1 << 30,
        storage_bytes_max: 1 << 40,
        jetstream: true,
    }
}

/// A cluster of servers `n1`, `n2`… that have said who they are.
pub(super) fn cluster(servers: usize) -> Meta {
    let names: Vec<String> = (1..=servers).map(|number| format!("n{number}")).collect();
    let mut meta = Meta::founding(names.iter().map(String::as_str));
    for name in &names {
        let command = Command::PeerPut {
            profile: profile(name),
            renew: false,
        };
        run(&mut meta, &command);
    }
    meta
}

/// Applies a command at the next index.
pub(super) fn run(meta: &mut Meta, command: &Command) -> Change {
    let bytes = command.encode();
    let command = Command::decode(&bytes).expect("reads what was written");
    assert_eq!(command.encode(), bytes);
    let mut changes = meta.apply(meta.applied() + 1, &command);
    assert!(!changes.is_empty());
    changes.remove(0)
}

pub(super) fn config(name: &str, replicas: i64) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        num_replicas: replicas,
        max_bytes: -1,
        ..StreamConfig::default()
    }
}

pub(super) fn create(config: &StreamConfig, servers: &[&str]) -> Command {
    Command::StreamCreate {
        account: "A".to_owned(),
        stream: config.name.clone(),
        config: encode(config),
        created: Time::from_nanoseconds(7),
        group_name: format!("S-R{}F-{}", servers.len(), config.name),
        cluster: "C1".to_owned(),
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        preferred: String::new(),
    }
}

pub(super) fn consumer(of: &StreamRef, name: &str) -> Command {
    Command::ConsumerCreate {
        of: of.clone(),
        name: name.to_owned(),
        config: encode(&ConsumerConfig {
            durable_name: name.to_owned(),
            name: name.to_owned(),
            ..ConsumerConfig::default()
        }),
        created: Time::from_nanoseconds(9),
    }
}

/// Creates a stream and says which one it is.
pub(super) fn created(meta: &mut Meta, config: &StreamConfig, servers: &[&str]) -> StreamRef {
    match run(meta, &create(config, servers)) {
        Change::StreamCreated(of) => of,
        other => panic!("{other:?}"),
    }
}

pub(super) fn elsewhere(kind: ChangeKind, servers: &[&str]) -> NewMembers {
    NewMembers {
        kind,
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        preferred: String::new(),
        name: String::new(),
        cluster: String::new(),
    }
}

pub(super) fn group<'a>(meta: &'a Meta, of: &StreamRef) -> &'a Group {
    &meta.stream_of(of).expect("the stream").group
}

/// Replaces the members, decided on the state as it is.
pub(super) fn replace(
    meta: &mut Meta,
    of: &StreamRef,
    kind: ChangeKind,
    servers: &[&str],
) -> Change {
    let revision = meta.stream_of(of).expect("the stream").revision;
    let command = Command::MembersReplace {
        of: of.clone(),
        revision,
        members: elsewhere(kind, servers),
    };
    run(meta, &command)
}

/// Reports that the group has the members that it was to have.
pub(super) fn settle(meta: &mut Meta, of: &StreamRef) -> Change {
    let nodes = group(meta, of).nodes().into_iter().collect();
    let command = Command::GroupSettled {
        of: of.clone(),
        nodes,
    };
    run(meta, &command)
}

pub(super) fn nodes(members: &[raft::group::Member]) -> Vec<(u64, &str)> {
    let pairs = members.iter();
    pairs
        .map(|member| (member.node, member.server.as_str()))
        .collect()
}
