//! What fuzzers run here: commands and states as bytes.

use storage::fuzz::Target;

use super::{ChangeKind, Command, Meta, NewMembers, PeerProfile, StreamRef, reconcile};
use crate::jetstream::types::Time;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "meta_command",
        run: command,
        seeds: commands,
    },
    Target {
        name: "meta_state",
        run: state,
        seeds: states,
    },
];

const CONFIG: &[u8] = br#"{"name":"S","subjects":["s.>"],"num_replicas":3}"#;

fn servers() -> Vec<String> {
    ["a", "b", "c"].map(str::to_owned).into()
}

fn of() -> StreamRef {
    StreamRef {
        account: "A".to_owned(),
        stream: "S".to_owned(),
        group: raft::group::GroupNumber(1),
    }
}

fn members(kind: ChangeKind) -> NewMembers {
    NewMembers {
        kind,
        servers: servers().into_iter().rev().take(2).collect(),
        preferred: "c".to_owned(),
        name: "S-R2F-x".to_owned(),
        cluster: "C".to_owned(),
    }
}

/// One of each kind; applied in order they lead through most that can happen.
fn all() -> Vec<Command> {
    let text = str::to_owned;
    let created = Time::from_nanoseconds(1);
    let config = || CONFIG.to_vec();
    vec![
        Command::PeerPut {
            profile: PeerProfile {
                server: text("a"),
                cluster: text("C"),
                tags: vec![text("t")],
                jetstream: true,
                ..PeerProfile::default()
            },
            renew: true,
        },
        Command::StreamCreate {
            account: text("A"),
            stream: text("S"),
            config: config(),
            created,
            group_name: text("S-R3F-x"),
            cluster: text("C"),
            servers: servers(),
            preferred: text("a"),
        },
        Command::GroupBegun { of: of() },
        Command::StreamRestored {
            account: text("A"),
            stream: text("R"),
            config: br#"{"name":"R","num_replicas":2}"#.to_vec(),
            created,
            home: text("c"),
            members: members(ChangeKind::Scale),
        },
        Command::ConsumerCreate {
            of: of(),
            name: text("D"),
            config: br#"{"durable_name":"D"}"#.to_vec(),
            created,
        },
        Command::ConsumerUpdate {
            of: of(),
            name: text("D"),
            revision: 1,
            config: br#"{"durable_name":"D","description":"d"}"#.to_vec(),
        },
        Command::MembersReplace {
            of: of(),
            revision: 1,
            members: members(ChangeKind::Move),
        },
        Command::MoveCancel {
            of: of(),
            config: Some(config()),
        },
        Command::StreamUpdate {
            of: of(),
            revision: 3,
            config: config(),
            members: Some(members(ChangeKind::Scale)),
        },
        Command::GroupSettled {
            of: of(),
            nodes: vec![2, 3],
        },
        Command::MemberLost { of: of(), node: 2 },
        Command::MemberSpoilt { of: of(), node: 3 },
        Command::ReplicaGone {
            group: of().group,
            node: 1,
        },
        Command::OrphanNote {
            server: text("a"),
            place: text("7"),
            account: text("A"),
            stream: text("S"),
            reason: text("why"),
            since: created,
        },
        Command::OrphanGone {
            server: text("b"),
            place: text("7"),
        },
        Command::ConsumerDelete {
            of: of(),
            name: text("D"),
        },
        Command::StreamDelete { of: of() },
        Command::AccountPurge { account: text("A") },
        Command::PeerRemove { server: text("a") },
    ]
}

fn founded() -> Meta {
    let servers = servers();
    Meta::founding(servers.iter().map(String::as_str))
}

fn commands() -> Vec<Vec<u8>> {
    all().iter().map(Command::encode).collect()
}

fn command(input: &[u8]) {
    let Ok(command) = Command::decode(input) else {
        return;
    };
    assert_eq!(
        Command::decode(&command.encode()).ok(),
        Some(command.clone())
    );
    let mut meta = founded();
    for known in all().iter().take(5) {
        meta.apply(meta.applied() + 1, known);
    }
    meta.apply(meta.applied() + 1, &command);
    assert!(Meta::decode(&meta.encode()).is_ok_and(|again| again == meta));
}

fn states() -> Vec<Vec<u8>> {
    let mut meta = founded();
    let mut states = vec![meta.encode()];
    for command in all() {
        meta.apply(meta.applied() + 1, &command);
        states.push(meta.encode());
    }
    states
}

fn state(input: &[u8]) {
    let Ok(mut meta) = Meta::decode(input) else {
        return;
    };
    assert!(Meta::decode(&meta.encode()).is_ok_and(|again| again == meta));
    for command in all() {
        meta.apply(meta.applied() + 1, &command);
    }
    let _ = reconcile(&meta, "a", &super::Holdings::new(), &super::Past::default());
}
