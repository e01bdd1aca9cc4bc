//! What requests come to.

use super::request::moves::{self, MoveRequest};
use super::request::servers::{self, RemoveRequest};
use super::request::{Decision, Desk, consumer, stream};
use super::*;
use crate::jetstream::core::ConsumerAction;
use crate::jetstream::limits::{AccountLimits, AccountTiers, ServerLimits, Tier};
use crate::jetstream::types::{ApiError, PeerId, Placement, Retention};

/// A cluster, and what its leader knows.
struct Office {
    meta: Meta,
    sightings: Sightings,
    tiers: AccountTiers,
    server: ServerLimits,
    alternates: Vec<String>,
    seed: u64,
}

impl Office {
    fn of(servers: usize) -> Self {
        let seen = Sighting {
            online: true,
            ..Sighting::default()
        };
        Self {
            meta: cluster(servers),
            sightings: (1..=servers)
                .map(|number| (format!("n{number}"), seen))
                .collect(),
            tiers: AccountTiers::of_all(AccountLimits::default()),
            server: ServerLimits::default(),
            alternates: Vec::new(),
            seed: 11,
        }
    }

    fn desk(&self) -> Desk<'_> {
        Desk {
            meta: &self.meta,
            sightings: &self.sightings,
            placement: PlacementRules::default(),
            account: "A",
            tiers: &self.tiers,
            server: &self.server,
            cluster: "C1",
            alternates: &self.alternates,
            now: Time::from_nanoseconds(5),
            seed: self.seed,
        }
    }

    fn carry_out(&mut self, decision: Result<Decision, ApiError>) -> Change {
        match decision.expect("decided") {
            Decision::Propose(command) => run(&mut self.meta, &command),
            Decision::Already(_) => Change::Unchanged,
        }
    }

    fn create(&mut self, config: &StreamConfig) -> StreamRef {
        let decision = stream::create(&self.desk(), &config.name, config.clone(), false);
        match self.carry_out(decision) {
            Change::StreamCreated(of) => of,
            other => panic!("{other:?}"),
        }
    }

    fn update(&self, config: &StreamConfig, leader: Option<&str>) -> Result<Decision, ApiError> {
        stream::update(&self.desk(), &config.name, config.clone(), false, leader)
    }

    fn away(&mut self, server: &str) {
        self.sightings.get_mut(server).expect("a server").online = false;
    }
}

fn code(result: Result<Decision, ApiError>) -> u16 {
    result.expect_err("refused").err_code
}

#[test]
fn a_stream_is_created_once_and_asked_for_as_often_as_one_likes() {
    let mut office = Office::of(3);
    let of = office.create(&config("S", 3));
    let held = office.meta.stream_of(&of).expect("the stream");
    assert_eq!(held.created, Time::from_nanoseconds(5));
    assert!(held.group.name.starts_with("S-R3F-"), "{}", held.group.name);
    assert_eq!(held.group.name.len(), "S-R3F-".len() + 8);
    assert_eq!(held.group.cluster, "C1");
    assert!(held.group.servers().contains(&held.group.preferred));
    let again = stream::create(&office.desk(), "S", config("S", 3), false);
    assert_eq!(again, Ok(Decision::Already(of)));
    let different = stream::create(&office.desk(), "S", config("S", 1), false);
    assert_eq!(code(different), 10058);
    let mut overlapping = config("T", 1);
    overlapping.subjects = vec!["S.>".to_owned()];
    assert_eq!(
        code(stream::create(&office.desk(), "T", overlapping, false)),
        10065
    );
    assert_eq!(
        code(stream::create(&office.desk(), "U", config("T", 1), false)),
        10056
    );
    assert_eq!(
        code(stream::create(&office.desk(), "T", config("T", 5), false)),
        10005
    );
    let mut sealed = config("T", 1);
    sealed.sealed = true;
    assert_eq!(
        code(stream::create(&office.desk(), "T", sealed, false)),
        10052
    );
}

