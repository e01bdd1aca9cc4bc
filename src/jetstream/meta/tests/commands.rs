//! What commands do.

use super::*;
use crate::jetstream::types::API_LEVEL;
use raft::group::GroupNumber;

#[test]
fn the_first_servers_have_the_same_ids_whoever_counts_them() {
    let one = Meta::founding(["c", "a", "b"]);
    let other = Meta::founding(["b", "c", "a", "a"]);
    assert_eq!(one, other);
    let ids: Vec<u64> = one.peers().values().map(|peer| peer.node).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_command_that_was_applied_changes_nothing_again() {
    let mut meta = cluster(3);
    let command = create(&config("S", 3), &["n1", "n2", "n3"]);
    let index = meta.applied() + 1;
    assert_eq!(meta.apply(index, &command).len(), 1);
    let before = meta.clone();
    assert!(meta.apply(index, &command).is_empty());
    assert!(
        meta.apply(
            index - 1,
            &Command::AccountPurge {
                account: "A".to_owned()
            }
        )
        .is_empty()
    );
    assert_eq!(meta, before);
}

#[test]
fn a_stream_gets_a_number_that_no_other_ever_has() {
    let mut meta = cluster(3);
    let first = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    assert_eq!(first.group, GroupNumber(1));
    assert_eq!(
        nodes(&group(&meta, &first).members),
        [(1, "n1"), (2, "n2"), (3, "n3")]
    );
    assert_eq!(group(&meta, &first).form, Form::Raft);
    run(&mut meta, &Command::StreamDelete { of: first.clone() });
    let again = created(&mut meta, &config("S", 1), &["n2"]);
    assert_eq!(again.group, GroupNumber(2));
    assert_eq!(group(&meta, &again).form, Form::Plain);
    assert!(meta.stream_of(&first).is_none());
    let late = Command::StreamDelete { of: first };
    assert_eq!(run(&mut meta, &late), Change::Refused(Refusal::NoStream));
    assert!(meta.stream_of(&again).is_some());
}

#[test]
fn the_same_stream_twice_is_one_and_a_different_one_is_refused() {
    let mut meta = cluster(3);
    created(&mut meta, &config("S", 1), &["n1"]);
    let same = create(&config("S", 1), &["n2"]);
    assert_eq!(run(&mut meta, &same), Change::Unchanged);
    let different = create(&config("S", 3), &["n1", "n2", "n3"]);
    assert_eq!(
        run(&mut meta, &different),
        Change::Refused(Refusal::StreamExists)
    );
    let mut overlapping = config("T", 1);
    overlapping.subjects = vec!["S.a".to_owned()];
    let overlapping = create(&overlapping, &["n1"]);
    assert_eq!(
        run(&mut meta, &overlapping),
        Change::Refused(Refusal::SubjectOverlap)
    );
    for servers in [&["n9"][..], &["n1", "n1"], &[]] {
        let command = create(&config("U", 1), servers);
        assert_eq!(
            run(&mut meta, &command),
            Change::Refused(Refusal::Unplaceable)
        );
    }
    assert_eq!(meta.stream_count(), 1);
}

#[test]
fn what_is_deleted_is_released_until_each_server_says_that_it_is_gone() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    match run(&mut meta, &Command::StreamDelete { of: of.clone() }) {
        Change::StreamDeleted { released, .. } => {
            assert_eq!(nodes(&released), [(1, "n1"), (2, "n2"), (3, "n3")]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(meta.released().len(), 3);
    let gone = Command::ReplicaGone {
        group: of.group,
        node: 2,
    };
    run(&mut meta, &gone);
    assert_eq!(run(&mut meta, &gone), Change::Unchanged);
    assert_eq!(meta.released().len(), 2);
    let server = "n1".to_owned();
    run(&mut meta, &Command::PeerRemove { server });
    let mut left = meta.released().values();
    assert!(left.all(|replica| replica.server == "n3"));
    assert!(meta.accounts().is_empty());
}

#[test]
fn an_update_that_was_decided_on_an_earlier_state_is_refused() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    let update = |text: &str, revision| Command::StreamUpdate {
        of: of.clone(),
        revision,
        config: encode(&StreamConfig {
            description: text.to_owned(),
            ..config("S", 1)
        }),
        members: None,
    };
    assert_eq!(
        run(&mut meta, &update("a", 1)),
        Change::StreamUpdated(of.clone())
    );
    assert_eq!(
        run(&mut meta, &update("b", 1)),
        Change::Refused(Refusal::Outdated)
    );
    assert_eq!(run(&mut meta, &update("a", 2)), Change::Unchanged);
    assert_eq!(
        run(&mut meta, &update("b", 2)),
        Change::StreamUpdated(of.clone())
    );
    let stream = meta.stream_of(&of).expect("the stream");
    assert_eq!(stream.config().description, "b");
    assert_eq!(stream.created, Time::from_nanoseconds(7));
}

#[test]
fn one_replica_becomes_three_around_the_server_that_has_the_log() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n2"]);
    replace(&mut meta, &of, ChangeKind::Scale, &["n2", "n1", "n3"]);
    let scaling = group(&meta, &of);
    assert_eq!(scaling.form, Form::Raft);
    assert_eq!(nodes(&scaling.founders), [(2, "n2")]);
    assert_eq!(nodes(&scaling.members), [(2, "n2"), (3, "n1"), (4, "n3")]);
    assert!(scaling.leaving.is_empty() && scaling.is_changing());
    settle(&mut meta, &of);
    assert!(!group(&meta, &of).is_changing());
    replace(&mut meta, &of, ChangeKind::Scale, &["n3"]);
    assert_eq!(nodes(&group(&meta, &of).members), [(4, "n3")]);
    assert_eq!(nodes(&group(&meta, &of).leaving), [(2, "n2"), (3, "n1")]);
}

#[test]
fn with_one_replica_again_the_log_is_plain_and_the_others_may_delete_theirs() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    replace(&mut meta, &of, ChangeKind::Move, &["n3"]);
    assert_eq!(nodes(&group(&meta, &of).members), [(3, "n3")]);
    assert_eq!(nodes(&group(&meta, &of).leaving), [(2, "n1")]);
    match settle(&mut meta, &of) {
        Change::GroupSettled { released, .. } => assert_eq!(nodes(&released), [(2, "n1")]),
        other => panic!("{other:?}"),
    }
    assert_eq!(group(&meta, &of).form, Form::Plain);
    assert_eq!(meta.released().len(), 1);
}

