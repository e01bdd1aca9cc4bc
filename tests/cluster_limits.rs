//! What an account may hold on the servers of a cluster.

mod common;

use std::time::Duration;

use common::{Members, Server, eventually_async};
use serde_json::{Value, json};

/// How long a request may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
const ACCOUNTS: &str = "accounts {
    L { users: [{user: l, password: l}], jetstream: { max_file: 1000000 } }
    T { users: [{user: t, password: t}], jetstream: { tiers: { R1: { max_file: 400000, max_streams: 1 }, R3: { max_file: 300000 } } } }
    SYS { users: [{user: s, password: s}] }
}
system_account: SYS";

async fn api(client: &async_nats::Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = client
        .request(format!("$JS.API.{subject}"), payload.into())
        .await
        .expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// Three servers with accounts that may not hold as much as they like in files, and a client of one of them.
async fn limited_trio(user: &str) -> (Vec<Server>, async_nats::Client) {
    let members = Members::of("trio").jetstream("max_file: 1G");
    let servers = members.beside(ACCOUNTS).start_healthy::<3>();
    let client = async_nats::ConnectOptions::with_user_and_password(user.into(), user.into())
        .request_timeout(Some(PATIENCE))
        .connect(servers[0].url())
        .await
        .expect("the server accepts clients");
    (servers, client)
}

/// Publishes 100 kB and gives the ack.
async fn publish_much(client: &async_nats::Client, subject: &'static str) -> Value {
    let ack = client.request(subject, vec![7; 100_000].into()).await;
    serde_json::from_slice(&ack.expect("an ack").payload).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_may_hold_it_may_hold_on_all_servers_together_and_every_replica_counts() {
    let (servers, client) = limited_trio("l").await;
    for (name, replicas) in [("THREE", 3), ("ONE", 1)] {
        let config = json!({"name": name, "subjects": [name], "num_replicas": replicas});
        eventually_async("the stream is made", async || {
            let made = api(&client, &format!("STREAM.CREATE.{name}"), config.clone()).await;
            made.get("error").is_none().then_some(())
        })
        .await;
    }
    let used = async |least: u64| {
        eventually_async("what is used is known everywhere", async || {
            let info = api(&client, "INFO", Value::Null).await;
            let storage = info["storage"].as_u64()?;
            // Whoever leads a stream that was just made is not known everywhere at once.
            let is_counted = info["streams"] == 2;
            (is_counted && (least..least + 10_000).contains(&storage)).then_some(info)
        })
        .await
    };
    for count in 1..=3 {
        let stored = publish_much(&client, "THREE").await;
        assert_eq!(stored["seq"], count, "{stored}");
        let info = used(count * 300_000).await;
        assert_eq!(info["limits"]["max_storage"], 1_000_000);
    }
    let full = async |subject| {
        eventually_async("the account is full", async || {
            let ack = publish_much(&client, subject).await;
            (ack["error"]["err_code"] == 10002).then_some(())
        })
        .await;
    };
    // For one more replica there is room, for three there is not, as soon as servers have heard of each other.
    full("THREE").await;
    let info = api(&client, "STREAM.INFO.THREE", Value::Null).await;
    assert!(info["state"]["messages"].as_u64() < Some(7), "{info}");
    full("ONE").await;
    let purged = api(&client, "STREAM.PURGE.THREE", Value::Null).await;
    assert_eq!(purged["success"], true, "{purged}");
    eventually_async("there is room again", async || {
        let ack = publish_much(&client, "ONE").await;
        ack["seq"].as_u64()
    })
    .await;
    drop(servers);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_limits_are_by_tier_streams_with_as_many_replicas_share_one_and_it_counts_once_for_all_of_them()
 {
    let (servers, client) = limited_trio("t").await;
    let make = async |name: &str, replicas: usize| -> Value {
        let config = json!({"name": name, "subjects": [name], "num_replicas": replicas});
        api(&client, &format!("STREAM.CREATE.{name}"), config).await
    };
    for (name, replicas) in [("THREE", 3), ("ONE", 1)] {
        eventually_async("the stream is made", async || {
            let made = make(name, replicas).await;
            made.get("error").is_none().then_some(())
        })
        .await;
    }
    // No more than one of this tier, and no limits for that one.
    assert_eq!(make("OTHER", 1).await["error"]["err_code"], 10027);
    assert_eq!(make("PAIR", 2).await["error"]["err_code"], 10120);
    for count in 1..=2 {
        let stored = publish_much(&client, "THREE").await;
        assert_eq!(stored["seq"], count, "{stored}");
    }
    eventually_async("the tier is full", async || {
        let ack = publish_much(&client, "THREE").await;
        (ack["error"]["err_code"] == 10002).then_some(())
    })
    .await;
    // The other one is not.
    for count in 1..=3 {
        let stored = publish_much(&client, "ONE").await;
        assert_eq!(stored["seq"], count, "{stored}");
    }
    // A consumer counts with those that have as many replicas as it has itself.
    let consumer =
        json!({"stream_name": "THREE", "config": {"durable_name": "c", "num_replicas": 1}});
    api(&client, "CONSUMER.DURABLE.CREATE.THREE.c", consumer).await;
    let info = eventually_async("what is used is known everywhere", async || {
        let info = api(&client, "INFO", Value::Null).await;
        let is_about = |tier: &str, bytes: u64| {
            let storage = info["tiers"][tier]["storage"].as_u64();
            storage.is_some_and(|storage| (bytes..bytes + 10_000).contains(&storage))
        };
        // Some more may have been taken before all had heard of the second.
        let three = (2..6).any(|count| is_about("R3", count * 300_000));
        let is_counted = info["tiers"]["R1"]["consumers"] == 1;
        (is_about("R1", 300_000) && three && is_counted).then_some(info)
    })
    .await;
    assert_eq!(info["limits"]["max_storage"], 0, "{info}");
    let tiers = &info["tiers"];
    assert_eq!(tiers["R1"]["limits"]["max_storage"], 400_000);
    assert_eq!(tiers["R3"]["limits"]["max_storage"], 300_000);
    assert_eq!(
        (&tiers["R1"]["streams"], &tiers["R3"]["streams"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&info["streams"], &info["consumers"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(tiers["R3"]["consumers"], 0);
    assert_eq!(
        tiers.as_object().map(|tiers| tiers.len()),
        Some(2),
        "{info}"
    );
    drop(servers);
}
