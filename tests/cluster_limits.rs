//! What an account may hold on the servers of a cluster.

mod common;

use std::time::Duration;

use common::{Members, Server, eventually_async};
use serde_json::{Value, json};

/// How long a request may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
const ACCOUNTS: &str = "accounts {
    L { users: [{user: l, password: l}], jetstream: { max_file: 1000000 } }
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

/// Three servers with an account that may hold a megabyte in files, and a client of it.
async fn limited_trio() -> (Vec<Server>, async_nats::Client) {
    let members = Members::of("trio").jetstream("max_file: 1G");
    let servers = members.beside(ACCOUNTS).start_healthy::<3>();
    let client = async_nats::ConnectOptions::with_user_and_password("l".into(), "l".into())
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
    let (servers, client) = limited_trio().await;
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
            (storage >= least && storage < least + 10_000).then_some(info)
        })
        .await
    };
    for count in 1..=3 {
        let stored = publish_much(&client, "THREE").await;
        assert_eq!(stored["seq"], count, "{stored}");
        let info = used(count * 300_000).await;
        assert_eq!(info["limits"]["max_storage"], 1_000_000);
        assert_eq!(info["streams"], 2, "{info}");
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
