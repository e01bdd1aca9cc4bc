//! Streams: what is published is stored, counted, limited, found again and removed.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use futures_util::TryStreamExt;

use super::common::{Server, eventually_async};
use super::{connect, publish};

fn named(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        ..Config::default()
    }
}

#[tokio::test]
async fn published_messages_are_counted_and_read_back() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(named("S")).await.expect("created");
    for number in 1..=10u64 {
        assert_eq!(
            publish(&context, "S.a", format!("message {number}")).await,
            number
        );
    }
    let state = stream.info().await.expect("info").state.clone();
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (10, 1, 10)
    );
    let message = stream.get_raw_message(7).await.expect("is there");
    assert_eq!(message.subject.as_str(), "S.a");
    assert_eq!(message.payload, "message 7");
    let last = stream
        .get_last_raw_message_by_subject("S.a")
        .await
        .expect("is there");
    assert_eq!(last.sequence, 10);
}

#[tokio::test]
async fn many_publishes_in_flight_are_acknowledged_in_order() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(named("S")).await.expect("created");
    let mut acks = Vec::new();
    for _ in 0..2000 {
        acks.push(context.publish("S.a", "x".into()).await.expect("sent"));
    }
    for (position, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.expect("an ack").sequence, position as u64 + 1);
    }
    assert_eq!(stream.info().await.expect("info").state.messages, 2000);
}

#[tokio::test]
async fn a_message_id_is_taken_once() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(named("S")).await.expect("created");
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "one");
    for duplicate in [false, true] {
        let ack = context
            .publish_with_headers("S.a", headers.clone(), "x".into())
            .await
            .expect("sent")
            .await
            .expect("an ack");
        assert_eq!((ack.sequence, ack.duplicate), (1, duplicate));
    }
    assert_eq!(stream.info().await.expect("info").state.messages, 1);
}

#[tokio::test]
async fn limits_remove_the_oldest_or_refuse_the_newest() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let old = Config {
        max_messages: 3,
        ..named("OLD")
    };
    let mut old = context.create_stream(old).await.expect("created");
    for _ in 0..5 {
        publish(&context, "OLD.a", "x").await;
    }
    let state = old.info().await.expect("info").state.clone();
    assert_eq!((state.messages, state.first_sequence), (3, 3));

    let new = Config {
        max_messages: 3,
        discard: DiscardPolicy::New,
        ..named("NEW")
    };
    context.create_stream(new).await.expect("created");
    for _ in 0..3 {
        publish(&context, "NEW.a", "x").await;
    }
    let refused = context
        .publish("NEW.a", "x".into())
        .await
        .expect("sent")
        .await;
    let text = refused.expect_err("the stream is full").to_string();
    assert!(text.contains("maximum messages exceeded"), "{text}");

    let per_subject = Config {
        max_messages_per_subject: 1,
        ..named("ONE")
    };
    let mut per_subject = context.create_stream(per_subject).await.expect("created");
    for subject in ["ONE.a", "ONE.b", "ONE.a"] {
        publish(&context, subject, "x").await;
    }
    assert_eq!(per_subject.info().await.expect("info").state.messages, 2);
}

#[tokio::test]
async fn messages_go_when_they_are_old() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        max_age: Duration::from_millis(300),
        ..named("S")
    };
    let stream = context.create_stream(config).await.expect("created");
    publish(&context, "S.a", "x").await;
    eventually_async("the message expires", || {
        let mut stream = stream.clone();
        async move { (stream.info().await.expect("info").state.messages == 0).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn messages_are_deleted_and_purged_by_request() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(named("S")).await.expect("created");
    for subject in ["S.a", "S.b", "S.a", "S.b", "S.a"] {
        publish(&context, subject, "x").await;
    }
    stream.delete_message(2).await.expect("deleted");
    assert!(stream.get_raw_message(2).await.is_err());
    let purged = stream.purge().filter("S.a").keep(1).await.expect("purged");
    assert_eq!(purged.purged, 2);
    assert_eq!(stream.info().await.expect("info").state.messages, 2);
    let purged = stream.purge().await.expect("purged");
    assert_eq!(purged.purged, 2);
    let state = stream.info().await.expect("info").state.clone();
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (0, 6, 5)
    );
}

#[tokio::test]
async fn a_stream_is_listed_updated_and_deleted() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    for name in ["B", "A"] {
        context.create_stream(named(name)).await.expect("created");
    }
    let mut names: Vec<String> = context.stream_names().try_collect().await.expect("names");
    names.sort();
    assert_eq!(names, ["A", "B"]);
    let config = Config {
        subjects: vec!["A.>".to_owned(), "extra".to_owned()],
        ..named("A")
    };
    context.update_stream(config).await.expect("updated");
    assert_eq!(publish(&context, "extra", "x").await, 1);
    let config = Config {
        storage: StorageType::Memory,
        ..named("B")
    };
    assert!(context.update_stream(config).await.is_err());
    context.delete_stream("A").await.expect("deleted");
    assert!(context.get_stream("A").await.is_err());
    let nobody = context
        .publish("extra", "x".into())
        .await
        .expect("sent")
        .await;
    assert!(nobody.is_err(), "nothing stores it any more");
}

