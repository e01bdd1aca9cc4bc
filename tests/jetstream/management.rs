//! Streams: created, found, changed, read, emptied, deleted.

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, StorageType};
use futures_util::TryStreamExt;

use super::common::Server;
use super::{connect, plain, publish};

#[tokio::test]
async fn a_stream_is_created_once_and_again_with_the_same_configuration_only() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let created = context.create_stream(plain("S")).await.unwrap();
    assert_eq!(created.cached_info().config.subjects, ["s.>"]);
    context.create_stream(plain("S")).await.unwrap();
    let other = Config {
        max_messages: 7,
        ..plain("S")
    };
    let error = context.create_stream(other).await.unwrap_err();
    let CreateStreamErrorKind::JetStream(error) = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(error.error_code().0, 10058);
}

#[tokio::test]
async fn streams_may_not_share_subjects() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    context.create_stream(plain("S")).await.unwrap();
    let overlapping = Config {
        subjects: vec!["s.a.*".to_owned()],
        ..plain("T")
    };
    let error = context.create_stream(overlapping).await.unwrap_err();
    let CreateStreamErrorKind::JetStream(error) = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(error.error_code().0, 10065);
}

#[tokio::test]
async fn an_update_changes_what_it_may_and_keeps_the_messages() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(plain("S")).await.unwrap();
    for number in 0..10 {
        publish(&context, "s.a", &number.to_string()).await;
    }
    let changed = Config {
        subjects: vec!["s.>".to_owned(), "extra".to_owned()],
        max_messages: 4,
        ..plain("S")
    };
    context.update_stream(&changed).await.unwrap();
    publish(&context, "extra", "x").await;
    let state = &stream.info().await.unwrap().state;
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (4, 8, 11)
    );
    let moved = Config {
        storage: StorageType::Memory,
        ..changed
    };
    assert!(context.update_stream(&moved).await.is_err());
}

#[tokio::test]
async fn a_purge_takes_all_or_what_its_filter_its_sequence_or_its_rest_names() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let mut stream = context.create_stream(plain("S")).await.unwrap();
    for number in 0..20 {
        publish(&context, &format!("s.{}", number % 2), "x").await;
    }
    assert_eq!(
        stream.purge().filter("s.0").keep(2).await.unwrap().purged,
        8
    );
    assert_eq!(
        stream
            .purge()
            .filter("s.1")
            .sequence(10)
            .await
            .unwrap()
            .purged,
        4
    );
    assert_eq!(stream.info().await.unwrap().state.messages, 8);
    assert_eq!(stream.purge().sequence(20).await.unwrap().purged, 7);
    assert_eq!(stream.purge().await.unwrap().purged, 1);
    let state = &stream.info().await.unwrap().state;
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (0, 21, 20)
    );
    assert_eq!(publish(&context, "s.0", "x").await, 21);
}

#[tokio::test]
async fn subjects_are_counted() {
    let server = Server::jetstream();
    let context = connect(&server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    for subject in ["s.a", "s.b", "s.a", "s.c.d"] {
        publish(&context, subject, "x").await;
    }
    let mut counts: Vec<(String, usize)> = stream
        .info_with_subjects("s.>")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    counts.sort();
    let expected = [("s.a", 2), ("s.b", 1), ("s.c.d", 1)];
    assert_eq!(
        counts,
        expected.map(|(subject, count)| (subject.to_owned(), count))
    );
}