#[test]
fn a_report_about_other_members_settles_nothing() {
    let mut meta = cluster(4);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    replace(&mut meta, &of, ChangeKind::Move, &["n2", "n3", "n4"]);
    let early = Command::GroupSettled {
        of: of.clone(),
        nodes: vec![1, 2, 3],
    };
    assert_eq!(run(&mut meta, &early), Change::Refused(Refusal::Outdated));
    assert!(group(&meta, &of).is_changing());
    assert!(meta.released().is_empty());
}

#[test]
fn a_cancelled_move_leads_back_and_whoever_was_to_come_leaves() {
    let mut meta = cluster(5);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let cancel = Command::MoveCancel {
        of: of.clone(),
        config: None,
    };
    assert_eq!(run(&mut meta, &cancel), Change::Refused(Refusal::NoMove));
    replace(&mut meta, &of, ChangeKind::Move, &["n3", "n4", "n5"]);
    run(&mut meta, &cancel);
    let back = group(&meta, &of);
    assert_eq!(nodes(&back.members), [(1, "n1"), (2, "n2"), (3, "n3")]);
    assert_eq!(nodes(&back.leaving), [(4, "n4"), (5, "n5")]);
    settle(&mut meta, &of);
    assert_eq!(group(&meta, &of).servers(), ["n1", "n2", "n3"]);
}

#[test]
fn a_server_that_lost_its_log_joins_again_under_a_new_id() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let lost = |node| Command::MemberLost {
        of: of.clone(),
        node,
    };
    assert_eq!(run(&mut meta, &lost(2)), Change::MembersChanged(of.clone()));
    assert_eq!(
        nodes(&group(&meta, &of).members),
        [(1, "n1"), (4, "n2"), (3, "n3")]
    );
    assert_eq!(nodes(&group(&meta, &of).leaving), [(2, "n2")]);
    assert_eq!(group(&meta, &of).founders.len(), 3);
    settle(&mut meta, &of);
    assert!(group(&meta, &of).lost.is_empty());
    assert_eq!(run(&mut meta, &lost(2)), Change::Unchanged);
}

