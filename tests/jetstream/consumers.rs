//! Consumers: what is in a stream reaches its readers, once when they acknowledge and again when they do not.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::consumer::{self, AckPolicy, Consumer, DeliverPolicy, PullConsumer};
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use async_nats::jetstream::{AckKind, Context, Message};
use futures_util::{StreamExt, TryStreamExt};

use super::common::{Server, eventually_async};
use super::{client, connect, publish};

/// A durable consumer that pulls with explicit acks.
pub async fn durable(stream: &Stream, name: &str) -> PullConsumer {
    with(
        stream,
        Pull {
            durable_name: Some(name.to_owned()),
            ..Pull::default()
        },
    )
    .await
}

async fn with(stream: &Stream, config: Pull) -> PullConsumer {
    stream.create_consumer(config).await.expect("created")
}

/// Up to `count` messages, waiting for the first ones.
pub async fn fetch(consumer: &PullConsumer, count: usize) -> Vec<Message> {
    let messages = consumer
        .fetch()
        .max_messages(count)
        .expires(Duration::from_secs(5))
        .messages()
        .await
        .expect("the pull request is sent");
    messages.try_collect().await.expect("messages")
}

async fn filled(server: &Server, count: usize) -> (Context, Stream) {
    let context = connect(server).await;
    let config = Config {
        name: "S".to_owned(),
        subjects: vec!["S.*".to_owned()],
        ..Config::default()
    };
    let stream = context.create_stream(config).await.expect("created");
    for number in 0..count {
        let subject = if number % 2 == 0 { "S.even" } else { "S.odd" };
        publish(&context, subject, number.to_string()).await;
    }
    (context, stream)
}

fn payloads(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect()
}

#[tokio::test]
async fn a_pull_consumer_gets_every_message_in_order() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 10).await;
    let mut consumer = durable(&stream, "C").await;
    let messages = fetch(&consumer, 10).await;
    assert_eq!(
        payloads(&messages),
        (0..10).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(consumer.info().await.expect("info").num_ack_pending, 10);
    for message in &messages {
        message.double_ack().await.expect("acked");
    }
    let info = consumer.info().await.expect("info");
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 0));
    assert_eq!(info.ack_floor.stream_sequence, 10);
}

