//! How groups come to the members that they are to have.

use std::collections::BTreeMap;

use proptest::prelude::*;
use raft::group::Member;

use super::*;

fn all_online() -> Sightings {
    let seen = Sighting {
        online: true,
        ..Sighting::default()
    };
    (1..=7).map(|number| (format!("n{number}"), seen)).collect()
}

fn servers_of(members: &[Member]) -> BTreeMap<u64, String> {
    let pairs = members.iter();
    pairs
        .map(|member| (member.node, member.server.clone()))
        .collect()
}

/// A group whose replicas do what they are told, driven by whoever leads it.
#[derive(Default)]
struct Obedient {
    /// Those that it began with, in its present form.
    founders: Vec<Member>,
    view: View,
}

impl Obedient {
    /// Begins, begins again or ends, as the assignment says.
    fn follow(&mut self, group: &Group) {
        if group.form == Form::Raft && self.founders != group.founders {
            self.founders = group.founders.clone();
            self.view = View {
                leader: group.founders[0].node,
                voters: servers_of(&group.founders),
                ..View::default()
            };
        }
    }

    /// Does the next step. Says what to report, and whether anything was done.
    fn step(&mut self, group: &Group) -> (bool, Option<Vec<u64>>) {
        self.follow(group);
        let everyone = self.view.voters.keys().chain(self.view.learners.keys());
        self.view.caught_up = everyone.copied().collect();
        match plan(group, &self.view, &all_online()) {
            None => (false, None),
            Some(Step::Learn(members)) => {
                assert!(
                    members
                        .iter()
                        .all(|member| !self.view.voters.contains_key(&member.node))
                );
                self.view.learners.extend(servers_of(&members));
                (true, None)
            }
            Some(Step::Vote(voters)) => {
                assert!(
                    voters.contains_key(&self.view.leader),
                    "the leader votes itself out"
                );
                assert!(voters.keys().all(|node| self.view.caught_up.contains(node)));
                self.view.voters = voters;
                self.view.learners.clear();
                (true, None)
            }
            Some(Step::Transfer { to }) => {
                assert!(self.view.voters.contains_key(&to) && to != self.view.leader);
                self.view.leader = to;
                (true, None)
            }
            Some(Step::Settled { nodes }) => (true, Some(nodes)),
        }
    }
}

/// Drives the group until nothing is left to do; the number of steps must have an end.
fn drive(meta: &mut Meta, of: &StreamRef, raft: &mut Obedient) {
    for _ in 0..20 {
        let (done, settled) = raft.step(group(meta, of));
        if let Some(nodes) = settled {
            let of = of.clone();
            run(meta, &Command::GroupSettled { of, nodes });
        }
        if !done {
            return;
        }
    }
    panic!("the plan has no end: {:?}", group(meta, of));
}

fn check(meta: &Meta, of: &StreamRef, raft: &Obedient) {
    let group = group(meta, of);
    assert!(
        !group.is_changing() && group.leaving.is_empty(),
        "{group:?}"
    );
    if group.form == Form::Raft {
        assert_eq!(raft.view.voters, servers_of(&group.members));
        assert!(raft.view.learners.is_empty());
        assert!(raft.view.voters.contains_key(&raft.view.leader));
    }
}

#[test]
fn a_move_takes_in_waits_hands_over_and_lets_go() {
    let mut meta = cluster(4);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    let revision = 1;
    let mut members = elsewhere(ChangeKind::Move, &["n4"]);
    members.preferred = "n4".to_owned();
    let (of2, config) = (of.clone(), encode(&config("S", 1)));
    let command = Command::StreamUpdate {
        of: of2,
        revision,
        config,
        members: Some(members),
    };
    run(&mut meta, &command);
    let assigned = group(&meta, &of).clone();
    let mut view = View {
        leader: 2,
        voters: servers_of(&assigned.founders),
        ..View::default()
    };
    view.caught_up.insert(2);
    let online = all_online();
    let joiner = assigned.members.clone();
    assert_eq!(
        plan(&assigned, &view, &online),
        Some(Step::Learn(joiner.clone()))
    );
    view.learners = servers_of(&joiner);
    assert_eq!(plan(&assigned, &view, &online), None);
    view.caught_up.insert(3);
    let both = BTreeMap::from([(2, "n1".to_owned()), (3, "n4".to_owned())]);
    assert_eq!(
        plan(&assigned, &view, &online),
        Some(Step::Vote(both.clone()))
    );
    view.changing = true;
    assert_eq!(plan(&assigned, &view, &online), None);
    view.changing = false;
    view.voters = both;
    view.learners.clear();
    assert_eq!(plan(&assigned, &view, &Sightings::new()), None);
    assert_eq!(
        plan(&assigned, &view, &online),
        Some(Step::Transfer { to: 3 })
    );
    view.leader = 3;
    let alone = BTreeMap::from([(3, "n4".to_owned())]);
    assert_eq!(
        plan(&assigned, &view, &online),
        Some(Step::Vote(alone.clone()))
    );
    view.voters = alone;
    assert_eq!(
        plan(&assigned, &view, &online),
        Some(Step::Settled { nodes: vec![3] })
    );
    settle(&mut meta, &of);
    assert_eq!(plan(group(&meta, &of), &view, &online), None);
}

#[test]
fn the_preferred_server_leads_before_the_change_is_reported() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let mut raft = Obedient::default();
    drive(&mut meta, &of, &mut raft);
    assert_eq!(raft.view.leader, 1);
    let mut assigned = group(&meta, &of).clone();
    assigned.preferred = "n3".to_owned();
    raft.view.caught_up = [1, 2, 3].into();
    let step = plan(&assigned, &raft.view, &all_online());
    assert_eq!(step, Some(Step::Transfer { to: 3 }));
    raft.view.caught_up.remove(&3);
    assert_eq!(plan(&assigned, &raft.view, &all_online()), None);
}

