//! Where consumers start, how they deliver, and how requests end.

use super::*;
use crate::jetstream::core::{Advisory, ConsumerChange, PurgeQuery};
use crate::jetstream::types::{DeliverPolicy, ErrorCode, PriorityPolicy, ReplayPolicy, Time};

fn with_messages(messages: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for (subject, payload) in messages {
        bench.publish(subject, payload);
        bench.now += SECOND;
    }
    bench
}

fn five() -> Bench {
    with_messages(&[
        ("s.a", "1"),
        ("s.b", "2"),
        ("s.a", "3"),
        ("s.c", "4"),
        ("s.a", "5"),
    ])
}

fn starting(policy: DeliverPolicy) -> ConsumerConfig {
    ConsumerConfig {
        deliver_policy: policy,
        ..durable("c")
    }
}

#[test]
fn a_consumer_starts_where_its_policy_says() {
    for (config, expected) in [
        (starting(DeliverPolicy::All), vec!["1", "2", "3", "4", "5"]),
        (starting(DeliverPolicy::Last), vec!["5"]),
        (starting(DeliverPolicy::New), vec![]),
        (
            ConsumerConfig {
                opt_start_seq: 4,
                ..starting(DeliverPolicy::ByStartSequence)
            },
            vec!["4", "5"],
        ),
        (
            ConsumerConfig {
                opt_start_time: Some(Time::from_nanoseconds(START + SECOND / 2)),
                ..starting(DeliverPolicy::ByStartTime)
            },
            vec!["2", "3", "4", "5"],
        ),
        (
            ConsumerConfig {
                filter_subject: "s.>".to_owned(),
                ..starting(DeliverPolicy::LastPerSubject)
            },
            vec!["2", "4", "5"],
        ),
        (
            ConsumerConfig {
                filter_subject: "s.b".to_owned(),
                ..starting(DeliverPolicy::Last)
            },
            vec!["2"],
        ),
    ] {
        let mut bench = five();
        let info = bench.consumer(config.clone());
        assert_eq!(info.num_pending, expected.len() as u64, "{config:?}");
        assert_eq!(payloads(&bench.pull("c", "10")), expected, "{config:?}");
        bench.publish("s.d", "6");
        if config.filter_subject != "s.b" {
            assert_eq!(payloads(&bench.sent_to("inbox")), ["6"]);
        }
        assert_eq!(bench.consumer_info("c").num_pending, 0);
    }
}

#[test]
fn the_last_of_each_subject_survives_a_restart_in_the_middle() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        filter_subject: "s.>".to_owned(),
        ..starting(DeliverPolicy::LastPerSubject)
    });
    assert_eq!(payloads(&bench.pull("c", "1")), ["2"]);
    bench.pass(SECOND);
    let mut again = bench.crashed(stream("S", &["s.>"]));
    assert_eq!(again.consumer_info("c").num_pending, 2);
    assert_eq!(payloads(&again.pull("c", "5")), ["4", "5"]);
}

#[test]
fn an_ack_subject_tells_delivery_sequences_time_and_what_is_pending() {
    let mut bench = Bench::new(stream("S1", &["s1.>"]));
    bench.publish("s1.a", "one");
    bench.publish("s1.a", "two");
    bench.consumer(durable("C1"));
    let messages = bench.pull("C1", "2");
    assert_eq!(
        text(&messages[0].reply),
        format!("$JS.ACK.S1.C1.1.1.1.{START}.1")
    );
    assert_eq!(
        text(&messages[1].reply),
        format!("$JS.ACK.S1.C1.1.2.2.{START}.0")
    );
    assert_eq!(
        (text(&messages[0].to), text(&messages[0].subject)),
        ("inbox".into(), "s1.a".into())
    );
}

#[test]
fn filters_choose_and_pending_counts_what_they_match() {
    let mut bench = five();
    let info = bench.consumer(ConsumerConfig {
        filter_subjects: vec!["s.b".to_owned(), "s.c".to_owned()],
        ..durable("c")
    });
    assert_eq!(info.num_pending, 2);
    bench.publish("s.a", "6");
    bench.publish("s.c", "7");
    assert_eq!(bench.consumer_info("c").num_pending, 3);
    assert_eq!(payloads(&bench.pull("c", "10")), ["2", "4", "7"]);
    assert_eq!(bench.consumer_info("c").num_pending, 0);
}

