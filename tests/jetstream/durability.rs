//! What was acknowledged is there after a stop and after a kill, and is consumed once.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{Config, Stream};
use futures_util::TryStreamExt;

use super::common::{Server, ServerOptions, eventually, http_get};
use super::consumers::{durable, fetch};
use super::{connect, publish};

async fn create(server: &Server) -> Stream {
    let config = Config {
        name: "S".to_owned(),
        subjects: vec!["S.>".to_owned()],
        ..Config::default()
    };
    connect(server)
        .await
        .create_stream(config)
        .await
        .expect("created")
}

async fn reopen(server: &Server) -> (Stream, PullConsumer) {
    let stream = connect(server)
        .await
        .get_stream("S")
        .await
        .expect("the stream is there");
    let consumer = stream
        .get_consumer("C")
        .await
        .expect("the consumer is there");
    (stream, consumer)
}

async fn sequences(consumer: &PullConsumer, count: usize) -> Vec<u64> {
    let messages = fetch(consumer, count).await;
    let mut sequences = Vec::new();
    for message in messages {
        message.double_ack().await.expect("acked");
        sequences.push(message.info().expect("an ack subject").stream_sequence);
    }
    sequences
}

#[tokio::test]
async fn a_clean_restart_keeps_streams_consumers_and_positions() {
    let mut server = Server::jetstream();
    let stream = create(&server).await;
    let consumer = durable(&stream, "C").await;
    let context = connect(&server).await;
    for number in 0..20 {
        publish(&context, "S.a", number.to_string()).await;
    }
    assert_eq!(sequences(&consumer, 8).await, (1..=8).collect::<Vec<_>>());
    assert!(server.stop().success());
    server.start_again();
    let (mut stream, mut consumer) = reopen(&server).await;
    let state = stream.info().await.expect("info").state.clone();
    assert_eq!((state.messages, state.last_sequence), (20, 20));
    assert_eq!(
        consumer
            .info()
            .await
            .expect("info")
            .ack_floor
            .stream_sequence,
        8
    );
    assert_eq!(sequences(&consumer, 12).await, (9..=20).collect::<Vec<_>>());
    assert_eq!(publish(&connect(&server).await, "S.a", "next").await, 21);
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged_and_repeats_nothing_acked() {
    let mut server = Server::jetstream();
    let stream = create(&server).await;
    let consumer = durable(&stream, "C").await;
    let mut acknowledged = BTreeSet::new();
    let mut consumed = BTreeSet::new();
    for _ in 0..3 {
        let context = connect(&server).await;
        let mut acks = Vec::new();
        for _ in 0..300 {
            acks.push(context.publish("S.a", "x".into()).await.expect("sent"));
        }
        // Some are acknowledged, others may be cut off by the kill.
        for ack in acks.drain(..200) {
            acknowledged.insert(ack.await.expect("an ack").sequence);
        }
        let current = reopen(&server).await.1;
        for sequence in sequences(&current, 50).await {
            assert!(consumed.insert(sequence), "{sequence} was consumed twice");
        }
        server.kill();
        server.start_again();
    }
    let (mut stream, consumer_now) = reopen(&server).await;
    let state = stream.info().await.expect("info").state.clone();
    assert!(state.messages >= acknowledged.len() as u64);
    for sequence in &acknowledged {
        stream
            .get_raw_message(*sequence)
            .await
            .expect("it was acknowledged");
    }
    loop {
        let rest = consumer_now
            .fetch()
            .max_messages(500)
            .expires(Duration::from_millis(500))
            .messages()
            .await
            .expect("sent");
        let rest: Vec<_> = rest.try_collect().await.expect("messages");
        if rest.is_empty() {
            break;
        }
        for message in rest {
            message.double_ack().await.expect("acked");
            let sequence = message.info().expect("an ack subject").stream_sequence;
            assert!(consumed.insert(sequence), "{sequence} was consumed twice");
        }
    }
    assert!(
        acknowledged.is_subset(&consumed),
        "something was never delivered"
    );
    drop(consumer);
}

#[tokio::test]
async fn duplicates_are_known_after_a_restart() {
    let mut server = Server::jetstream();
    create(&server).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", "one");
    for restart in [true, false] {
        let ack = connect(&server)
            .await
            .publish_with_headers("S.a", headers.clone(), "x".into())
            .await
            .expect("sent")
            .await
            .expect("an ack");
        assert_eq!((ack.sequence, ack.duplicate), (1, !restart));
        if restart {
            server.kill();
            server.start_again();
        }
    }
}

#[tokio::test]
async fn deletes_and_purges_survive_a_kill() {
    let mut server = Server::jetstream();
    let stream = create(&server).await;
    let context = connect(&server).await;
    for number in 0..6 {
        publish(&context, if number < 4 { "S.a" } else { "S.b" }, "x").await;
    }
    stream.delete_message(2).await.expect("deleted");
    stream.purge().filter("S.b").await.expect("purged");
    server.kill();
    server.start_again();
    let mut stream = connect(&server)
        .await
        .get_stream("S")
        .await
        .expect("is there");
    let state = stream.info().await.expect("info").state.clone();
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (3, 1, 6)
    );
    assert!(stream.get_raw_message(2).await.is_err());
}

#[tokio::test]
async fn a_deleted_stream_does_not_come_back() {
    let mut server = Server::jetstream();
    create(&server).await;
    let context = connect(&server).await;
    publish(&context, "S.a", "x").await;
    context.delete_stream("S").await.expect("deleted");
    server.kill();
    server.start_again();
    assert!(connect(&server).await.get_stream("S").await.is_err());
}

