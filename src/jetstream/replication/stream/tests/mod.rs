//! A stream on three servers: real groups, real stores, and a network that can be cut.

mod cluster;
mod scale;
mod survivor;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::{Cluster, node_of, until};
use raft::group::{Begin, Role};

use crate::jetstream::core::{ConsumerAction, ConsumerCreate, StreamReply, StreamRequest};
use crate::jetstream::types::{AckPolicy, ConsumerConfig, ErrorCode, Storage, StreamConfig};

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".to_owned(),
        subjects: vec!["s.>".to_owned()],
        num_replicas: 3,
        duplicate_window: 120_000_000_000,
        allow_direct: true,
        max_consumers: -1,
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        ..StreamConfig::default()
    }
}

fn create(name: &str) -> StreamRequest {
    let config = ConsumerConfig {
        name: name.to_owned(),
        durable_name: name.to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30_000_000_000,
        max_deliver: -1,
        max_waiting: 512,
        max_ack_pending: 1000,
        ..ConsumerConfig::default()
    };
    StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
        name: name.to_owned(),
        config,
        action: ConsumerAction::Create,
        check_update: |_, _| Ok(()),
        consumers_max: -1,
    }))
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

#[test]
fn what_is_acknowledged_is_on_every_replica_and_only_the_leader_listens() {
    let mut cluster = Cluster::new(3, config());
    for number in 1..=50 {
        assert_eq!(cluster.publish("s.a", "", &format!("m{number}")), number);
    }
    let records = cluster.equal(&[0, 1, 2]);
    assert_eq!(records.len(), 50);
    let leader = cluster.leader();
    assert!(cluster.servers[leader].listens("s.a"));
    for follower in others(leader) {
        let server = &cluster.servers[follower];
        assert!(!server.listens("s.a") && !server.listens("$JS.ACK.S.x"));
        until("a follower answers direct gets", || {
            server.listens("$JS.API.DIRECT.GET.S")
        });
        server.publish("$JS.API.DIRECT.GET.S", "inbox.direct", "", "{\"seq\":7}");
        let mut answer = Vec::new();
        until("it is answered", || {
            answer.extend(server.heard("inbox.direct"));
            !answer.is_empty()
        });
        assert_eq!(answer[0].payload, "m7");
        match server.request(create("c")) {
            StreamReply::Refused(error) => assert!(error.is(ErrorCode::ClusterNotLeader)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_death_of_a_leader_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::new(3, config());
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        for number in 0..40 {
            let payload = format!("{round}.{number}");
            let sequence = cluster.publish("s.a", &payload, &payload);
            assert_eq!(acknowledged.insert(sequence, payload), None);
        }
        let dead = cluster.leader();
        cluster.servers[dead].kill();
        // Sent again by somebody who heard nothing: it is known.
        let (sequence, id) = acknowledged.iter().next_back().expect("some");
        let (sequence, id) = (*sequence, id.clone());
        assert_eq!(cluster.publish("s.a", &id, &id), sequence);
        let payload = format!("{round}.after");
        let sequence = cluster.publish("s.a", "", &payload);
        acknowledged.insert(sequence, payload);
        cluster.again(dead);
        let records = cluster.equal(&[0, 1, 2]);
        let held: BTreeMap<u64, String> = records
            .iter()
            .map(|record| {
                let payload = String::from_utf8_lossy(&record.payload).into_owned();
                (record.sequence, payload)
            })
            .collect();
        for (sequence, payload) in &acknowledged {
            assert_eq!(held.get(sequence), Some(payload));
        }
    }
}

#[test]
fn with_publishes_in_flight_at_every_death_none_is_lost_and_none_is_there_twice() {
    const IN_FLIGHT: usize = 400;
    let mut cluster = Cluster::new(3, config());
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    for round in 0..4 {
        let leader = cluster.leader();
        let server = &cluster.servers[leader];
        let id = |number: usize| format!("{round}.{number}");
        for number in 0..IN_FLIGHT {
            let (id, reply) = (id(number), format!("inbox.{round}.{number}"));
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
            server.publish("s.a", &reply, &headers, &id);
            if number % 40 == 0 {
                // So that there are several entries on their way.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mut acks = Vec::new();
        until("some are acknowledged", || {
            acks.extend(server.acks());
            acks.len() > IN_FLIGHT * round / 5
        });
        for (reply, sequence) in acks {
            let payload = reply.trim_start_matches("inbox.").to_owned();
            assert_eq!(acknowledged.insert(sequence, payload), None);
        }
        cluster.servers[leader].kill();
        // Who heard nothing sends again.
        for number in (0..IN_FLIGHT).step_by(37) {
            let (id, known) = (id(number), acknowledged.len());
            let sequence = cluster.publish("s.a", &id, &id);
            let before = acknowledged.insert(sequence, id.clone());
            assert!(before.is_none_or(|before| before == id), "{known}");
        }
        cluster.again(leader);
    }
    let records = cluster.equal(&[0, 1, 2]);
    let mut seen = std::collections::BTreeSet::new();
    let mut held = BTreeMap::new();
    for record in &records {
        let payload = String::from_utf8_lossy(&record.payload).into_owned();
        assert!(seen.insert(payload.clone()), "{payload} is there twice");
        held.insert(record.sequence, payload);
    }
    for (sequence, payload) in &acknowledged {
        assert_eq!(held.get(sequence), Some(payload));
    }
    assert!(acknowledged.len() > IN_FLIGHT);
}

#[test]
fn a_replica_that_was_stopped_begins_again_with_what_it_had() {
    let mut cluster = Cluster::new(3, config());
    for number in 0..30 {
        cluster.publish("s.a", "", &number.to_string());
    }
    cluster.equal(&[0, 1, 2]);
    for at in 0..3 {
        cluster.servers[at].stop();
        assert!(!cluster.servers[at].is_running());
        cluster.publish("s.a", "", "meanwhile");
        cluster.again(at);
        cluster.equal(&[0, 1, 2]);
    }
    let fetched = cluster.network.fetched_bytes.load(Ordering::Relaxed);
    assert_eq!(fetched, 0, "entries were enough");
}

#[test]
fn a_planned_change_tells_those_who_wait_and_marks_what_may_have_been_delivered() {
    let mut cluster = Cluster::new(3, config());
    for number in 1..=20 {
        cluster.publish("s.a", "", &format!("m{number}"));
    }
    let leader = cluster.leader();
    let server = &cluster.servers[leader];
    let created = server.request(create("c"));
    assert!(matches!(created, StreamReply::ConsumerCreated { .. }));
    let pull = "$JS.API.CONSUMER.MSG.NEXT.S.c";
    until("pull requests are heard", || server.listens(pull));
    server.publish(pull, "inbox.pull", "", "{\"batch\":30}");
    let mut delivered = Vec::new();
    until("20 are delivered", || {
        delivered.extend(server.heard("inbox.pull"));
        delivered.len() == 20
    });
    let next = others(leader)[0];
    let to = node_of(next);
    let handed_over = server.runtime().block_on(server.replica().hand_over(to));
    handed_over.expect("the other takes over");
    let mut told = Vec::new();
    until("who waits is told", || {
        told.extend(server.heard("inbox.pull"));
        !told.is_empty()
    });
    assert_eq!(told[0].headers, "NATS/1.0 409 Leadership Change\r\n\r\n");
    assert!(!server.listens(pull));
    let server = &cluster.servers[next];
    until("the other hears pull requests", || server.listens(pull));
    server.publish(pull, "inbox.again", "", "{\"batch\":30,\"no_wait\":true}");
    let mut again = Vec::new();
    until("the pull request has an end", || {
        again.extend(server.heard("inbox.again"));
        again.iter().any(|one| one.reply.is_empty())
    });
    // Nothing that the old leader delivered comes again as if it were new.
    for message in again.iter().filter(|one| !one.reply.is_empty()) {
        let reply = String::from_utf8_lossy(&message.reply).into_owned();
        let deliveries: u64 = reply
            .split('.')
            .nth(4)
            .expect("a number")
            .parse()
            .expect("a number");
        assert!(deliveries > 1, "{reply}");
    }
}

#[test]
fn a_replica_that_lacks_purged_entries_is_given_the_state_and_keeps_what_it_has() {
    let mut cluster = Cluster::new(3, config());
    let big = "x".repeat(2000);
    for _ in 0..300 {
        cluster.publish("s.before", "", &big);
    }
    let behind = others(cluster.leader())[0];
    until("it has them all", || {
        cluster.servers[behind].applied() >= cluster.servers[cluster.leader()].applied()
    });
    cluster.servers[behind].checkpoint();
    cluster.servers[behind].kill();
    let delete = StreamRequest::Delete {
        sequence: 17,
        erase: false,
    };
    let leader = cluster.leader();
    assert!(matches!(
        cluster.servers[leader].request(delete),
        StreamReply::Done
    ));
    for _ in 0..100 {
        cluster.publish("s.after", "", &big);
    }
    for at in others(behind) {
        cluster.servers[at].checkpoint();
    }
    let before = cluster.network.fetched_bytes.load(Ordering::Relaxed);
    cluster.again(behind);
    let records = cluster.equal(&[0, 1, 2]);
    assert_eq!(records.len(), 399);
    let fetched = cluster.network.fetched_bytes.load(Ordering::Relaxed) - before;
    assert!((200_000..400_000).contains(&fetched), "{fetched} bytes");
    // What it was given is durable, and the log goes on from there.
    cluster.publish("s.after", "", "last");
    cluster.equal(&[0, 1, 2]);
    cluster.servers[behind].kill();
    cluster.publish("s.after", "", "very last");
    cluster.again(behind);
    assert_eq!(cluster.equal(&[0, 1, 2]).len(), 401);
}

#[test]
fn a_new_member_is_given_the_state_and_another_leaves() {
    let mut cluster = Cluster::new(4, config());
    for number in 0..200 {
        cluster.publish("s.a", "", &number.to_string());
    }
    cluster.servers[3].start(Begin::Joiner, None);
    let leader = cluster.leader();
    let leaver = others(leader)[0];
    let mut voters: BTreeMap<u64, String> = (0..4)
        .map(|at| (node_of(at), format!("s{}", at + 1)))
        .collect();
    voters.remove(&node_of(leaver));
    let server = &cluster.servers[leader];
    let group = &server.replica().group;
    let changed = group.change_members(voters.clone(), Duration::from_secs(30));
    server
        .runtime()
        .block_on(changed)
        .expect("the members change");
    cluster.servers[leaver].kill();
    cluster.network.heal();
    cluster.publish("s.a", "", "after");
    let staying: Vec<usize> = (0..4).filter(|at| *at != leaver).collect();
    assert_eq!(cluster.equal(&staying).len(), 201);
    // Although the log holds all that ever happened: what a stream began with stands in no entry.
    assert!(cluster.network.fetched_bytes.load(Ordering::Relaxed) > 0);
    let status = cluster.servers[3].replica().status();
    assert_eq!(status.position.members.servers(), &voters);
}

/// A stream of some megabytes, a server that joins slowly, and who leads.
fn slow_joiner() -> (Cluster, usize) {
    let mut cluster = Cluster::new(4, config());
    let big = "x".repeat(100_000);
    for _ in 0..60 {
        cluster.publish("s.a", "", &big);
    }
    cluster.servers[3].pace.bytes_per_second = 2_000_000;
    cluster.servers[3].start(Begin::Joiner, None);
    let leader = cluster.leader();
    learn(&cluster, leader, node_of(3));
    let fetched = || cluster.network.fetched_bytes.load(Ordering::Relaxed);
    until("a part has come", || fetched() > 2_000_000);
    (cluster, leader)
}

fn learn(cluster: &Cluster, leader: usize, node: u64) {
    let server = &cluster.servers[leader];
    let joins = raft::group::Member {
        node,
        server: "s4".to_owned(),
    };
    let group = &server.replica().group;
    let learnt = server.runtime().block_on(group.add_learners(vec![joins]));
    learnt.expect("it is a member");
}

#[test]
fn a_replica_that_is_given_a_state_shows_how_far_it_is_and_goes_on_when_the_leader_changes() {
    let (mut cluster, leader) = slow_joiner();
    let status = cluster.servers[3].replica().status();
    let catchup = status.catchup.expect("it is being given a state");
    assert_eq!(catchup.messages, 60);
    assert!(catchup.present < 60 && catchup.bytes > 1_000_000);
    cluster.servers[leader].kill();
    cluster.network.heal();
    cluster.publish("s.a", "", "after");
    assert_eq!(cluster.equal(&[3]).len(), 61);
    // In all not much more than the stream.
    let fetched = cluster.network.fetched_bytes.load(Ordering::Relaxed);
    assert!(fetched < 9_000_000, "{fetched} bytes");
}

#[test]
fn a_replica_that_ends_while_it_is_given_its_first_state_goes_on_from_there() {
    let (mut cluster, leader) = slow_joiner();
    cluster.servers[3].kill();
    cluster.network.heal();
    let kept = cluster.servers[3].join_on(88);
    assert!((10..60).contains(&kept), "{kept} messages");
    let before = cluster.network.fetched_bytes.load(Ordering::Relaxed);
    learn(&cluster, leader, 88);
    cluster.publish("s.a", "", "after");
    assert_eq!(cluster.equal(&[3]).len(), 61);
    // What was kept does not come again, and a second offer does not have all fetched twice.
    let fetched = cluster.network.fetched_bytes.load(Ordering::Relaxed) - before;
    let lacking = (60 - kept) * 100_000;
    assert!(
        fetched < lacking + 1_500_000,
        "{fetched} bytes, {kept} kept"
    );
}

#[test]
fn a_stream_goes_from_one_replica_to_three_and_back() {
    let mut cluster = Cluster::unstarted(3, config());
    cluster.servers[0].start_plain();
    for number in 1..=40 {
        let id = format!("id-{number}");
        assert_eq!(cluster.publish("s.a", &id, &number.to_string()), number);
    }
    cluster.servers[0].scale_up();
    assert_eq!(cluster.publish("s.a", "", "alone in its group"), 41);
    for at in [1, 2] {
        cluster.servers[at].start(Begin::Joiner, None);
    }
    let voters = |upto| (0..upto).map(|at| (node_of(at), format!("s{}", at + 1)));
    let change = |server: &cluster::Server, upto: usize| {
        let group = &server.replica().group;
        let changed = group.change_members(voters(upto).collect(), Duration::from_secs(30));
        let changed = server.runtime().block_on(changed);
        changed.expect("the members change");
    };
    change(&cluster.servers[0], 3);
    assert_eq!(cluster.publish("s.a", "", "three"), 42);
    assert_eq!(cluster.publish("s.a", "id-7", "7"), 7, "ids are known");
    assert_eq!(cluster.equal(&[0, 1, 2]).len(), 42);
    // The first one dies and comes back in its new form.
    cluster.servers[0].kill();
    assert_eq!(cluster.publish("s.a", "", "without the first"), 43);
    cluster.network.heal();
    cluster.servers[0].start(Begin::Again, None);
    cluster.equal(&[0, 1, 2]);
    let leader = cluster.leader();
    if leader != 0 {
        let server = &cluster.servers[leader];
        let handed_over = server.replica().hand_over(node_of(0));
        server
            .runtime()
            .block_on(handed_over)
            .expect("it takes over");
        until("the first leads", || cluster.servers[0].leads());
    }
    change(&cluster.servers[0], 1);
    for at in [1, 2] {
        cluster.servers[at].kill();
    }
    cluster.network.heal();
    cluster.servers[0].scale_down();
    assert_eq!(cluster.publish("s.a", "", "one again"), 44);
    cluster.servers[0].stop();
    cluster.servers[0].start_plain();
    assert_eq!(cluster.publish("s.a", "", "after a start"), 45);
    assert_eq!(cluster.publish("s.a", "id-7", "7"), 7, "ids are known");
    // The next group counts its terms from the start, although the last one had come further.
    cluster.servers[0].scale_up();
    assert_eq!(cluster.publish("s.a", "", "in another group"), 46);
}

#[test]
fn a_leader_without_a_majority_acknowledges_nothing_and_ends_equal_to_the_others() {
    let mut cluster = Cluster::new(3, config());
    cluster.publish("s.a", "", "before");
    let cut_off = cluster.leader();
    cluster.network.isolate(&format!("s{}", cut_off + 1));
    cluster.servers[cut_off].publish("s.a", "inbox.lost", "", "lost");
    until("another leads", || {
        others(cut_off)
            .iter()
            .any(|at| cluster.servers[*at].leads())
    });
    until("it does not lead any more", || {
        !cluster.servers[cut_off].leads()
    });
    assert!(!cluster.servers[cut_off].listens("s.a"));
    cluster.publish("s.a", "", "after");
    cluster.network.heal();
    until("it follows", || {
        let role = cluster.servers[cut_off].replica().status().role;
        matches!(role, Role::Follower { .. })
    });
    assert!(!cluster.servers[cut_off].listens("s.a"));
    let records = cluster.equal(&[0, 1, 2]);
    let payloads: Vec<&[u8]> = records.iter().map(|record| &record.payload[..]).collect();
    assert_eq!(payloads, [&b"before"[..], b"after"]);
    assert!(cluster.servers[cut_off].heard("inbox.lost").is_empty());
}

#[test]
fn a_stream_in_memory_is_replicated_and_its_log_does_not_grow_for_ever() {
    let mut cluster = Cluster::new(
        3,
        StreamConfig {
            storage: Storage::Memory,
            max_msgs: 10,
            ..config()
        },
    );
    let big = "x".repeat(200_000);
    for _ in 0..60 {
        cluster.publish("s.a", "", &big);
    }
    cluster.equal(&[0, 1, 2]);
    for server in &cluster.servers {
        let group = &server.replica().group;
        until("the log is purged", || group.status().purged_index > 20);
    }
}

#[test]
fn a_stream_in_memory_that_rests_gives_the_journal_its_room_when_it_is_asked() {
    let mut cluster = Cluster::new(
        3,
        StreamConfig {
            storage: Storage::Memory,
            ..config()
        },
    );
    cluster.publish("s.a", "", "hello");
    cluster.equal(&[0, 1, 2]);
    for server in &cluster.servers {
        let (at, group) = (server.applied(), &server.replica().group);
        server.ask_for_room();
        until("the log is purged", || group.status().purged_index >= at);
    }
}

/// Lets a replica hold something else than the others.
fn spoil(server: &cluster::Server) {
    server.replica().port.look(|core| {
        let gone = core
            .store_mut()
            .delete(1, storage::store::Deletion::Unlink, &mut ());
        assert!(gone.expect("deletes"));
    });
}

/// Brings a server's replica back under a new id, and the others to know it.
fn replace(cluster: &mut Cluster, at: usize, node: u64) {
    let leader = cluster.leader();
    cluster.servers[at].rejoin(node);
    let mut voters: BTreeMap<u64, String> = (0..3)
        .map(|at| (node_of(at), format!("s{}", at + 1)))
        .collect();
    let server = voters.remove(&node_of(at)).expect("it was one");
    voters.insert(node, server);
    let server = &cluster.servers[leader];
    let group = &server.replica().group;
    let changed = group.change_members(voters, Duration::from_secs(30));
    let changed = server.runtime().block_on(changed);
    changed.expect("the members change");
}

#[test]
fn a_replica_that_differs_from_the_others_is_taken_out_and_given_everything_anew() {
    let mut cluster = Cluster::new(3, config());
    cluster.publish("s.a", "", "one");
    cluster.equal(&[0, 1, 2]);
    let leader = cluster.leader();
    let wrong = others(leader)[0];
    spoil(&cluster.servers[wrong]);
    for number in 0..80 {
        cluster.publish("s.a", "", &number.to_string());
    }
    until("it is found out", || {
        cluster.servers[wrong].replica().status().spoilt.is_some()
    });
    assert!(cluster.servers[wrong].replica().status().offline.is_some());
    let right = others(leader)[1];
    cluster.equal(&[leader, right]);
    assert!(cluster.servers[right].replica().status().offline.is_none());
    replace(&mut cluster, wrong, 99);
    assert_eq!(cluster.equal(&[0, 1, 2]).len(), 81);
    cluster.servers[wrong].kill();
    cluster.publish("s.a", "", "meanwhile");
    cluster.network.heal();
    cluster.servers[wrong].start(Begin::Again, None);
    assert_eq!(cluster.equal(&[0, 1, 2]).len(), 82);
}

#[test]
fn a_leader_that_is_alone_with_what_it_holds_is_the_one_that_is_taken_out() {
    let mut cluster = Cluster::new(3, config());
    cluster.publish("s.a", "", "one");
    cluster.equal(&[0, 1, 2]);
    let wrong = cluster.leader();
    spoil(&cluster.servers[wrong]);
    for number in 0..80 {
        let id = number.to_string();
        cluster.publish("s.a", &id, &id);
    }
    until("it is found out", || {
        cluster.servers[wrong].replica().status().spoilt.is_some()
    });
    cluster.publish("s.a", "after", "after");
    assert_ne!(cluster.leader(), wrong);
    assert_eq!(cluster.equal(&others(wrong)).len(), 82);
    for at in others(wrong) {
        let status = cluster.servers[at].replica().status();
        assert_eq!((status.offline, status.spoilt), (None, None));
    }
    replace(&mut cluster, wrong, 99);
    assert_eq!(cluster.equal(&[0, 1, 2]).len(), 82);
}

#[test]
fn as_long_as_no_majority_says_who_is_wrong_nobody_is_taken_out() {
    let mut cluster = Cluster::new(3, config());
    cluster.publish("s.a", "", "one");
    cluster.equal(&[0, 1, 2]);
    let leader = cluster.leader();
    let [wrong, away] = others(leader);
    cluster.servers[away].kill();
    cluster.network.heal();
    spoil(&cluster.servers[wrong]);
    for number in 0..80 {
        cluster.publish("s.a", "", &number.to_string());
    }
    let status = |at: usize| cluster.servers[at].replica().status();
    until("both know that they differ", || {
        status(wrong).divergence.is_some() && status(leader).divergence.is_some()
    });
    std::thread::sleep(Duration::from_millis(1500));
    for at in [leader, wrong] {
        assert_eq!((status(at).offline, status(at).spoilt), (None, None));
    }
    cluster.again(away);
    let status = |at: usize| cluster.servers[at].replica().status();
    until("the third one says who is wrong", || {
        status(wrong).spoilt.is_some()
    });
    until("the other one is known to be right", || {
        status(leader).divergence.is_none()
    });
    assert_eq!(cluster.equal(&[leader, away]).len(), 81);
}
