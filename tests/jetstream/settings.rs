//! Consumers as such: created, listed, changed, deleted, where they start and what they see.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;

use super::common::Server;
use super::{connect, plain, publish};

fn durable(name: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    }
}

/// A stream of ten messages, on two subjects in turn.
async fn ten(server: &Server) -> Stream {
    let context = connect(server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    for number in 0..10 {
        publish(&context, &format!("s.{}", number % 2), &number.to_string()).await;
    }
    stream
}

#[tokio::test]
async fn a_strict_create_does_not_change_what_is_there() {
    let server = Server::jetstream();
    let stream = ten(&server).await;
    stream.create_consumer_strict(durable("a")).await.unwrap();
    let other = pull::Config {
        max_deliver: 5,
        ..durable("a")
    };
    assert!(stream.create_consumer_strict(other).await.is_err());
    assert!(stream.update_consumer(durable("nobody")).await.is_err());
}

#[tokio::test]
async fn headers_only_consumers_get_the_size_instead_of_the_payload() {
    let server = Server::jetstream();
    let stream = ten(&server).await;
    let config = pull::Config {
        headers_only: true,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    assert!(message.payload.is_empty());
    let headers = message.headers.as_ref().unwrap();
    assert_eq!(headers.get("Nats-Msg-Size").unwrap().as_str(), "1");
}

#[tokio::test]
async fn a_paused_consumer_delivers_nothing_until_it_is_resumed() {
    let server = Server::jetstream();
    let stream = ten(&server).await;
    let consumer = stream.create_consumer(durable("p")).await.unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    stream.pause_consumer("p", later.into()).await.unwrap();
    let messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    assert_eq!(messages.count().await, 0);
    stream.resume_consumer("p").await.unwrap();
    let mut messages = consumer.batch().max_messages(1).messages().await.unwrap();
    assert!(messages.next().await.unwrap().is_ok());
}