#[test]
fn headers_only_leaves_the_payload_out_and_says_its_size() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.publish_with("s.a", &[("A", "1")], "hello");
    bench.consumer(ConsumerConfig {
        headers_only: true,
        ..durable("c")
    });
    let messages = bench.pull("c", "1");
    assert_eq!(
        text(&messages[0].headers),
        "NATS/1.0\r\nA: 1\r\nNats-Msg-Size: 5\r\n\r\n"
    );
    assert!(messages[0].payload.is_empty());
}

#[test]
fn a_pull_ends_with_the_status_its_client_expects() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    let no_wait = bench.pull("c", r#"{"batch":1,"no_wait":true}"#);
    assert_eq!(
        text(&no_wait[0].headers),
        "NATS/1.0 404 No Messages\r\n\r\n"
    );
    bench.publish("s.a", "1");
    bench.pull_to("c", "inbox", r#"{"batch":50,"expires":300000000}"#);
    assert_eq!(payloads(&bench.sent_to("inbox")), ["1"]);
    bench.pass(SECOND);
    assert_eq!(
        text(&bench.sent_to("inbox")[0].headers),
        "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 49\r\nNats-Pending-Bytes: 0\r\n\r\n"
    );
    // Any number of bytes, said otherwise.
    bench.pull_to(
        "c",
        "inbox",
        r#"{"batch":2,"max_bytes":-1,"expires":300000000}"#,
    );
    bench.pass(SECOND);
    assert_eq!(
        text(&bench.sent_to("inbox")[0].headers),
        "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 2\r\nNats-Pending-Bytes: -1\r\n\r\n"
    );
    let body = r#"{"batch":1,"expires":100000000,"idle_heartbeat":100000000}"#;
    assert_eq!(
        status(&bench.pull("c", body)[0]),
        "NATS/1.0 400 Bad Request - heartbeat value too large"
    );
}

#[test]
fn no_wait_with_expiry_takes_what_is_there_and_then_ends() {
    let mut bench = five();
    bench.consumer(durable("c"));
    let body = r#"{"batch":10,"no_wait":true,"expires":1000000000}"#;
    let taken = bench.pull("c", body);
    assert_eq!(taken.len(), 6);
    assert_eq!(status(&taken[5]), "NATS/1.0 404 No Messages");
    bench.pull_to("c", "later", body);
    assert!(bench.sent_to("later").is_empty());
    bench.publish("s.a", "6");
    let later = bench.sent_to("later");
    assert_eq!(
        (later.len(), status(&later[1])),
        (2, "NATS/1.0 404 No Messages".to_owned())
    );
}

#[test]
fn a_waiting_pull_hears_heartbeats() {
    let mut bench = five();
    bench.consumer(durable("c"));
    bench.pull("c", "4");
    bench.pull("c", "1");
    bench.pull_to(
        "c",
        "inbox",
        r#"{"batch":1,"expires":500000000,"idle_heartbeat":100000000}"#,
    );
    bench.pass(SECOND / 4);
    let beats = bench.sent_to("inbox");
    assert_eq!(beats.len(), 2);
    assert_eq!(
        text(&beats[0].headers),
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\nNats-Last-Stream: 5\r\n\r\n"
    );
    bench.pass(SECOND);
    assert_eq!(
        status(&bench.sent_to("inbox")[2]),
        "NATS/1.0 408 Request Timeout"
    );
}

#[test]
fn a_byte_limit_ends_a_pull() {
    let mut bench = five();
    bench.consumer(durable("c"));
    let small = bench.pull("c", r#"{"batch":5,"max_bytes":10}"#);
    assert_eq!(
        text(&small[0].headers),
        "NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 5\r\nNats-Pending-Bytes: 10\r\n\r\n"
    );
    let enough = bench.pull("c", r#"{"batch":2,"max_bytes":1000}"#);
    assert_eq!(enough.len(), 3);
    assert_eq!(status(&enough[2]), "NATS/1.0 409 Batch Completed");
}

#[test]
fn the_message_that_takes_the_last_byte_is_the_last() {
    let mut bench = five();
    bench.consumer(durable("c"));
    let first = bench.pull("c", r#"{"batch":2,"max_bytes":1000}"#);
    let left = text(&first[2].headers);
    let left = left
        .lines()
        .find_map(|line| line.strip_prefix("Nats-Pending-Bytes: "))
        .and_then(|left| left.parse::<u64>().ok())
        .expect("the bytes that are left");
    let body = format!(r#"{{"batch":5,"max_bytes":{}}}"#, 1000 - left);
    let next = bench.pull("c", &body);
    assert_eq!(payloads(&next), ["3", "4"]);
    assert_eq!(bench.consumer_info("c").num_waiting, 0);
}

#[test]
fn limits_of_requests_are_told_by_status() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        max_batch: 2,
        max_expires: 1_500_000_000,
        max_bytes: 100,
        max_waiting: 1,
        ..durable("c")
    });
    for (body, expected) in [
        ("3", "409 Exceeded MaxRequestBatch of 2"),
        (
            r#"{"batch":1,"expires":2000000000}"#,
            "409 Exceeded MaxRequestExpires of 1.5s",
        ),
        (
            r#"{"batch":1,"max_bytes":101}"#,
            "409 Exceeded MaxRequestMaxBytes of 100",
        ),
        (
            r#"{"batch":1,"min_pending":1}"#,
            "400 Bad Request - Not a Overflow Priority consumer",
        ),
        (
            r#"{"batch":1,"id":"x"}"#,
            "400 Bad Request - Not a Pinned Client Priority consumer",
        ),
        (
            r#"{"batch":1,"priority":10}"#,
            "400 Bad Request - Priority must be between 0 and 9",
        ),
    ] {
        assert_eq!(
            status(&bench.pull("c", body)[0]),
            format!("NATS/1.0 {expected}"),
            "{body}"
        );
    }
    for _ in 0..5 {
        bench.pull("c", "1");
    }
    bench.pull_to("c", "first", "1");
    assert_eq!(
        status(&bench.pull("c", "1")[0]),
        "NATS/1.0 409 Exceeded MaxWaiting"
    );
    let quiet = r#"{"batch":1,"expires":1000000000,"idle_heartbeat":100000000}"#;
    assert!(bench.pull("c", quiet).is_empty());
}

#[test]
fn no_wait_does_not_queue_behind_others() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        max_ack_pending: 1,
        ..durable("c")
    });
    for number in 0..3 {
        bench.publish("s.a", &number.to_string());
    }
    bench.pull_to("c", "first", r#"{"batch":10}"#);
    assert_eq!(
        status(&bench.pull("c", r#"{"batch":1,"no_wait":true}"#)[0]),
        "NATS/1.0 408 Requests Pending"
    );
}

#[test]
fn waiting_requests_are_served_in_turn() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    bench.pull_to("c", "one", r#"{"batch":2}"#);
    bench.pull_to("c", "two", r#"{"batch":2}"#);
    for number in 1..=4 {
        bench.publish("s.a", &number.to_string());
    }
    assert_eq!(payloads(&bench.sent_to("one")), ["1", "3"]);
    assert_eq!(payloads(&bench.sent_to("two")), ["2", "4"]);
    assert_eq!(bench.consumer_info("c").num_waiting, 0);
}

#[test]
fn a_request_from_another_account_is_told_that_nobody_listens_any_more() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    bench.pull_to("c", "_R_.abcdef.123456", r#"{"batch":2}"#);
    bench
        .world
        .deaf
        .borrow_mut()
        .insert(Bytes::from_static(b"_R_.abcdef.123456"));
    bench.now += 1;
    bench.publish("s.a", "1");
    assert_eq!(
        status(&bench.sent_to("_R_.abcdef.123456")[0]),
        "NATS/1.0 408 Interest Expired"
    );
    assert_eq!(bench.consumer_info("c").num_waiting, 0);
}

#[test]
fn requests_without_listeners_are_dropped_silently() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    bench.pull_to("c", "gone", r#"{"batch":2}"#);
    bench.pull_to("c", "here", r#"{"batch":2}"#);
    bench
        .world
        .deaf
        .borrow_mut()
        .insert(Bytes::from_static(b"gone"));
    bench.now += 1;
    bench.publish("s.a", "1");
    assert!(bench.sent_to("gone").is_empty());
    assert_eq!(payloads(&bench.sent_to("here")), ["1"]);
}

#[test]
fn a_deleted_consumer_ends_its_requests() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    bench.pull_to("c", "inbox", r#"{"batch":2}"#);
    bench.request(StreamRequest::ConsumerDelete {
        name: "c".to_owned(),
    });
    assert_eq!(
        text(&bench.sent_to("inbox")[0].headers),
        "NATS/1.0 409 Consumer Deleted\r\n\r\n"
    );
    assert!(bench.effects.consumers.contains(&ConsumerChange::Absent {
        id: 1,
        name: "c".to_owned()
    }));
}

#[test]
fn an_ephemeral_consumer_goes_when_nobody_uses_it() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        durable_name: String::new(),
        ack_policy: AckPolicy::None,
        inactive_threshold: 3 * SECOND,
        ..durable("e")
    });
    bench.pull_to("e", "inbox", r#"{"batch":1,"expires":2000000000}"#);
    bench.pass(2 * SECOND + SECOND / 2);
    bench.pull_to("e", "inbox", "1");
    bench.pass(2 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 1);
    bench.pass(2 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 0);
}

#[test]
fn an_ephemeral_consumer_waits_for_acks_that_may_still_come() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        durable_name: String::new(),
        ack_wait: 10 * SECOND,
        inactive_threshold: 3 * SECOND,
        ..durable("e")
    });
    bench.pull_to("e", "inbox", "1");
    bench.pass(12 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 1);
    bench.pass(2 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 0);
}

