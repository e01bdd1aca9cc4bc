//! Pull consumers: batches, acknowledgements, redelivery.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{AckKind, Context, Message};
use futures_util::{StreamExt, TryStreamExt};

use super::common::{Server, eventually_async};
use super::{PATIENCE, connect, plain, publish};

async fn filled(server: &Server, count: u32) -> (Context, Stream) {
    let context = connect(server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    for number in 1..=count {
        publish(&context, "s.a", &number.to_string()).await;
    }
    (context, stream)
}

fn explicit() -> pull::Config {
    pull::Config {
        durable_name: Some("c".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    }
}

async fn consumer(stream: &Stream, config: pull::Config) -> PullConsumer {
    stream.create_consumer(config).await.expect("a consumer")
}

/// Waits for the next `count` messages.
async fn take(consumer: &PullConsumer, count: usize) -> Vec<Message> {
    let batch = consumer.batch().max_messages(count).expires(PATIENCE);
    let messages: Vec<Message> = batch.messages().await.unwrap().try_collect().await.unwrap();
    assert_eq!(messages.len(), count);
    messages
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    let sequence = |message: &Message| message.info().unwrap().stream_sequence;
    messages.iter().map(sequence).collect()
}

#[tokio::test]
async fn a_message_tells_where_it_stands() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 3).await;
    let consumer = consumer(&stream, explicit()).await;
    let messages = take(&consumer, 2).await;
    let info = messages[1].info().unwrap();
    assert_eq!((info.stream, info.consumer), ("S", "c"));
    assert_eq!((info.stream_sequence, info.consumer_sequence), (2, 2));
    assert_eq!((info.delivered, info.pending), (1, 1));
}

#[tokio::test]
async fn a_batch_that_finds_less_ends_when_it_expires() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 2).await;
    let consumer = consumer(&stream, explicit()).await;
    let expires = Duration::from_millis(300);
    let started = Instant::now();
    let batch = consumer.batch().max_messages(10).expires(expires);
    let messages: Vec<Message> = batch.messages().await.unwrap().try_collect().await.unwrap();
    assert_eq!(messages.len(), 2);
    assert!(started.elapsed() >= expires);
}

#[tokio::test]
async fn a_batch_stops_at_its_bytes() {
    let server = Server::jetstream();
    let (context, stream) = filled(&server, 0).await;
    for _ in 0..10 {
        publish(&context, "s.a", &"x".repeat(1_000)).await;
    }
    let consumer = consumer(&stream, explicit()).await;
    let batch = consumer.batch().max_messages(10).max_bytes(3_500);
    let messages = batch.expires(PATIENCE).messages().await.unwrap();
    let messages: Vec<_> = messages.collect().await;
    assert_eq!(messages.iter().filter(|message| message.is_ok()).count(), 3);
}

#[tokio::test]
async fn a_negative_ack_brings_the_message_again_at_once_or_after_its_delay() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 1).await;
    let consumer = consumer(&stream, explicit()).await;
    let first = take(&consumer, 1).await;
    first[0].ack_with(AckKind::Nak(None)).await.unwrap();
    let second = take(&consumer, 1).await;
    assert_eq!(second[0].info().unwrap().delivered, 2);
    let delay = Duration::from_millis(300);
    let started = Instant::now();
    second[0].ack_with(AckKind::Nak(Some(delay))).await.unwrap();
    let third = take(&consumer, 1).await;
    assert_eq!(third[0].info().unwrap().delivered, 3);
    assert!(started.elapsed() >= delay);
}

#[tokio::test]
async fn progress_keeps_a_message_from_coming_again() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 1).await;
    let config = pull::Config {
        ack_wait: Duration::from_secs(1),
        ..explicit()
    };
    let consumer = consumer(&stream, config).await;
    let first = take(&consumer, 1).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1_600) {
        first[0].ack_with(AckKind::Progress).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let info = stream.consumer_info("c").await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_redelivered), (1, 0));
    first[0].double_ack().await.unwrap();
}

#[tokio::test]
async fn a_terminated_message_does_not_come_again() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 1).await;
    let config = pull::Config {
        ack_wait: Duration::from_millis(200),
        ..explicit()
    };
    let consumer = consumer(&stream, config).await;
    let first = take(&consumer, 1).await;
    first[0].ack_with(AckKind::Term).await.unwrap();
    eventually_async("it is settled", async || {
        let info = stream.consumer_info("c").await.unwrap();
        (info.num_ack_pending == 0 && info.ack_floor.stream_sequence == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_clients_share_one_consumer_and_nothing_comes_twice() {
    let server = Server::jetstream();
    let (_, stream) = filled(&server, 100).await;
    let one = consumer(&stream, explicit()).await;
    let other_context = connect(&server).await;
    let other_stream = other_context.get_stream("S").await.unwrap();
    let two: PullConsumer = other_stream.get_consumer("c").await.unwrap();
    let (first, second) = tokio::join!(take(&one, 50), take(&two, 50));
    let mut counts = BTreeMap::new();
    for sequence in sequences(&first).into_iter().chain(sequences(&second)) {
        *counts.entry(sequence).or_insert(0) += 1;
    }
    assert!(counts.len() == 100 && counts.values().all(|&count| count == 1));
}
