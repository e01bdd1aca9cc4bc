//! Key-value buckets, which are streams with history.

use std::collections::HashSet;
use std::time::Instant;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Config, Operation, Store};
use futures_util::{StreamExt, TryStreamExt};

use super::common::Server;
use super::connect;

async fn bucket(server: &Server, history: i64) -> (Context, Store) {
    let context = connect(server).await;
    let config = Config {
        bucket: "B".to_owned(),
        history,
        ..Config::default()
    };
    let store = context.create_key_value(config).await.expect("created");
    (context, store)
}

#[tokio::test]
async fn keys_are_put_read_and_deleted() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    assert!(store.get("a").await.expect("asked").is_none());
    store.put("a", "1".into()).await.expect("put");
    store.put("a", "2".into()).await.expect("put");
    assert_eq!(store.get("a").await.expect("asked").expect("a value"), "2");
    store.delete("a").await.expect("deleted");
    assert!(store.get("a").await.expect("asked").is_none());
    assert!(
        store
            .entry("a")
            .await
            .expect("asked")
            .is_some_and(|entry| entry.operation == Operation::Delete)
    );
}

#[tokio::test]
async fn a_key_is_created_once_and_updated_only_from_what_was_seen() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 5).await;
    let revision = store.create("a", "1".into()).await.expect("created");
    assert!(store.create("a", "again".into()).await.is_err());
    let next = store
        .update("a", "2".into(), revision)
        .await
        .expect("updated");
    assert!(next > revision);
    assert!(
        store.update("a", "3".into(), revision).await.is_err(),
        "that revision is old"
    );
    assert_eq!(store.get("a").await.expect("asked").expect("a value"), "2");
}

#[tokio::test]
async fn history_is_kept_as_far_as_configured() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 3).await;
    for value in ["1", "2", "3", "4"] {
        store.put("a", value.into()).await.expect("put");
    }
    let history = store.history("a").await.expect("history");
    let values: Vec<String> = history
        .map_ok(|entry| String::from_utf8_lossy(&entry.value).into_owned())
        .try_collect()
        .await
        .expect("entries");
    assert_eq!(values, ["2", "3", "4"]);
}

#[tokio::test]
async fn keys_are_listed_and_purged() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    for key in ["a", "b.c", "d"] {
        store.put(key, "x".into()).await.expect("put");
    }
    store.purge("d").await.expect("purged");
    let mut keys: Vec<String> = store
        .keys()
        .await
        .expect("keys")
        .try_collect()
        .await
        .expect("keys");
    keys.sort();
    assert_eq!(keys, ["a", "b.c"]);
}

/// `NATS_TEST_KEYS` says how many, a million for instance.
#[tokio::test]
async fn many_keys_are_put_at_a_time_and_all_are_listed() {
    let count = super::number("NATS_TEST_KEYS", 5000);
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    let began = Instant::now();
    let puts = futures_util::stream::iter(0..count).map(|number| {
        let store = store.clone();
        async move { store.put(format!("key.{number}"), "value".into()).await }
    });
    puts.buffer_unordered(1000)
        .try_for_each(|_| async { Ok(()) })
        .await
        .expect("put");
    let (put, began) = (began.elapsed(), Instant::now());
    let mut keys: HashSet<String> = HashSet::new();
    let mut listed = store.keys().await.expect("keys");
    while let Some(key) = listed.try_next().await.expect("a key") {
        assert!(keys.insert(key), "a key is listed once");
    }
    println!(
        "{count} keys put in {put:?}, listed in {:?}",
        began.elapsed()
    );
    assert_eq!(keys.len() as u64, count);
    assert!((0..count).all(|number| keys.contains(&format!("key.{number}"))));
}

#[tokio::test]
async fn of_many_who_compare_and_set_each_change_is_won_by_one() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    store.put("count", "0".into()).await.expect("put");
    let adders = (0..8).map(|_| {
        let store = store.clone();
        async move {
            let mut won = 0;
            while won < 25 {
                let entry = store.entry("count").await.expect("asked").expect("there");
                let count: u64 = String::from_utf8_lossy(&entry.value)
                    .parse()
                    .expect("a number");
                let next = (count + 1).to_string();
                won += u64::from(
                    store
                        .update("count", next.into(), entry.revision)
                        .await
                        .is_ok(),
                );
            }
        }
    });
    futures_util::future::join_all(adders).await;
    assert_eq!(
        store.get("count").await.expect("asked").expect("a value"),
        "200"
    );
}

#[tokio::test]
async fn watchers_see_changes_as_they_happen() {
    let server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    let mut watch = store.watch("a.*").await.expect("a watch");
    store.put("a.1", "one".into()).await.expect("put");
    store.put("b.1", "other".into()).await.expect("put");
    store.delete("a.1").await.expect("deleted");
    let first = watch.next().await.expect("more").expect("an entry");
    assert_eq!(
        (first.key.as_str(), first.operation),
        ("a.1", Operation::Put)
    );
    let second = watch.next().await.expect("more").expect("an entry");
    assert_eq!(
        (second.key.as_str(), second.operation),
        ("a.1", Operation::Delete)
    );
}

#[tokio::test]
async fn a_bucket_survives_a_restart() {
    let mut server = Server::jetstream();
    let (_context, store) = bucket(&server, 1).await;
    for number in 0..50 {
        store
            .put(format!("k{number}"), number.to_string().into())
            .await
            .expect("put");
    }
    assert!(server.stop().success());
    server.start_again();
    let store = connect(&server)
        .await
        .get_key_value("B")
        .await
        .expect("the bucket is there");
    for number in 0..50 {
        let value = store
            .get(format!("k{number}"))
            .await
            .expect("asked")
            .expect("a value");
        assert_eq!(value, number.to_string());
    }
}
