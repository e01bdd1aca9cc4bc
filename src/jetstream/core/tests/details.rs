//! Details of deliveries, of direct gets and of what publishers hear.

use super::*;
use crate::jetstream::core::{Advisory, DirectQuery, MessageQuery};
use crate::jetstream::types::{PersistMode, PriorityPolicy};

#[test]
fn acks_are_sampled() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for (name, freq) in [("all", "100%"), ("none", "")] {
        bench.consumer(ConsumerConfig {
            sample_freq: freq.to_owned(),
            ..durable(name)
        });
    }
    bench.publish("s.a", "1");
    for name in ["all", "none"] {
        let messages = bench.pull(name, "1");
        bench.effects.advisories.clear();
        bench.pass(3 * SECOND);
        bench.ack(&messages[0], "+WPI");
        bench.pass(2 * SECOND);
        bench.ack(&messages[0], "");
        let sampled: Vec<_> = bench
            .effects
            .advisories
            .iter()
            .filter_map(|advisory| match advisory {
                Advisory::Acknowledged {
                    consumer,
                    stream_sequence,
                    deliveries,
                    ack_time_ns,
                    ..
                } => Some((
                    consumer.as_str(),
                    *stream_sequence,
                    *deliveries,
                    *ack_time_ns,
                )),
                _ => None,
            })
            .collect();
        match name {
            "all" => assert_eq!(sampled, [("all", 1, 1, 2 * SECOND)]),
            _ => assert_eq!(sampled, []),
        }
    }
}

fn pinned() -> Bench {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".to_owned()],
        priority_timeout: 10 * SECOND,
        ..durable("c")
    });
    bench
}

fn pin_of(message: &Outgoing) -> String {
    let headers = text(&message.headers);
    let mut lines = headers.lines();
    let pin = lines.find_map(|line| line.strip_prefix("Nats-Pin-Id: "));
    pin.expect("a pin").to_owned()
}