#[test]
fn a_lost_member_is_replaced_and_leaves() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let mut raft = Obedient::default();
    drive(&mut meta, &of, &mut raft);
    run(
        &mut meta,
        &Command::MemberLost {
            of: of.clone(),
            node: 1,
        },
    );
    raft.view.leader = 2;
    drive(&mut meta, &of, &mut raft);
    check(&meta, &of, &raft);
    assert_eq!(
        raft.view.voters.keys().copied().collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(
        meta.released()
            .keys()
            .map(|(_, node)| *node)
            .collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn the_leader_of_what_went_before_does_nothing() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    replace(&mut meta, &of, ChangeKind::Scale, &["n1", "n2"]);
    let earlier = View {
        leader: 1,
        voters: BTreeMap::from([(1, "n1".to_owned())]),
        caught_up: [1].into(),
        ..View::default()
    };
    assert!(!is_led(group(&meta, &of), &earlier));
    assert_eq!(plan(group(&meta, &of), &earlier, &all_online()), None);
}

#[test]
fn a_removed_server_leaves_the_meta_group_and_hands_over_before_it_does() {
    let mut meta = cluster(3);
    let mut view = View {
        leader: 1,
        voters: (1..=3).map(|node| (node, format!("n{node}"))).collect(),
        caught_up: [1, 2, 3].into(),
        ..View::default()
    };
    let online = all_online();
    assert_eq!(plan_meta(&meta, &view, &online), None);
    let server = "n1".to_owned();
    run(&mut meta, &Command::PeerRemove { server });
    assert_eq!(
        plan_meta(&meta, &view, &online),
        Some(Step::Transfer { to: 2 })
    );
    assert_eq!(plan_meta(&meta, &view, &Sightings::new()), None);
    view.leader = 2;
    let rest = BTreeMap::from([(2, "n2".to_owned()), (3, "n3".to_owned())]);
    assert_eq!(
        plan_meta(&meta, &view, &online),
        Some(Step::Vote(rest.clone()))
    );
    view.voters = rest;
    assert_eq!(plan_meta(&meta, &view, &online), None);
    // A state that knows nobody removes nobody.
    assert_eq!(plan_meta(&Meta::default(), &view, &online), None);
}

#[derive(Debug, Clone)]
enum Event {
    Members {
        kind: bool,
        servers: Vec<u8>,
        preferred: bool,
    },
    Cancel,
    Lost(u8),
    Steps(u8),
    Leader(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let servers = proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5, 6, 7], 1..=5);
    prop_oneof![
        4 => (any::<bool>(), servers, any::<bool>())
            .prop_map(|(kind, servers, preferred)| Event::Members { kind, servers, preferred }),
        2 => Just(Event::Cancel),
        1 => any::<u8>().prop_map(Event::Lost),
        6 => (1u8..6).prop_map(Event::Steps),
        3 => any::<u8>().prop_map(Event::Leader),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn plans_end_in_the_wanted_members_when_servers_behave(events in prop::collection::vec(event(), 1..25)) {
        let mut meta = cluster(7);
        let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
        let mut raft = Obedient::default();
        raft.follow(group(&meta, &of));
        for event in events {
            let stream = meta.stream_of(&of).expect("the stream");
            match event {
                Event::Members { kind, servers, preferred } => {
                    let names: Vec<String> = servers.iter().map(|server| format!("n{server}")).collect();
                    let mut config = stream.config().clone();
                    config.num_replicas = names.len() as i64;
                    let preferred = match preferred {
                        true => names[names.len() - 1].clone(),
                        false => String::new(),
                    };
                    let command = Command::StreamUpdate {
                        of: of.clone(),
                        revision: stream.revision,
                        config: encode(&config),
                        members: Some(NewMembers {
                            kind: if kind { ChangeKind::Move } else { ChangeKind::Scale },
                            servers: names,
                            preferred,
                            name: String::new(),
                            cluster: String::new(),
                        }),
                    };
                    run(&mut meta, &command);
                }
                Event::Cancel => {
                    let mut config = stream.config().clone();
                    config.num_replicas = stream.group.before.len().max(1) as i64;
                    let command = Command::MoveCancel {
                        of: of.clone(),
                        config: Some(encode(&config)),
                    };
                    run(&mut meta, &command);
                }
                Event::Lost(which) => {
                    // One at a time: with more, a majority may be gone.
                    let members = &stream.group.members;
                    let node = members[usize::from(which) % members.len()].node;
                    let settled = !stream.group.is_changing();
                    if settled && members.len() > 2 && node != raft.view.leader {
                        run(&mut meta, &Command::MemberLost { of: of.clone(), node });
                    }
                }
                Event::Steps(count) => {
                    for _ in 0..count {
                        let (_, settled) = raft.step(group(&meta, &of));
                        if let Some(nodes) = settled {
                            let of = of.clone();
                            run(&mut meta, &Command::GroupSettled { of, nodes });
                        }
                    }
                }
                Event::Leader(which) => {
                    raft.follow(group(&meta, &of));
                    let voters: Vec<u64> = raft.view.voters.keys().copied().collect();
                    let lost = &group(&meta, &of).lost;
                    let node = voters[usize::from(which) % voters.len()];
                    if !lost.contains(&node) {
                        raft.view.leader = node;
                    }
                }
            }
        }
        drive(&mut meta, &of, &mut raft);
        check(&meta, &of, &raft);
    }
}
