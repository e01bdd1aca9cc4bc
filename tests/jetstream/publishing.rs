//! Publishing: acks, duplicates, expectations, rollups.

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;

use super::common::Server;
use super::{connect, plain, publish, text};

#[tokio::test]
async fn of_many_writers_with_the_same_expectation_one_wins() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    context.create_stream(plain("S")).await.unwrap();
    let mut sent = Vec::new();
    for number in 0..50 {
        let message = PublishMessage::build()
            .expected_last_subject_sequence(0)
            .payload(number.to_string().into());
        sent.push(context.send_publish("s.once", message).await.unwrap());
    }
    let mut won = 0;
    for ack in sent {
        won += u32::from(ack.await.is_ok());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_rollup_leaves_only_itself() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        allow_rollup: true,
        ..plain("S")
    };
    let mut stream = context.create_stream(config).await.unwrap();
    for subject in ["s.a", "s.b", "s.a", "s.c"] {
        publish(&context, subject, "x").await;
    }
    let rollup = async |subject: &'static str, what: &str| {
        let message = PublishMessage::build().header("Nats-Rollup", what);
        let sent = context.send_publish(subject, message).await.unwrap();
        sent.await.unwrap();
    };
    rollup("s.a", "sub").await;
    assert_eq!(stream.info().await.unwrap().state.messages, 3);
    rollup("s.b", "all").await;
    let state = &stream.info().await.unwrap().state;
    assert_eq!((state.messages, state.first_sequence), (1, 6));
}

#[tokio::test]
async fn headers_are_kept_with_their_message() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Kind", "one");
    headers.insert("Other", "two");
    let sent = context.publish_with_headers("s.a", headers.clone(), "body".into());
    sent.await.unwrap().await.unwrap();
    let stored = stream.get_raw_message(1).await.unwrap();
    assert_eq!((stored.headers, text(&stored.payload)), (headers, "body"));
}

#[tokio::test]
async fn a_message_over_the_maximum_is_refused_and_takes_no_sequence() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        max_message_size: 10,
        ..plain("S")
    };
    context.create_stream(config).await.unwrap();
    let sent = context.publish("s.a", "x".repeat(11).into()).await.unwrap();
    assert!(sent.await.is_err());
    assert_eq!(publish(&context, "s.a", &"x".repeat(10)).await, 1);
}

#[tokio::test]
async fn a_publish_to_no_stream_is_told_so() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let sent = context.publish("nobody", "x".into()).await.unwrap();
    assert_eq!(
        sent.await.unwrap_err().kind(),
        PublishErrorKind::StreamNotFound
    );
}