#[test]
fn another_cluster_takes_what_the_clients_own_cannot() {
    let mut office = Office::of(3);
    for server in ["n2", "n3"] {
        let mut profile = profile(server);
        profile.cluster = "C2".to_owned();
        run(
            &mut office.meta,
            &Command::PeerPut {
                profile,
                renew: false,
            },
        );
    }
    assert_eq!(
        code(stream::create(&office.desk(), "S", config("S", 2), false)),
        10005
    );
    office.alternates = vec!["C2".to_owned()];
    let of = office.create(&config("S", 2));
    assert_eq!(group(&office.meta, &of).cluster, "C2");
    let mut named = config("T", 2);
    named.placement = Some(Placement {
        cluster: "C1".to_owned(),
        ..Placement::default()
    });
    assert_eq!(
        code(stream::create(&office.desk(), "T", named, false)),
        10005
    );
}

#[test]
fn limits_count_what_is_assigned() {
    let mut office = Office::of(3);
    office.tiers = AccountTiers::of_all(AccountLimits {
        max_streams: 2,
        max_storage: 100,
        max_consumers: 1,
        ..AccountLimits::default()
    });
    let sized = |name: &str, replicas, bytes| StreamConfig {
        max_bytes: bytes,
        ..config(name, replicas)
    };
    let of = office.create(&sized("S", 3, 30));
    assert_eq!(
        code(stream::create(
            &office.desk(),
            "T",
            sized("T", 1, 11),
            false
        )),
        10047
    );
    office.create(&sized("T", 1, 10));
    assert_eq!(
        code(stream::create(&office.desk(), "U", sized("U", 1, 0), false)),
        10027
    );
    assert_eq!(code(office.update(&sized("S", 3, 31), None)), 10047);
    assert!(office.update(&sized("S", 3, 29), None).is_ok());
    assert_eq!(code(office.update(&sized("T", 3, 10), None)), 10047);
    let wanted = |name: &'static str| consumer::Wanted {
        name,
        config: ConsumerConfig {
            durable_name: name.to_owned(),
            name: name.to_owned(),
            ..ConsumerConfig::default()
        },
        action: ConsumerAction::CreateOrUpdate,
        pedantic: false,
    };
    let decision = consumer::create(&office.desk(), "S", wanted("C"));
    office.carry_out(decision);
    assert_eq!(
        code(consumer::create(&office.desk(), "S", wanted("D"))),
        10026
    );
    let usage = office.meta.usage("A", Tier::All, None);
    assert_eq!(
        (usage.streams, usage.consumers, usage.storage_reserved),
        (2, 1, 100)
    );
    assert_eq!(of.stream, "S");
}

#[test]
fn tiers_count_streams_of_their_own_number_of_replicas() {
    let mut office = Office::of(3);
    let limits = AccountLimits {
        max_streams: 1,
        max_storage: 50,
        ..AccountLimits::default()
    };
    office.tiers = AccountTiers {
        all: None,
        tiers: [(1, limits), (3, limits)].into(),
    };
    let sized = |name: &str, replicas| StreamConfig {
        max_bytes: 50,
        ..config(name, replicas)
    };
    office.create(&sized("S", 1));
    office.create(&sized("T", 3));
    assert_eq!(
        code(stream::create(&office.desk(), "U", sized("U", 3), false)),
        10027
    );
    assert_eq!(
        code(stream::create(&office.desk(), "U", sized("U", 2), false)),
        10120
    );
    assert_eq!(code(office.update(&sized("S", 3), None)), 10027);
}

#[test]
fn a_stream_scales_around_what_it_has_and_keeps_its_leader_when_it_shrinks() {
    let mut office = Office::of(3);
    let of = office.create(&config("S", 1));
    let holder = group(&office.meta, &of).servers().remove(0);
    let decision = office.update(&config("S", 3), Some(&holder));
    assert_eq!(
        office.carry_out(decision),
        Change::MembersChanged(of.clone())
    );
    let scaling = group(&office.meta, &of);
    assert_eq!(scaling.servers().len(), 3);
    assert_eq!(scaling.servers()[0], holder);
    assert_eq!(
        (scaling.change, scaling.preferred.as_str()),
        (Some(ChangeKind::Scale), holder.as_str())
    );
    settle(&mut office.meta, &of);
    let last = group(&office.meta, &of).servers().remove(2);
    let decision = office.update(&config("S", 1), Some(&last));
    office.carry_out(decision);
    assert_eq!(group(&office.meta, &of).servers(), [last]);
    let held = office.meta.stream_of(&of).expect("the stream");
    assert_eq!(held.replicas(), 1);
}