#[test]
fn a_waiting_request_keeps_an_ephemeral_consumer() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        durable_name: String::new(),
        inactive_threshold: 5 * SECOND,
        ..durable("e")
    });
    bench.pull_to("e", "inbox", r#"{"batch":1,"expires":60000000000}"#);
    bench.pass(30 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 1);
    bench.pass(60 * SECOND);
    assert_eq!(bench.info().state.consumer_count, 0);
}

fn push(name: &str) -> ConsumerConfig {
    ConsumerConfig {
        deliver_subject: "deliver".to_owned(),
        max_waiting: 0,
        ..durable(name)
    }
}

#[test]
fn a_push_consumer_delivers_while_somebody_listens() {
    let mut bench = five();
    bench
        .world
        .deaf
        .borrow_mut()
        .insert(Bytes::from_static(b"deliver"));
    assert!(!bench.consumer(push("p")).push_bound);
    assert!(bench.sent_to("deliver").is_empty());
    bench.world.deaf.borrow_mut().clear();
    bench.event(Event::Interest {
        consumer: 1,
        active: true,
    });
    let messages = bench.sent_to("deliver");
    assert_eq!(payloads(&messages), ["1", "2", "3", "4", "5"]);
    assert_eq!(text(&messages[0].subject), "s.a");
    assert!(bench.consumer_info("p").push_bound);
    bench.event(Event::Interest {
        consumer: 1,
        active: false,
    });
    bench.publish("s.a", "6");
    assert!(bench.sent_to("deliver").is_empty());
}

