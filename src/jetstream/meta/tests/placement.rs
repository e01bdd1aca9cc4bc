//! Where streams are put.

use super::*;
use crate::jetstream::types::{ApiError, Placement};

const RULES: PlacementRules<'static> = PlacementRules {
    unique_tag: "",
    ha_assets_max: 0,
};

fn sighted(servers: usize) -> Sightings {
    let seen = Sighting {
        online: true,
        ..Sighting::default()
    };
    (1..=servers)
        .map(|number| (format!("n{number}"), seen))
        .collect()
}

fn wish<'a>(config: &'a StreamConfig, keep: &'a [String]) -> Wish<'a> {
    Wish {
        replicas: config.replicas(),
        cluster: "C1",
        config,
        keep,
        leaving: 0,
        avoid: &[],
    }
}

fn text(refused: NoPlace) -> String {
    let error = ApiError::from(refused);
    assert_eq!((error.code, error.err_code), (400, 10005));
    error.description.into_owned()
}

#[test]
fn the_same_seed_chooses_the_same_servers_and_others_others() {
    let meta = cluster(5);
    let config = config("S", 3);
    let choose =
        |seed| place(&meta, &sighted(5), &RULES, &wish(&config, &[]), seed).expect("placed");
    assert_eq!(choose(1), choose(1));
    assert_eq!(choose(1).len(), 3);
    let different: std::collections::BTreeSet<Vec<String>> = (0..50).map(choose).collect();
    assert!(different.len() > 5);
}

#[test]
fn room_counts_before_streams_and_groups_before_room() {
    let mut meta = cluster(3);
    let mut large = config("L", 1);
    large.max_bytes = 1 << 20;
    created(&mut meta, &large, &["n1"]);
    let single = config("S", 1);
    for seed in 0..20 {
        let chosen = place(&meta, &sighted(3), &RULES, &wish(&single, &[]), seed);
        assert_ne!(chosen.expect("placed"), ["n1"]);
    }
    created(&mut meta, &config("G", 2), &["n2", "n3"]);
    let double = config("D", 2);
    for seed in 0..20 {
        let chosen = place(&meta, &sighted(3), &RULES, &wish(&double, &[]), seed);
        assert_eq!(chosen.expect("placed")[0], "n1");
    }
}

#[test]
fn servers_out_of_reach_come_last_and_a_majority_must_be_there() {
    let meta = cluster(3);
    let mut sightings = sighted(3);
    sightings.get_mut("n2").expect("n2").online = false;
    let config = config("S", 3);
    let placed = place(&meta, &sightings, &RULES, &wish(&config, &[]), 3).expect("placed");
    assert_eq!(placed[2], "n2");
    sightings.get_mut("n1").expect("n1").online = false;
    let refused =
        place(&meta, &sightings, &RULES, &wish(&config, &[]), 3).expect_err("no majority");
    assert_eq!(
        text(refused),
        "no suitable peers for placement, peer offline"
    );
    sightings.remove("n3");
    let refused = place(&meta, &sightings, &RULES, &wish(&config, &[]), 3).expect_err("too few");
    assert_eq!(
        text(refused),
        "no suitable peers for placement, peer offline"
    );
}

#[test]
fn tags_choose_and_exclude() {
    let mut meta = cluster(3);
    let mut tagged = profile("n1");
    tagged.tags.push("ssd".to_owned());
    run(
        &mut meta,
        &Command::PeerPut {
            profile: tagged,
            renew: false,
        },
    );
    let mut closed = profile("n3");
    closed.tags.push("!jetstream".to_owned());
    run(
        &mut meta,
        &Command::PeerPut {
            profile: closed,
            renew: false,
        },
    );
    let mut config = config("S", 1);
    let tags = |tags: &[&str]| {
        Some(Placement {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Placement::default()
        })
    };
    config.placement = tags(&["SSD"]);
    let placed = place(&meta, &sighted(3), &RULES, &wish(&config, &[]), 1);
    assert_eq!(placed.expect("placed"), ["n1"]);
    config.placement = tags(&["!ssd"]);
    let placed = place(&meta, &sighted(3), &RULES, &wish(&config, &[]), 1);
    assert_eq!(placed.expect("placed"), ["n2"]);
    config.placement = tags(&["gpu", "!ssd"]);
    let refused = place(&meta, &sighted(3), &RULES, &wish(&config, &[]), 1).expect_err("no gpu");
    assert_eq!(
        text(refused),
        "no suitable peers for placement, exclude tag set, tags not matched ['gpu'], tags excluded ['ssd']"
    );
}

#[test]
fn replicas_go_to_servers_that_differ_in_the_tag_that_must() {
    let mut meta = cluster(3);
    let mut same = profile("n3");
    same.tags = vec!["az:n2".to_owned()];
    run(
        &mut meta,
        &Command::PeerPut {
            profile: same,
            renew: false,
        },
    );
    let rules = PlacementRules {
        unique_tag: "az:",
        ..RULES
    };
    let two = config("S", 2);
    for seed in 0..20 {
        let placed = place(&meta, &sighted(3), &rules, &wish(&two, &[]), seed).expect("placed");
        assert!(placed.contains(&"n1".to_owned()), "{placed:?}");
    }
    let three = config("S", 3);
    let refused = place(&meta, &sighted(3), &rules, &wish(&three, &[]), 1).expect_err("two zones");
    assert_eq!(
        text(refused),
        "no suitable peers for placement, server tag not unique"
    );
    let keep = ["n2".to_owned()];
    let placed = place(&meta, &sighted(3), &rules, &wish(&two, &keep), 1);
    assert_eq!(placed.expect("placed"), ["n2", "n1"]);
    let mut named = config("S", 3);
    named.placement = Some(Placement {
        tags: vec!["az:n2".to_owned()],
        ..Placement::default()
    });
    named.num_replicas = 2;
    let mut placed = place(&meta, &sighted(3), &rules, &wish(&named, &[]), 1).expect("placed");
    placed.sort();
    assert_eq!(placed, ["n2", "n3"]);
}

#[test]
fn a_server_without_room_is_no_place() {
    let meta = cluster(2);
    let mut config = config("S", 1);
    config.max_bytes = 1 << 41;
    let refused = place(&meta, &sighted(2), &RULES, &wish(&config, &[]), 1).expect_err("too large");
    assert_eq!(
        text(refused),
        "no suitable peers for placement, insufficient storage"
    );
    let elsewhere = Wish {
        cluster: "C2",
        ..wish(&config, &[])
    };
    let refused = place(&meta, &sighted(2), &RULES, &elsewhere, 1).expect_err("no such cluster");
    assert_eq!(text(refused), "no suitable peers for placement");
    let refused = place(
        &Meta::default(),
        &sighted(2),
        &RULES,
        &wish(&config, &[]),
        1,
    );
    assert_eq!(
        text(refused.expect_err("no servers")),
        "no suitable peers for placement, jetstream not enabled in cluster"
    );
}

#[test]
fn servers_that_are_kept_come_first_and_those_to_avoid_never() {
    let meta = cluster(4);
    let config = config("S", 3);
    let keep = ["n4".to_owned(), "n2".to_owned()];
    let avoid = ["n1".to_owned()];
    let wish = Wish {
        avoid: &avoid,
        ..wish(&config, &keep)
    };
    let placed = place(&meta, &sighted(4), &RULES, &wish, 9).expect("placed");
    assert_eq!(placed, ["n4", "n2", "n3"]);
}
