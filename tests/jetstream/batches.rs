//! Batches, schedules, markers and rewrites as clients see them.

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::client;
use super::common::{Server, ServerOptions, eventually_async};
use super::copies::api;

async fn create(client: &async_nats::Client, config: Value) {
    let name = config["name"].as_str().expect("a name").to_owned();
    let created = api(client, &format!("STREAM.CREATE.{name}"), config).await;
    assert!(created["error"].is_null(), "{created}");
}

async fn send(
    client: &async_nats::Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> Value {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let answer = client
        .request_with_headers(subject.to_owned(), map, payload.to_owned().into())
        .await
        .expect("an answer");
    serde_json::from_slice(&answer.payload).unwrap_or_default()
}

#[tokio::test]
async fn a_batch_is_there_as_a_whole_after_a_kill() {
    let mut server = Server::jetstream();
    let batch =
        |sequence: &'static str| vec![("Nats-Batch-Id", "one"), ("Nats-Batch-Sequence", sequence)];
    {
        let client = client(&server).await;
        create(
            &client,
            json!({"name": "B", "subjects": ["b"], "allow_atomic": true}),
        )
        .await;
        send(&client, "b", &batch("1"), "x").await;
        send(&client, "b", &batch("2"), "x").await;
        let mut last = batch("3");
        last.push(("Nats-Batch-Commit", "1"));
        let ack = send(&client, "b", &last, "x").await;
        assert_eq!(
            ack,
            json!({"stream": "B", "seq": 3, "batch": "one", "count": 3})
        );
    }
    server.kill();
    server.start_again();
    let client = client(&server).await;
    let info = api(&client, "STREAM.INFO.B", Value::Null).await;
    assert_eq!(info["state"]["messages"], 3, "{info}");
}

#[tokio::test]
async fn the_batches_of_a_server_are_limited_as_its_operator_says() {
    let server = ServerOptions::default()
        .config("jetstream { store_dir: \"@DIR@/js\", limits { batch { max_inflight_total: 1, timeout: 500ms } } }")
        .start();
    let client = client(&server).await;
    for name in ["a", "b"] {
        let config = json!({"name": name, "subjects": [name], "allow_atomic": true});
        create(&client, config).await;
    }
    let abandoned = "$JS.EVENT.ADVISORY.STREAM.BATCH_ABANDONED.a";
    let mut abandoned = client.subscribe(abandoned).await.expect("subscribes");
    let first = [("Nats-Batch-Id", "one"), ("Nats-Batch-Sequence", "1")];
    assert!(send(&client, "a", &first, "x").await.is_null());
    let refused = send(&client, "b", &first, "x").await;
    assert_eq!(refused["error"]["err_code"], 10210, "{refused}");
    let advisory = abandoned.next().await.expect("an advisory");
    let advisory: Value = serde_json::from_slice(&advisory.payload).expect("JSON");
    assert_eq!(advisory["reason"], "timeout", "{advisory}");
    assert!(send(&client, "b", &first, "x").await.is_null());
}

#[tokio::test]
async fn a_schedule_goes_on_over_a_restart_and_its_messages_expire_into_a_marker() {
    let mut server = Server::jetstream();
    let config = json!({
        "name": "S", "subjects": ["plan.>", "made.>"], "allow_msg_schedules": true,
        "allow_msg_ttl": true, "subject_delete_marker_ttl": 1_000_000_000u64,
        "max_msgs_per_subject": 1,
    });
    {
        let client = client(&server).await;
        create(&client, config).await;
        let schedule = [
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", "made.x"),
            ("Nats-Schedule-TTL", "1s"),
        ];
        let ack = send(&client, "plan.x", &schedule, "work").await;
        assert_eq!(ack["seq"], 1, "{ack}");
    }
    server.stop();
    server.start_again();
    let client = client(&server).await;
    let last = json!({"last_by_subj": "made.x"});
    eventually_async("the schedule fires", async || {
        let made = api(&client, "STREAM.MSG.GET.S", last.clone()).await;
        made["error"].is_null().then_some(())
    })
    .await;
    let end = [
        ("Nats-Scheduler", "plan.x"),
        ("Nats-Schedule-Next", "purge"),
        ("Nats-TTL", "1"),
    ];
    let ack = send(&client, "made.x", &end, "").await;
    assert!(ack["error"].is_null(), "{ack}");
    use base64::Engine;
    eventually_async("a marker takes the place of the last message", async || {
        let marker = api(&client, "STREAM.MSG.GET.S", last.clone()).await;
        let headers = marker["message"]["hdrs"].as_str().unwrap_or_default();
        let headers = base64::engine::general_purpose::STANDARD.decode(headers);
        let headers = String::from_utf8(headers.ok()?).ok()?;
        headers.contains("Nats-Marker-Reason: MaxAge").then_some(())
    })
    .await;
    eventually_async("nothing is left", async || {
        let info = api(&client, "STREAM.INFO.S", Value::Null).await;
        (info["state"]["messages"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn subjects_are_transformed_and_messages_published_again() {
    let server = Server::jetstream();
    let client = client(&server).await;
    let config = json!({
        "name": "T", "subjects": ["in.>"],
        "subject_transform": {"src": "in.*", "dest": "stored.{{wildcard(1)}}"},
        "republish": {"src": "stored.>", "dest": "again.>", "headers_only": true},
    });
    create(&client, config).await;
    let mut again = client.subscribe("again.>").await.expect("subscribed");
    client.flush().await.expect("flushed");
    send(&client, "in.a", &[("Mine", "1")], "four").await;
    let message = again.next().await.expect("a message");
    assert_eq!(message.subject.as_str(), "again.a");
    assert!(message.payload.is_empty());
    let headers = message.headers.expect("headers");
    for (name, value) in [
        ("Mine", "1"),
        ("Nats-Stream", "T"),
        ("Nats-Subject", "stored.a"),
        ("Nats-Sequence", "1"),
        ("Nats-Last-Sequence", "0"),
        ("Nats-Msg-Size", "4"),
    ] {
        let found = headers.get(name).map(|value| value.as_str());
        assert_eq!(found, Some(value), "{name}");
    }
    for (change, code) in [
        (
            json!({"republish": {"src": ">", "dest": "in.again.>"}}),
            10052,
        ),
        (
            json!({"republish": {"src": "a.*", "dest": "b.{{wildcard(2)}}"}}),
            10052,
        ),
        (
            json!({"subject_transform": {"src": "a..b", "dest": "c"}}),
            10155,
        ),
        (
            json!({"subject_transform": {"src": "a.*", "dest": "b.{{wildcard(3)}}"}}),
            10156,
        ),
    ] {
        let mut config = change;
        config["name"] = json!("X");
        config["subjects"] = json!(["x.>", "in.again.>"]);
        let refused = api(&client, "STREAM.CREATE.X", config).await;
        assert_eq!(refused["error"]["err_code"], code, "{refused}");
    }
}

#[tokio::test]
async fn a_fast_batch_is_acknowledged_in_bulk() {
    let server = Server::jetstream();
    let client = client(&server).await;
    create(
        &client,
        json!({"name": "F", "subjects": ["f"], "allow_batched": true}),
    )
    .await;
    let mut acks = client.subscribe("inbox.>").await.expect("subscribed");
    for sequence in 1..=100u64 {
        let operation = match sequence {
            1 => 0,
            100 => 2,
            _ => 1,
        };
        let reply = format!("inbox.id.25.fail.{sequence}.{operation}.$FI");
        client
            .publish_with_reply("f", reply, "x".into())
            .await
            .expect("published");
    }
    let mut told = Vec::new();
    let last = loop {
        let ack = acks.next().await.expect("an ack");
        let ack: Value = serde_json::from_slice(&ack.payload).expect("JSON");
        if ack["type"].is_null() {
            break ack;
        }
        assert_eq!(ack["type"], "ack", "{ack}");
        told.push(ack["seq"].as_u64().expect("a number"));
    };
    assert_eq!(
        last,
        json!({"stream": "F", "seq": 100, "batch": "id", "count": 100})
    );
    assert_eq!(told[0], 0);
    assert!(told.is_sorted() && told.len() <= 5, "{told:?}");
}
