//! Schedules, markers of deleted subjects, and what counters remember of their sources.

use super::*;
use crate::jetstream::core::MessageQuery;

fn scheduling() -> Bench {
    Bench::new(StreamConfig {
        allow_msg_schedules: true,
        allow_msg_ttl: true,
        allow_rollup_hdrs: true,
        ..stream("S", &["plan.>", "made.>"])
    })
}

fn schedule(bench: &mut Bench, pattern: &str, more: &[(&str, &str)]) -> String {
    let mut headers = vec![
        ("Nats-Schedule", pattern),
        ("Nats-Schedule-Target", "made.x"),
    ];
    headers.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    headers.extend_from_slice(more);
    headers.retain(|(_, value)| *value != "-");
    bench.publish_with("plan.x", &headers, "work")
}

fn last_on(bench: &Bench, subject: &str) -> Option<storage::store::Message> {
    bench
        .core
        .get(&MessageQuery::LastBySubject(subject.to_owned()))
}

fn count(bench: &Bench, subject: &str) -> u64 {
    let known = bench.core.store().subject(subject.as_bytes());
    known.map_or(0, |known| known.messages)
}

#[test]
fn a_schedule_fires_once_at_its_time_and_is_gone() {
    let mut bench = scheduling();
    // START is 2023-11-14T22:13:20Z.
    let ack = schedule(&mut bench, "@at 2023-11-14T22:13:30Z", &[("Mine", "1")]);
    assert_eq!(ack, r#"{"stream":"S","seq":1}"#);
    let stored = last_on(&bench, "plan.x").expect("stored");
    assert!(text(&stored.headers).ends_with("Nats-Rollup: sub\r\n\r\n"));
    bench.pass(9 * SECOND);
    assert_eq!(count(&bench, "made.x"), 0);
    bench.pass(2 * SECOND);
    let made = last_on(&bench, "made.x").expect("it fired");
    assert_eq!(text(&made.payload), "work");
    assert_eq!(
        text(&made.headers),
        "NATS/1.0\r\nMine: 1\r\nNats-Scheduler: plan.x\r\nNats-Schedule-Next: purge\r\n\r\n"
    );
    assert_eq!(count(&bench, "plan.x"), 0);
    bench.pass(100 * SECOND);
    assert_eq!(count(&bench, "made.x"), 1);
}

#[test]
fn a_schedule_repeats_until_somebody_ends_it() {
    let mut bench = scheduling();
    schedule(
        &mut bench,
        "@every 10s",
        &[("Nats-Schedule-TTL", "1h"), ("Nats-Msg-Id", "a")],
    );
    bench.pass(35 * SECOND);
    assert_eq!(count(&bench, "made.x"), 3);
    let made = last_on(&bench, "made.x").expect("it fired");
    assert_eq!(
        text(&made.headers),
        "NATS/1.0\r\nNats-Scheduler: plan.x\r\nNats-Schedule-Next: 2023-11-14T22:14:00Z\r\nNats-TTL: 1h\r\n\r\n"
    );
    let end = [
        ("Nats-Scheduler", "plan.x"),
        ("Nats-Schedule-Next", "purge"),
    ];
    let ack = bench.publish_with("made.x", &end, "");
    assert_eq!(ack, r#"{"stream":"S","seq":5}"#);
    assert_eq!(count(&bench, "plan.x"), 0);
    bench.pass(100 * SECOND);
    assert_eq!(count(&bench, "made.x"), 4);
}

#[test]
fn what_was_missed_while_nobody_led_fires_once() {
    let mut bench = scheduling();
    schedule(&mut bench, "@every 10s", &[]);
    bench.now += 95 * SECOND;
    let config = StreamConfig::clone(bench.core.config());
    let mut bench = bench.crashed(config);
    bench.pass(0);
    assert_eq!(count(&bench, "made.x"), 1);
    bench.pass(10 * SECOND);
    assert_eq!(count(&bench, "made.x"), 2);
}

#[test]
fn a_schedule_takes_what_its_source_says_last() {
    let mut bench = scheduling();
    bench.publish_with("made.source", &[("From", "source")], "fresh");
    schedule(
        &mut bench,
        "@every 10s",
        &[
            ("Nats-Schedule-Source", "made.source"),
            ("Nats-Schedule-Rollup", "sub"),
        ],
    );
    bench.pass(25 * SECOND);
    let made = last_on(&bench, "made.x").expect("it fired");
    assert_eq!(text(&made.payload), "fresh");
    assert!(text(&made.headers).starts_with("NATS/1.0\r\nFrom: source\r\nNats-Scheduler"));
    assert_eq!(count(&bench, "made.x"), 1, "each replaces the one before");
}

#[test]
fn a_subject_has_one_schedule_and_loses_it_with_the_message() {
    let mut bench = scheduling();
    schedule(&mut bench, "@every 10s", &[]);
    schedule(&mut bench, "@every 20s", &[]);
    bench.pass(15 * SECOND);
    assert_eq!(count(&bench, "made.x"), 0);
    bench.request(StreamRequest::Delete {
        sequence: 2,
        erase: false,
    });
    bench.pass(100 * SECOND);
    assert_eq!(count(&bench, "made.x"), 0);
    schedule(&mut bench, "@every 10s", &[]);
    bench.publish("plan.x", "not a schedule");
    bench.pass(100 * SECOND);
    assert_eq!(count(&bench, "made.x"), 0);
    schedule(&mut bench, "@every 10s", &[]);
    bench.request(StreamRequest::Purge(Default::default()));
    bench.pass(100 * SECOND);
    assert_eq!(bench.info().state.messages, 0);
}

#[test]
fn schedules_survive_a_snapshot() {
    let mut bench = scheduling();
    schedule(
        &mut bench,
        "0 * * * * *",
        &[("Nats-Schedule-Time-Zone", "Asia/Tokyo")],
    );
    let snapshot = bench.core.snapshot();
    let store = Box::new(MemStore::new(Limits::default()));
    let restored = StreamCore::restore(&snapshot, "", store).expect("restores");
    assert_eq!(restored.snapshot(), snapshot);
}

#[test]
fn what_a_schedule_says_must_make_sense() {
    let mut bench = scheduling();
    for (pattern, more, code) in [
        ("@never", &[][..], "10189"),
        ("@every 10ms", &[], "10189"),
        ("@every 10s", &[("Nats-Schedule-Time-Zone", "UTC")], "10189"),
        ("@daily", &[("Nats-Schedule-Time-Zone", "Mars")], "10223"),
        ("@daily", &[("Nats-Schedule-TTL", "soon")], "10191"),
        ("@daily", &[("Nats-Schedule-Rollup", "all")], "10192"),
        ("@daily", &[("Nats-Schedule-Target", "-")], "10190"),
        ("@daily", &[("Nats-Schedule-Target", "made.*")], "10190"),
        ("@daily", &[("Nats-Schedule-Target", "plan.x")], "10190"),
        ("@daily", &[("Nats-Schedule-Target", "other")], "10190"),
        ("@daily", &[("Nats-Schedule-Source", "made.x")], "10203"),
        ("@daily", &[("Nats-Schedule-Source", "plan.x")], "10203"),
        ("@daily", &[("Nats-Schedule-Source", "other")], "10203"),
        ("@daily", &[("Nats-Rollup", "all")], "10192"),
    ] {
        let ack = schedule(&mut bench, pattern, more);
        assert!(ack.contains(code), "{pattern} {more:?}: {ack}");
    }
    bench.publish("plan.plain", "x");
    for (headers, code) in [
        (&[("Nats-Schedule-Next", "now")][..], "10212"),
        (&[("Nats-Schedule-Next", "purge")], "10212"),
        (&[("Nats-Scheduler", "plan.x")], "10212"),
        (
            &[
                ("Nats-Schedule-Next", "purge"),
                ("Nats-Scheduler", "plan.plain"),
            ],
            "10212",
        ),
    ] {
        let ack = bench.publish_with("made.x", headers, "x");
        assert!(ack.contains(code), "{headers:?}: {ack}");
    }
    let mut plain = Bench::new(stream("P", &["plan.>", "made.>"]));
    for pattern in ["@daily", "@never"] {
        assert!(schedule(&mut plain, pattern, &[]).contains("10188"));
    }
}

#[test]
fn a_marker_takes_the_place_of_the_last_message_of_a_subject() {
    let mut bench = Bench::new(StreamConfig {
        allow_msg_ttl: true,
        allow_rollup_hdrs: true,
        subject_delete_marker_ttl: 20 * SECOND,
        max_age: 60 * SECOND,
        ..stream("M", &["m.>"])
    });
    bench.publish_with("m.a", &[("Nats-TTL", "5")], "1");
    let stored = bench.core.get(&MessageQuery::Sequence(1)).expect("stored");
    // No message dies sooner than a marker that may be there before it.
    assert_eq!(text(&stored.headers), "NATS/1.0\r\nNats-TTL: 20\r\n\r\n");
    bench.publish("m.b", "kept");
    bench.publish_with("m.b", &[("Nats-TTL", "20")], "2");
    bench.pass(21 * SECOND);
    assert_eq!(count(&bench, "m.b"), 1);
    let marker = last_on(&bench, "m.a").expect("a marker");
    assert_eq!(
        text(&marker.headers),
        "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 20s\r\nNats-Rollup: sub\r\n\r\n"
    );
    assert_eq!(marker.sequence, 4);
    bench.pass(20 * SECOND);
    assert_eq!(count(&bench, "m.a"), 0, "a marker leaves no marker");
    bench.pass(30 * SECOND);
    let marker = last_on(&bench, "m.b").expect("a marker");
    assert!(text(&marker.headers).contains("MaxAge"));
    bench.publish_with("m.c", &[("KV-Operation", "PURGE")], "");
    bench.pass(100 * SECOND);
    assert_eq!(count(&bench, "m.c"), 0, "a purge is a marker already");
}

#[test]
fn a_message_that_comes_in_time_is_not_taken_for_dead() {
    let mut bench = Bench::new(StreamConfig {
        allow_msg_ttl: true,
        allow_rollup_hdrs: true,
        subject_delete_marker_ttl: SECOND,
        ..stream("M", &["m.>"])
    });
    bench.publish_with("m.a", &[("Nats-TTL", "1")], "old");
    bench.instant = false;
    bench.publish("m.a", "new");
    bench.now += 2 * SECOND;
    bench.step(|core, step| core.tick(step));
    bench.settle();
    bench.instant = true;
    bench.commit();
    bench.settle();
    assert_eq!(count(&bench, "m.a"), 1);
    let last = last_on(&bench, "m.a").expect("it is there");
    assert_eq!(text(&last.payload), "new");
}