#[test]
fn a_push_consumer_says_that_it_is_pushed() {
    let mut bench = five();
    bench.consumer(push("p"));
    assert_eq!(
        status(&bench.pull("p", "1")[0]),
        "NATS/1.0 409 Consumer is push based"
    );
}

#[test]
fn an_idle_push_consumer_sends_heartbeats() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        idle_heartbeat: SECOND,
        ..push("p")
    });
    bench.sent();
    bench.pass(SECOND * 5 / 2);
    let beats = bench.sent_to("deliver");
    assert_eq!(beats.len(), 2);
    assert_eq!(
        text(&beats[0].headers),
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\nNats-Last-Stream: 5\r\n\r\n"
    );
}

#[test]
fn flow_control_stalls_until_the_client_answers() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        flow_control: true,
        idle_heartbeat: SECOND,
        ..push("p")
    });
    let payload = "x".repeat(600 * 1024);
    for _ in 0..8 {
        bench.publish("s.a", &payload);
    }
    let sent = bench.sent_to("deliver");
    let request = sent
        .iter()
        .find(|message| status(message) == "NATS/1.0 100 FlowControl Request")
        .expect("a flow control request");
    assert!(request.reply.starts_with(b"$JS.FC.S.p."));
    let before = sent
        .iter()
        .filter(|message| !message.payload.is_empty())
        .count();
    assert!(before < 8);
    bench.pass(SECOND + 1);
    let beat = text(&bench.sent_to("deliver")[0].headers);
    assert!(
        beat.contains(&format!("Nats-Consumer-Stalled: {}", text(&request.reply))),
        "{beat}"
    );
    bench.event(Event::FlowControl {
        subject: request.reply.clone(),
        headers: Bytes::new(),
    });
    let after = bench.sent_to("deliver");
    assert!(after.iter().any(|message| !message.payload.is_empty()));
}

