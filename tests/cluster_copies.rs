//! Mirrors and sources across the servers of a cluster, while leaders change.

mod common;

use std::time::Duration;

use async_nats::HeaderMap;
use common::{Members, Server, eventually_async};
use serde_json::{Value, json};

/// How long a request may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

async fn trio() -> Vec<Server> {
    tokio::task::spawn_blocking(|| Members::of("trio").start::<3>())
        .await
        .expect("three servers")
}

async fn connect(server: &Server) -> async_nats::Client {
    async_nats::ConnectOptions::new()
        .request_timeout(Some(PATIENCE))
        .connect(server.url())
        .await
        .expect("the server accepts clients")
}

async fn api(client: &async_nats::Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let subject = format!("$JS.API.{subject}");
    match client.request(subject, payload.into()).await {
        Ok(answer) => serde_json::from_slice(&answer.payload).expect("JSON"),
        Err(error) => json!({"error": error.to_string()}),
    }
}

async fn create(client: &async_nats::Client, config: Value) {
    let name = config["name"].as_str().expect("a name").to_owned();
    let subject = format!("STREAM.CREATE.{name}");
    eventually_async("the stream is created", async || {
        let created = api(client, &subject, config.clone()).await;
        created["error"].is_null().then_some(())
    })
    .await;
}

/// Publishes under an id until it is acknowledged.
async fn publish(client: &async_nats::Client, number: u64) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", number.to_string());
    let context = async_nats::jetstream::new(client.clone());
    eventually_async("the message is stored", async || {
        let payload = number.to_string().into();
        let sent = context.publish_with_headers("o.a", headers.clone(), payload);
        let ack = sent.await.ok()?;
        let ack = tokio::time::timeout(Duration::from_secs(3), ack.into_future());
        ack.await.ok()?.ok()
    })
    .await;
}

async fn holds(client: &async_nats::Client, name: &str, messages: u64) {
    let subject = format!("STREAM.INFO.{name}");
    eventually_async("the stream has copied", async || {
        let info = api(client, &subject, Value::Null).await;
        (info["state"]["messages"] == messages).then_some(())
    })
    .await;
}

#[tokio::test]
async fn copies_have_every_message_once_whoever_leads() {
    let servers = trio().await;
    let client = connect(&servers[0]).await;
    create(
        &client,
        json!({"name": "O", "subjects": ["o.>"], "num_replicas": 3}),
    )
    .await;
    for number in 1..=50 {
        publish(&client, number).await;
    }
    let mirror = json!({"name": "O"});
    let source = json!([{"name": "O", "filter_subject": "o.>"}]);
    create(
        &client,
        json!({"name": "M3", "mirror": mirror, "num_replicas": 3}),
    )
    .await;
    create(
        &client,
        json!({"name": "S3", "sources": source, "num_replicas": 3}),
    )
    .await;
    create(
        &client,
        json!({"name": "S1", "sources": [{"name": "M3"}], "num_replicas": 1}),
    )
    .await;
    for name in ["M3", "S3", "S1"] {
        holds(&client, name, 50).await;
    }
    let leaders = connect(&servers[1]).await;
    let changing = async {
        for name in ["M3", "S3", "O", "S3", "M3"] {
            let down = format!("STREAM.LEADER.STEPDOWN.{name}");
            eventually_async("another server leads", async || {
                let answer = api(&leaders, &down, Value::Null).await;
                (answer["success"] == true).then_some(())
            })
            .await;
        }
    };
    let publishing = async {
        for number in 51..=150 {
            publish(&client, number).await;
        }
    };
    tokio::join!(changing, publishing);
    for name in ["M3", "S3", "S1"] {
        holds(&client, name, 150).await;
        for sequence in [1, 50, 51, 100, 150] {
            let get = json!({"seq": sequence});
            let original = api(&client, "STREAM.MSG.GET.O", get.clone()).await;
            let copy = api(&client, &format!("STREAM.MSG.GET.{name}"), get).await;
            let data = |answer: &Value| answer["message"]["data"].clone();
            assert_eq!(data(&original), data(&copy), "{name}: {sequence}");
        }
    }
}
