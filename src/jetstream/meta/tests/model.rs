//! Any commands in any order, against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use raft::group::GroupNumber;

use super::*;

/// A command as a test draws it: what it is about is looked up when it is applied.
#[derive(Debug, Clone)]
enum Draw {
    PeerPut {
        server: u8,
        renew: bool,
    },
    PeerRemove {
        server: u8,
    },
    Create {
        stream: u8,
        memory: bool,
        servers: Vec<u8>,
    },
    Update {
        stream: u8,
        text: u8,
    },
    Delete {
        stream: u8,
    },
    Replace {
        stream: u8,
        move_: bool,
        servers: Vec<u8>,
    },
    Cancel {
        stream: u8,
    },
    Settle {
        stream: u8,
    },
    Begun {
        stream: u8,
    },
    Lost {
        stream: u8,
        which: u8,
    },
    Gone,
    Consumer {
        stream: u8,
        name: u8,
    },
    ConsumerGone {
        stream: u8,
        name: u8,
    },
    Purge,
}

fn draw() -> impl Strategy<Value = Draw> {
    let servers = || proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5, 6], 1..=5);
    prop_oneof![
        1 => (1u8..8, any::<bool>()).prop_map(|(server, renew)| Draw::PeerPut { server, renew }),
        1 => (1u8..8).prop_map(|server| Draw::PeerRemove { server }),
        6 => (0u8..4, any::<bool>(), servers())
            .prop_map(|(stream, memory, servers)| Draw::Create { stream, memory, servers }),
        2 => (0u8..4, any::<u8>()).prop_map(|(stream, text)| Draw::Update { stream, text }),
        1 => (0u8..4).prop_map(|stream| Draw::Delete { stream }),
        6 => (0u8..4, any::<bool>(), servers())
            .prop_map(|(stream, move_, servers)| Draw::Replace { stream, move_, servers }),
        2 => (0u8..4).prop_map(|stream| Draw::Cancel { stream }),
        5 => (0u8..4).prop_map(|stream| Draw::Settle { stream }),
        2 => (0u8..4).prop_map(|stream| Draw::Begun { stream }),
        3 => (0u8..4, any::<u8>()).prop_map(|(stream, which)| Draw::Lost { stream, which }),
        2 => Just(Draw::Gone),
        2 => (0u8..4, 0u8..3).prop_map(|(stream, name)| Draw::Consumer { stream, name }),
        1 => (0u8..4, 0u8..3).prop_map(|(stream, name)| Draw::ConsumerGone { stream, name }),
        1 => Just(Draw::Purge),
    ]
}

fn names(servers: &[u8]) -> Vec<String> {
    servers.iter().map(|server| format!("n{server}")).collect()
}

fn current(meta: &Meta, stream: u8) -> StreamRef {
    let name = format!("S{stream}");
    let group = meta.stream("A", &name);
    StreamRef {
        account: "A".to_owned(),
        stream: name,
        group: group.map_or(GroupNumber(999), |stream| stream.group.number),
    }
}

fn command(meta: &Meta, draw: &Draw) -> Command {
    match draw {
        Draw::PeerPut { server, renew } => Command::PeerPut {
            profile: profile(&format!("n{server}")),
            renew: *renew,
        },
        Draw::PeerRemove { server } => Command::PeerRemove {
            server: format!("n{server}"),
        },
        Draw::Create {
            stream,
            memory,
            servers,
        } => {
            let mut config = config(&format!("S{stream}"), servers.len() as i64);
            if *memory {
                config.storage = crate::jetstream::types::Storage::Memory;
            }
            let names = names(servers);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            create(&config, &names)
        }
        Draw::Update { stream, text } => {
            let of = current(meta, *stream);
            let existing = meta.stream_of(&of);
            let mut config =
                existing.map_or_else(StreamConfig::default, |stream| stream.config().clone());
            config.description = text.to_string();
            Command::StreamUpdate {
                revision: existing.map_or(0, |stream| stream.revision),
                of,
                config: encode(&config),
                members: None,
            }
        }
        Draw::Delete { stream } => Command::StreamDelete {
            of: current(meta, *stream),
        },
        Draw::Replace {
            stream,
            move_,
            servers,
        } => {
            let of = current(meta, *stream);
            let existing = meta.stream_of(&of);
            let mut config =
                existing.map_or_else(StreamConfig::default, |stream| stream.config().clone());
            config.num_replicas = servers.len() as i64;
            let kind = match move_ {
                true => ChangeKind::Move,
                false => ChangeKind::Scale,
            };
            Command::StreamUpdate {
                revision: existing.map_or(0, |stream| stream.revision),
                of,
                config: encode(&config),
                members: Some(NewMembers {
                    kind,
                    servers: names(servers),
                    preferred: String::new(),
                    name: String::new(),
                    cluster: String::new(),
                }),
            }
        }
        Draw::Cancel { stream } => {
            let of = current(meta, *stream);
            let config = meta.stream_of(&of).map(|stream| {
                let mut config = stream.config().clone();
                config.num_replicas = stream.group.before.len().max(1) as i64;
                encode(&config)
            });
            Command::MoveCancel { of, config }
        }
        Draw::Settle { stream } => {
            let of = current(meta, *stream);
            let nodes = meta.stream_of(&of).map(|stream| stream.group.nodes());
            Command::GroupSettled {
                of,
                nodes: nodes.unwrap_or_default().into_iter().collect(),
            }
        }
        Draw::Begun { stream } => Command::GroupBegun {
            of: current(meta, *stream),
        },
        Draw::Lost { stream, which } => {
            let of = current(meta, *stream);
            let everyone: Vec<u64> = meta.stream_of(&of).map_or_else(Vec::new, |stream| {
                stream.group.everyone().map(|member| member.node).collect()
            });
            let at = usize::from(*which) % everyone.len().max(1);
            Command::MemberLost {
                of,
                node: everyone.get(at).copied().unwrap_or(0),
            }
        }
        Draw::Gone => {
            let first = meta.released().keys().next().copied();
            let (group, node) = first.unwrap_or((GroupNumber(0), 0));
            Command::ReplicaGone { group, node }
        }
        Draw::Consumer { stream, name } => consumer(&current(meta, *stream), &format!("C{name}")),
        Draw::ConsumerGone { stream, name } => Command::ConsumerDelete {
            of: current(meta, *stream),
            name: format!("C{name}"),
        },
        Draw::Purge => Command::AccountPurge {
            account: "A".to_owned(),
        },
    }
}

