//! The main job: what was acknowledged is there after a kill, and is consumed once.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use common::{Server, eventually_async};
use futures_util::{StreamExt, TryStreamExt};

const MESSAGES: usize = 2000;

async fn context(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(server.url())
        .await
        .expect("the server takes clients");
    jetstream::new(client)
}

async fn publish_all(context: &jetstream::Context, from: usize, to: usize) {
    let mut acks = Vec::new();
    for number in from..to {
        let ack = context
            .publish(format!("data.{}", number % 7), number.to_string().into())
            .await
            .expect("is sent");
        acks.push(ack);
    }
    for (number, ack) in (from..to).zip(acks) {
        let ack = ack.await.expect("is acknowledged");
        assert_eq!(ack.sequence as usize, number + 1);
    }
}

async fn consume(messages: &mut consumer::pull::Stream, count: usize, seen: &mut BTreeSet<usize>) {
    for _ in 0..count {
        let message = tokio::time::timeout(Duration::from_secs(10), messages.next())
            .await
            .expect("a message comes")
            .expect("the consumer goes on")
            .expect("a message");
        let number: usize = String::from_utf8_lossy(&message.payload)
            .parse()
            .expect("a number");
        assert!(seen.insert(number), "{number} was delivered twice");
        message.double_ack().await.expect("the ack is confirmed");
    }
}

fn durable() -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some("worker".to_owned()),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_acknowledged_message_survives_a_kill_and_is_consumed_once() {
    let mut server = Server::jetstream();
    let mut seen = BTreeSet::new();
    {
        let context = context(&server).await;
        let stream = context
            .create_stream(stream::Config {
                name: "DATA".to_owned(),
                subjects: vec!["data.>".to_owned()],
                ..Default::default()
            })
            .await
            .expect("the stream is made");
        publish_all(&context, 0, MESSAGES).await;
        let consumer = stream
            .create_consumer(durable())
            .await
            .expect("the consumer is made");
        let mut messages = consumer.messages().await.expect("messages come");
        consume(&mut messages, MESSAGES / 4, &mut seen).await;
    }
    server.kill();
    server.start_again();
    let context = context(&server).await;
    let stream = context
        .get_stream("DATA")
        .await
        .expect("the stream is there");
    let state = &stream.cached_info().state;
    assert_eq!(
        (state.messages as usize, state.last_sequence as usize),
        (MESSAGES, MESSAGES)
    );
    publish_all(&context, MESSAGES, MESSAGES + 100).await;
    let consumer: consumer::PullConsumer = stream
        .get_consumer("worker")
        .await
        .expect("the consumer is there");
    // What was sent before the kill and not acknowledged comes when its time is over; the rest comes at once, and nothing
    // that was acknowledged ever comes again.
    let mut messages = consumer.messages().await.expect("messages come");
    let info = stream.consumer_info("worker").await.expect("is told");
    let waiting = info.num_ack_pending;
    let fresh = MESSAGES + 100 - seen.len() - waiting;
    consume(&mut messages, fresh, &mut seen).await;
}

#[tokio::test]
async fn a_work_queue_is_empty_when_all_is_done_and_stays_so() {
    let mut server = Server::jetstream();
    {
        let context = context(&server).await;
        let stream = context
            .create_stream(stream::Config {
                name: "DATA".to_owned(),
                subjects: vec!["data.>".to_owned()],
                retention: stream::RetentionPolicy::WorkQueue,
                ..Default::default()
            })
            .await
            .expect("the stream is made");
        publish_all(&context, 0, 100).await;
        let consumer = stream.create_consumer(durable()).await.expect("is made");
        let mut messages = consumer.messages().await.expect("messages come");
        consume(&mut messages, 100, &mut BTreeSet::new()).await;
        eventually_async("the queue is empty", async || {
            let state = stream.get_info().await.ok()?.state;
            (state.messages == 0).then_some(())
        })
        .await;
    }
    let status = server.stop();
    assert!(status.success(), "{status}: {}", server.log());
    server.start_again();
    let context = context(&server).await;
    let stream = context
        .get_stream("DATA")
        .await
        .expect("the stream is there");
    let state = &stream.cached_info().state;
    assert_eq!((state.messages, state.last_sequence), (0, 100));
}

#[tokio::test]
async fn keys_and_their_history_survive_a_clean_restart() {
    let mut server = Server::jetstream();
    {
        let context = context(&server).await;
        let store = context
            .create_key_value(jetstream::kv::Config {
                bucket: "settings".to_owned(),
                history: 3,
                ..Default::default()
            })
            .await
            .expect("the bucket is made");
        for value in 0..5 {
            store
                .put("a", value.to_string().into())
                .await
                .expect("is put");
        }
        store.put("b", "x".into()).await.expect("is put");
        store.delete("b").await.expect("is deleted");
        let stale = store.update("a", "6".into(), 1).await;
        assert!(stale.is_err(), "an update of a stale revision is refused");
    }
    server.stop();
    server.start_again();
    let context = context(&server).await;
    let store = context.get_key_value("settings").await.expect("is there");
    assert_eq!(
        store.get("a").await.expect("is read").as_deref(),
        Some(&b"4"[..])
    );
    assert_eq!(store.get("b").await.expect("is read"), None);
    let history: Vec<_> = store
        .history("a")
        .await
        .expect("is told")
        .try_collect()
        .await
        .expect("is told");
    assert_eq!(history.len(), 3);
    let mut keys = store.keys().await.expect("are listed");
    let mut listed = Vec::new();
    while let Some(key) = keys.next().await {
        listed.push(key.expect("a key"));
    }
    assert_eq!(listed, ["a"]);
}

#[tokio::test]
async fn objects_survive_a_kill() {
    use tokio::io::AsyncReadExt;
    let mut server = Server::jetstream();
    let data: Vec<u8> = (0..700_000u32).map(|number| (number % 251) as u8).collect();
    {
        let context = context(&server).await;
        let store = context
            .create_object_store(jetstream::object_store::Config {
                bucket: "files".to_owned(),
                ..Default::default()
            })
            .await
            .expect("the bucket is made");
        store
            .put("one", &mut data.as_slice())
            .await
            .expect("is put");
    }
    server.kill();
    server.start_again();
    let context = context(&server).await;
    let store = context.get_object_store("files").await.expect("is there");
    let mut object = store.get("one").await.expect("is there");
    let mut read = Vec::new();
    object.read_to_end(&mut read).await.expect("is read");
    assert_eq!(read, data);
}

#[tokio::test]
async fn a_memory_stream_is_there_again_after_a_restart_and_empty() {
    let mut server = Server::jetstream();
    let config = stream::Config {
        name: "FLEETING".to_owned(),
        subjects: vec!["fleeting".to_owned()],
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    {
        let context = context(&server).await;
        context
            .create_stream(config.clone())
            .await
            .expect("is made");
        let ack = context
            .publish("fleeting", "x".into())
            .await
            .expect("is sent");
        ack.await.expect("is acknowledged");
        let changed = stream::Config {
            max_messages: 5,
            ..config
        };
        context.update_stream(changed).await.expect("is changed");
    }
    server.kill();
    server.start_again();
    let context = context(&server).await;
    let stream = context.get_stream("FLEETING").await.expect("is there");
    let info = stream.cached_info();
    assert_eq!((info.state.messages, info.config.max_messages), (0, 5));
    let ack = context
        .publish("fleeting", "y".into())
        .await
        .expect("is sent");
    assert_eq!(ack.await.expect("is acknowledged").sequence, 1);
}
