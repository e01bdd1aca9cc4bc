//! What is answered, told and shown of streams whose servers are gone.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, eventually_async};
use futures_util::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// Servers `s1` to `s3` of one cluster; each has a tag that is its name.
fn three_servers() -> Vec<Server> {
    let tags = |at| format!("server_tags: [s{at}]");
    Members::of("trio").each(tags).start_healthy::<3>()
}

async fn connect(server: &Server) -> Client {
    let options = ConnectOptions::new().request_timeout(Some(PATIENCE));
    options.connect(server.url()).await.expect("it listens")
}

async fn api(client: &Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let asked = client.request(format!("$JS.API.{subject}"), payload.into());
    let answer = asked.await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// Asks until it is done.
async fn done(client: &Client, subject: &str, body: Value) -> Value {
    eventually_async("it is done", async || {
        let answer = api(client, subject, body.clone()).await;
        answer["error"].is_null().then_some(answer)
    })
    .await
}

async fn refused(client: &Client, subject: &str, code: u64) {
    eventually_async("it is refused", async || {
        let answer = api(client, subject, Value::Null).await;
        (answer["error"]["err_code"] == code).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_a_leader_say_why_and_their_lost_majority_is_told() {
    let servers = tokio::task::spawn_blocking(three_servers);
    let mut servers = servers.await.expect("three servers");
    let client = connect(&servers[0]).await;
    let one = json!({"name": "ONE", "subjects": ["one"], "placement": {"tags": ["s3"]}});
    done(&client, "STREAM.CREATE.ONE", one).await;
    let consumer =
        json!({"stream_name": "ONE", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    done(&client, "CONSUMER.DURABLE.CREATE.ONE.C", consumer).await;
    let two = json!({"name": "TWO", "subjects": ["two"], "num_replicas": 2, "placement": {"tags": ["!s2"]}});
    done(&client, "STREAM.CREATE.TWO", two).await;
    let mut told = client
        .subscribe("$JS.EVENT.ADVISORY.STREAM.QUORUM_LOST.TWO")
        .await
        .expect("subscribed");
    client.flush().await.expect("the server hears it");

    servers[2].kill();
    let far = connect(&servers[1]).await;
    for client in [&client, &far] {
        refused(client, "STREAM.INFO.ONE", 10118).await;
        refused(client, "CONSUMER.INFO.ONE.C", 10119).await;
        refused(client, "STREAM.INFO.TWO", 10008).await;
    }
    let list = api(&far, "STREAM.LIST", Value::Null).await;
    assert_eq!(list["missing"], json!(["ONE", "TWO"]), "{list}");
    let lost = tokio::time::timeout(PATIENCE, told.next()).await;
    let lost = lost.expect("nothing was told").expect("still subscribed");
    let lost: Value = serde_json::from_slice(&lost.payload).expect("JSON");
    assert_eq!(
        lost["type"],
        "io.nats.jetstream.advisory.v1.stream_quorum_lost"
    );
    assert_eq!(lost["stream"], "TWO");
    assert!(lost["leader"].is_null(), "{lost}");
    assert_eq!(lost["replicas"].as_array().map(Vec::len), Some(2), "{lost}");

    // With its servers back a stream is led again, and says so.
    servers[2].start_again();
    done(&far, "STREAM.INFO.TWO", Value::Null).await;
    done(&far, "CONSUMER.INFO.ONE.C", Value::Null).await;

    // Without a majority nobody knows what there is.
    servers[1].kill();
    servers[2].kill();
    refused(&client, "STREAM.INFO.NONE", 10008).await;
    refused(&client, "STREAM.NAMES", 10008).await;
}
