//! What a start makes of consumers that keep their state in memory.

use super::*;
use crate::jetstream::core::VolatileConsumers;
use crate::jetstream::types::{DeliverPolicy, Retention};

fn in_memory(name: &str) -> ConsumerConfig {
    ConsumerConfig {
        mem_storage: true,
        ..durable(name)
    }
}

/// The same stream after a start, which has lost what was in memory.
fn started_again(bench: &Bench, config: &StreamConfig, fate: VolatileConsumers) -> Bench {
    let store = Box::new(MemStore::new(Limits::default()));
    let mut core = StreamCore::create(config.clone(), "", START, store).expect("creates");
    for (index, entry) in &bench.log[..bench.durable] {
        core.replay(*index, entry).expect("replays");
    }
    let lost = core.lose_volatile(fate, bench.now).expect("an entry");
    core.replay(lost.0, &lost.1).expect("replays");
    let again = core.lose_volatile(VolatileConsumers::End, bench.now);
    assert_eq!(again.is_some(), fate == VolatileConsumers::Restart);
    let mut started = Bench::around(core, bench.now);
    started.log = bench.log[..bench.durable].to_vec();
    started.log.push(lost);
    started.durable = started.log.len();
    started
}

/// Two consumers, one in memory, of which each has two of five messages acknowledged and a third delivered.
fn busy(config: &StreamConfig) -> Bench {
    let mut bench = Bench::new(config.clone());
    bench.consumer(durable("file"));
    bench.consumer(in_memory("memory"));
    for payload in ["1", "2", "3", "4", "5"] {
        bench.publish("s.a", payload);
    }
    for name in ["file", "memory"] {
        for message in &bench.pull(name, "3")[..2] {
            bench.ack(message, "+ACK");
        }
    }
    bench
}

fn state(bench: &mut Bench, name: &str) -> (u64, u64, u64, u64) {
    let info = bench.consumer_info(name);
    (
        info.delivered.consumer_seq,
        info.ack_floor.stream_seq,
        info.num_ack_pending,
        info.num_pending,
    )
}

#[test]
fn a_consumer_in_memory_is_gone_after_a_start_and_its_name_is_free() {
    let config = stream("S", &["s.>"]);
    let mut bench = started_again(&busy(&config), &config, VolatileConsumers::End);
    let name = "memory".to_owned();
    let asked = bench.request(StreamRequest::ConsumerInfo { name });
    assert!(matches!(asked, StreamReply::Refused(_)), "{asked:?}");
    assert_eq!(state(&mut bench, "file"), (3, 2, 1, 2));
    assert_eq!(bench.info().state.messages, 5);
    // Another one of its name owes nothing to it, and what it does is replayed after the loss.
    bench.consumer(in_memory("memory"));
    assert_eq!(bench.pull("memory", "4").len(), 4);
    // Progress that nobody waits for is logged a little later.
    bench.pass(SECOND);
    let mut crashed = bench.crashed(config);
    assert_eq!(state(&mut crashed, "memory"), (4, 0, 4, 1));
    assert_eq!(state(&mut crashed, "file"), (3, 2, 1, 2));
}

#[test]
fn a_consumer_in_memory_begins_once_more_where_a_cluster_knows_of_it() {
    let config = stream("S", &["s.>"]);
    let mut before = busy(&config);
    before.consumer(ConsumerConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: "s.>".to_owned(),
        ..in_memory("last")
    });
    assert_eq!(before.pull("last", "5").len(), 1);
    before.publish("s.b", "6");
    let created = before.consumer_info("memory").created;
    let mut bench = started_again(&before, &config, VolatileConsumers::Restart);
    assert_eq!(state(&mut bench, "memory"), (0, 0, 0, 6));
    assert_eq!(bench.consumer_info("memory").created, created);
    assert_eq!(state(&mut bench, "file"), (3, 2, 1, 3));
    assert_eq!(payloads(&bench.pull("last", "5")), ["5", "6"]);
    assert_eq!(bench.pull("memory", "6").len(), 6);
    // Progress that nobody waits for is logged a little later.
    bench.pass(SECOND);
    let mut crashed = bench.crashed(config);
    assert_eq!(state(&mut crashed, "memory"), (6, 0, 6, 0));
}

#[test]
fn the_leader_of_a_group_lets_consumers_in_memory_begin_once_more_and_who_waits_goes_on_waiting() {
    let config = stream("S", &["s.>"]);
    let mut bench = busy(&config);
    let rest = bench.pull("memory", r#"{"batch":9,"no_wait":true}"#);
    assert_eq!(payloads(&rest[..2]), ["4", "5"]);
    // What was created after the start nobody has lost.
    let before = state(&mut bench, "memory");
    bench.step(|core, _| core.restart_volatile(0));
    bench.settle();
    assert_eq!(state(&mut bench, "memory"), before);
    bench.pull_to("memory", "waits", "7");
    bench.instant = false;
    bench.step(|core, step| core.restart_volatile(step.now_ns + 1));
    // What is published before that is applied is not delivered from the old place.
    bench.publish("s.a", "6");
    assert!(bench.sent_to("waits").is_empty());
    bench.instant = true;
    bench.commit();
    bench.settle();
    let got = payloads(&bench.sent_to("waits"));
    assert_eq!(got, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(state(&mut bench, "memory"), (6, 0, 6, 0));
    assert_eq!(state(&mut bench, "file"), (3, 2, 1, 3));
    bench.publish("s.a", "7");
    assert_eq!(payloads(&bench.sent_to("waits")), ["7"]);
    bench.pass(SECOND);
    let mut crashed = bench.crashed(config);
    assert_eq!(state(&mut crashed, "memory"), (7, 0, 7, 0));
}

#[test]
fn what_a_lost_consumer_may_have_wanted_stays() {
    for retention in [Retention::Interest, Retention::Workqueue] {
        let config = StreamConfig {
            retention,
            ..stream("S", &["s.>"])
        };
        let mut bench = Bench::new(config.clone());
        bench.consumer(in_memory("memory"));
        for payload in ["1", "2", "3"] {
            bench.publish("s.a", payload);
        }
        let first = bench.pull("memory", "1");
        bench.ack(&first[0], "+ACK");
        let mut bench = started_again(&bench, &config, VolatileConsumers::End);
        assert_eq!(bench.info().state.messages, 2, "{retention:?}");
        bench.consumer(in_memory("memory"));
        assert_eq!(payloads(&bench.pull("memory", "5")), ["2", "3"]);
    }
}

#[test]
fn what_the_consumers_that_are_left_are_done_with_leaves_an_interest_stream() {
    let config = StreamConfig {
        retention: Retention::Interest,
        ..stream("S", &["s.>"])
    };
    let mut bench = busy(&config);
    for message in bench.pull("file", "2") {
        bench.ack(&message, "+ACK");
    }
    assert_eq!(bench.info().state.messages, 3);
    let mut bench = started_again(&bench, &config, VolatileConsumers::End);
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq), (1, 3));
}

#[test]
fn a_stream_without_such_consumers_logs_nothing() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("file"));
    assert_eq!(bench.core.lose_volatile(VolatileConsumers::End, 1), None);
}
