//! Interest and work-queue retention.

use super::*;
use crate::jetstream::types::{ErrorCode, Retention};

fn interest() -> Bench {
    Bench::new(StreamConfig {
        retention: Retention::Interest,
        ..stream("S", &["s.>"])
    })
}

fn work_queue() -> Bench {
    Bench::new(StreamConfig {
        retention: Retention::Workqueue,
        ..stream("S", &["s.>"])
    })
}

fn filtered(name: &str, filter: &str) -> ConsumerConfig {
    ConsumerConfig {
        filter_subject: filter.to_owned(),
        ..durable(name)
    }
}

#[test]
fn without_interest_a_sequence_is_used_up_and_nothing_is_stored() {
    let mut bench = interest();
    assert_eq!(bench.publish("s.a", "x"), r#"{"stream":"S","seq":1}"#);
    let id = [("Nats-Msg-Id", "m")];
    bench.publish_with("s.a", &id, "x");
    assert!(
        bench
            .publish_with("s.a", &id, "x")
            .contains("\"seq\":2,\"duplicate\": true")
    );
    let state = bench.info().state;
    assert_eq!((state.messages, state.last_seq), (0, 2));
}

#[test]
fn a_stream_that_turns_to_interest_loses_only_what_its_consumers_are_done_with() {
    for with_consumer in [false, true] {
        let mut bench = Bench::new(stream("S", &["s.>"]));
        for (subject, payload) in [("s.a", "1"), ("s.b", "2"), ("s.a", "3")] {
            bench.publish(subject, payload);
        }
        if with_consumer {
            bench.consumer(filtered("some", "s.a"));
            let first = bench.pull("some", "1");
            bench.ack(&first[0], "");
        }
        bench.request(StreamRequest::Update(Box::new(StreamConfig {
            retention: Retention::Interest,
            ..stream("S", &["s.>"])
        })));
        let state = bench.info().state;
        let first = if with_consumer { 2 } else { 1 };
        assert_eq!((state.first_seq, state.last_seq), (first, 3));
    }
}

#[test]
fn a_message_leaves_when_every_consumer_that_wants_it_has_acknowledged_it() {
    let mut bench = interest();
    bench.consumer(durable("all"));
    bench.consumer(filtered("some", "s.a"));
    bench.publish("s.a", "1");
    bench.publish("s.b", "2");
    let all = bench.pull("all", "10");
    let some = bench.pull("some", "10");
    assert_eq!((all.len(), some.len()), (2, 1));
    bench.ack(&all[1], "");
    assert_eq!(bench.info().state.messages, 1);
    bench.ack(&all[0], "");
    assert_eq!(bench.info().state.messages, 1);
    bench.ack(&some[0], "+TERM");
    assert_eq!(bench.info().state.messages, 0);
}

#[test]
fn what_only_a_deleted_consumer_wanted_leaves_with_it() {
    let mut bench = interest();
    bench.consumer(filtered("a", "s.a"));
    bench.consumer(filtered("b", "s.b"));
    for subject in ["s.a", "s.b", "s.a"] {
        bench.publish(subject, "x");
    }
    bench.request(StreamRequest::ConsumerDelete {
        name: "a".to_owned(),
    });
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq), (1, 2));
}

#[test]
fn a_consumer_without_acks_releases_what_it_has_delivered() {
    let mut bench = interest();
    bench.consumer(ConsumerConfig {
        ack_policy: AckPolicy::None,
        ..durable("c")
    });
    bench.publish("s.a", "1");
    bench.publish("s.a", "2");
    assert_eq!(bench.pull("c", "1").len(), 1);
    assert_eq!(bench.info().state.messages, 1);
}

#[test]
fn an_ack_takes_a_message_out_of_the_work_queue() {
    let mut bench = work_queue();
    bench.publish("s.a", "1");
    bench.publish("s.a", "2");
    bench.consumer(durable("c"));
    let messages = bench.pull("c", "10");
    bench.ack(&messages[0], "");
    let state = bench.info().state;
    assert_eq!((state.messages, state.first_seq), (1, 2));
    assert_eq!(bench.consumer_info("c").num_ack_pending, 1);
}

#[test]
fn consumers_of_a_work_queue_share_nothing() {
    let mut bench = work_queue();
    bench.consumer(filtered("a", "s.a.*"));
    let refused = |reply: StreamReply, code: ErrorCode| match reply {
        StreamReply::Refused(error) => assert!(error.is(code), "{error}"),
        other => panic!("{other:?}"),
    };
    let action = ConsumerAction::CreateOrUpdate;
    refused(
        bench.try_consumer(durable("b"), action),
        ErrorCode::ConsumerWorkQueueMultipleUnfiltered,
    );
    refused(
        bench.try_consumer(filtered("b", "s.*.b"), action),
        ErrorCode::ConsumerWorkQueueConsumerNotUnique,
    );
    refused(
        bench.try_consumer(
            ConsumerConfig {
                ack_policy: AckPolicy::All,
                ..filtered("b", "s.b")
            },
            action,
        ),
        ErrorCode::ConsumerWorkQueueRequiresExplicitAck,
    );
    refused(
        bench.try_consumer(
            ConsumerConfig {
                deliver_policy: crate::jetstream::types::DeliverPolicy::New,
                ..filtered("b", "s.b")
            },
            action,
        ),
        ErrorCode::ConsumerWorkQueueConsumerNotDeliverAll,
    );
    bench.consumer(filtered("b", "s.b"));
}

#[test]
fn a_message_that_was_delivered_too_often_stays_in_the_work_queue() {
    let mut bench = work_queue();
    bench.consumer(ConsumerConfig {
        max_deliver: 1,
        ..durable("c")
    });
    bench.publish("s.a", "1");
    assert_eq!(bench.pull("c", "1").len(), 1);
    bench.pass(31 * SECOND);
    assert_eq!(bench.consumer_info("c").num_ack_pending, 0);
    assert_eq!(bench.info().state.messages, 1);
}

#[test]
fn an_ack_with_a_reply_is_confirmed_once_the_removal_is_durable() {
    let mut bench = work_queue();
    bench.publish("s.a", "1");
    bench.consumer(durable("c"));
    let messages = bench.pull("c", "1");
    bench.instant = false;
    bench.ack_with(&messages[0], "", "confirm");
    assert!(bench.sent_to("confirm").is_empty());
    bench.commit();
    let confirmed = bench.sent_to("confirm");
    assert_eq!(confirmed.len(), 1);
    assert!(confirmed[0].payload.is_empty() && confirmed[0].headers.is_empty());
    assert_eq!(bench.core.store().state().messages, 0);
}
