//! Acks and redelivery.

use super::*;
use crate::jetstream::core::Advisory;
use crate::jetstream::core::PurgeQuery;

fn with(config: ConsumerConfig, messages: usize) -> Bench {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for number in 1..=messages {
        bench.publish("s.a", &number.to_string());
    }
    bench.consumer(config);
    bench
}

fn place(info: &crate::jetstream::types::SequenceInfo) -> (u64, u64) {
    (info.consumer_seq, info.stream_seq)
}

#[test]
fn explicit_acks_settle_one_message_each() {
    let mut bench = with(durable("c"), 4);
    let messages = bench.pull("c", "4");
    bench.ack(&messages[1], "+ACK");
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (3, (0, 0)));
    bench.ack(&messages[0], "+OK");
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (2, (2, 2)));
    assert_eq!(place(&info.delivered), (4, 4));
}

#[test]
fn an_ack_of_all_settles_everything_before_it() {
    let mut bench = with(
        ConsumerConfig {
            ack_policy: AckPolicy::All,
            ..durable("c")
        },
        4,
    );
    let messages = bench.pull("c", "4");
    bench.ack_with(&messages[2], "", "confirm");
    assert_eq!(bench.sent_to("confirm").len(), 1);
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (1, (3, 3)));
    // Below the floor it is confirmed again.
    bench.ack_with(&messages[0], "", "confirm");
    assert_eq!(bench.sent_to("confirm").len(), 1);
}

#[test]
fn a_nak_brings_the_message_again_at_once_and_is_reported() {
    let mut bench = with(durable("c"), 2);
    let messages = bench.pull("c", "2");
    bench.effects.advisories.clear();
    bench.ack(&messages[0], "-NAK");
    assert!(matches!(
        bench.effects.advisories[..],
        [Advisory::Naked {
            stream_sequence: 1,
            ..
        }]
    ));
    let again = bench.pull("c", "1");
    assert_eq!(payloads(&again), ["1"]);
    assert!(text(&again[0].reply).starts_with("$JS.ACK.S.c.2.1.3."));
    assert_eq!(bench.consumer_info("c").num_redelivered, 1);
    bench.ack(&again[0], "");
    assert_eq!(bench.consumer_info("c").num_redelivered, 0);
}