#[test]
fn replicas_whose_data_is_spoilt_are_replaced_one_after_the_other() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let spoilt = |node| Command::MemberSpoilt {
        of: of.clone(),
        node,
    };
    let needed = Change::Refused(Refusal::Needed);
    assert_eq!(run(&mut meta, &spoilt(2)), needed, "it has not begun");
    run(&mut meta, &Command::GroupBegun { of: of.clone() });
    let replaced = Change::MembersChanged(of.clone());
    assert_eq!(run(&mut meta, &spoilt(2)), replaced);
    assert_eq!(
        nodes(&group(&meta, &of).members),
        [(1, "n1"), (4, "n2"), (3, "n3")]
    );
    assert_eq!(nodes(&group(&meta, &of).leaving), [(2, "n2")]);
    assert_eq!(run(&mut meta, &spoilt(2)), Change::Unchanged, "known");
    assert_eq!(run(&mut meta, &spoilt(3)), needed, "one at a time");
    settle(&mut meta, &of);
    assert_eq!(run(&mut meta, &spoilt(3)), replaced);
    assert!(group(&meta, &of).lost.contains(&3));
}

#[test]
fn of_two_replicas_the_one_whose_data_is_sound_begins_the_group_anew() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 2), &["n1", "n2"]);
    run(&mut meta, &Command::GroupBegun { of: of.clone() });
    let (node, of) = (1, of);
    let spoilt = Command::MemberSpoilt {
        of: of.clone(),
        node,
    };
    let replaced = Change::MembersChanged(of.clone());
    assert_eq!(run(&mut meta, &spoilt), replaced);
    let again = group(&meta, &of);
    assert_eq!(nodes(&again.founders), [(4, "n2")]);
    assert_eq!(nodes(&again.members), [(3, "n1"), (4, "n2")]);
}

#[test]
fn with_one_log_left_a_stream_in_memory_begins_again_around_it() {
    let mut meta = cluster(3);
    let mut volatile = config("M", 3);
    volatile.storage = crate::jetstream::types::Storage::Memory;
    let memory = created(&mut meta, &volatile, &["n1", "n2", "n3"]);
    let file = created(&mut meta, &config("F", 3), &["n1", "n2", "n3"]);
    for of in [&memory, &file] {
        for node in [1, 2] {
            let of = of.clone();
            run(&mut meta, &Command::MemberLost { of, node });
        }
    }
    // The second loss left only the third: it begins again, and the others join it.
    let again = group(&meta, &memory);
    assert_eq!(again.founders.len(), 1);
    assert_eq!(again.founders[0].server, "n3");
    assert_eq!(again.servers(), ["n1", "n2", "n3"]);
    assert!(again.members.iter().all(|member| member.node > 4));
    // On disk, the one that joined may be a member already, and have what the third lacks.
    let file = group(&meta, &file);
    assert_eq!(nodes(&file.members), [(4, "n1"), (2, "n2"), (3, "n3")]);
    assert!(file.lost.contains(&2) && file.lost.contains(&1));
}

#[test]
fn a_stream_on_disk_whose_logs_are_all_lost_is_left_alone_and_one_in_memory_begins_empty() {
    let mut meta = cluster(3);
    let file = created(&mut meta, &config("F", 1), &["n1"]);
    let lost = Command::MemberLost {
        of: file.clone(),
        node: 1,
    };
    let named = Change::MemberLost {
        of: file.clone(),
        node: 1,
    };
    assert_eq!(run(&mut meta, &lost), named);
    assert_eq!(nodes(&group(&meta, &file).members), [(1, "n1")]);
    let mut volatile = config("M", 3);
    volatile.storage = crate::jetstream::types::Storage::Memory;
    let memory = created(&mut meta, &volatile, &["n1", "n2", "n3"]);
    for server in ["n1", "n2", "n3"] {
        let node = group(&meta, &memory)
            .member_on(server)
            .expect("a member")
            .node;
        let of = memory.clone();
        run(&mut meta, &Command::MemberLost { of, node });
    }
    let again = group(&meta, &memory);
    assert_eq!(again.servers(), ["n1", "n2", "n3"]);
    assert!(again.members.iter().all(|member| member.node > 3));
    let founder = again.founders.first().expect("a founder");
    assert!(again.members.contains(founder));
}

