//! What is there again after a kill in lazy mode or an end in order, and what an encrypted store shows.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Compression, Config};
use futures_util::TryStreamExt;

use super::common::{Server, ServerOptions, eventually_async};
use super::{PATIENCE, connect, plain, publish, text};

fn durable(name: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    }
}

async fn take(consumer: &PullConsumer, count: usize) -> Vec<async_nats::jetstream::Message> {
    let batch = consumer.batch().max_messages(count).expires(PATIENCE);
    let messages: Vec<_> = batch.messages().await.unwrap().try_collect().await.unwrap();
    assert_eq!(messages.len(), count);
    messages
}

/// Fills a stream in every way that leaves a trace, kills the server, and looks for all of it.
async fn everything_is_there_after_a_kill(mut server: Server) {
    let config = Config {
        max_messages_per_subject: 200,
        ..plain("S")
    };
    {
        let context = connect(&server).await;
        let stream = context.create_stream(config.clone()).await.unwrap();
        for number in 1..=300 {
            publish(&context, &format!("s.{}", number % 3), &number.to_string()).await;
        }
        let identified = PublishMessage::build()
            .message_id("once")
            .payload("id".into());
        let sent = context.send_publish("s.id", identified).await.unwrap();
        assert_eq!(sent.await.unwrap().sequence, 301);
        stream.delete_message(150).await.unwrap();
        assert_eq!(
            stream
                .purge()
                .filter("s.0")
                .sequence(31)
                .await
                .unwrap()
                .purged,
            10
        );
        let consumer = stream.create_consumer(durable("worker")).await.unwrap();
        let messages = take(&consumer, 20).await;
        for message in &messages[..10] {
            message.double_ack().await.unwrap();
        }
        context.create_stream(plain("GONE")).await.unwrap();
        publish(&context, "gone.x", "x").await;
        context.delete_stream("GONE").await.unwrap();
    }
    server.kill();
    server.start_again();
    let context = connect(&server).await;
    let mut stream = context.get_stream("S").await.unwrap();
    let info = stream.info().await.unwrap();
    assert_eq!(
        info.config.max_messages_per_subject,
        config.max_messages_per_subject
    );
    let state = &info.state;
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (290, 1, 301)
    );
    assert!(stream.get_raw_message(150).await.is_err());
    assert!(stream.get_raw_message(30).await.is_err());
    let message = stream.get_raw_message(299).await.unwrap();
    assert_eq!(
        (message.subject.as_str(), text(&message.payload)),
        ("s.2", "299")
    );
    let identified = PublishMessage::build()
        .message_id("once")
        .payload("id".into());
    let sent = context.send_publish("s.id", identified).await.unwrap();
    let ack = sent.await.unwrap();
    assert_eq!((ack.sequence, ack.duplicate), (301, true));
    let info = stream.consumer_info("worker").await.unwrap();
    assert_eq!(info.ack_floor.consumer_sequence, 10);
    assert_eq!(info.num_pending as usize + info.num_ack_pending, 280);
    assert!(context.get_stream("GONE").await.is_err());
    assert_eq!(publish(&context, "s.1", "x").await, 302);
}

#[tokio::test]
async fn a_killed_server_in_lazy_mode_loses_nothing_that_was_written() {
    let lazy = "jetstream { store_dir: \"@DIR@/store\", sync_interval: \"1m\" }";
    let server = ServerOptions::default().config(lazy).start();
    everything_is_there_after_a_kill(server).await;
}

#[tokio::test]
async fn an_ephemeral_consumer_comes_back_with_its_age_and_goes_when_nobody_uses_it() {
    let mut server = Server::jetstream();
    let created = {
        let context = connect(&server).await;
        let stream = context.create_stream(plain("S")).await.unwrap();
        let ephemeral = pull::Config {
            name: Some("short".to_owned()),
            inactive_threshold: Duration::from_secs(2),
            ..pull::Config::default()
        };
        stream.create_consumer(ephemeral).await.unwrap();
        stream.consumer_info("short").await.unwrap().created
    };
    assert!(server.stop().success());
    // What passes while the server is away is no time in which nobody used it.
    std::thread::sleep(Duration::from_millis(2500));
    server.start_again();
    let context = connect(&server).await;
    let stream = context.get_stream("S").await.unwrap();
    assert_eq!(
        stream.consumer_info("short").await.unwrap().created,
        created
    );
    eventually_async("the consumer is gone", async || {
        stream.consumer_info("short").await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_consumer_in_memory_is_gone_after_a_start_and_may_be_made_anew() {
    let mut server = Server::jetstream();
    let in_memory = pull::Config {
        memory_storage: true,
        ..durable("memory")
    };
    {
        let context = connect(&server).await;
        let stream = context.create_stream(plain("S")).await.unwrap();
        let mut made = stream.create_consumer(in_memory.clone()).await.unwrap();
        assert!(made.info().await.unwrap().config.memory_storage);
        let on_disk = stream.create_consumer(durable("disk")).await.unwrap();
        for number in 1..=5 {
            publish(&context, "s.x", &number.to_string()).await;
        }
        for consumer in [&made, &on_disk] {
            for message in &take(consumer, 3).await[..2] {
                message.double_ack().await.unwrap();
            }
        }
    }
    // After an end in order, after a kill, and after a start that had lost it already.
    for round in 0..3 {
        match round {
            0 => assert!(server.stop().success()),
            _ => server.kill(),
        }
        server.start_again();
        let context = connect(&server).await;
        let mut stream = context.get_stream("S").await.unwrap();
        assert!(stream.consumer_info("memory").await.is_err());
        let kept = stream.consumer_info("disk").await.unwrap();
        assert_eq!(kept.ack_floor.stream_sequence, 2);
        let info = stream.info().await.unwrap();
        assert_eq!((info.state.consumer_count, info.state.messages), (1, 5));
        if round == 0 {
            let made = stream.create_consumer(in_memory.clone()).await.unwrap();
            let messages = take(&made, 5).await;
            assert_eq!(text(&messages[0].payload), "1");
            messages[0].double_ack().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_encrypted_store_comes_back_with_its_key_and_shows_nothing_without_it() {
    for cipher in ["aes", "chacha"] {
        let config = |key: &str| {
            format!("jetstream {{ store_dir: \"@DIR@/store\", cipher: {cipher}, key: \"{key}\" }}")
        };
        let mut server = ServerOptions::default().config(&config("one")).start();
        let context = connect(&server).await;
        let settings = Config {
            compression: Some(Compression::S2),
            ..plain("S")
        };
        context.create_stream(settings).await.unwrap();
        let secret = "a very secret sentence";
        for _ in 0..100 {
            publish(&context, "s.a", secret).await;
        }
        assert!(server.stop().success());
        for file in files_below(&server.store_directory()) {
            let bytes = std::fs::read(&file).unwrap();
            let shown = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!shown, "{} shows what it should not", file.display());
        }
        server.start_again();
        let context = connect(&server).await;
        let stream = context.get_stream("S").await.unwrap();
        let message = stream.get_raw_message(100).await.unwrap();
        assert_eq!(text(&message.payload), secret);
    }
}

fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
