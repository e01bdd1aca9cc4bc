//! What others see of groups.

use std::collections::BTreeMap;

use super::*;
use crate::jetstream::types::{MetaSnapshotStats, PeerId};

const NOW: Time = Time::from_nanoseconds(60_000_000_000);

fn sighted() -> Sightings {
    let at = |online, seconds: i64| Sighting {
        online,
        last_seen: Time::from_nanoseconds(seconds * 1_000_000_000),
        ..Sighting::default()
    };
    [
        ("n1", at(true, 60)),
        ("n2", at(true, 58)),
        ("n3", at(false, 20)),
    ]
    .map(|(server, seen)| (server.to_owned(), seen))
    .into()
}

fn led() -> Leadership {
    let follower = |lag, silent_ns| Follower { lag, silent_ns };
    let followers = [
        ("n2".to_owned(), follower(0, Some(5))),
        ("n3".to_owned(), follower(7, None)),
    ];
    Leadership {
        leader: "n1".to_owned(),
        since: Some(Time::from_nanoseconds(3)),
        followers: BTreeMap::from(followers),
        by_leader: true,
    }
}

#[test]
fn a_server_that_the_leader_does_not_know_of_yet_is_not_current() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 2), &["n1", "n2"]);
    let current = |by_leader| {
        let led = Leadership {
            followers: BTreeMap::new(),
            by_leader,
            ..led()
        };
        group(&meta, &of).shown(&led, &sighted(), NOW).replicas[0].current
    };
    assert_eq!((current(true), current(false)), (false, true));
}

#[test]
fn a_leader_shows_the_others_by_name() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n3", "n1", "n2"]);
    let shown = group(&meta, &of).shown(&led(), &sighted(), NOW);
    assert_eq!((shown.name.as_str(), shown.leader.as_str()), ("C1", "n1"));
    assert_eq!(shown.raft_group, "S-R3F-S");
    assert_eq!(shown.leader_since, Some(Time::from_nanoseconds(3)));
    let [second, third] = shown.replicas.as_slice() else {
        panic!("{:?}", shown.replicas);
    };
    assert_eq!(
        (second.name.as_str(), second.current, second.offline),
        ("n2", true, false)
    );
    assert_eq!((second.active, second.lag), (5, 0));
    assert_eq!(second.peer, PeerId::of("n2"));
    assert_eq!(
        (third.name.as_str(), third.current, third.offline),
        ("n3", false, true)
    );
    assert_eq!((third.active, third.lag), (40_000_000_000, 7));
}

#[test]
fn without_a_leader_all_are_shown() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 2), &["n2", "n3"]);
    let stream = meta.stream_of(&of).expect("the stream");
    let shown = stream.group.shown(&Leadership::default(), &sighted(), NOW);
    let names: Vec<&str> = shown
        .replicas
        .iter()
        .map(|peer| peer.name.as_str())
        .collect();
    assert_eq!(names, ["n2", "n3"]);
    assert!(shown.replicas[0].current && !shown.replicas[1].current);
}

#[test]
fn only_its_leader_shows_the_servers_of_the_meta_group() {
    let meta = cluster(3);
    let show = |own: &str| {
        let snapshot = MetaSnapshotStats::default();
        meta.shown(own, "C1", &led(), &sighted(), NOW, snapshot)
    };
    let leader = show("n1");
    assert_eq!((leader.leader.as_str(), leader.cluster_size), ("n1", 3));
    assert_eq!(leader.peer, Some(PeerId::of("n1")));
    assert_eq!(leader.replicas.len(), 2);
    assert!(show("n2").replicas.is_empty());
}