/// What was ever handed out: each id of a group belongs to one server for good.
#[derive(Default)]
struct Ever {
    groups: BTreeMap<GroupNumber, String>,
    nodes: BTreeMap<(GroupNumber, u64), String>,
    meta_nodes: BTreeMap<u64, String>,
}

impl Ever {
    fn check(&mut self, meta: &Meta) -> Result<(), TestCaseError> {
        for peer in meta.peers().values() {
            let server = peer.profile.server.clone();
            let owner = self.meta_nodes.entry(peer.node).or_insert(server);
            prop_assert_eq!(&*owner, &peer.profile.server);
        }
        for (of, stream) in meta.all_streams() {
            let incarnation = format!("{} {:?}", of.stream, stream.group.number);
            let owner = self.groups.entry(of.group).or_insert(incarnation.clone());
            prop_assert_eq!(&*owner, &incarnation);
            let group = &stream.group;
            for member in group.everyone().chain(&group.founders) {
                let key = (of.group, member.node);
                let owner = self.nodes.entry(key).or_insert(member.server.clone());
                prop_assert_eq!(&*owner, &member.server);
            }
            prop_assert_eq!(group.members.len(), stream.replicas());
            let ids: BTreeSet<u64> = group.everyone().map(|member| member.node).collect();
            prop_assert_eq!(ids.len(), group.members.len() + group.leaving.len());
            let servers: BTreeSet<String> = group.servers().into_iter().collect();
            prop_assert_eq!(servers.len(), group.members.len());
            prop_assert!(group.is_changing() || group.leaving.is_empty());
            prop_assert!(group.form == Form::Raft || group.members.len() == 1);
            prop_assert!(!group.founders.is_empty());
        }
        for (group, node) in meta.released().keys() {
            let held = meta.all_streams().any(|(of, stream)| {
                let mut everyone = stream.group.everyone();
                of.group == *group && everyone.any(|member| member.node == *node)
            });
            prop_assert!(!held, "released, and still a member");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn ids_are_used_once_and_states_come_back_from_their_bytes(draws in prop::collection::vec(draw(), 1..60)) {
        let mut meta = cluster(6);
        let mut twin = meta.clone();
        let mut ever = Ever::default();
        for draw in &draws {
            let command = command(&meta, draw);
            let bytes = command.encode();
            let read = Command::decode(&bytes).expect("reads what was written");
            prop_assert_eq!(&read, &command);
            let index = meta.applied() + 1;
            let changes = meta.apply(index, &command);
            prop_assert_eq!(&twin.apply(index, &read), &changes);
            prop_assert!(twin.apply(index, &read).is_empty());
            ever.check(&meta)?;
        }
        prop_assert_eq!(&twin, &meta);
        let again = Meta::decode(&meta.encode()).expect("reads what was written");
        prop_assert_eq!(again.digest(), meta.digest());
        prop_assert_eq!(again, meta);
    }

    #[test]
    fn bytes_that_are_no_command_or_state_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
        let _ = Meta::decode(&bytes);
    }
}
