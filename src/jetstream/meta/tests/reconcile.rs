//! What a server does to be as the state says.

use std::collections::BTreeMap;

use raft::group::GroupNumber;

use super::reconcile as reconcile_after;
use super::*;

/// On a server to which all is new.
fn reconcile(meta: &Meta, server: &str, holdings: &Holdings) -> Vec<Action> {
    reconcile_after(meta, server, holdings, &Past::default())
}

fn held(meta: &Meta, of: &StreamRef, server: &str) -> Held {
    let stream = meta.stream_of(of).expect("the stream");
    Held {
        node: stream.group.member_on(server).expect("a member").node,
        form: stream.group.form,
        condition: Condition::Running,
        revision: stream.revision,
        account: of.account.clone(),
        stream: of.stream.clone(),
        consumers: BTreeMap::new(),
    }
}

fn start(of: &StreamRef, node: u64, form: Form, how: Start) -> Action {
    Action::Start {
        of: of.clone(),
        node,
        form,
        how,
    }
}

#[test]
fn the_first_members_found_the_group_and_others_join_it() {
    let mut meta = cluster(4);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let founders = group(&meta, &of).founders.clone();
    let how = Start::Founder {
        founders: founders.clone(),
        preferred: false,
    };
    let nothing = Holdings::new();
    assert_eq!(
        reconcile(&meta, "n2", &nothing),
        [start(&of, 2, Form::Raft, how.clone())]
    );
    assert!(reconcile(&meta, "n4", &nothing).is_empty());
    replace(&mut meta, &of, ChangeKind::Move, &["n2", "n3", "n4"]);
    assert_eq!(
        reconcile(&meta, "n4", &nothing),
        [start(&of, 4, Form::Raft, Start::Joiner)]
    );
    // The one that leaves serves until it is released.
    assert_eq!(
        reconcile(&meta, "n1", &nothing),
        [start(&of, 1, Form::Raft, how)]
    );
}

#[test]
fn what_runs_as_it_should_is_left_alone_and_what_stopped_goes_on() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let mut mine = held(&meta, &of, "n1");
    let holdings = |held: &Held| Holdings::from([(of.group, held.clone())]);
    assert!(reconcile(&meta, "n1", &holdings(&mine)).is_empty());
    mine.condition = Condition::Stopped;
    let again = start(&of, 1, Form::Raft, Start::Again);
    assert_eq!(reconcile(&meta, "n1", &holdings(&mine)), [again]);
    mine.condition = Condition::Lost;
    let lost = Action::ReportLost {
        of: of.clone(),
        node: 1,
    };
    assert_eq!(reconcile(&meta, "n1", &holdings(&mine)), [lost]);
    run(
        &mut meta,
        &Command::MemberLost {
            of: of.clone(),
            node: 1,
        },
    );
    let convert = Action::Convert {
        of: of.clone(),
        from: 1,
        node: 4,
        form: Form::Raft,
        how: Start::Joiner,
    };
    assert_eq!(reconcile(&meta, "n1", &holdings(&mine)), [convert]);
}

#[test]
fn a_plain_log_becomes_a_founder_and_the_last_member_a_plain_log() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    let nothing = Holdings::new();
    assert_eq!(
        reconcile(&meta, "n1", &nothing),
        [start(&of, 1, Form::Plain, Start::New)]
    );
    let mine = Holdings::from([(of.group, held(&meta, &of, "n1"))]);
    replace(&mut meta, &of, ChangeKind::Move, &["n2"]);
    let founders = group(&meta, &of).founders.clone();
    assert_eq!(
        reconcile(&meta, "n1", &mine),
        [Action::Convert {
            of: of.clone(),
            from: 1,
            node: 2,
            form: Form::Raft,
            how: Start::Founder {
                founders,
                preferred: false
            },
        }]
    );
    let joined = Holdings::from([(of.group, held(&meta, &of, "n2"))]);
    let left = Holdings::from([(of.group, held(&meta, &of, "n1"))]);
    settle(&mut meta, &of);
    assert_eq!(
        reconcile(&meta, "n2", &joined),
        [Action::Convert {
            of: of.clone(),
            from: 3,
            node: 3,
            form: Form::Plain,
            how: Start::Again,
        }]
    );
    let delete = Action::Delete {
        group: of.group,
        node: 2,
    };
    assert_eq!(reconcile(&meta, "n1", &left), [delete]);
    let gone = Action::ReportGone {
        group: of.group,
        node: 2,
    };
    assert_eq!(reconcile(&meta, "n1", &nothing), [gone]);
}