#[test]
fn a_nak_with_delay_brings_the_message_after_the_delay() {
    for body in ["-NAK {\"delay\": 5000000000}", "-NAK 5s"] {
        let mut bench = with(durable("c"), 1);
        let messages = bench.pull("c", "1");
        bench.ack(&messages[0], body);
        bench.pull_to("c", "later", r#"{"batch":1}"#);
        bench.pass(4 * SECOND);
        assert!(bench.sent_to("later").is_empty());
        bench.pass(2 * SECOND);
        assert_eq!(payloads(&bench.sent_to("later")), ["1"], "{body}");
    }
}

#[test]
fn under_all_a_nak_counts_though_an_earlier_message_was_delivered_and_acknowledged_since() {
    let mut bench = with(
        ConsumerConfig {
            ack_policy: AckPolicy::All,
            ..durable("c")
        },
        2,
    );
    let messages = bench.pull("c", "2");
    bench.pass(31 * SECOND);
    let again = bench.pull("c", "1");
    assert_eq!(payloads(&again), ["1"]);
    bench.ack(&again[0], "+ACK");
    // Delivered second, below the floor of three deliveries.
    bench.ack(&messages[1], "-NAK 5s");
    bench.pull_to("c", "later", r#"{"batch":1}"#);
    bench.pass(4 * SECOND);
    assert!(bench.sent_to("later").is_empty());
    bench.pass(2 * SECOND);
    assert_eq!(payloads(&bench.sent_to("later")), ["2"]);
}

#[test]
fn progress_keeps_the_message_from_coming_again() {
    let mut bench = with(durable("c"), 1);
    let messages = bench.pull("c", "1");
    bench.pass(20 * SECOND);
    bench.ack(&messages[0], "+WPI");
    bench.pull_to("c", "later", r#"{"batch":1}"#);
    bench.pass(20 * SECOND);
    assert!(bench.sent_to("later").is_empty());
    bench.pass(11 * SECOND);
    assert_eq!(bench.sent_to("later").len(), 1);
}

#[test]
fn a_terminated_message_does_not_come_again_and_the_reason_is_reported() {
    let mut bench = with(durable("c"), 1);
    let messages = bench.pull("c", "1");
    bench.effects.advisories.clear();
    bench.ack_with(&messages[0], "+TERM too bad", "confirm");
    assert_eq!(bench.sent_to("confirm").len(), 1);
    assert!(matches!(
        &bench.effects.advisories[..],
        [Advisory::Terminated { reason, .. }] if reason == "too bad"
    ));
    bench.pull_to("c", "later", r#"{"batch":1}"#);
    bench.pass(100 * SECOND);
    assert!(bench.sent_to("later").is_empty());
}

#[test]
fn an_ack_can_ask_for_the_next_message() {
    let mut bench = with(durable("c"), 3);
    let messages = bench.pull("c", "1");
    bench.ack_with(&messages[0], "+NXT 2", "inbox");
    assert_eq!(payloads(&bench.sent_to("inbox")), ["2", "3"]);
    assert_eq!(bench.consumer_info("c").num_ack_pending, 2);
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again_in_order() {
    let mut bench = with(durable("c"), 3);
    let messages = bench.pull("c", "3");
    bench.ack(&messages[1], "");
    bench.pull_to("c", "later", r#"{"batch":5}"#);
    bench.pass(29 * SECOND);
    assert!(bench.sent_to("later").is_empty());
    bench.pass(2 * SECOND);
    assert_eq!(payloads(&bench.sent_to("later")), ["1", "3"]);
}

#[test]
fn redeliveries_go_before_new_messages() {
    let mut bench = with(durable("c"), 4);
    let messages = bench.pull("c", "2");
    bench.ack(&messages[1], "-NAK");
    bench.ack(&messages[0], "-NAK");
    assert_eq!(payloads(&bench.pull("c", "4")), ["1", "2", "3", "4"]);
}

#[test]
fn backoff_sets_the_wait_by_delivery() {
    let mut bench = with(
        ConsumerConfig {
            backoff: vec![SECOND, 5 * SECOND],
            ..durable("c")
        },
        1,
    );
    bench.pull_to("c", "later", r#"{"batch":10}"#);
    assert_eq!(bench.sent_to("later").len(), 1);
    bench.pass(SECOND + SECOND / 10);
    assert_eq!(bench.sent_to("later").len(), 1);
    bench.pass(4 * SECOND);
    assert!(bench.sent_to("later").is_empty());
    bench.pass(SECOND);
    assert_eq!(bench.sent_to("later").len(), 1);
    bench.pass(5 * SECOND + SECOND / 10);
    assert_eq!(bench.sent_to("later").len(), 1);
}

#[test]
fn after_the_last_delivery_a_message_is_reported_once_and_let_go() {
    let mut bench = with(
        ConsumerConfig {
            max_deliver: 2,
            ..durable("c")
        },
        1,
    );
    bench.pull_to("c", "later", r#"{"batch":10}"#);
    bench.effects.advisories.clear();
    bench.pass(200 * SECOND);
    assert_eq!(bench.sent_to("later").len(), 2);
    assert_eq!(
        bench.effects.advisories,
        [Advisory::DeliveriesExceeded {
            consumer: "c".to_owned(),
            stream_sequence: 1,
            deliveries: 2
        }]
    );
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (0, (2, 1)));
    assert_eq!(bench.info().state.messages, 1);
}

#[test]
fn no_more_than_the_allowed_number_waits_for_acks() {
    let mut bench = with(
        ConsumerConfig {
            max_ack_pending: 2,
            ..durable("c")
        },
        5,
    );
    bench.pull_to("c", "inbox", r#"{"batch":5}"#);
    let first = bench.sent_to("inbox");
    assert_eq!(first.len(), 2);
    bench.ack(&first[0], "");
    assert_eq!(payloads(&bench.sent_to("inbox")), ["3"]);
}

#[test]
fn acks_of_what_was_not_delivered_are_ignored_and_not_confirmed() {
    let mut bench = with(durable("c"), 3);
    let messages = bench.pull("c", "1");
    for subject in [
        "$JS.ACK.S.c.1.9.9.0.0",
        "$JS.ACK.S.c.x.x.x.0.0",
        "$JS.ACK.S.c.1.2.2.0.0",
    ] {
        bench.event(Event::Ack {
            subject: Bytes::from(subject),
            reply: Bytes::from_static(b"confirm"),
            body: Bytes::new(),
        });
        assert!(bench.sent_to("confirm").is_empty(), "{subject}");
    }
    // Unknown bodies change nothing but are confirmed.
    bench.ack_with(&messages[0], "+WHAT", "confirm");
    assert_eq!(bench.sent_to("confirm").len(), 1);
    assert_eq!(bench.consumer_info("c").num_ack_pending, 1);
}

#[test]
fn nobody_confirms_an_ack_that_nobody_waits_for() {
    let mut bench = with(
        ConsumerConfig {
            ack_policy: AckPolicy::None,
            max_ack_pending: 0,
            ..durable("c")
        },
        1,
    );
    let messages = bench.pull("c", "1");
    bench.ack_with(&messages[0], "", "confirm");
    assert!(bench.sent_to("confirm").is_empty());
}

#[test]
fn an_ack_with_a_reply_waits_for_the_log() {
    let mut bench = with(durable("c"), 1);
    let messages = bench.pull("c", "1");
    bench.instant = false;
    bench.ack_with(&messages[0], "", "confirm");
    assert!(bench.sent_to("confirm").is_empty());
    bench.commit();
    assert_eq!(bench.sent_to("confirm").len(), 1);
}

#[test]
fn acks_and_deliveries_survive_a_crash() {
    let mut bench = with(durable("c"), 4);
    let messages = bench.pull("c", "3");
    bench.ack_with(&messages[0], "", "confirm");
    bench.ack(&messages[1], "");
    bench.pass(SECOND);
    let mut again = bench.crashed(stream("S", &["s.>"]));
    let info = again.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (1, (2, 2)));
    assert_eq!((place(&info.delivered), info.num_pending), ((3, 3), 1));
    assert_eq!(payloads(&again.pull("c", "5")), ["4"]);
}

/// A stream that keeps one message per subject, and what a delivery does that is logged after what removes its message: how the consumer stands when the
/// log is applied again. `deliveries` come before, one of them under way as the next message comes.
fn delivered_while_it_left(deliveries: usize) -> Bench {
    let config = StreamConfig {
        max_msgs_per_subject: 1,
        ..stream("S", &["s.>"])
    };
    let mut bench = Bench::new(config.clone());
    bench.publish("s.z", "0");
    bench.publish("s.a", "1");
    bench.publish("s.b", "2");
    bench.consumer(durable("c"));
    let before = bench.pull("c", "1").remove(0);
    bench.ack(&before, "+ACK");
    for _ in 1..deliveries {
        let message = bench.pull("c", "1").remove(0);
        bench.ack(&message, "-NAK");
        bench.pass(SECOND);
    }
    if deliveries > 1 {
        let both = bench.pull("c", "2");
        bench.ack(&both[0], "-NAK");
        bench.pass(SECOND);
    }
    bench.instant = false;
    bench.publish("s.a", "3");
    assert_eq!(payloads(&bench.pull("c", "1")), ["1"]);
    bench.commit();
    bench.pass(SECOND);
    bench.commit();
    bench.pass(SECOND);
    bench.commit();
    bench.crashed(config)
}

#[test]
fn a_first_delivery_of_what_has_left_meanwhile_is_not_waited_for() {
    let mut bench = delivered_while_it_left(1);
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.delivered)), (0, (2, 2)));
    assert_eq!(place(&info.ack_floor), (2, 2));
    assert_eq!(payloads(&bench.pull("c", "2")), ["2", "3"]);
}

#[test]
fn a_redelivery_of_what_has_left_meanwhile_is_not_waited_for() {
    let mut bench = delivered_while_it_left(2);
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, info.num_redelivered), (1, 0));
    assert_eq!(place(&info.delivered), (5, 3));
    assert_eq!(place(&info.ack_floor), (3, 2));
    assert_eq!(payloads(&bench.pull("c", "2")), ["3"]);
}

#[test]
fn nothing_is_delivered_while_a_reset_is_under_way() {
    let mut bench = with(durable("c"), 10);
    for message in bench.pull("c", "6") {
        bench.ack(&message, "+ACK");
    }
    bench.instant = false;
    let (name, sequence) = ("c".to_owned(), 2);
    bench.ask(StreamRequest::ConsumerReset { name, sequence });
    assert!(bench.pull("c", "2").is_empty());
    bench.commit();
    bench.settle();
    assert_eq!(payloads(&bench.sent_to("inbox")), ["2", "3"]);
    bench.pass(SECOND);
    bench.commit();
    // What was not delivered since is still to come, whoever leads.
    let mut again = bench.crashed(stream("S", &["s.>"]));
    assert_eq!(again.consumer_info("c").num_ack_pending, 2);
    assert_eq!(payloads(&again.pull("c", "2")), ["4", "5"]);
}

#[test]
fn an_ack_that_comes_while_a_reset_is_under_way_does_not_undo_it() {
    let config = ConsumerConfig {
        ack_policy: AckPolicy::All,
        ..durable("c")
    };
    let mut bench = with(config, 10);
    let delivered = bench.pull("c", "6");
    bench.pass(SECOND);
    bench.instant = false;
    let (name, sequence) = ("c".to_owned(), 2);
    bench.ask(StreamRequest::ConsumerReset { name, sequence });
    bench.ack(&delivered[4], "+ACK");
    bench.commit();
    bench.pass(SECOND);
    bench.commit();
    let mut again = bench.crashed(stream("S", &["s.>"]));
    assert_eq!(place(&again.consumer_info("c").ack_floor).1, 1);
    assert_eq!(payloads(&again.pull("c", "2")), ["2", "3"]);
}

#[test]
fn a_first_delivery_of_what_a_purge_has_taken_meanwhile_is_not_waited_for() {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for (subject, payload) in [("s.z", "0"), ("s.a", "1"), ("s.b", "2")] {
        bench.publish(subject, payload);
    }
    bench.consumer(durable("c"));
    let first = bench.pull("c", "1").remove(0);
    bench.ack(&first, "+ACK");
    bench.pass(SECOND);
    bench.instant = false;
    bench.ask(StreamRequest::Purge(PurgeQuery {
        filter: "s.a".to_owned(),
        ..PurgeQuery::default()
    }));
    assert_eq!(payloads(&bench.pull("c", "1")), ["1"]);
    for _ in 0..3 {
        bench.commit();
        bench.pass(SECOND);
    }
    let mut again = bench.crashed(stream("S", &["s.>"]));
    let info = again.consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (0, (2, 2)));
    assert_eq!(payloads(&again.pull("c", "2")), ["2"]);
}

#[test]
fn an_ack_for_all_is_not_waited_for_when_the_message_left_before_its_delivery_was_logged() {
    let config = ConsumerConfig {
        ack_policy: AckPolicy::All,
        ack_wait: 600 * SECOND,
        ..durable("c")
    };
    let mut bench = with(config, 4);
    let first = bench.pull("c", "1").remove(0);
    bench.ack(&first, "+ACK");
    bench.pass(SECOND);
    bench.instant = false;
    let (sequence, erase) = (2, false);
    bench.ask(StreamRequest::Delete { sequence, erase });
    assert_eq!(payloads(&bench.pull("c", "2")), ["2", "3"]);
    for _ in 0..3 {
        bench.commit();
        bench.pass(SECOND);
    }
    let info = bench.crashed(stream("S", &["s.>"])).consumer_info("c");
    assert_eq!((info.num_ack_pending, place(&info.ack_floor)), (1, (2, 2)));
}

#[test]
fn what_may_have_been_delivered_before_a_crash_is_marked_as_a_redelivery() {
    let mut bench = with(durable("c"), 4);
    assert_eq!(bench.pull("c", "1").len(), 1);
    bench.pass(SECOND);
    bench.instant = false;
    assert_eq!(bench.pull("c", "2").len(), 2);
    let mut again = bench.crashed(stream("S", &["s.>"]));
    // These deliveries are not in the log, but that they may have happened is.
    assert_eq!(again.consumer_info("c").delivered.consumer_seq, 1);
    let first = again.pull("c", "1");
    assert!(
        text(&first[0].reply).starts_with("$JS.ACK.S.c.2.2.2."),
        "{:?}",
        first[0].reply
    );
    // What was stored after the crash cannot have been delivered before it.
    again.pull("c", "2");
    again.publish("s.a", "5");
    let new = again.pull("c", "1");
    assert!(
        text(&new[0].reply).starts_with("$JS.ACK.S.c.1.5.5."),
        "{:?}",
        new[0].reply
    );
}

#[test]
fn after_a_clean_stop_nothing_is_suspect() {
    let mut bench = with(durable("c"), 4);
    assert_eq!(bench.pull("c", "1").len(), 1);
    let last = bench.step(|core, step| core.take_last_entries(step));
    bench.log.extend(last);
    bench.commit();
    let mut again = bench.crashed(stream("S", &["s.>"]));
    let first = again.pull("c", "1");
    assert!(
        text(&first[0].reply).starts_with("$JS.ACK.S.c.1.2.2."),
        "{:?}",
        first[0].reply
    );
}

#[test]
fn a_clean_stop_does_not_forget_what_was_suspect_before() {
    let mut bench = with(durable("c"), 4);
    assert_eq!(bench.pull("c", "1").len(), 1);
    bench.pass(SECOND);
    bench.instant = false;
    assert_eq!(bench.pull("c", "2").len(), 2);
    let mut again = bench.crashed(stream("S", &["s.>"]));
    let last = again.step(|core, step| core.take_last_entries(step));
    again.log.extend(last);
    again.commit();
    let mut third = again.crashed(stream("S", &["s.>"]));
    let first = third.pull("c", "1");
    // It was delivered before the crash, although no log says so.
    assert!(
        text(&first[0].reply).starts_with("$JS.ACK.S.c.2.2.2."),
        "{:?}",
        first[0].reply
    );
}

#[test]
fn a_message_that_leaves_the_stream_is_no_longer_waited_for() {
    let mut bench = with(durable("c"), 3);
    bench.pull("c", "2");
    bench.request(StreamRequest::Delete {
        sequence: 1,
        erase: true,
    });
    let info = bench.consumer_info("c");
    assert_eq!((info.num_ack_pending, info.num_pending), (1, 1));
    bench.request(StreamRequest::Delete {
        sequence: 3,
        erase: true,
    });
    assert_eq!(bench.consumer_info("c").num_pending, 0);
}

#[test]
fn what_a_limit_removes_unacknowledged_is_reported() {
    let mut bench = Bench::new(StreamConfig {
        max_msgs: 2,
        ..stream("S", &["s.>"])
    });
    bench.publish("s.a", "1");
    bench.publish("s.a", "2");
    bench.consumer(durable("c"));
    bench.pull("c", "2");
    bench.effects.advisories.clear();
    bench.publish("s.a", "3");
    match &bench.effects.advisories[..] {
        [
            Advisory::Terminated {
                consumer,
                stream_sequence: 1,
                reason,
                ..
            },
        ] => assert_eq!(
            (consumer.as_str(), reason.as_str()),
            ("c", "Unacknowledged message was deleted")
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.consumer_info("c").num_ack_pending, 1);
}