/// The files of the one stream that has files, by the end of their names.
fn files(server: &Server, suffix: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![server.store_directory()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("our own directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_damaged_stream_is_named_and_the_others_run() {
    let mut server = ServerOptions::default().jetstream().monitoring().start();
    create(&server).await;
    let context = connect(&server).await;
    let other = Config {
        name: "T".to_owned(),
        ..Config::default()
    };
    context.create_stream(other).await.expect("created");
    publish(&context, "T", "kept").await;
    for _ in 0..100 {
        publish(&context, "S.a", "x".repeat(10_000)).await;
    }
    assert!(server.stop().success());
    let checkpoints = files(&server, "/checkpoint");
    assert!(!checkpoints.is_empty(), "a large stream has files");
    for path in checkpoints {
        let length = std::fs::metadata(&path).expect("a file").len() as usize;
        std::fs::write(path, vec![0x5a; length]).expect("writable");
    }
    server.start_again();
    let context = connect(&server).await;
    let mut kept = context.get_stream("T").await.expect("is there");
    assert_eq!(kept.info().await.expect("info").state.messages, 1);
    let error = context
        .get_stream("S")
        .await
        .expect_err("damaged")
        .to_string();
    assert!(error.contains("stream is offline"), "{error}");
    let health = http_get(server.monitor_address(), "/healthz").expect("an answer");
    assert_eq!(health.status, 503, "{}", health.body);
    context.delete_stream("S").await.expect("may be given up");
    let health = http_get(server.monitor_address(), "/healthz").expect("an answer");
    assert_eq!(health.status, 200, "{}", health.body);
}

#[tokio::test]
async fn a_full_store_refuses_publishes_and_takes_them_again_after_a_purge() {
    let config = "jetstream { store_dir: \"@DIR@/js\", max_file: 100000 }";
    let server = ServerOptions::default().config(config).start();
    let stream = create(&server).await;
    let context = connect(&server).await;
    let mut stored = 0;
    let refusal = loop {
        let sent = context
            .publish("S.a", vec![b'x'; 10_000].into())
            .await
            .expect("sent");
        match sent.await {
            Ok(_) => stored += 1,
            Err(error) => break error.to_string(),
        }
        assert!(stored < 20, "the limit is never reached");
    };
    assert!(refusal.contains("insufficient resources"), "{refusal}");
    stream.purge().await.expect("purged");
    publish(&context, "S.a", "fits again").await;
}

#[tokio::test]
async fn blocks_that_a_kill_left_behind_are_gone_after_the_next_checkpoint() {
    let mut server = Server::jetstream();
    create(&server).await;
    let context = connect(&server).await;
    let mut acks = Vec::new();
    for _ in 0..1000 {
        let payload = vec![7; 4000].into();
        acks.push(context.publish("S.a", payload).await.expect("sent"));
    }
    for ack in acks {
        ack.await.expect("an ack");
    }
    let streams = server.store_directory().join("jetstream/streams");
    let blocks = |directory: &str| {
        let streams = std::fs::read_dir(&streams).expect("a directory of streams");
        let files = streams.flat_map(|stream| {
            let directory = stream.expect("a stream").path().join(directory);
            std::fs::read_dir(directory).into_iter().flatten()
        });
        let names = files.map(|file| file.expect("a file").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.contains(".block")).count()
    };
    // They are written behind the acks.
    eventually("a block is begun", || (blocks(".") > 0).then_some(()));
    server.kill();
    server.start_again();
    assert_ne!(blocks("set-aside"), 0);
    assert!(server.stop().success());
    assert_eq!(blocks("set-aside"), 0);
    server.start_again();
    let stream = connect(&server).await.get_stream("S").await;
    let mut stream = stream.expect("the stream is there");
    let state = stream.info().await.expect("info").state.clone();
    assert_eq!((state.messages, state.last_sequence), (1000, 1000));
}

/// What `/varz` tells of those who wait for the disk.
fn disk_waits(server: &Server) -> serde_json::Value {
    let varz = http_get(server.monitor_address(), "/varz").expect("an answer");
    let varz: serde_json::Value = serde_json::from_str(&varz.body).expect("a document");
    varz["disk_io_wait_stats"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_little_of_its_disk_at_a_time_keeps_what_it_acknowledged() {
    const STREAMS: usize = 8;
    const MESSAGES: u64 = 50;
    let config = "jetstream { store_dir: '@DIR@/store', max_concurrent_io: 4 }";
    let mut server = ServerOptions::default().config(config).monitoring().start();
    let publishers = (0..STREAMS).map(|number| {
        let url = server.url();
        tokio::spawn(async move {
            let client = async_nats::connect(url).await.expect("connected");
            let context = async_nats::jetstream::new(client);
            let config = Config {
                name: format!("S{number}"),
                subjects: vec![format!("s{number}")],
                ..Config::default()
            };
            context.create_stream(config).await.expect("created");
            for _ in 0..MESSAGES {
                publish(&context, &format!("s{number}"), "x".repeat(10_000)).await;
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("all was acknowledged");
    }
    let waits = disk_waits(&server);
    assert!(waits["waits"].is_u64(), "{waits}");
    eventually("nobody waits for the disk any more", || {
        (disk_waits(&server)["waiters"] == 0).then_some(())
    });
    server.kill();
    server.start_again();
    let context = connect(&server).await;
    for number in 0..STREAMS {
        let mut stream = context.get_stream(format!("S{number}")).await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, MESSAGES);
    }
}