#[test]
fn a_paused_consumer_delivers_nothing_until_it_is_resumed() {
    let mut bench = five();
    bench.consumer(durable("c"));
    let name = || "c".to_owned();
    let over = Some(bench.now - SECOND);
    let until_ns = over;
    bench.request(StreamRequest::ConsumerPause {
        name: name(),
        until_ns,
    });
    // A time that is over is shown but pauses nothing.
    let info = bench.consumer_info("c");
    assert_eq!(
        (
            info.config.pause_until.map(|it| it.nanoseconds()),
            info.paused
        ),
        (over, false)
    );
    let until_ns = Some(bench.now + 10 * SECOND);
    let name = name();
    let reply = bench.request(StreamRequest::ConsumerPause { name, until_ns });
    assert!(
        matches!(reply, StreamReply::Paused { remaining_ns, .. } if remaining_ns == 10 * SECOND)
    );
    assert!(bench.consumer_info("c").paused);
    let impatient = bench.pull("c", r#"{"batch":1,"no_wait":true}"#);
    assert!(
        impatient[0]
            .headers
            .starts_with(b"NATS/1.0 404 No Messages")
    );
    bench.pull_to("c", "inbox", r#"{"batch":1}"#);
    bench.pass(9 * SECOND);
    assert!(bench.sent_to("inbox").is_empty());
    bench.pass(2 * SECOND);
    assert_eq!(bench.sent_to("inbox").len(), 1);
}

#[test]
fn original_speed_keeps_the_distance_between_messages() {
    let mut bench = five();
    bench.consumer(ConsumerConfig {
        replay_policy: ReplayPolicy::Original,
        ..push("p")
    });
    assert_eq!(payloads(&bench.sent_to("deliver")), ["1"]);
    bench.pass(SECOND + SECOND / 2);
    assert_eq!(payloads(&bench.sent_to("deliver")), ["2"]);
    bench.pass(3 * SECOND);
    assert_eq!(payloads(&bench.sent_to("deliver")), ["3", "4", "5"]);
}

#[test]
fn a_rate_limit_spreads_deliveries() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    let payload = "x".repeat(512 * 1024);
    for _ in 0..6 {
        bench.publish("s.a", &payload);
    }
    // One burst of a mebibyte, then half a mebibyte a second.
    bench.consumer(ConsumerConfig {
        rate_limit_bps: 4 * 1024 * 1024,
        ..push("p")
    });
    let at_once = bench.sent_to("deliver").len();
    assert!((2..=3).contains(&at_once), "{at_once}");
    bench.pass(2 * SECOND + SECOND / 5);
    let later = bench.sent_to("deliver").len();
    assert!((1..=3).contains(&later), "{later}");
    bench.pass(10 * SECOND);
    assert_eq!(at_once + later + bench.sent_to("deliver").len(), 6);
}

#[test]
fn an_overflow_request_is_served_when_a_threshold_is_reached() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::Overflow,
        priority_groups: vec!["g".to_owned()],
        ..durable("c")
    });
    let missing = bench.pull("c", r#"{"batch":1}"#);
    assert_eq!(
        status(&missing[0]),
        "NATS/1.0 400 Bad Request - Priority Group missing"
    );
    let invalid = bench.pull("c", r#"{"batch":1,"group":"x"}"#);
    assert_eq!(
        status(&invalid[0]),
        "NATS/1.0 400 Bad Request - Invalid Priority Group"
    );
    bench.pull_to("c", "inbox", r#"{"batch":2,"group":"g","min_pending":2}"#);
    bench.publish("s.a", "1");
    assert!(bench.sent_to("inbox").is_empty());
    bench.publish("s.a", "2");
    assert_eq!(payloads(&bench.sent_to("inbox")), ["1"]);
}

#[test]
fn a_request_that_does_not_wait_hears_so_when_it_may_not_have_what_there_is() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::Overflow,
        priority_groups: vec!["g".to_owned()],
        ..durable("c")
    });
    bench.publish("s.a", "1");
    let patient = r#"{"batch":1,"group":"g","min_ack_pending":2}"#;
    bench.pull_to("c", "inbox", patient);
    let impatient = r#"{"batch":1,"group":"g","min_ack_pending":2,"no_wait":true}"#;
    let answer = bench.pull("c", impatient);
    assert_eq!(status(&answer[0]), "NATS/1.0 404 No Messages");
    assert!(bench.sent_to("inbox").is_empty());
}

