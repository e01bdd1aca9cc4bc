//! Publishing: acks, duplicates, expectations, limits.

use super::*;
use crate::jetstream::types::Discard;

fn plain() -> Bench {
    Bench::new(stream("S1", &["s1.>"]))
}

#[test]
fn an_ack_says_the_stream_and_the_sequence_and_nothing_else() {
    let mut bench = plain();
    assert_eq!(bench.publish("s1.a", "one"), r#"{"stream":"S1","seq":1}"#);
    assert_eq!(bench.publish("s1.b", "two"), r#"{"stream":"S1","seq":2}"#);
}

#[test]
fn an_ack_names_the_domain_when_there_is_one() {
    let store = Box::new(MemStore::new(Limits::default()));
    let core = StreamCore::create(stream("S1", &["s1.>"]), "hub", START, store).expect("creates");
    let mut bench = Bench::around(core, START);
    assert_eq!(
        bench.publish("s1.a", "one"),
        r#"{"stream":"S1","domain":"hub","seq":1}"#
    );
}

#[test]
fn no_ack_leaves_before_its_message_is_durable() {
    let mut bench = plain();
    bench.instant = false;
    assert_eq!(bench.publish("s1.a", "one"), "");
    bench.commit();
    assert_eq!(
        text(&bench.sent_to("reply.1")[0].payload),
        r#"{"stream":"S1","seq":1}"#
    );
}

#[test]
fn a_stream_without_acks_is_silent_even_about_errors() {
    let mut bench = Bench::new(StreamConfig {
        no_ack: true,
        ..stream("S1", &["s1.>"])
    });
    assert_eq!(bench.publish("s1.a", "one"), "");
    assert_eq!(
        bench.publish_with("s1.a", &[("Nats-Expected-Stream", "S9")], "x"),
        ""
    );
    assert_eq!(bench.info().state.messages, 1);
}

#[test]
fn a_duplicate_is_acknowledged_with_the_first_sequence_and_not_stored() {
    let mut bench = plain();
    let id = [("Nats-Msg-Id", "m1")];
    assert_eq!(
        bench.publish_with("s1.a", &id, "x"),
        r#"{"stream":"S1","seq":1}"#
    );
    assert_eq!(
        bench.publish_with("s1.a", &id, "x"),
        r#"{"stream":"S1","seq":1,"duplicate": true}"#
    );
    assert_eq!(bench.info().state.messages, 1);
    bench.pass(121 * SECOND);
    assert_eq!(
        bench.publish_with("s1.a", &id, "x"),
        r#"{"stream":"S1","seq":2}"#
    );
}

#[test]
fn the_ack_of_a_duplicate_waits_until_the_first_is_durable() {
    let mut bench = plain();
    bench.instant = false;
    let id = [("Nats-Msg-Id", "m1")];
    bench.send("s1.a", &id, "x");
    bench.send("s1.a", &id, "x");
    assert!(bench.sent().is_empty());
    bench.commit();
    assert_eq!(
        payloads(&bench.sent()),
        [
            r#"{"stream":"S1","seq":1}"#,
            r#"{"stream":"S1","seq":1,"duplicate": true}"#
        ]
    );
}

#[test]
fn the_duplicate_window_survives_a_crash_and_a_snapshot() {
    let mut bench = plain();
    let id = [("Nats-Msg-Id", "m1")];
    bench.publish_with("s1.a", &id, "x");
    let mut again = bench.crashed(stream("S1", &["s1.>"]));
    let duplicate = r#"{"stream":"S1","seq":1,"duplicate": true}"#;
    assert_eq!(again.publish_with("s1.a", &id, "x"), duplicate);
}

#[test]
fn expectations_are_checked_with_the_references_codes() {
    let mut bench = plain();
    bench.publish("s1.a", "1");
    bench.publish_with("s1.a", &[("Nats-Msg-Id", "id2")], "2");
    bench.publish("s1.b", "3");
    let error = |code: u16, error: u16, text: &str| {
        format!(
            r#"{{"error":{{"code":{code},"err_code":{error},"description":"{text}"}},"stream":"S1","seq":0}}"#
        )
    };
    for (headers, expected) in [
        (
            vec![("Nats-Expected-Stream", "S9")],
            error(400, 10060, "expected stream does not match"),
        ),
        (
            vec![("Nats-Expected-Last-Sequence", "99")],
            error(400, 10071, "wrong last sequence: 3"),
        ),
        (
            vec![("Nats-Expected-Last-Subject-Sequence", "0")],
            error(400, 10071, "wrong last sequence: 2"),
        ),
        (
            vec![("Nats-Expected-Last-Subject-Sequence-Subject", "s1.a")],
            error(
                400,
                10193,
                "missing sequence for expected last sequence per subject",
            ),
        ),
        (
            vec![("Nats-Expected-Last-Msg-Id", "zz")],
            error(400, 10070, "wrong last msg ID: "),
        ),
        (
            vec![("Nats-Rollup", "sub")],
            error(500, 10111, "rollup not permitted"),
        ),
        (
            vec![("Nats-TTL", "1s")],
            error(400, 10166, "per-message TTL is disabled"),
        ),
        (
            vec![("Nats-Incr", "+1")],
            error(400, 10168, "message counters is disabled"),
        ),
        (
            vec![("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
            error(400, 10174, "atomic publish is disabled"),
        ),
        (
            // A duplicate with a stale expectation hears of the expectation.
            vec![("Nats-Msg-Id", "id2"), ("Nats-Expected-Last-Sequence", "1")],
            error(400, 10071, "wrong last sequence: 3"),
        ),
    ] {
        assert_eq!(
            bench.publish_with("s1.a", &headers, "x"),
            expected,
            "{headers:?}"
        );
    }
    for (headers, sequence) in [
        (vec![("Nats-Expected-Last-Sequence", "3")], 4),
        (vec![("Nats-Expected-Last-Subject-Sequence", "4")], 5),
        (
            vec![
                ("Nats-Expected-Last-Subject-Sequence", "3"),
                ("Nats-Expected-Last-Subject-Sequence-Subject", "s1.b"),
            ],
            6,
        ),
        (
            vec![
                ("Nats-Expected-Last-Subject-Sequence", "6"),
                ("Nats-Expected-Last-Subject-Sequence-Subject", "s1.*"),
            ],
            7,
        ),
    ] {
        let expected = format!(r#"{{"stream":"S1","seq":{sequence}}}"#);
        assert_eq!(
            bench.publish_with("s1.a", &headers, "x"),
            expected,
            "{headers:?}"
        );
    }
}

#[test]
fn expectations_see_what_is_in_flight() {
    let mut bench = plain();
    bench.publish("s1.a", "1");
    bench.instant = false;
    let mut replies = Vec::new();
    for expected in ["1", "2", "2", "3"] {
        let headers = [("Nats-Expected-Last-Subject-Sequence", expected)];
        replies.push(bench.send("s1.a", &headers, "x"));
    }
    replies.push(bench.send("s1.a", &[("Nats-Expected-Last-Sequence", "4")], "x"));
    while bench.commit() {
        bench.settle();
    }
    let acks: Vec<String> = replies
        .iter()
        .map(|reply| text(&bench.sent_to(reply)[0].payload))
        .collect();
    assert_eq!(acks[0], r#"{"stream":"S1","seq":2}"#);
    assert_eq!(acks[1], r#"{"stream":"S1","seq":3}"#);
    assert!(acks[2].contains("wrong last sequence: 3"), "{}", acks[2]);
    assert_eq!(acks[3], r#"{"stream":"S1","seq":4}"#);
    assert_eq!(acks[4], r#"{"stream":"S1","seq":5}"#);
}

#[test]
fn every_message_sets_the_last_message_id() {
    let mut bench = plain();
    bench.publish_with("s1.a", &[("Nats-Msg-Id", "a")], "x");
    let expect = |id| [("Nats-Expected-Last-Msg-Id", id)];
    assert!(
        bench
            .publish_with("s1.a", &expect("a"), "x")
            .contains("\"seq\":2")
    );
    assert!(
        bench
            .publish_with("s1.a", &expect("a"), "x")
            .contains("wrong last msg ID: ")
    );
}

#[test]
fn a_rollup_replaces_what_was_there_before() {
    let mut bench = Bench::new(StreamConfig {
        allow_rollup_hdrs: true,
        ..stream("S2", &["s2.>"])
    });
    for subject in ["s2.k", "s2.k", "s2.j"] {
        bench.publish(subject, "x");
    }
    bench.publish_with("s2.k", &[("Nats-Rollup", "sub")], "r");
    assert_eq!(bench.info().state.messages, 2);
    assert!(
        bench
            .publish_with("s2.k", &[("Nats-Rollup", "bogus")], "r")
            .contains(r#""description":"rollup value invalid: \"bogus\""#)
    );
    bench.publish_with("s2.k", &[("Nats-Rollup", "ALL")], "r");
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq), (1, 5));
}

#[test]
fn a_message_dies_when_its_ttl_is_over_and_never_when_it_says_so() {
    let mut bench = Bench::new(StreamConfig {
        allow_msg_ttl: true,
        max_age: 100 * SECOND,
        ..stream("S2", &["s2.>"])
    });
    bench.publish_with("s2.t", &[("Nats-TTL", "10s")], "t");
    bench.publish_with("s2.t", &[("Nats-TTL", "never")], "t");
    bench.publish("s2.t", "t");
    assert!(
        bench
            .publish_with("s2.t", &[("Nats-TTL", "bogus")], "t")
            .contains("10165")
    );
    bench.pass(9 * SECOND);
    assert_eq!(bench.info().state.messages, 3);
    bench.pass(2 * SECOND);
    assert_eq!(bench.info().state.messages, 2);
    bench.pass(100 * SECOND);
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq), (1, 2));
}

#[test]
fn a_full_stream_that_discards_new_refuses_and_takes_again_when_there_is_room() {
    let mut bench = Bench::new(StreamConfig {
        max_msgs: 2,
        discard: Discard::New,
        ..stream("S", &["s.>"])
    });
    bench.publish("s.a", "1");
    bench.publish("s.b", "2");
    let refused = bench.publish("s.c", "3");
    assert_eq!(
        refused,
        r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#
    );
    bench.request(StreamRequest::Delete {
        sequence: 1,
        erase: false,
    });
    assert_eq!(bench.publish("s.c", "3"), r#"{"stream":"S","seq":3}"#);
}

#[test]
fn discard_new_counts_what_is_in_flight() {
    let mut bench = Bench::new(StreamConfig {
        max_msgs: 2,
        discard: Discard::New,
        ..stream("S", &["s.>"])
    });
    bench.instant = false;
    let replies: Vec<String> = (0..4).map(|_| bench.send("s.a", &[], "x")).collect();
    while bench.commit() {
        bench.settle();
    }
    let stored = replies
        .iter()
        .filter(|reply| text(&bench.sent_to(reply)[0].payload).contains("\"seq\":0"))
        .count();
    assert_eq!(stored, 2);
    assert_eq!(bench.info().state.messages, 2);
}

#[test]
fn discard_new_per_subject_refuses_only_that_subject() {
    let mut bench = Bench::new(StreamConfig {
        max_msgs_per_subject: 1,
        discard: Discard::New,
        discard_new_per_subject: true,
        allow_rollup_hdrs: true,
        ..stream("S", &["s.>"])
    });
    bench.publish("s.a", "1");
    assert!(
        bench
            .publish("s.a", "2")
            .contains("maximum messages per subject exceeded")
    );
    assert!(bench.publish("s.b", "2").contains("\"seq\":2"));
    assert!(
        bench
            .publish_with("s.a", &[("Nats-Rollup", "sub")], "3")
            .contains("\"seq\":3")
    );
}

#[test]
fn limits_remove_the_oldest() {
    let mut bench = Bench::new(StreamConfig {
        max_msgs: 3,
        max_msgs_per_subject: 2,
        ..stream("S", &["s.>"])
    });
    for subject in ["s.a", "s.a", "s.a", "s.b", "s.c"] {
        bench.publish(subject, "x");
    }
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq, state.last_seq), (3, 3, 5));
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    let mut bench = Bench::new(StreamConfig {
        max_msg_size: 10,
        ..stream("S", &["s.>"])
    });
    assert!(bench.publish("s.a", "0123456789").contains("\"seq\":1"));
    assert!(bench.publish("s.a", "0123456789x").contains("10054"));
}

#[test]
fn a_sealed_stream_takes_nothing() {
    let mut bench = Bench::new(StreamConfig {
        sealed: true,
        ..stream("S", &["s.>"])
    });
    assert!(bench.publish("s.a", "x").contains("10109"));
}

#[test]
fn a_counter_adds_up() {
    let mut bench = Bench::new(StreamConfig {
        allow_msg_counter: true,
        ..stream("CTR", &["ctr.>"])
    });
    let add = |value| [("Nats-Incr", value)];
    assert_eq!(
        bench.publish_with("ctr.a", &add("+5"), ""),
        r#"{"stream":"CTR","seq":1,"val":"5"}"#
    );
    assert_eq!(
        bench.publish_with("ctr.a", &add("-2"), ""),
        r#"{"stream":"CTR","seq":2,"val":"3"}"#
    );
    assert!(
        bench
            .publish_with("ctr.a", &add("1"), "x")
            .contains("10170")
    );
    assert!(
        bench
            .publish_with("ctr.a", &add("bogus"), "")
            .contains("10171")
    );
    assert!(bench.publish("ctr.a", "").contains("10169"));
}

#[test]
fn an_atomic_batch_is_stored_as_a_whole_or_not_at_all() {
    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        ..stream("S2", &["s2.>"])
    });
    let at = |id: &'static str, sequence: &'static str| {
        vec![("Nats-Batch-Id", id), ("Nats-Batch-Sequence", sequence)]
    };
    assert_eq!(bench.publish_with("s2.b", &at("b1", "1"), "1"), "");
    assert_eq!(bench.info().state.messages, 0);
    let mut last = at("b1", "2");
    last.push(("Nats-Batch-Commit", "1"));
    assert_eq!(
        bench.publish_with("s2.b", &last, "2"),
        r#"{"stream":"S2","seq":2,"batch":"b1","count":2}"#
    );
    assert!(
        bench
            .publish_with("s2.b", &at("b2", "5"), "9")
            .contains("10176")
    );
    bench.publish_with("s2.b", &at("b3", "1"), "1");
    let mut marker = at("b3", "2");
    marker.push(("Nats-Batch-Commit", "eob"));
    assert!(
        bench
            .publish_with("s2.b", &marker, "")
            .contains(r#""count":1"#)
    );
    assert_eq!(bench.info().state.messages, 3);
}

#[test]
fn a_batch_that_is_not_continued_is_forgotten() {
    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        ..stream("S2", &["s2.>"])
    });
    bench.publish_with(
        "s2.b",
        &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
        "1",
    );
    bench.pass(11 * SECOND);
    let late = [("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "2")];
    assert!(bench.publish_with("s2.b", &late, "2").contains("10176"));
}

#[test]
fn the_request_info_of_another_account_is_not_stored() {
    let mut bench = plain();
    bench.publish_with("s1.a", &[("Nats-Request-Info", "{}"), ("A", "1")], "x");
    let query = crate::jetstream::core::MessageQuery::Sequence(1);
    let stored = bench.core.get(&query).expect("stored");
    assert_eq!(text(&stored.headers), "NATS/1.0\r\nA: 1\r\n\r\n");
}

#[test]
fn refusals_come_in_the_references_order() {
    let mut bench = Bench::new(StreamConfig {
        max_msg_size: 60,
        ..stream("S", &["s.>"])
    });
    bench.publish_with("s.a", &[("Nats-Msg-Id", "one")], "1");
    bench.publish("s.b", "2");
    let payload = "x".repeat(80);
    // Each header is a reason of its own; with the first of them gone the next is heard of.
    let reasons = [
        (("Nats-Incr", "+1"), r#""err_code":10168"#),
        (("Nats-Expected-Stream", "T"), r#""err_code":10060"#),
        (("Nats-TTL", "1s"), r#""err_code":10166"#),
        (
            ("Nats-Expected-Last-Subject-Sequence", "9"),
            "wrong last sequence: 1",
        ),
        (
            ("Nats-Expected-Last-Sequence", "9"),
            "wrong last sequence: 2",
        ),
        (("Nats-Schedule", "@every 1h"), r#""err_code":10188"#),
        (("Nats-Msg-Id", "one"), r#""duplicate": true"#),
        (("Nats-Expected-Last-Msg-Id", "two"), r#""err_code":10070"#),
        (("Nats-Rollup", "sub"), r#""err_code":10111"#),
    ];
    for (number, (_, expected)) in reasons.iter().enumerate() {
        let headers: Vec<_> = reasons[number..]
            .iter()
            .map(|(header, _)| *header)
            .collect();
        let ack = bench.publish_with("s.a", &headers, &payload);
        assert!(ack.contains(expected), "{headers:?}: {ack}");
    }
    let ack = bench.publish("s.a", &payload);
    assert!(ack.contains(r#""err_code":10054"#), "{ack}");
}
