//! Atomic and fast batches.

use std::sync::Arc;

use super::*;
use crate::jetstream::core::{
    Advisory, BatchLimits, BatchQuota, MessageQuery, Retirement, StreamTerms,
};
use crate::jetstream::types::Discard;

fn bench() -> Bench {
    Bench::new(StreamConfig {
        allow_atomic: true,
        allow_batched: true,
        allow_rollup_hdrs: true,
        ..stream("B", &["b.>"])
    })
}

/// Sends a message of an atomic batch.
fn send(
    bench: &mut Bench,
    id: &str,
    sequence: u64,
    more: &[(&str, &str)],
    subject: &str,
) -> String {
    let sequence = sequence.to_string();
    let mut headers = vec![
        ("Nats-Batch-Id", id),
        ("Nats-Batch-Sequence", sequence.as_str()),
    ];
    headers.extend_from_slice(more);
    bench.publish_with(subject, &headers, "x")
}

const COMMIT: (&str, &str) = ("Nats-Batch-Commit", "1");
const END: (&str, &str) = ("Nats-Batch-Commit", "eob");

fn headers_of(bench: &Bench, sequence: u64) -> String {
    let stored = bench.core.get(&MessageQuery::Sequence(sequence));
    text(&stored.expect("stored").headers)
}

fn abandoned(bench: &mut Bench) -> Vec<(String, &'static str)> {
    let advisories = std::mem::take(&mut bench.effects.advisories);
    let batches = advisories
        .into_iter()
        .filter_map(|advisory| match advisory {
            Advisory::BatchAbandoned { batch, reason } => Some((batch, reason)),
            _ => None,
        });
    batches.collect()
}

#[test]
fn a_batch_is_committed_with_its_last_message_or_after_it() {
    let mut bench = bench();
    send(&mut bench, "one", 1, &[], "b.a");
    let ack = send(&mut bench, "one", 2, &[COMMIT], "b.b");
    assert_eq!(ack, r#"{"stream":"B","seq":2,"batch":"one","count":2}"#);
    send(&mut bench, "two", 1, &[], "b.a");
    send(&mut bench, "two", 2, &[], "b.b");
    let ack = send(&mut bench, "two", 3, &[END], "b.c");
    assert_eq!(ack, r#"{"stream":"B","seq":4,"batch":"two","count":2}"#);
    assert_eq!(bench.info().state.messages, 4);
    for sequence in [2, 4] {
        let headers = headers_of(&bench, sequence);
        assert!(headers.contains("Nats-Batch-Commit: 1\r\n"), "{headers}");
    }
    assert!(!headers_of(&bench, 3).contains("Commit"));
}

#[test]
fn a_broken_batch_is_refused_and_reported() {
    let mut bench = bench();
    let refused = |ack: String, code: &str| assert!(ack.contains(code), "{code}: {ack}");
    refused(send(&mut bench, "first", 1, &[END], "b.a"), "10176");
    send(&mut bench, "gap", 1, &[], "b.a");
    refused(send(&mut bench, "gap", 3, &[], "b.a"), "10176");
    send(&mut bench, "twice", 1, &[], "b.a");
    refused(send(&mut bench, "twice", 1, &[], "b.a"), "10176");
    send(&mut bench, "level", 1, &[], "b.a");
    let level = [("Nats-Required-Api-Level", "99")];
    refused(send(&mut bench, "level", 2, &level, "b.a"), "10185");
    let reported: Vec<_> = abandoned(&mut bench);
    assert_eq!(
        reported,
        [
            ("first".to_owned(), "incomplete"),
            ("gap".to_owned(), "incomplete"),
            ("twice".to_owned(), "incomplete"),
            ("level".to_owned(), "unsupported"),
        ]
    );
    // Of these nobody hears but the publisher.
    refused(send(&mut bench, "unknown", 2, &[], "b.a"), "10176");
    refused(send(&mut bench, "long", 1002, &[], "b.a"), "10199");
    refused(send(&mut bench, &"i".repeat(65), 1, &[], "b.a"), "10179");
    send(&mut bench, "commit", 1, &[], "b.a");
    let odd = [("Nats-Batch-Commit", "yes")];
    refused(send(&mut bench, "commit", 2, &odd, "b.a"), "10200");
    let headers = [("Nats-Batch-Id", "none")];
    refused(bench.publish_with("b.a", &headers, "x"), "10175");
    assert_eq!(abandoned(&mut bench), []);
    assert_eq!(bench.info().state.messages, 0);
}

#[test]
fn what_cannot_be_stored_alone_is_refused_in_a_batch_at_once() {
    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        max_msg_size: 10,
        ..stream("B", &["b.>"])
    });
    let batch = |sequence| {
        [
            ("Nats-Batch-Id", "large"),
            ("Nats-Batch-Sequence", sequence),
        ]
    };
    bench.publish_with("b.a", &batch("1"), "fits");
    let ack = bench.publish_with("b.a", &batch("2"), "does not fit at all");
    assert!(ack.contains("10054"), "{ack}");
    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        sealed: true,
        ..stream("B", &["b.>"])
    });
    let ack = bench.publish_with("b.a", &batch("1"), "x");
    assert!(ack.contains("10109"), "{ack}");
}

