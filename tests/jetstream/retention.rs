//! What a stream keeps and what it lets go.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;

use super::common::{Server, eventually_async};
use super::{connect, plain, publish};

#[tokio::test]
async fn each_subject_keeps_its_latest() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        max_messages_per_subject: 2,
        ..plain("S")
    };
    let mut stream = context.create_stream(config).await.unwrap();
    for number in 0..30 {
        publish(&context, &format!("s.{}", number % 3), "x").await;
    }
    let state = &stream.info().await.unwrap().state;
    assert_eq!((state.messages, state.first_sequence), (6, 25));
}

#[tokio::test]
async fn a_message_expires_by_its_own_time_to_live() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        allow_message_ttl: true,
        ..plain("S")
    };
    let stream = context.create_stream(config).await.unwrap();
    let short = PublishMessage::build().ttl(Duration::from_secs(1));
    let sent = context.send_publish("s.short", short).await.unwrap();
    sent.await.unwrap();
    publish(&context, "s.long", "x").await;
    eventually_async("the short one expires", async || {
        (stream.get_info().await.unwrap().state.messages == 1).then_some(())
    })
    .await;
    assert!(stream.get_raw_message(2).await.is_ok());
}