#[tokio::test]
async fn messages_published_later_reach_a_waiting_reader() {
    let server = Server::jetstream();
    let (context, stream) = filled(&server, 0).await;
    let consumer = durable(&stream, "C").await;
    let mut messages = consumer.messages().await.expect("a subscription");
    for number in 0..100 {
        publish(&context, "S.later", number.to_string()).await;
    }
    for number in 0..100 {
        let message = messages.next().await.expect("more").expect("a message");
        assert_eq!(message.payload, number.to_string());
        message.ack().await.expect("acked");
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 1).await;
    let config = Pull {
        durable_name: Some("C".to_owned()),
        ack_wait: Duration::from_millis(300),
        ..Pull::default()
    };
    let consumer = with(&stream, config).await;
    for delivered in 1..=3 {
        let messages = fetch(&consumer, 1).await;
        assert_eq!(
            messages[0].info().expect("an ack subject").delivered,
            delivered
        );
    }
    let messages = fetch(&consumer, 1).await;
    messages[0]
        .ack_with(AckKind::Nak(None))
        .await
        .expect("sent");
    let messages = fetch(&consumer, 1).await;
    assert_eq!(messages[0].info().expect("an ack subject").delivered, 5);
    messages[0].ack_with(AckKind::Term).await.expect("sent");
    eventually_async("the terminated message is done", || {
        let mut consumer = consumer.clone();
        async move { (consumer.info().await.expect("info").num_ack_pending == 0).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn max_deliver_ends_redelivery() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 1).await;
    let config = Pull {
        durable_name: Some("C".to_owned()),
        ack_wait: Duration::from_millis(200),
        max_deliver: 2,
        ..Pull::default()
    };
    let consumer = with(&stream, config).await;
    for _ in 0..2 {
        assert_eq!(fetch(&consumer, 1).await.len(), 1);
    }
    let third = consumer
        .fetch()
        .max_messages(1)
        .expires(Duration::from_millis(700))
        .messages()
        .await
        .expect("sent");
    let third: Vec<Message> = third.try_collect().await.expect("nothing but the end");
    assert!(third.is_empty());
}

#[tokio::test]
async fn filters_select_subjects() {
    let server = Server::jetstream();
    let (context, stream) = filled(&server, 6).await;
    publish(&context, "S.third", "t").await;
    let one = Pull {
        durable_name: Some("ONE".to_owned()),
        filter_subject: "S.odd".to_owned(),
        ..Pull::default()
    };
    let mut one = with(&stream, one).await;
    assert_eq!(one.info().await.expect("info").num_pending, 3);
    assert_eq!(payloads(&fetch(&one, 3).await), ["1", "3", "5"]);
    let several = Pull {
        durable_name: Some("MANY".to_owned()),
        filter_subjects: vec!["S.odd".to_owned(), "S.third".to_owned()],
        ..Pull::default()
    };
    let several = with(&stream, several).await;
    assert_eq!(payloads(&fetch(&several, 4).await), ["1", "3", "5", "t"]);
}

#[tokio::test]
async fn a_consumer_starts_where_it_is_told() {
    let server = Server::jetstream();
    let (context, stream) = filled(&server, 5).await;
    for (name, deliver_policy, first) in [
        ("ALL", DeliverPolicy::All, "0"),
        ("LAST", DeliverPolicy::Last, "4"),
        (
            "SEQ",
            DeliverPolicy::ByStartSequence { start_sequence: 3 },
            "2",
        ),
        ("NEW", DeliverPolicy::New, "fresh"),
    ] {
        let config = Pull {
            durable_name: Some(name.to_owned()),
            deliver_policy,
            ..Pull::default()
        };
        let consumer = with(&stream, config).await;
        if name == "NEW" {
            publish(&context, "S.even", "fresh").await;
        }
        assert_eq!(payloads(&fetch(&consumer, 1).await), [first], "{name}");
    }
    let config = Pull {
        durable_name: Some("EACH".to_owned()),
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: "S.*".to_owned(),
        ..Pull::default()
    };
    let consumer = with(&stream, config).await;
    assert_eq!(payloads(&fetch(&consumer, 2).await), ["3", "fresh"]);
}

#[tokio::test]
async fn a_push_consumer_delivers_to_its_subject() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 5).await;
    let config = consumer::push::Config {
        deliver_subject: "deliver.here".to_owned(),
        durable_name: Some("P".to_owned()),
        ..Default::default()
    };
    let consumer: Consumer<consumer::push::Config> =
        stream.create_consumer(config).await.expect("created");
    let mut messages = consumer.messages().await.expect("a subscription").take(5);
    let mut received = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.expect("a message");
        message.ack().await.expect("acked");
        received.push(message);
    }
    assert_eq!(payloads(&received), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn an_ordered_consumer_reads_everything_with_flow_control() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 500).await;
    let config = consumer::push::OrderedConfig {
        deliver_subject: "ordered.here".to_owned(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.expect("created");
    let messages = consumer.messages().await.expect("a subscription").take(500);
    let messages: Vec<Message> = messages.try_collect().await.expect("messages");
    assert_eq!(
        payloads(&messages),
        (0..500).map(|n| n.to_string()).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_ack_removes_the_message_from_a_work_queue() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        name: "W".to_owned(),
        subjects: vec!["W.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let mut stream = context.create_stream(config).await.expect("created");
    for number in 0..3 {
        publish(&context, "W.a", number.to_string()).await;
    }
    let consumer = durable(&stream, "C").await;
    let messages = fetch(&consumer, 3).await;
    messages[1].double_ack().await.expect("acked");
    assert_eq!(stream.info().await.expect("info").state.messages, 2);
    assert!(stream.get_raw_message(2).await.is_err());
    let second = Pull {
        durable_name: Some("D".to_owned()),
        ..Pull::default()
    };
    assert!(
        stream.create_consumer(second).await.is_err(),
        "one unfiltered consumer at most"
    );
}

#[tokio::test]
async fn max_ack_pending_holds_deliveries_back() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 5).await;
    let config = Pull {
        durable_name: Some("C".to_owned()),
        max_ack_pending: 2,
        ..Pull::default()
    };
    let consumer = with(&stream, config).await;
    let mut messages = consumer.messages().await.expect("a subscription");
    let first = messages.next().await.expect("more").expect("a message");
    let _second = messages.next().await.expect("more").expect("a message");
    let third = tokio::time::timeout(Duration::from_millis(300), messages.next()).await;
    assert!(third.is_err(), "two are pending already");
    first.ack().await.expect("acked");
    let third = messages.next().await.expect("more").expect("a message");
    assert_eq!(third.payload, "2");
}

#[tokio::test]
async fn acks_of_nothing_and_of_everything_before() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 5).await;
    let config = Pull {
        durable_name: Some("NONE".to_owned()),
        ack_policy: AckPolicy::None,
        ..Pull::default()
    };
    let mut none = with(&stream, config).await;
    assert_eq!(fetch(&none, 5).await.len(), 5);
    assert_eq!(none.info().await.expect("info").num_ack_pending, 0);
    let config = Pull {
        durable_name: Some("ALL".to_owned()),
        ack_policy: AckPolicy::All,
        ..Pull::default()
    };
    let mut all = with(&stream, config).await;
    let messages = fetch(&all, 5).await;
    messages[3].double_ack().await.expect("acked");
    let info = all.info().await.expect("info");
    assert_eq!(
        (info.num_ack_pending, info.ack_floor.stream_sequence),
        (1, 4)
    );
}

#[tokio::test]
async fn a_pull_on_a_missing_consumer_is_told_at_once() {
    let server = Server::jetstream();
    let (_context, _stream) = filled(&server, 1).await;
    let reply = client(&server)
        .await
        .request("$JS.API.CONSUMER.MSG.NEXT.S.NOPE", "".into())
        .await;
    let error = reply.expect_err("nobody answers").to_string();
    assert!(error.contains("no responders"), "{error}");
}

#[tokio::test]
async fn a_deleted_consumer_is_gone() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 1).await;
    durable(&stream, "C").await;
    let names: Vec<String> = stream.consumer_names().try_collect().await.expect("names");
    assert_eq!(names, ["C"]);
    stream.delete_consumer("C").await.expect("deleted");
    let names: Vec<String> = stream.consumer_names().try_collect().await.expect("names");
    assert!(names.is_empty());
}

#[tokio::test]
async fn an_unused_ephemeral_consumer_goes_by_itself() {
    let server = Server::jetstream();
    let (_context, stream) = filled(&server, 1).await;
    let config = Pull {
        inactive_threshold: Duration::from_millis(200),
        ..Pull::default()
    };
    with(&stream, config).await;
    eventually_async("the consumer goes", || {
        let stream = stream.clone();
        async move {
            let names: Vec<String> = stream.consumer_names().try_collect().await.expect("names");
            names.is_empty().then_some(())
        }
    })
    .await;
}