#[test]
fn a_level_that_is_met_is_not_stored() {
    let mut bench = bench();
    let level = [("Nats-Required-Api-Level", "2"), COMMIT];
    send(&mut bench, "one", 1, &level, "b.a");
    assert!(!headers_of(&bench, 1).contains("Required"));
}

#[test]
fn a_batch_has_a_thousand_messages_at_most() {
    let mut bench = bench();
    for sequence in 1..=1000 {
        send(&mut bench, "full", sequence, &[], "b.a");
    }
    let ack = send(&mut bench, "full", 1001, &[END], "b.a");
    assert!(ack.contains(r#""count":1000"#), "{ack}");
    for sequence in 1..=1000 {
        send(&mut bench, "over", sequence, &[], "b.a");
    }
    let ack = send(&mut bench, "over", 1001, &[COMMIT], "b.a");
    assert!(ack.contains("10199"), "{ack}");
    assert_eq!(abandoned(&mut bench), [("over".to_owned(), "large")]);
}

#[test]
fn fifty_batches_are_open_at_a_time() {
    let mut bench = bench();
    for batch in 0..50 {
        send(&mut bench, &format!("b{batch}"), 1, &[], "b.a");
    }
    let ack = send(&mut bench, "more", 1, &[], "b.a");
    assert!(ack.contains("10210"), "{ack}");
    bench.pass(11 * SECOND);
    assert_eq!(abandoned(&mut bench).len(), 50);
    assert_eq!(send(&mut bench, "more", 1, &[], "b.a"), "");
}

/// Two streams of a server with such limits.
fn two_under(limits: BatchLimits) -> [Bench; 2] {
    let quota = Arc::new(BatchQuota::new(limits));
    [bench(), bench()].map(|mut bench| {
        let terms = StreamTerms {
            batches: Arc::clone(&quota),
            ..StreamTerms::default()
        };
        bench.core.keep_to(terms, "$G");
        bench
    })
}

#[test]
fn the_batches_of_all_streams_are_counted_together() {
    let [mut one, mut other] = two_under(BatchLimits {
        total_max: Some(2),
        ..BatchLimits::default()
    });
    send(&mut one, "a", 1, &[], "b.a");
    send(&mut other, "a", 1, &[], "b.a");
    assert!(send(&mut one, "more", 1, &[], "b.a").contains("10210"));
    // A batch that ends makes room, however it ends: committed, broken, or forgotten.
    assert!(send(&mut other, "a", 2, &[COMMIT], "b.a").contains("\"count\":2"));
    assert_eq!(send(&mut one, "more", 1, &[], "b.a"), "");
    assert!(send(&mut other, "a", 1, &[], "b.a").contains("10210"));
    send(&mut one, "more", 3, &[], "b.a");
    assert_eq!(send(&mut other, "a", 1, &[], "b.a"), "");
    one.pass(11 * SECOND);
    assert_eq!(send(&mut other, "b", 1, &[], "b.a"), "");
    assert!(send(&mut one, "more", 1, &[], "b.a").contains("10210"));
    // So does a leader that leads no more.
    other.step(|core, step| core.retire(Retirement::LeadershipLost, step.effects));
    assert_eq!(send(&mut one, "more", 1, &[], "b.a"), "");

    let [mut one, mut other] = two_under(BatchLimits {
        total_max: Some(1),
        ..BatchLimits::default()
    });
    fast(&mut one, "id.9.fail.1.0", &[]);
    assert!(fast(&mut other, "id.9.fail.1.0", &[])[0].contains("10211"));
    // The two kinds are counted apart.
    assert_eq!(send(&mut other, "a", 1, &[], "b.a"), "");
    fast(&mut one, "id.9.fail.2.2", &[]);
    assert!(fast(&mut other, "id.9.fail.1.0", &[])[0].contains("\"ack\""));
}

#[test]
fn what_batches_may_be_is_the_operators_to_say() {
    let [mut bench, _] = two_under(BatchLimits {
        per_stream_max: Some(1),
        messages_max: Some(2),
        idle_ns_max: Some(2 * SECOND),
        ..BatchLimits::default()
    });
    send(&mut bench, "long", 1, &[], "b.a");
    assert!(send(&mut bench, "more", 1, &[], "b.a").contains("10210"));
    send(&mut bench, "long", 2, &[], "b.a");
    let ack = send(&mut bench, "long", 3, &[COMMIT], "b.a");
    assert!(ack.contains("10199") && ack.contains('2'), "{ack}");
    send(&mut bench, "slow", 1, &[], "b.a");
    fast(&mut bench, "slow.9.ok.1.0", &[]);
    assert!(fast(&mut bench, "more.9.ok.1.0", &[])[0].contains("10211"));
    bench.pass(SECOND);
    assert_eq!(send(&mut bench, "slow", 2, &[], "b.a"), "");
    bench.pass(3 * SECOND);
    assert!(fast(&mut bench, "slow.9.ok.2.1", &[])[0].contains("10208"));
    assert_eq!(
        abandoned(&mut bench),
        [("long".to_owned(), "large"), ("slow".to_owned(), "timeout")]
    );
}

#[test]
fn the_messages_of_a_batch_know_each_other() {
    let mut bench = bench();
    bench.publish_with("b.known", &[("Nats-Msg-Id", "stored")], "x");
    let last = [("Nats-Expected-Last-Sequence", "1")];
    let mut pair = |first: &[(&str, &str)], second: &[(&str, &str)]| {
        send(&mut bench, "pair", 1, first, "b.a");
        let mut second = second.to_vec();
        second.push(COMMIT);
        send(&mut bench, "pair", 2, &second, "b.a")
    };
    let same = [("Nats-Msg-Id", "same")];
    assert!(pair(&same, &same).contains("10201"));
    assert!(pair(&[], &[("Nats-Msg-Id", "stored")]).contains("10201"));
    assert!(pair(&last, &[("Nats-Expected-Last-Sequence", "2")]).contains("10164"));
    let on_subject = [("Nats-Expected-Last-Subject-Sequence", "0")];
    assert!(pair(&[], &on_subject).contains("10164"));
    assert!(pair(&[], &[("Nats-Rollup", "sub")]).contains("batch rollup sub invalid"));
    assert!(pair(&[], &[("Nats-Rollup", "all")]).contains("batch rollup all invalid"));
    assert!(pair(&[], &[("Nats-Expected-Last-Msg-Id", "stored")]).contains("10177"));
    assert!(pair(&last, &[]).contains(r#""count":2"#));
    assert_eq!(bench.info().state.messages, 3);
}

#[test]
fn a_batch_counts_and_counts_against_limits_as_a_whole() {
    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        discard: Discard::New,
        max_msgs: 2,
        ..stream("B", &["b.>"])
    });
    for sequence in 1..=2 {
        send(&mut bench, "three", sequence, &[], "b.a");
    }
    let ack = send(&mut bench, "three", 3, &[COMMIT], "b.a");
    assert!(ack.contains("10077"), "{ack}");
    assert_eq!(bench.info().state.messages, 0);

    let mut bench = Bench::new(StreamConfig {
        allow_atomic: true,
        allow_msg_counter: true,
        ..stream("C", &["c.>"])
    });
    let count = |bench: &mut Bench, sequence: &str, commit: bool| {
        let mut headers = vec![
            ("Nats-Batch-Id", "sum"),
            ("Nats-Batch-Sequence", sequence),
            ("Nats-Incr", "18446744073709551616"),
        ];
        headers.extend(commit.then_some(COMMIT));
        bench.publish_with("c.x", &headers, "")
    };
    count(&mut bench, "1", false);
    count(&mut bench, "2", true);
    let stored = bench.core.get(&MessageQuery::Sequence(2)).expect("stored");
    assert_eq!(text(&stored.payload), r#"{"val":"36893488147419103232"}"#);
}

#[test]
fn a_batch_is_there_after_a_crash_as_a_whole_or_not_at_all() {
    let mut bench = bench();
    bench.instant = false;
    send(&mut bench, "one", 1, &[], "b.a");
    send(&mut bench, "one", 2, &[COMMIT], "b.b");
    assert_eq!(bench.log.len(), 1);
    let config = StreamConfig::clone(bench.core.config());
    assert_eq!(bench.crashed(config.clone()).info().state.messages, 0);
    bench.commit();
    assert_eq!(bench.crashed(config).info().state.messages, 2);
}

/// Sends a message of a fast batch and gives what came back to its reply subject.
fn fast(bench: &mut Bench, said: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let reply = format!("inbox.{said}.$FI");
    let mut block = String::from("NATS/1.0\r\n");
    for (name, value) in headers {
        block.push_str(&format!("{name}: {value}\r\n"));
    }
    block.push_str("\r\n");
    bench.event(Event::Publish(Publish {
        subject: Bytes::from_static(b"b.a"),
        reply: Bytes::from(reply.clone()),
        headers: Bytes::from(block),
        payload: Bytes::from_static(b"x"),
    }));
    payloads(&bench.sent_to(&reply))
}

#[test]
fn a_fast_batch_is_acknowledged_in_bulk() {
    let mut bench = bench();
    assert_eq!(
        fast(&mut bench, "id.3.fail.1.0", &[]),
        [r#"{"type":"ack","seq":0,"msgs":3}"#]
    );
    assert_eq!(fast(&mut bench, "id.3.fail.2.1", &[]), [""; 0]);
    assert_eq!(
        fast(&mut bench, "id.3.fail.3.1", &[]),
        [r#"{"type":"ack","seq":3,"msgs":3}"#]
    );
    assert_eq!(
        fast(&mut bench, "id.3.fail.3.4", &[]),
        [r#"{"type":"ack","seq":3,"msgs":3}"#]
    );
    assert_eq!(
        fast(&mut bench, "id.3.fail.4.2", &[]),
        [r#"{"stream":"B","seq":4,"batch":"id","count":4}"#]
    );
    assert_eq!(fast(&mut bench, "eob.9.ok.1.0", &[]).len(), 1);
    assert_eq!(
        fast(&mut bench, "eob.9.ok.2.3", &[]),
        [r#"{"stream":"B","seq":5,"batch":"eob","count":1}"#]
    );
    assert_eq!(bench.info().state.messages, 5);
}

#[test]
fn a_fast_batch_tells_of_gaps_and_goes_on_when_it_may() {
    let mut bench = bench();
    fast(&mut bench, "ok.9.ok.1.0", &[]);
    assert_eq!(
        fast(&mut bench, "ok.9.ok.4.1", &[]),
        [r#"{"type":"gap","last_seq":2,"seq":4}"#]
    );
    assert_eq!(
        fast(&mut bench, "ok.9.ok.5.2", &[]),
        [r#"{"stream":"B","seq":3,"batch":"ok","count":5}"#]
    );
    fast(&mut bench, "no.9.fail.1.0", &[]);
    assert_eq!(
        fast(&mut bench, "no.9.fail.3.1", &[]),
        [
            r#"{"type":"gap","last_seq":2,"seq":3}"#,
            r#"{"stream":"B","seq":4,"batch":"no","count":1}"#,
        ]
    );
    assert!(fast(&mut bench, "no.9.fail.4.1", &[])[0].contains("10208"));
}

#[test]
fn a_fast_batch_says_which_message_failed() {
    let mut bench = bench();
    let wrong = [("Nats-Expected-Last-Sequence", "77")];
    let first = fast(&mut bench, "first.9.fail.1.2", &wrong);
    assert!(first[0].starts_with(r#"{"error":"#) && first[0].contains("10071"));
    fast(&mut bench, "ok.9.ok.1.0", &[]);
    let failed = fast(&mut bench, "ok.9.ok.2.1", &wrong);
    assert!(failed[0].starts_with(r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10071"#));
    let ended = fast(&mut bench, "ok.9.ok.3.2", &[]);
    assert_eq!(ended, [r#"{"stream":"B","seq":2,"batch":"ok","count":3}"#]);
    fast(&mut bench, "no.9.fail.1.0", &[]);
    let failed = fast(&mut bench, "no.9.fail.2.1", &wrong);
    assert_eq!(
        failed[1],
        r#"{"stream":"B","seq":3,"batch":"no","count":1}"#
    );
}

#[test]
fn duplicates_in_a_fast_batch_are_passed_over() {
    let mut bench = bench();
    bench.publish_with("b.a", &[("Nats-Msg-Id", "known")], "x");
    let known = [("Nats-Msg-Id", "known")];
    fast(&mut bench, "id.9.fail.1.0", &[]);
    assert_eq!(fast(&mut bench, "id.9.fail.2.1", &known), [""; 0]);
    assert_eq!(
        fast(&mut bench, "id.9.fail.3.2", &known),
        [r#"{"stream":"B","seq":2,"batch":"id","count":3}"#]
    );
    assert_eq!(
        fast(&mut bench, "lone.9.fail.1.2", &known),
        [r#"{"stream":"B","seq":1,"duplicate": true,"batch":"lone","count":1}"#]
    );
}

#[test]
fn the_last_ack_of_a_fast_batch_waits_for_the_log() {
    let mut bench = bench();
    bench.instant = false;
    fast(&mut bench, "id.9.fail.1.0", &[]);
    assert_eq!(fast(&mut bench, "id.9.fail.2.2", &[]), [""; 0]);
    bench.commit();
    let acks = payloads(&bench.sent_to("inbox.id.9.fail.2.2.$FI"));
    assert_eq!(acks, [r#"{"stream":"B","seq":2,"batch":"id","count":2}"#]);
}

#[test]
fn the_ack_for_a_duplicate_in_a_fast_batch_waits_until_the_message_before_it_is_in_the_log() {
    let known = [("Nats-Msg-Id", "known")];
    let mut bench = bench();
    fast(&mut bench, "id.1.fail.1.0", &[]);
    bench.instant = false;
    bench.publish_with("b.a", &known, "x");
    assert_eq!(fast(&mut bench, "lone.9.fail.1.2", &known), [""; 0]);
    assert_eq!(fast(&mut bench, "id.1.fail.2.1", &known), [""; 0]);
    assert_eq!(fast(&mut bench, "id.1.fail.3.2", &known), [""; 0]);
    bench.commit();
    let mut acks = |to: &str| payloads(&bench.sent_to(to));
    assert_eq!(
        acks("inbox.lone.9.fail.1.2.$FI"),
        [r#"{"stream":"B","seq":2,"duplicate": true,"batch":"lone","count":1}"#]
    );
    assert_eq!(
        acks("inbox.id.1.fail.3.2.$FI"),
        [r#"{"stream":"B","seq":1,"batch":"id","count":3}"#]
    );
}

#[test]
fn fast_batches_are_refused_where_they_cannot_be() {
    let mut bench = bench();
    assert!(fast(&mut bench, "id.9.maybe.1.0", &[])[0].contains("10206"));
    let long = format!("{}.9.ok.1.0", "i".repeat(65));
    assert!(fast(&mut bench, &long, &[])[0].contains("10207"));
    assert!(fast(&mut bench, "id.9.ok.2.1", &[])[0].contains("10208"));
    fast(&mut bench, "idle.9.ok.1.0", &[]);
    bench.pass(11 * SECOND);
    assert!(fast(&mut bench, "idle.9.ok.2.1", &[])[0].contains("10208"));
    let mut plain = Bench::new(stream("P", &["b.>"]));
    assert!(fast(&mut plain, "id.9.ok.1.0", &[])[0].contains("10205"));
}