#[test]
fn a_stream_that_is_out_of_reach_or_unknown_is_not_updated() {
    let mut office = Office::of(1);
    office.create(&config("S", 1));
    assert_eq!(code(office.update(&config("T", 1), None)), 10059);
    office.away("n1");
    assert_eq!(code(office.update(&config("S", 1), None)), 10118);
    assert_eq!(code(stream::delete(&office.desk(), "T")), 10059);
    assert!(stream::delete(&office.desk(), "S").is_ok());
}

#[test]
fn another_placement_moves_a_stream_and_a_move_can_be_cancelled() {
    let mut office = Office::of(4);
    let placed = |tag: &str, replicas| StreamConfig {
        placement: Some(Placement {
            tags: vec![tag.to_owned()],
            ..Placement::default()
        }),
        ..config("S", replicas)
    };
    let of = office.create(&placed("az:n1", 1));
    assert_eq!(code(moves::cancel(&office.desk(), "S")), 10129);
    assert_eq!(code(office.update(&placed("az:n4", 3), None)), 10123);
    let decision = office.update(&placed("az:n4", 1), Some("n1"));
    office.carry_out(decision);
    let moving = group(&office.meta, &of);
    assert_eq!(moving.servers(), ["n4"]);
    assert_eq!(
        (moving.preferred.as_str(), moving.before.as_slice()),
        ("n4", &["n1".to_owned()][..])
    );
    let twice = office
        .update(&placed("az:n3", 1), Some("n1"))
        .expect_err("it moves");
    assert_eq!(twice.err_code, 10124);
    assert_eq!(
        twice.description,
        "stream move already in progress: total peers: 2, current peers: 2"
    );
    let decision = moves::cancel(&office.desk(), "S");
    office.carry_out(decision);
    assert_eq!(group(&office.meta, &of).servers(), ["n1"]);
    // The server that it goes back to has no such tag.
    let held = office.meta.stream_of(&of).expect("the stream");
    assert_eq!(held.config().placement, None);
}

#[test]
fn a_replica_moves_off_a_named_server() {
    let mut office = Office::of(4);
    let of = office.create(&config("S", 3));
    let before = group(&office.meta, &of).servers();
    let request = |server: &str| MoveRequest {
        server: server.to_owned(),
        ..MoveRequest::default()
    };
    let spare = ["n1", "n2", "n3", "n4"]
        .into_iter()
        .find(|name| !before.contains(&(*name).to_owned()))
        .expect("one is spare");
    assert_eq!(
        code(moves::start(&office.desk(), "S", &request("n9"))),
        10044
    );
    assert_eq!(
        code(moves::start(&office.desk(), "S", &request(spare))),
        10040
    );
    assert_eq!(
        code(moves::start(&office.desk(), "T", &request("n1"))),
        10059
    );
    let decision = moves::start(&office.desk(), "S", &request(&before[1]));
    office.carry_out(decision);
    let moving = group(&office.meta, &of);
    let mut expected = vec![before[0].clone(), before[2].clone(), spare.to_owned()];
    expected.sort();
    let mut servers = moving.servers();
    servers.sort();
    assert_eq!(servers, expected);
    assert_eq!(moving.leaving[0].server, before[1]);
    assert_eq!(
        code(moves::start(&office.desk(), "S", &request(&before[0]))),
        10124
    );
}

#[test]
fn a_replica_is_taken_off_a_server_and_replaced_or_missed() {
    let mut office = Office::of(4);
    let of = office.create(&config("S", 3));
    let servers_before = group(&office.meta, &of).servers();
    let spare = ["n1", "n2", "n3", "n4"]
        .into_iter()
        .find(|name| !servers_before.contains(&(*name).to_owned()));
    let spare = spare.expect("one is spare");
    let remove =
        |office: &Office, peer: &str| servers::remove_from_stream(&office.desk(), "S", peer);
    assert_eq!(code(remove(&office, spare)), 10040);
    assert_eq!(code(remove(&office, "")), 10003);
    let id = PeerId::of(&servers_before[0]);
    let decision = remove(&office, id.as_str());
    office.carry_out(decision);
    assert!(
        group(&office.meta, &of)
            .servers()
            .contains(&spare.to_owned())
    );
    settle(&mut office.meta, &of);
    // The one that was removed is the only spare one, and it is gone for good.
    let command = Command::PeerRemove {
        server: servers_before[0].clone(),
    };
    run(&mut office.meta, &command);
    let decision = remove(&office, &servers_before[1]);
    office.carry_out(decision);
    assert_eq!(group(&office.meta, &of).servers().len(), 2);
}