#[test]
fn consumers_come_change_and_go_with_their_stream() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let command = consumer(&of, "C");
    assert!(matches!(
        run(&mut meta, &command),
        Change::ConsumerCreated { .. }
    ));
    assert_eq!(run(&mut meta, &command), Change::Unchanged);
    let changed = encode(&ConsumerConfig {
        name: "C".to_owned(),
        num_replicas: 1,
        ..ConsumerConfig::default()
    });
    let update = Command::ConsumerUpdate {
        of: of.clone(),
        name: "C".to_owned(),
        revision: 1,
        config: changed,
    };
    assert!(matches!(
        run(&mut meta, &update),
        Change::ConsumerUpdated { .. }
    ));
    assert_eq!(run(&mut meta, &update), Change::Refused(Refusal::Outdated));
    let stream = meta.stream_of(&of).expect("the stream");
    let held = &stream.consumers["C"];
    assert!(held.is_ephemeral());
    assert_eq!(held.replicas(stream.config()), 1);
    let delete = Command::ConsumerDelete {
        of: of.clone(),
        name: "C".to_owned(),
    };
    assert!(matches!(
        run(&mut meta, &delete),
        Change::ConsumerDeleted { .. }
    ));
    assert_eq!(
        run(&mut meta, &delete),
        Change::Refused(Refusal::NoConsumer)
    );
}

#[test]
fn a_purged_account_has_nothing_left_and_others_have_everything() {
    let mut meta = cluster(3);
    created(&mut meta, &config("S", 1), &["n1"]);
    created(&mut meta, &config("T", 3), &["n1", "n2", "n3"]);
    let mut other = create(&config("S", 1), &["n1"]);
    if let Command::StreamCreate { account, .. } = &mut other {
        *account = "B".to_owned();
    }
    run(&mut meta, &other);
    let account = "A".to_owned();
    let index = meta.applied() + 1;
    let changes = meta.apply(index, &Command::AccountPurge { account });
    assert_eq!(changes.len(), 2);
    assert_eq!(meta.streams("A").count(), 0);
    assert_eq!(meta.streams("B").count(), 1);
    assert_eq!(meta.released().len(), 4);
}

#[test]
fn a_server_that_comes_back_without_its_log_of_the_meta_group_gets_a_new_id() {
    let mut meta = cluster(3);
    let again = Command::PeerPut {
        profile: profile("n2"),
        renew: true,
    };
    assert_eq!(
        run(&mut meta, &again),
        Change::PeerPut {
            server: "n2".to_owned(),
            node: 4,
            earlier: Some(2)
        }
    );
    let server = "n2".to_owned();
    assert_eq!(
        run(
            &mut meta,
            &Command::PeerRemove {
                server: server.clone()
            }
        ),
        Change::PeerRemoved { server, node: 4 }
    );
    let back = Command::PeerPut {
        profile: profile("n2"),
        renew: false,
    };
    assert!(matches!(
        run(&mut meta, &back),
        Change::PeerPut {
            node: 5,
            earlier: None,
            ..
        }
    ));
}

#[test]
fn what_a_later_version_wrote_is_kept_and_named() {
    let mut meta = cluster(1);
    let text = br#"{"name":"S","subjects":["s"],"num_replicas":1,"from_the_future":true}"#;
    let mut command = create(&config("S", 1), &["n1"]);
    if let Command::StreamCreate { config, .. } = &mut command {
        *config = text.to_vec();
    }
    let Change::StreamCreated(of) = run(&mut meta, &command) else {
        panic!("not created");
    };
    let again = Meta::decode(&meta.encode()).expect("reads");
    let stream = again.stream_of(&of).expect("the stream");
    assert_eq!(stream.stored.json(), text);
    assert_eq!(stream.config().subjects, ["s"]);
    let reason = stream.stored.unsupported.as_deref().unwrap_or_default();
    assert!(reason.contains("from_the_future"), "{reason}");
    let leveled = br#"{"name":"S","metadata":{"_nats.req.level":"99"}}"#;
    let reason = Stored::<StreamConfig>::from_json(leveled).unsupported;
    let text = format!("unsupported - required API level: 99, current API level: {API_LEVEL}");
    assert_eq!(reason, Some(text));
}

#[test]
fn what_is_set_aside_is_remembered_until_it_is_gone() {
    let mut meta = cluster(1);
    let note = Command::OrphanNote {
        server: "n1".to_owned(),
        place: "17".to_owned(),
        account: "A".to_owned(),
        stream: "S".to_owned(),
        reason: "no assignment names it".to_owned(),
        since: Time::from_nanoseconds(3),
    };
    assert!(matches!(
        run(&mut meta, &note),
        Change::OrphansChanged { .. }
    ));
    assert_eq!(run(&mut meta, &note), Change::Unchanged);
    assert_eq!(meta.orphans().len(), 1);
    let gone = Command::OrphanGone {
        server: "n1".to_owned(),
        place: "17".to_owned(),
    };
    run(&mut meta, &gone);
    assert!(meta.orphans().is_empty());
}