#[test]
fn a_pinned_client_is_served_alone() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".to_owned()],
        priority_timeout: 10 * SECOND,
        ..durable("c")
    });
    bench.pull_to("c", "one", r#"{"batch":1,"group":"g"}"#);
    bench.pull_to("c", "two", r#"{"batch":5,"group":"g"}"#);
    bench.publish("s.a", "1");
    let one = bench.sent_to("one");
    let headers = text(&one[0].headers);
    let id = headers
        .lines()
        .find_map(|line| line.strip_prefix("Nats-Pin-Id: "))
        .expect("a pin")
        .to_owned();
    bench.publish("s.a", "2");
    assert!(bench.sent_to("two").is_empty());
    let stale = bench.pull("c", r#"{"batch":1,"group":"g","id":"old"}"#);
    assert_eq!(status(&stale[0]), "NATS/1.0 423 Nats-Pin-Id mismatch");
    let body = format!(r#"{{"batch":1,"group":"g","id":"{id}"}}"#);
    bench.pull_to("c", "one", &body);
    assert_eq!(payloads(&bench.sent_to("one")), ["2"]);
    bench.publish("s.a", "3");
    bench.effects.advisories.clear();
    bench.pass(11 * SECOND);
    assert_eq!(payloads(&bench.sent_to("two")), ["3"]);
    assert!(matches!(
        bench.effects.advisories[0],
        Advisory::Unpinned {
            reason: "timeout",
            ..
        }
    ));
}

#[test]
fn the_request_that_makes_its_client_the_pinned_one_gets_all_that_it_asks_for() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".to_owned()],
        priority_timeout: 10 * SECOND,
        ..durable("c")
    });
    for payload in ["1", "2", "3"] {
        bench.publish("s.a", payload);
    }
    let got = bench.pull("c", r#"{"batch":5,"group":"g","no_wait":true}"#);
    assert_eq!(payloads(&got[..3]), ["1", "2", "3"]);
    assert_eq!(status(&got[3]), "NATS/1.0 404 No Messages");
    assert_eq!(got.len(), 4);
}

#[test]
fn prioritized_requests_are_served_by_number() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::Prioritized,
        priority_groups: vec!["g".to_owned()],
        ..durable("c")
    });
    bench.pull_to("c", "low", r#"{"batch":2,"group":"g","priority":5}"#);
    bench.pull_to("c", "high", r#"{"batch":2,"group":"g","priority":1}"#);
    for number in 1..=3 {
        bench.publish("s.a", &number.to_string());
    }
    assert_eq!(payloads(&bench.sent_to("high")), ["1", "2"]);
    assert_eq!(payloads(&bench.sent_to("low")), ["3"]);
}

#[test]
fn a_purge_moves_consumers_past_what_is_gone() {
    let mut bench = five();
    bench.consumer(durable("c"));
    bench.pull("c", "2");
    let below = PurgeQuery {
        below_sequence: 5,
        ..PurgeQuery::default()
    };
    assert!(matches!(
        bench.request(StreamRequest::Purge(below)),
        StreamReply::Purged(4)
    ));
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 1));
    assert_eq!(
        (info.delivered.consumer_seq, info.delivered.stream_seq),
        (2, 4)
    );
    assert_eq!(payloads(&bench.pull("c", "5")), ["5"]);
}

