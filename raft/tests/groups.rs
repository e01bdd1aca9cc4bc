//! What groups promise, with three servers in one process, journals on a real disk and a network that can be cut.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cluster::server::{Cluster, node_of, quick};
use cluster::{propose, until};
use parking_lot::Mutex;
use raft::group::{Begin, ChangeError, GroupNumber, Member, Outcome, Role, StartError, Timing};

const GROUP: u64 = 7;
const SECONDS: Duration = Duration::from_secs(10);

async fn three() -> Cluster {
    let cluster = Cluster::real(3, Timing::default());
    cluster.found(GROUP).await;
    cluster
}

#[tokio::test]
async fn what_is_proposed_is_applied_everywhere_in_the_order_it_was_made() {
    let cluster = three().await;
    let leader = cluster.leader(GROUP).await;
    let group = cluster.servers[leader].group(GROUP);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for number in 0..1000u32 {
        let outcomes = Arc::clone(&outcomes);
        let command = Bytes::copy_from_slice(&number.to_le_bytes());
        group.propose(command, SECONDS, move |outcome| {
            outcomes.lock().push((number, outcome))
        });
    }
    until("all are answered", || outcomes.lock().len() == 1000).await;
    cluster.equal(GROUP, 1000, &[0, 1, 2]).await;
    let commands = cluster.servers[leader].store(GROUP).commands();
    let expected: Vec<Bytes> = (0..1000u32)
        .map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
        .collect();
    assert_eq!(commands, expected);
    let mut last = 0;
    for (_, outcome) in outcomes.lock().iter() {
        let Outcome::Committed(at) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(at.index > last);
        last = at.index;
    }
    let status = group.status();
    assert_eq!(status.committed_index, status.last_log_index);
    assert_eq!(status.followers.len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_new_group_has_a_leader_before_anyone_could_have_missed_one() {
    let timing = Timing {
        election_timeout_min: Duration::from_secs(600),
        election_timeout_max: Duration::from_secs(601),
        ..Timing::default()
    };
    let cluster = Cluster::real(3, timing);
    for group in GROUP..GROUP + 3 {
        cluster.found(group).await;
        cluster.leader(group).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_refuses_and_names_the_leader() {
    let cluster = three().await;
    let leader = cluster.leader(GROUP).await;
    let follower = (leader + 1) % 3;
    let group = cluster.servers[follower].group(GROUP);
    until("the follower knows", || group.leader().is_some()).await;
    match propose(&group, "x", SECONDS).await {
        Outcome::Refused {
            leader: Some(named),
        } => {
            assert_eq!(named.server, cluster.servers[leader].name);
        }
        other => panic!("{other:?}"),
    }
    assert!(group.read_index().await.is_err());
    cluster.commit(GROUP, "y").await;
    let at = cluster.servers[leader]
        .group(GROUP)
        .read_index()
        .await
        .expect("a leader reads");
    assert!(cluster.servers[leader].store(GROUP).applied_index() >= at.index);
    cluster.stop().await;
}

#[tokio::test]
async fn a_dead_leader_is_followed_by_another_and_nothing_committed_is_lost() {
    let cluster = three().await;
    for number in 0..20 {
        cluster.commit(GROUP, &format!("before {number}")).await;
    }
    let dead = cluster.leader(GROUP).await;
    cluster.servers[dead].kill().await;
    for number in 0..20 {
        cluster.commit(GROUP, &format!("after {number}")).await;
    }
    let alive: Vec<usize> = (0..3).filter(|at| *at != dead).collect();
    cluster.equal(GROUP, 40, &alive).await;
    // It comes back with its log, and is given what it missed.
    cluster.servers[dead].reconnect();
    cluster.servers[dead].boot();
    let founding = Some(cluster.founding());
    let started = cluster.servers[dead].start(GROUP, node_of(dead, 1), Begin::Again, founding);
    started.await.expect("its log is there");
    cluster.equal(GROUP, 40, &[0, 1, 2]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_restarted_replica_applies_again_what_its_checkpoint_lacks_and_nothing_twice() {
    let cluster = three().await;
    for number in 0..30 {
        cluster.commit(GROUP, &number.to_string()).await;
    }
    cluster.equal(GROUP, 30, &[0, 1, 2]).await;
    let at = cluster.servers[1].checkpoint(GROUP);
    let group = cluster.servers[1].group(GROUP);
    until("the log is purged", || group.status().purged_index == at).await;
    for number in 30..50 {
        cluster.commit(GROUP, &number.to_string()).await;
    }
    cluster.equal(GROUP, 50, &[0, 1, 2]).await;
    cluster.servers[1].stop().await;
    cluster.servers[1].boot();
    let started = cluster.servers[1].start(GROUP, node_of(1, 1), Begin::Again, None);
    started.await.expect("its log is there");
    cluster.equal(GROUP, 50, &[0, 1, 2]).await;
    let state = cluster.servers[1].store(GROUP).state();
    assert_eq!(state.installed, 0, "entries were enough");
    cluster.stop().await;
}

#[tokio::test]
async fn leadership_moves_where_it_is_sent() {
    let cluster = three().await;
    for round in 0..4 {
        let leader = cluster.leader(GROUP).await;
        let to = (leader + 1) % 3;
        let group = cluster.servers[leader].group(GROUP);
        group
            .transfer_leadership(node_of(to, 1))
            .await
            .expect("the other takes over");
        until("the other knows", || cluster.servers[to].leads(GROUP)).await;
        cluster.commit(GROUP, &round.to_string()).await;
    }
    cluster.equal(GROUP, 4, &[0, 1, 2]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn members_come_as_learners_and_go_and_leave_the_commands_in_place() {
    let cluster = Cluster::real(4, Timing::default());
    cluster.found(GROUP).await;
    for number in 0..10 {
        cluster.commit(GROUP, &number.to_string()).await;
    }
    let leader = cluster.leader(GROUP).await;
    let leaver = (leader + 1) % 3;
    let joined = cluster.servers[3].start(GROUP, node_of(3, 1), Begin::Joiner, None);
    joined.await.expect("a joiner starts");
    let mut voters: BTreeMap<u64, String> = (0..4)
        .map(|at| (node_of(at, 1), cluster.servers[at].name.clone()))
        .collect();
    voters.remove(&node_of(leaver, 1));
    let group = cluster.servers[leader].group(GROUP);
    group
        .change_members(voters.clone(), SECONDS)
        .await
        .expect("the members change");
    let members = group.members();
    assert_eq!(members.servers(), &voters);
    assert!(!members.is_changing() && members.learners().is_empty());
    cluster.commit(GROUP, "after").await;
    let staying: Vec<usize> = (0..4).filter(|at| *at != leaver).collect();
    cluster.equal(GROUP, 11, &staying).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_learner_catches_up_without_a_vote_and_is_a_voter_when_it_is_made_one() {
    let cluster = Cluster::real(4, Timing::default());
    cluster.found(GROUP).await;
    for number in 0..10 {
        cluster.commit(GROUP, &number.to_string()).await;
    }
    let leader = cluster.leader(GROUP).await;
    let joined = cluster.servers[3].start(GROUP, node_of(3, 1), Begin::Joiner, None);
    joined.await.expect("a joiner starts");
    let group = cluster.servers[leader].group(GROUP);
    let learner = Member {
        node: node_of(3, 1),
        server: cluster.servers[3].name.clone(),
    };
    for _ in 0..2 {
        let added = group.add_learners(vec![learner.clone()]).await;
        added.expect("it is taken in, once");
    }
    let elsewhere = Member {
        server: "elsewhere".to_owned(),
        ..learner.clone()
    };
    let refused = group.add_learners(vec![elsewhere]).await;
    assert!(
        matches!(refused, Err(ChangeError::Impossible(_))),
        "{refused:?}"
    );
    assert_eq!(group.members().learners(), [learner.node].into());
    assert_eq!(group.members().voters().len(), 3);
    let all: Vec<usize> = (0..4).collect();
    cluster.equal(GROUP, 10, &all).await;
    until("the leader knows that it has all", || {
        let status = group.status();
        let mut followers = status.followers.iter();
        followers.any(|follower| {
            follower.member == learner && follower.matched_index == status.last_log_index
        })
    })
    .await;
    let voters = (0..4).map(|at| (node_of(at, 1), cluster.servers[at].name.clone()));
    let changed = group.change_members(voters.collect(), SECONDS).await;
    changed.expect("it is a voter");
    assert!(group.members().is_voter(learner.node));
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_lacks_purged_entries_is_given_the_state() {
    let cluster = three().await;
    cluster.commit(GROUP, "first").await;
    let leader = cluster.leader(GROUP).await;
    let behind = (leader + 1) % 3;
    cluster.servers[behind].stop().await;
    for number in 0..50 {
        cluster.commit(GROUP, &number.to_string()).await;
    }
    for at in (0..3).filter(|at| *at != behind) {
        let group = cluster.servers[at].group(GROUP);
        let store = cluster.servers[at].store(GROUP);
        until("all is applied", || store.count() == 51).await;
        let upto = cluster.servers[at].checkpoint(GROUP);
        until("the log is purged", || group.status().purged_index == upto).await;
    }
    cluster.servers[behind].boot();
    let founding = Some(cluster.founding());
    let started = cluster.servers[behind].start(GROUP, node_of(behind, 1), Begin::Again, founding);
    started.await.expect("its log is there");
    cluster.equal(GROUP, 51, &[0, 1, 2]).await;
    assert_eq!(cluster.servers[behind].store(GROUP).state().installed, 1);
    cluster.commit(GROUP, "last").await;
    cluster.equal(GROUP, 52, &[0, 1, 2]).await;
    // And what it was given outlives it, together with the log that follows.
    cluster.servers[behind].checkpoint(GROUP);
    cluster.commit(GROUP, "very last").await;
    cluster.equal(GROUP, 53, &[0, 1, 2]).await;
    cluster.servers[behind].stop().await;
    cluster.servers[behind].boot();
    let started = cluster.servers[behind].start(GROUP, node_of(behind, 1), Begin::Again, None);
    started.await.expect("its log follows its state");
    cluster.equal(GROUP, 53, &[0, 1, 2]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_without_a_majority_acknowledges_nothing_and_answers_in_time() {
    let cluster = three().await;
    cluster.commit(GROUP, "before").await;
    let cut_off = cluster.leader(GROUP).await;
    let group = cluster.servers[cut_off].group(GROUP);
    cluster.network.isolate(&cluster.servers[cut_off].name);
    // In flight when the network goes: nobody can know.
    let outcome = propose(&group, "lost", Duration::from_millis(300)).await;
    assert_eq!(outcome, Outcome::Unknown);
    let store = cluster.servers[cut_off].store(GROUP);
    until("it does not say any more that it leads", || {
        store.role() == Some(Role::Leaderless)
    })
    .await;
    // Later the lease is over: it is not even logged.
    let next = cluster.leader_but(GROUP, cut_off).await;
    assert_ne!(next, cut_off);
    let late = propose(&group, "late", Duration::from_millis(300)).await;
    assert!(!matches!(late, Outcome::Committed(_)), "{late:?}");
    let other = cluster.servers[next].group(GROUP);
    let committed = propose(&other, "after", SECONDS).await;
    assert!(matches!(committed, Outcome::Committed(_)));
    cluster.network.heal();
    cluster.equal(GROUP, 2, &[0, 1, 2]).await;
    let store = cluster.servers[cut_off].store(GROUP);
    until("it follows", || {
        matches!(store.role(), Some(Role::Follower { .. }))
    })
    .await;
    cluster.stop().await;
}

async fn quiet(cluster: &Cluster, number: u64) {
    until("the group is quiet", || {
        let mut servers = cluster.servers.iter();
        servers.all(|server| server.group(number).status().quiet)
    })
    .await;
}

#[tokio::test]
async fn a_quiet_group_says_nothing_and_wakes_for_a_proposal() {
    let cluster = Cluster::real(3, quick());
    cluster.found(GROUP).await;
    cluster.commit(GROUP, "before").await;
    let leader = cluster.leader(GROUP).await;
    quiet(&cluster, GROUP).await;
    let bytes = cluster.network.bytes.load(Ordering::Relaxed);
    let frames = cluster.network.frames.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let bytes = cluster.network.bytes.load(Ordering::Relaxed) - bytes;
    let frames = cluster.network.frames.load(Ordering::Relaxed) - frames;
    // Signs of life, and nothing else.
    assert_eq!(bytes, frames * 14);
    assert!(
        cluster.servers[leader].leads(GROUP),
        "nobody took over meanwhile"
    );
    let outcome = propose(&cluster.servers[leader].group(GROUP), "after", SECONDS).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    cluster.equal(GROUP, 2, &[0, 1, 2]).await;
    quiet(&cluster, GROUP).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_quiet_group_notices_that_its_leader_died() {
    let cluster = Cluster::real(3, quick());
    cluster.found(GROUP).await;
    cluster.commit(GROUP, "before").await;
    quiet(&cluster, GROUP).await;
    let dead = cluster.leader(GROUP).await;
    cluster.servers[dead].kill().await;
    cluster.commit(GROUP, "after").await;
    let alive: Vec<usize> = (0..3).filter(|at| *at != dead).collect();
    cluster.equal(GROUP, 2, &alive).await;
    // With one of three gone, the two that are left fall quiet again, and wake when it is back.
    until("the rest is quiet", || {
        let mut alive = alive.iter();
        alive.all(|at| cluster.servers[*at].group(GROUP).status().quiet)
    })
    .await;
    cluster.servers[dead].reconnect();
    cluster.servers[dead].boot();
    let founding = Some(cluster.founding());
    let started = cluster.servers[dead].start(GROUP, node_of(dead, 1), Begin::Again, founding);
    started.await.expect("its log is there");
    cluster.equal(GROUP, 2, &[0, 1, 2]).await;
    quiet(&cluster, GROUP).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_that_restarts_faster_than_it_is_missed_does_not_leave_its_groups_alone() {
    let cluster = Cluster::real(3, quick());
    cluster.found(GROUP).await;
    cluster.commit(GROUP, "before").await;
    quiet(&cluster, GROUP).await;
    let restarted = cluster.leader(GROUP).await;
    cluster.servers[restarted].kill().await;
    cluster.servers[restarted].reconnect();
    // It is heard of again, and does not run the group.
    cluster.servers[restarted].boot();
    let next = cluster.leader_but(GROUP, restarted).await;
    let outcome = propose(&cluster.servers[next].group(GROUP), "after", SECONDS).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_was_away_is_found_by_a_leader_that_came_meanwhile() {
    let cluster = Cluster::real(4, quick());
    cluster.found(GROUP).await;
    cluster.commit(GROUP, "before").await;
    cluster.equal(GROUP, 1, &[0, 1, 2]).await;
    let before = cluster.leader(GROUP).await;
    let (away, leaver) = ((before + 1) % 3, (before + 2) % 3);
    cluster.servers[away].kill().await;
    // Another server comes in, and leads: of the two, neither has ever heard of the other.
    let joined = cluster.servers[3].start(GROUP, node_of(3, 1), Begin::Joiner, None);
    joined.await.expect("a joiner starts");
    let staying = (0..4).filter(|at| *at != leaver);
    let voters = staying.map(|at| (node_of(at, 1), cluster.servers[at].name.clone()));
    let group = cluster.servers[before].group(GROUP);
    let changed = group.change_members(voters.collect(), SECONDS).await;
    changed.expect("two of three are there");
    let moved = group.transfer_leadership(node_of(3, 1)).await;
    moved.expect("the new one takes over");
    cluster.servers[leaver].stop().await;
    cluster.commit(GROUP, "after").await;
    until("the two are quiet", || {
        let mut two = [before, 3].into_iter();
        two.all(|at| cluster.servers[at].group(GROUP).status().quiet)
    })
    .await;
    cluster.servers[away].reconnect();
    cluster.servers[away].boot();
    let founding = Some(cluster.founding());
    let started = cluster.servers[away].start(GROUP, node_of(away, 1), Begin::Again, founding);
    started.await.expect("its log is there");
    cluster.equal(GROUP, 2, &[before, away, 3]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_candidate_gets_the_vote_of_one_that_does_not_know_it_yet() {
    let cluster = Cluster::real(4, quick());
    cluster.found(GROUP).await;
    cluster.commit(GROUP, "before").await;
    cluster.equal(GROUP, 1, &[0, 1, 2]).await;
    let before = cluster.leader(GROUP).await;
    let (away, leaver) = ((before + 1) % 3, (before + 2) % 3);
    cluster.servers[away].kill().await;
    let joined = cluster.servers[3].start(GROUP, node_of(3, 1), Begin::Joiner, None);
    joined.await.expect("a joiner starts");
    let staying = (0..4).filter(|at| *at != leaver);
    let voters = staying.map(|at| (node_of(at, 1), cluster.servers[at].name.clone()));
    let group = cluster.servers[before].group(GROUP);
    let changed = group.change_members(voters.collect(), SECONDS).await;
    changed.expect("two of three are there");
    cluster.equal(GROUP, 1, &[before, 3]).await;
    // All that is left are the new one, which has everything, and the one that never heard of it.
    cluster.servers[leaver].stop().await;
    cluster.servers[before].kill().await;
    cluster.servers[away].reconnect();
    cluster.servers[away].boot();
    let founding = Some(cluster.founding());
    let started = cluster.servers[away].start(GROUP, node_of(away, 1), Begin::Again, founding);
    started.await.expect("its log is there");
    until("the new one leads", || cluster.servers[3].leads(GROUP)).await;
    cluster.commit(GROUP, "after").await;
    cluster.equal(GROUP, 2, &[away, 3]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_quiet_follower_that_missed_the_end_of_its_leader_finds_out_when_it_is_asked_for_its_vote()
 {
    const OTHER: u64 = 8;
    let cluster = Cluster::real(3, quick());
    cluster.found(GROUP).await;
    // With another group in common, all servers go on to hear of each other.
    cluster.found(OTHER).await;
    cluster.commit(GROUP, "before").await;
    quiet(&cluster, GROUP).await;
    quiet(&cluster, OTHER).await;
    let gone = cluster.leader(GROUP).await;
    let (told, untold) = ((gone + 1) % 3, (gone + 2) % 3);
    let name = |at: usize| cluster.servers[at].name.as_str();
    cluster.network.cut_one_way(name(gone), name(untold));
    let groups = cluster.servers[gone].groups();
    groups.stop(GroupNumber(GROUP)).await;
    until("one of them was told", || {
        !cluster.servers[told].group(GROUP).status().quiet
    })
    .await;
    cluster.network.heal();
    let leads = || {
        [told, untold]
            .into_iter()
            .any(|at| cluster.servers[at].leads(GROUP))
    };
    until("another leads", leads).await;
    assert!(
        cluster.servers[untold].group(OTHER).status().quiet,
        "nobody missed the server"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_hundred_groups_live_side_by_side_and_survive_a_server() {
    let cluster = Cluster::real(3, quick());
    for number in 0..100 {
        cluster.found(number).await;
    }
    for number in 0..100 {
        cluster.commit(number, "before").await;
    }
    cluster.servers[0].kill().await;
    for number in 0..100 {
        cluster.commit(number, "after").await;
    }
    for number in 0..100 {
        cluster.equal(number, 2, &[1, 2]).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_lost_its_log_comes_back_under_a_new_id_only() {
    let mut cluster = three().await;
    cluster.commit(GROUP, "before").await;
    let leader = cluster.leader(GROUP).await;
    let lost = (leader + 1) % 3;
    cluster.servers[lost].stop().await;
    cluster.servers[lost].lose_everything();
    cluster.servers[lost].boot();
    let founding = Some(cluster.founding());
    let refused = cluster.servers[lost]
        .start(GROUP, node_of(lost, 1), Begin::Again, founding)
        .await;
    assert!(matches!(refused, Err(StartError::Amnesia { .. })));
    let joined = cluster.servers[lost].start(GROUP, node_of(lost, 2), Begin::Joiner, None);
    joined.await.expect("a joiner starts");
    let leader = cluster.leader(GROUP).await;
    let voters = (0..3).map(|at| {
        let incarnation = if at == lost { 2 } else { 1 };
        (node_of(at, incarnation), cluster.servers[at].name.clone())
    });
    let group = cluster.servers[leader].group(GROUP);
    group
        .change_members(voters.collect(), SECONDS)
        .await
        .expect("it is taken back");
    cluster.commit(GROUP, "after").await;
    cluster.equal(GROUP, 2, &[0, 1, 2]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_state_machine_that_fails_stops_its_replica_and_the_others_go_on() {
    let cluster = three().await;
    cluster.commit(GROUP, "before").await;
    let leader = cluster.leader(GROUP).await;
    let store = cluster.servers[leader].store(GROUP);
    store.break_down();
    let group = cluster.servers[leader].group(GROUP);
    let outcome = propose(&group, "breaks it", SECONDS).await;
    assert!(!matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    until("it is told", || {
        matches!(store.role(), Some(Role::Stopped { .. }))
    })
    .await;
    let next = cluster.leader_but(GROUP, leader).await;
    let outcome = propose(&cluster.servers[next].group(GROUP), "after", SECONDS).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_was_alone_for_a_while_leads_on_when_nobody_took_over() {
    let cluster = three().await;
    cluster.commit(GROUP, "before").await;
    let leader = cluster.leader(GROUP).await;
    for server in &cluster.servers {
        cluster.network.isolate(&server.name);
    }
    let store = cluster.servers[leader].store(GROUP);
    until("it does not say any more that it leads", || {
        store.role() == Some(Role::Leaderless)
    })
    .await;
    cluster.network.heal();
    cluster.commit(GROUP, "after").await;
    cluster.equal(GROUP, 2, &[0, 1, 2]).await;
    cluster.stop().await;
}