#[test]
fn every_request_of_a_pinned_client_renews_its_pin() {
    let mut bench = pinned();
    bench.pull_to("c", "one", r#"{"batch":1,"group":"g"}"#);
    bench.publish("s.a", "1");
    let first = bench.sent_to("one").remove(0);
    bench.ack(&first, "");
    let id = pin_of(&first);
    bench.pull_to("c", "two", r#"{"batch":1,"group":"g"}"#);
    for _ in 0..3 {
        bench.pass(8 * SECOND);
        let body = format!(r#"{{"batch":1,"group":"g","id":"{id}","no_wait":true}}"#);
        bench.pull_to("c", "one", &body);
    }
    bench.publish("s.a", "2");
    assert_eq!(bench.sent_to("two"), []);
    bench.pass(11 * SECOND);
    assert_eq!(payloads(&bench.sent_to("two")), ["2"]);
}

#[test]
fn a_request_that_waits_under_an_old_pin_is_told_so() {
    let mut bench = pinned();
    bench.pull_to("c", "one", r#"{"batch":1,"group":"g"}"#);
    bench.publish("s.a", "1");
    let id = pin_of(&bench.sent_to("one")[0]);
    let body = format!(r#"{{"batch":5,"group":"g","id":"{id}"}}"#);
    bench.pull_to("c", "one", &body);
    bench.request(StreamRequest::ConsumerUnpin {
        name: "c".to_owned(),
        group: "g".to_owned(),
    });
    bench.pull_to("c", "two", r#"{"batch":1,"group":"g"}"#);
    bench.publish("s.a", "2");
    let told = bench.sent_to("one");
    assert_eq!(
        text(&told[0].headers),
        "NATS/1.0 423 Nats-Wrong-Pin-Id\r\nNats-Pending-Messages: 5\r\nNats-Pending-Bytes: 0\r\n\r\n"
    );
    assert_eq!(payloads(&bench.sent_to("two")), ["2"]);
}

#[test]
fn a_client_whose_first_message_does_not_fit_is_not_pinned() {
    let mut bench = pinned();
    bench.pull_to("c", "narrow", r#"{"batch":1,"group":"g","max_bytes":5}"#);
    bench.pull_to("c", "wide", r#"{"batch":1,"group":"g"}"#);
    bench.publish("s.a", "0123456789");
    let narrow = bench.sent_to("narrow");
    assert_eq!(
        status(&narrow[0]),
        "NATS/1.0 409 Message Size Exceeds MaxBytes"
    );
    let wide = bench.sent_to("wide");
    assert_eq!(payloads(&wide), ["0123456789"]);
    assert!(!pin_of(&wide[0]).is_empty());
}

#[test]
fn a_request_that_names_no_group_is_served_while_nobody_is_pinned_and_pins_nobody() {
    let mut bench = pinned();
    bench.publish("s.a", "1");
    bench.publish("s.a", "2");
    let plain = bench.pull("c", "1");
    assert_eq!(payloads(&plain), ["1"]);
    assert_eq!(pin_of(&plain[0]), "");
    bench.pull_to("c", "one", r#"{"batch":1,"group":"g"}"#);
    let first = bench.sent_to("one").remove(0);
    assert!(!pin_of(&first).is_empty());
    bench.publish("s.a", "3");
    assert_eq!(bench.pull("c", "1"), []);
}

#[test]
fn a_queue_of_requests_that_is_full_is_said_to_be() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        max_waiting: 1,
        ..durable("c")
    });
    bench.pass(2 * SECOND);
    bench.pull_to("c", "one", r#"{"batch":1,"expires":5000000000}"#);
    let full = bench.pull("c", r#"{"batch":1,"expires":5000000000}"#);
    assert_eq!(status(&full[0]), "NATS/1.0 409 Exceeded MaxWaiting");
    let beating = r#"{"batch":1,"expires":5000000000,"idle_heartbeat":1000000000}"#;
    assert_eq!(bench.pull("c", beating), []);
    bench
        .world
        .deaf
        .borrow_mut()
        .insert(Bytes::from_static(b"one"));
    bench.pass(2 * SECOND);
    assert_eq!(bench.pull("c", r#"{"batch":1,"expires":5000000000}"#), []);
    bench.publish("s.a", "1");
    assert_eq!(payloads(&bench.sent_to("inbox")), ["1"]);
}

#[test]
fn flow_control_answers_are_acks_where_that_is_the_policy() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(ConsumerConfig {
        deliver_subject: "d".to_owned(),
        ack_policy: AckPolicy::FlowControl,
        ack_wait: 0,
        flow_control: true,
        idle_heartbeat: SECOND,
        max_ack_pending: 100,
        max_waiting: 0,
        ..durable("c")
    });
    for count in 1..=3 {
        bench.publish("s.a", &count.to_string());
    }
    assert_eq!(payloads(&bench.sent_to("d")), ["1", "2", "3"]);
    assert_eq!(bench.consumer_info("c").num_ack_pending, 3);
    bench.pass(2 * SECOND);
    let sent = bench.sent_to("d");
    let asked = sent
        .iter()
        .find(|it| it.reply.starts_with(b"$JS.FC."))
        .expect("it asks");
    bench.event(Event::FlowControl {
        subject: asked.reply.clone(),
        headers: Bytes::from_static(
            b"NATS/1.0\r\nNats-Last-Consumer: 2\r\nNats-Last-Stream: 2\r\n\r\n",
        ),
    });
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, info.ack_floor.stream_seq), (1, 2));
}

fn direct(bench: &mut Bench, query: DirectQuery) -> Vec<Outgoing> {
    bench.event(Event::Direct {
        reply: Bytes::from_static(b"get"),
        query,
    });
    bench.sent_to("get")
}

fn last_of_each(subjects: &str, upto_sequence: u64) -> DirectQuery {
    DirectQuery::LastOfEach {
        subjects: vec![subjects.to_owned()],
        upto_sequence,
        upto_time_ns: None,
        from_sequence: 0,
        batch: 0,
        bytes_max: 0,
    }
}

#[test]
fn direct_gets_keep_to_their_bounds() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for count in 0..1025 {
        bench.publish(&format!("s.{count}"), "0123456789");
    }
    let many = direct(&mut bench, last_of_each("s.>", 0));
    assert_eq!(status(&many[0]), "NATS/1.0 413 Too Many Results");
    let none = direct(&mut bench, last_of_each("t.>", 0));
    assert_eq!(status(&none[0]), "NATS/1.0 404 No Results");
    let upto = direct(&mut bench, last_of_each("s.>", 3));
    assert_eq!(upto.len(), 4);
    assert!(text(&upto[3].headers).contains("Nats-UpTo-Sequence: 3\r\n"));
    let batch = DirectQuery::Batch {
        sequence: 1,
        time_ns: None,
        subject: String::new(),
        batch: 100,
        bytes_max: 30,
    };
    let few = direct(&mut bench, batch);
    assert_eq!(
        few.len(),
        4,
        "two messages are below the bound, the third reaches it"
    );
    assert_eq!(status(&few[3]), "NATS/1.0 204 EOB");
    let bare = DirectQuery::One {
        query: MessageQuery::Sequence(1),
        no_headers: true,
    };
    let bare = direct(&mut bench, bare);
    assert!(bare[0].headers.is_empty() && bare[0].payload == "0123456789");
}

#[test]
fn headers_beyond_what_is_stored_are_refused() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    let long = "x".repeat(65_535);
    let ack = bench.publish_with("s.a", &[("Long", &long)], "");
    assert!(ack.contains("10097"), "{ack}");
}

#[test]
fn a_floor_moves_by_what_was_delivered_whatever_an_ack_says() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    bench.consumer(durable("c"));
    for count in 1..=3 {
        bench.publish("s.a", &count.to_string());
    }
    bench.pull("c", "3");
    for (subject, body) in [
        ("$JS.ACK.S.C.1.1.1.0.0", ""),
        ("$JS.ACK.S.c.1.9.9.0.0", "-NAK"),
        ("$JS.ACK.S.c.1.9.9.0.0", ""),
    ] {
        bench.event(Event::Ack {
            subject: Bytes::from(subject),
            reply: Bytes::new(),
            body: Bytes::from(body),
        });
    }
    assert_eq!(bench.consumer_info("c").num_ack_pending, 3);
    bench.event(Event::Ack {
        subject: Bytes::from_static(b"$JS.ACK.S.c.1.1.77.0.0"),
        reply: Bytes::new(),
        body: Bytes::new(),
    });
    let floor = bench.consumer_info("c").ack_floor;
    assert_eq!((floor.consumer_seq, floor.stream_seq), (1, 1));
}

#[test]
fn an_asynchronous_stream_acknowledges_before_a_message_is_durable() {
    let mut bench = Bench::new(StreamConfig {
        persist_mode: PersistMode::Async,
        ..stream("S", &["s.>"])
    });
    bench.instant = false;
    let once = [("Nats-Msg-Id", "once")];
    let ack = bench.publish_with("s.a", &once, "1");
    assert_eq!(ack, r#"{"stream":"S","seq":1}"#);
    assert_eq!(bench.core.store().state().messages, 0);
    let ack = bench.publish_with("s.a", &once, "1");
    assert_eq!(ack, r#"{"stream":"S","seq":1,"duplicate": true}"#);
    let wrong = [("Nats-Expected-Last-Sequence", "7")];
    let ack = bench.publish_with("s.a", &wrong, "x");
    assert!(ack.contains("10071"), "{ack}");
    // Whoever was acknowledged reads what it wrote.
    let get = DirectQuery::One {
        query: MessageQuery::Sequence(1),
        no_headers: false,
    };
    assert_eq!(direct(&mut bench, get), []);
    bench.commit();
    assert_eq!(payloads(&bench.sent_to("get")), ["1"]);
}
