//! Consumers as such: created, listed, changed, deleted, where they start and what they see.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::common::{Server, ServerOptions};
use super::copies::api;
use super::{client, connect, plain, publish};

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

#[tokio::test]
async fn a_server_limits_what_its_consumers_and_streams_ask_for() {
    let server = ServerOptions::default()
        .config(
            "jetstream { store_dir: \"@DIR@/js\", \
             limits { max_request_batch: 10, max_ack_pending: 20, duplicate_window: 30s } }",
        )
        .start();
    let client = client(&server).await;
    let ask = async |subject: &str, body: Value| api(&client, subject, body).await;
    let wide = json!({"name": "S", "subjects": ["s"], "duplicate_window": 31_000_000_000u64});
    let refused = ask("STREAM.CREATE.S", wide).await;
    assert_eq!(refused["error"]["err_code"], 10052, "{refused}");
    let created = ask("STREAM.CREATE.S", json!({"name": "S", "subjects": ["s"]})).await;
    assert_eq!(
        created["config"]["duplicate_window"], 30_000_000_000u64,
        "{created}"
    );
    let consumer = |more: Value| {
        let mut config = json!({"name": "C", "ack_policy": "explicit"});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        json!({"stream_name": "S", "config": config})
    };
    for (more, code) in [
        (json!({"max_batch": 11}), 10125),
        (json!({"max_ack_pending": 21}), 10121),
    ] {
        let refused = ask("CONSUMER.CREATE.S.C", consumer(more)).await;
        assert_eq!(refused["error"]["err_code"], code, "{refused}");
    }
    let created = ask("CONSUMER.CREATE.S.C", consumer(json!({}))).await;
    assert_eq!(created["config"]["max_batch"], 10, "{created}");
    assert_eq!(created["config"]["max_ack_pending"], 20, "{created}");
}