#[test]
fn streams_of_a_removed_server_are_repaired_and_what_lived_there_alone_is_left() {
    let mut office = Office::of(4);
    let replicated = office.create(&config("S", 3));
    let single = office.create(&config("R", 1));
    let gone = group(&office.meta, &single).servers().remove(0);
    // Until the replicated one is on the server that goes.
    let (rules, seed) = (PlacementRules::default(), 3);
    let on = group(&office.meta, &replicated).servers();
    if !on.contains(&gone) {
        let servers: Vec<&str> = std::iter::once(gone.as_str())
            .chain(on[1..].iter().map(String::as_str))
            .collect();
        replace(&mut office.meta, &replicated, ChangeKind::Move, &servers);
        settle(&mut office.meta, &replicated);
    }
    assert!(servers::repairs(&office.meta, &office.sightings, &rules, seed).is_empty());
    let request = RemoveRequest {
        peer_id: PeerId::of(&gone).to_string(),
        ..RemoveRequest::default()
    };
    let decision = servers::remove(&office.meta, &request);
    office.carry_out(decision);
    assert_eq!(code(servers::remove(&office.meta, &request)), 10044);
    let repairs = servers::repairs(&office.meta, &office.sightings, &rules, seed);
    assert_eq!(repairs.len(), 1);
    run(&mut office.meta, &repairs[0]);
    assert!(servers::repairs(&office.meta, &office.sightings, &rules, seed).is_empty());
    assert!(!group(&office.meta, &replicated).servers().contains(&gone));
    assert_eq!(group(&office.meta, &single).servers(), [gone]);
}

#[test]
fn consumers_follow_the_rules_of_their_stream() {
    let mut office = Office::of(3);
    let mut queue = config("Q", 3);
    queue.retention = Retention::Workqueue;
    office.create(&queue);
    let wanted = |name: &'static str, filter: &str, action| consumer::Wanted {
        name,
        config: ConsumerConfig {
            durable_name: name.to_owned(),
            name: name.to_owned(),
            filter_subject: filter.to_owned(),
            ack_policy: crate::jetstream::types::AckPolicy::Explicit,
            ..ConsumerConfig::default()
        },
        action,
        pedantic: false,
    };
    let any = ConsumerAction::CreateOrUpdate;
    let ask = |office: &Office, wanted| consumer::create(&office.desk(), "Q", wanted);
    assert_eq!(
        code(ask(&office, wanted("C", "Q.a", ConsumerAction::Update))),
        10149
    );
    let decision = ask(&office, wanted("C", "Q.a", any));
    assert!(matches!(
        office.carry_out(decision),
        Change::ConsumerCreated { .. }
    ));
    let same = ask(&office, wanted("C", "Q.a", ConsumerAction::Create));
    assert!(matches!(same, Ok(Decision::Already(_))), "{same:?}");
    assert_eq!(
        code(ask(&office, wanted("C", "Q.b", ConsumerAction::Create))),
        10148
    );
    assert_eq!(code(ask(&office, wanted("D", "", any))), 10099);
    assert_eq!(code(ask(&office, wanted("D", "Q.*", any))), 10100);
    let decision = ask(&office, wanted("C", "Q.b", any));
    assert!(matches!(
        office.carry_out(decision),
        Change::ConsumerUpdated { .. }
    ));
    assert!(ask(&office, wanted("D", "Q.a", any)).is_ok());
    assert_eq!(
        code(consumer::create(
            &office.desk(),
            "X",
            wanted("D", "Q.a", any)
        )),
        10059
    );
    for server in ["n1", "n2"] {
        office.away(server);
    }
    assert_eq!(code(ask(&office, wanted("D", "Q.a", any))), 10023);
    assert_eq!(code(consumer::delete(&office.desk(), "Q", "D")), 10014);
    let decision = consumer::delete(&office.desk(), "Q", "C");
    assert!(matches!(
        office.carry_out(decision),
        Change::ConsumerDeleted { .. }
    ));
}