#[test]
fn a_purge_of_other_subjects_does_not_move_a_consumer() {
    let mut bench = with_messages(&[("s.a", "1"), ("s.b", "2"), ("s.b", "3"), ("s.a", "4")]);
    let filtered = |name: &str, filter: &str| ConsumerConfig {
        filter_subject: filter.to_owned(),
        ..durable(name)
    };
    bench.consumer(filtered("other", "s.b"));
    bench.consumer(filtered("same", "s.a"));
    bench.consumer(filtered("wider", "s.*"));
    let purge = PurgeQuery {
        filter: "s.a".to_owned(),
        ..PurgeQuery::default()
    };
    bench.request(StreamRequest::Purge(purge));
    let [other, same, wider] = ["other", "same", "wider"].map(|name| {
        let info = bench.consumer_info(name);
        (info.delivered.stream_seq, info.num_pending)
    });
    assert_eq!((other, same, wider), ((0, 2), (4, 0), (1, 2)));
    assert_eq!(payloads(&bench.pull("other", "2")), ["2", "3"]);
    bench.publish("s.a", "5");
    assert_eq!(payloads(&bench.pull("same", "1")), ["5"]);
}

#[test]
fn a_consumer_exists_once_and_changes_only_as_asked() {
    let mut bench = five();
    bench.consumer(durable("c"));
    let again = bench.try_consumer(durable("c"), ConsumerAction::Create);
    assert!(matches!(
        again,
        StreamReply::ConsumerCreated { created: false, .. }
    ));
    let other = ConsumerConfig {
        max_ack_pending: 5,
        ..durable("c")
    };
    let refused = |reply: StreamReply, code: ErrorCode| match reply {
        StreamReply::Refused(error) => assert!(error.is(code), "{error}"),
        other => panic!("{other:?}"),
    };
    refused(
        bench.try_consumer(other.clone(), ConsumerAction::Create),
        ErrorCode::ConsumerAlreadyExists,
    );
    refused(
        bench.try_consumer(durable("d"), ConsumerAction::Update),
        ErrorCode::ConsumerDoesNotExist,
    );
    let updated = bench.try_consumer(other, ConsumerAction::Update);
    match updated {
        StreamReply::ConsumerCreated { info, created } => {
            assert!(!created);
            assert_eq!(info.config.max_ack_pending, 5);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_has_no_more_consumers_than_it_may() {
    let mut bench = Bench::new(StreamConfig {
        max_consumers: 1,
        ..stream("S", &["s.>"])
    });
    bench.consumer(durable("a"));
    match bench.try_consumer(durable("b"), ConsumerAction::CreateOrUpdate) {
        StreamReply::Refused(error) => assert!(error.is(ErrorCode::MaximumConsumersLimit)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reset_consumer_starts_anew_at_the_sequence() {
    let mut bench = five();
    bench.consumer(durable("c"));
    bench.pull("c", "5");
    let name = "c".to_owned();
    let reply = bench.request(StreamRequest::ConsumerReset { name, sequence: 4 });
    assert!(matches!(reply, StreamReply::Reset { sequence: 4, .. }));
    let info = bench.consumer_info("c");
    assert_eq!((info.num_pending, info.num_ack_pending), (2, 0));
    assert_eq!(payloads(&bench.pull("c", "5")), ["4", "5"]);
}

#[test]
fn other_filters_change_what_is_pending() {
    let mut bench = five();
    bench.consumer(durable("c"));
    bench.consumer(ConsumerConfig {
        filter_subject: "s.a".to_owned(),
        ..durable("c")
    });
    assert_eq!(bench.consumer_info("c").num_pending, 3);
    assert_eq!(payloads(&bench.pull("c", "5")), ["1", "3", "5"]);
}
