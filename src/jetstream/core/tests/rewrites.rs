//! Subjects that a stream transforms, and messages that it publishes again.

use super::*;
use crate::jetstream::core::MessageQuery;
use crate::jetstream::types::{Republish, SubjectTransform};

fn transform(src: &str, dest: &str) -> Option<SubjectTransform> {
    Some(SubjectTransform {
        src: src.to_owned(),
        dest: dest.to_owned(),
    })
}

fn subject_of(bench: &Bench, sequence: u64) -> String {
    let stored = bench.core.get(&MessageQuery::Sequence(sequence));
    text(&stored.expect("stored").subject)
}

#[test]
fn a_subject_is_transformed_before_everything_else() {
    let mut bench = Bench::new(StreamConfig {
        subject_transform: transform("in.*.>", "out.{{wildcard(1)}}.>"),
        ..stream("T", &["in.>", "other"])
    });
    bench.publish("in.a.b.c", "x");
    bench.publish("other", "x");
    assert_eq!(subject_of(&bench, 1), "out.a.b.c");
    assert_eq!(subject_of(&bench, 2), "other");
    let expects = [("Nats-Expected-Last-Subject-Sequence", "1")];
    let ack = bench.publish_with("in.a.b.c", &expects, "x");
    assert_eq!(ack, r#"{"stream":"T","seq":3}"#);
    let changed = StreamConfig {
        subject_transform: transform("in.*.>", "new.{{wildcard(1)}}.>"),
        ..StreamConfig::clone(bench.core.config())
    };
    bench.request(StreamRequest::Update(Box::new(changed)));
    bench.publish("in.a.b", "x");
    assert_eq!(subject_of(&bench, 4), "new.a.b");
}

#[test]
fn what_had_to_wait_is_transformed_once() {
    let mut bench = Bench::new(StreamConfig {
        subject_transform: transform(">", "t.>"),
        ..stream("T", &[">"])
    });
    bench.instant = false;
    bench.publish("a", "1");
    let waits = bench.send("a", &[("Nats-Expected-Last-Subject-Sequence", "1")], "2");
    bench.instant = true;
    bench.commit();
    bench.settle();
    let acks = payloads(&bench.sent_to(&waits));
    assert_eq!(acks, [r#"{"stream":"T","seq":2}"#]);
    assert_eq!(subject_of(&bench, 2), "t.a");
}

fn republishing(headers_only: bool) -> Bench {
    Bench::new(StreamConfig {
        republish: Some(Republish {
            src: "in.>".to_owned(),
            dest: "again.>".to_owned(),
            headers_only,
        }),
        ..stream("R", &["in.>", "other"])
    })
}

#[test]
fn a_stored_message_is_published_again() {
    let mut bench = republishing(false);
    bench.instant = false;
    bench.send("in.a", &[], "one");
    assert_eq!(bench.sent_to("again.a"), []);
    bench.commit();
    let again = bench.sent_to("again.a");
    assert_eq!(text(&again[0].payload), "one");
    assert_eq!(text(&again[0].subject), "again.a");
    assert_eq!(
        text(&again[0].headers),
        "NATS/1.0\r\nNats-Stream: R\r\nNats-Subject: in.a\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2023-11-14T22:13:20Z\r\nNats-Last-Sequence: 0\r\n\r\n"
    );
    bench.instant = true;
    bench.publish("other", "x");
    bench.publish_with("in.a", &[("Mine", "1")], "two");
    let again = bench.sent_to("again.a");
    assert_eq!(again.len(), 1);
    let headers = text(&again[0].headers);
    assert!(headers.starts_with("NATS/1.0\r\nMine: 1\r\nNats-Stream: R\r\n"));
    assert!(headers.ends_with(
        "Nats-Sequence: 3\r\nNats-Time-Stamp: 2023-11-14T22:13:20Z\r\nNats-Last-Sequence: 1\r\n\r\n"
    ));
}

#[test]
fn headers_may_be_all_that_is_published_again() {
    let mut bench = republishing(true);
    bench.publish("in.a", "four");
    let again = bench.sent_to("again.a");
    assert!(again[0].payload.is_empty());
    assert!(text(&again[0].headers).ends_with("Nats-Last-Sequence: 0\r\nNats-Msg-Size: 4\r\n\r\n"));
}