#[test]
fn only_what_was_explicitly_given_up_is_deleted() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let mine = held(&meta, &of, "n1");
    let unknown = GroupNumber(99);
    let holdings = Holdings::from([(of.group, mine.clone()), (unknown, mine)]);
    run(&mut meta, &Command::StreamDelete { of: of.clone() });
    let actions = reconcile(&meta, "n1", &holdings);
    assert_eq!(actions.len(), 2);
    assert_eq!(
        actions[0],
        Action::Delete {
            group: of.group,
            node: 1
        }
    );
    match &actions[1] {
        Action::SetAside { group, reason } => {
            assert_eq!(*group, unknown);
            assert!(reason.contains("A > S"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // A state that knows nothing deletes nothing.
    let actions = reconcile(&Meta::default(), "n1", &holdings);
    assert!(
        actions
            .iter()
            .all(|action| matches!(action, Action::SetAside { .. }))
    );
    assert_eq!(actions.len(), 2);
}

#[test]
fn a_deleted_stream_is_deleted_also_where_its_last_id_was_never_taken_up() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 1), &["n1"]);
    let mine = Holdings::from([(of.group, held(&meta, &of, "n1"))]);
    replace(&mut meta, &of, ChangeKind::Move, &["n2"]);
    run(&mut meta, &Command::StreamDelete { of: of.clone() });
    let group = of.group;
    assert_eq!(
        reconcile(&meta, "n1", &mine),
        [Action::Delete { group, node: 1 }]
    );
    let gone = Action::ReportGone { group, node: 2 };
    assert_eq!(reconcile(&meta, "n1", &Holdings::new()), [gone]);
    // A later id than any that is released is not what was released.
    let mut later = mine;
    later.get_mut(&group).expect("it is here").node = 9;
    let actions = reconcile(&meta, "n1", &later);
    assert!(
        matches!(
            actions.as_slice(),
            [Action::ReportGone { .. }, Action::SetAside { .. }]
        ),
        "{actions:?}"
    );
}

#[test]
fn changes_of_streams_and_consumers_are_told() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let mut mine = held(&meta, &of, "n1");
    mine.revision = 0;
    mine.consumers.insert("OLD".to_owned(), 1);
    run(&mut meta, &consumer(&of, "C"));
    let holdings = Holdings::from([(of.group, mine)]);
    assert_eq!(
        reconcile(&meta, "n1", &holdings),
        [
            Action::Configure {
                of: of.clone(),
                revision: 1
            },
            Action::PutConsumer {
                of: of.clone(),
                name: "C".to_owned(),
                revision: 1
            },
            Action::DeleteConsumer {
                of: of.clone(),
                name: "OLD".to_owned()
            },
        ]
    );
}

#[test]
fn a_replica_that_may_have_voted_and_is_not_here_is_lost() {
    let mut meta = cluster(4);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    let past = Past::of(&meta);
    let nothing = Holdings::new();
    let lost = Action::ReportLost {
        of: of.clone(),
        node: 2,
    };
    assert_eq!(reconcile_after(&meta, "n2", &nothing, &past), [lost]);
    let lost = Command::MemberLost {
        of: of.clone(),
        node: 2,
    };
    run(&mut meta, &lost);
    // Under its new id it was never here.
    assert_eq!(
        reconcile_after(&meta, "n2", &nothing, &past),
        [start(&of, 4, Form::Raft, Start::Joiner)]
    );
    // A stream that is made later is new to it.
    let later = created(&mut meta, &config("T", 3), &["n1", "n2", "n3"]);
    let actions = reconcile_after(&meta, "n3", &nothing, &past);
    assert!(
        matches!(&actions[..], [Action::ReportLost { .. }, Action::Start { of, .. }] if *of == later)
    );
}

#[test]
fn a_stream_whose_replicas_are_all_lost_before_it_began_begins_again() {
    let mut meta = cluster(3);
    let of = created(&mut meta, &config("S", 3), &["n1", "n2", "n3"]);
    for node in 1..=3 {
        let of = of.clone();
        run(&mut meta, &Command::MemberLost { of, node });
    }
    let group = group(&meta, &of);
    assert_eq!(group.founders.len(), 3);
    assert!(group.founders.iter().all(|founder| founder.node > 3));
}