#[tokio::test]
async fn a_deleted_streams_name_starts_from_nothing() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    context.create_stream(named("S")).await.expect("created");
    publish(&context, "S.a", "x").await;
    context.delete_stream("S").await.expect("deleted");
    let mut stream = context.create_stream(named("S")).await.expect("created");
    assert_eq!(stream.info().await.expect("info").state.messages, 0);
    assert_eq!(publish(&context, "S.a", "x").await, 1);
}

#[tokio::test]
async fn expectations_that_do_not_hold_are_refused() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    context.create_stream(named("S")).await.expect("created");
    publish(&context, "S.a", "x").await;
    for (name, value, holds) in [
        ("Nats-Expected-Stream", "T", false),
        ("Nats-Expected-Stream", "S", true),
        ("Nats-Expected-Last-Sequence", "9", false),
        ("Nats-Expected-Last-Sequence", "2", true),
        ("Nats-Expected-Last-Subject-Sequence", "1", false),
        ("Nats-Expected-Last-Subject-Sequence", "3", true),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let ack = context
            .publish_with_headers("S.a", headers, "x".into())
            .await
            .expect("sent")
            .await;
        assert_eq!(ack.is_ok(), holds, "{name}: {value}: {ack:?}");
    }
}

#[tokio::test]
async fn interest_retention_keeps_only_what_somebody_still_wants() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        retention: RetentionPolicy::Interest,
        ..named("S")
    };
    let mut stream = context.create_stream(config).await.expect("created");
    assert_eq!(publish(&context, "S.a", "nobody wants it").await, 1);
    assert_eq!(stream.info().await.expect("info").state.messages, 0);
    let consumer = super::consumers::durable(&stream, "C").await;
    publish(&context, "S.a", "wanted").await;
    assert_eq!(stream.info().await.expect("info").state.messages, 1);
    let messages = super::consumers::fetch(&consumer, 1).await;
    messages[0].double_ack().await.expect("acked");
    eventually_async("the acknowledged message goes", || {
        let mut stream = stream.clone();
        async move { (stream.info().await.expect("info").state.messages == 0).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn memory_streams_work_like_file_streams() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        storage: StorageType::Memory,
        ..named("M")
    };
    let mut stream = context.create_stream(config).await.expect("created");
    publish(&context, "M.a", "x").await;
    let info = stream.info().await.expect("info");
    assert_eq!(info.state.messages, 1);
    assert_eq!(info.config.storage, StorageType::Memory);
}

#[tokio::test]
async fn direct_gets_answer_with_the_message_itself() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let config = Config {
        allow_direct: true,
        ..named("S")
    };
    let stream = context.create_stream(config).await.expect("created");
    publish(&context, "S.a", "first").await;
    publish(&context, "S.a", "second").await;
    let message = stream.direct_get(1).await.expect("is there");
    assert_eq!(message.payload, "first");
    let last = stream
        .direct_get_last_for_subject("S.a")
        .await
        .expect("is there");
    assert_eq!((last.sequence, last.payload.as_ref()), (2, &b"second"[..]));
    assert!(stream.direct_get(9).await.is_err());
    assert!(stream.direct_get_last_for_subject("S.b").await.is_err());
}