#[test]
fn who_steps_down_is_followed_by_whom_the_placement_asks_for() {
    let mut office = Office::of(3);
    let members: Vec<String> = ["n1", "n2", "n3"].map(str::to_owned).into();
    let next = |office: &Office, placement: Option<Placement>| {
        servers::next_leader(
            &office.meta,
            &office.sightings,
            &members,
            "n1",
            placement.as_ref(),
            4,
        )
    };
    let preferred = |server: &str| {
        Some(Placement {
            preferred: server.to_owned(),
            ..Placement::default()
        })
    };
    assert_eq!(next(&office, None), Ok(None));
    assert_eq!(next(&office, preferred("n3")), Ok(Some("n3".to_owned())));
    for (server, text) in [
        ("n1", "preferred server \"n1\" is already leader"),
        ("n9", "preferred server \"n9\" not known"),
    ] {
        let refused = next(&office, preferred(server)).expect_err("refused");
        assert_eq!(
            (refused.err_code, refused.description.as_ref()),
            (10005, text)
        );
    }
    let tagged = |tag: &str| {
        Some(Placement {
            tags: vec![tag.to_owned()],
            ..Placement::default()
        })
    };
    assert_eq!(next(&office, tagged("az:n2")), Ok(Some("n2".to_owned())));
    office.away("n2");
    let refused = next(&office, tagged("az:n2")).expect_err("it is away");
    assert_eq!(refused.description, "no replacement peer connected");
}

#[test]
fn an_account_is_purged_by_name_only() {
    assert!(servers::purge_account("A").is_ok());
    assert_eq!(code(servers::purge_account("../A")), 10051);
}

#[test]
fn a_stream_out_of_a_backup_begins_where_it_was_taken_in_and_goes_to_the_others() {
    let mut office = Office::of(4);
    let created = Time::from_nanoseconds(3);
    let wanted = config("S", 3);
    let home = stream::home_of_restored(&office.desk(), &wanted).expect("a server");
    let decided = stream::restored(&office.desk(), &wanted, created, &home);
    let Change::StreamCreated(of) = office.carry_out(decided) else {
        panic!("it is created");
    };
    let held = office.meta.stream_of(&of).expect("the stream");
    assert_eq!(held.created, created);
    assert!(held.group.name.starts_with("S-R3F-"), "{}", held.group.name);
    assert_eq!(held.group.form, Form::Raft);
    let founders: Vec<&str> = held
        .group
        .founders
        .iter()
        .map(|one| one.server.as_str())
        .collect();
    assert_eq!(founders, [home.as_str()]);
    assert_eq!(held.group.members.len(), 3);
    assert!(held.group.member_on(&home).is_some());
    assert!(held.group.is_changing());
    // Whoever did not hear what became of it asks again.
    let again = stream::restored(&office.desk(), &wanted, created, &home);
    assert_eq!(again, Ok(Decision::Already(of)));
    let later = Time::from_nanoseconds(4);
    let other = stream::restored(&office.desk(), &wanted, later, &home);
    assert_eq!(code(other), 10130);
    let taken = stream::home_of_restored(&office.desk(), &wanted).expect_err("the name is taken");
    assert_eq!(taken.err_code, 10130);
    let mut overlapping = config("T", 1);
    overlapping.subjects = vec!["S.x".to_owned()];
    let overlaps = stream::restored(&office.desk(), &overlapping, created, &home);
    assert_eq!(code(overlaps), 10065);
}

#[test]
fn a_stream_with_one_replica_comes_out_of_a_backup_with_a_log_of_its_own() {
    let mut office = Office::of(3);
    let created = Time::from_nanoseconds(3);
    office.away("n1");
    office.away("n3");
    let home = stream::home_of_restored(&office.desk(), &config("S", 1)).expect("a server");
    assert_eq!(home, "n2");
    let decided = stream::restored(&office.desk(), &config("S", 1), created, &home);
    let Change::StreamCreated(of) = office.carry_out(decided) else {
        panic!("it is created");
    };
    let group = group(&office.meta, &of);
    assert_eq!(group.form, Form::Plain);
    assert!(!group.is_changing());
    assert_eq!(nodes(&group.members), [(1, "n2")]);
    let gone = stream::restored(&office.desk(), &config("T", 1), created, "n9");
    assert_eq!(code(gone), 10044);
}
