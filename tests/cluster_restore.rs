//! Backups in a cluster: taken from any server, and given back through a server that has no part in the stream.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, Subscriber};
use common::{Members, Server, eventually, eventually_async, http_get};
use futures_util::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// Servers `s1` to `s4` of one cluster, on which streams can be put.
fn four_servers() -> Vec<Server> {
    Members::of("four").start_healthy::<4>()
}

async fn connect(server: &Server) -> Client {
    let options = ConnectOptions::new().request_timeout(Some(PATIENCE));
    options.connect(server.url()).await.expect("it listens")
}

async fn ask(client: &Client, subject: &str, body: &Value) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = client.request(subject.to_owned(), body.into()).await;
    let answer = answer.unwrap_or_else(|error| panic!("{subject}: {error}"));
    serde_json::from_slice(&answer.payload).expect("JSON")
}

async fn api(client: &Client, subject: &str, body: Value) -> Value {
    eventually_async("somebody answers who can", async || {
        let answer = ask(client, &format!("$JS.API.{subject}"), &body).await;
        let unavailable = matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10009));
        (!unavailable).then_some(answer)
    })
    .await
}

async fn done(client: &Client, subject: &str, body: Value) -> Value {
    let answer = api(client, subject, body).await;
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}

async fn next(subscriber: &mut Subscriber) -> Message {
    let message = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    message.expect("nothing came").expect("still subscribed")
}

async fn restore_advisory(told: &mut Subscriber) -> Message {
    loop {
        let message = next(told).await;
        if message.subject.contains("RESTORE") {
            return message;
        }
    }
}

/// A stream with messages and a consumer that has come half way.
async fn fill(client: &Client, replicas: u64) {
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": replicas});
    eventually_async("a stream is placed", async || {
        let made = api(client, "STREAM.CREATE.S", config.clone()).await;
        made["error"].is_null().then_some(())
    })
    .await;
    for number in 0..200 {
        let payload = vec![b'x'; number * 7];
        let ack = client.request(format!("s.{number}"), payload.into()).await;
        let ack: Value = serde_json::from_slice(&ack.expect("an ack").payload).expect("JSON");
        assert_eq!(ack["seq"], number + 1, "{ack}");
    }
    let config =
        json!({"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    done(client, "CONSUMER.DURABLE.CREATE.S.C", config).await;
    let inbox = client.new_inbox();
    let mut pulled = client.subscribe(inbox.clone()).await.expect("subscribed");
    let asked = client.publish_with_reply(
        "$JS.API.CONSUMER.MSG.NEXT.S.C",
        inbox,
        r#"{"batch":50}"#.into(),
    );
    asked.await.expect("published");
    for _ in 0..50 {
        let message = next(&mut pulled).await;
        let reply = message.reply.expect("it can be acknowledged");
        client.request(reply, "+ACK".into()).await.expect("it is");
    }
}

/// Takes a backup as the stock tools do.
async fn take(client: &Client) -> (Value, Vec<u8>) {
    let inbox = client.new_inbox();
    let mut chunks = client.subscribe(inbox.clone()).await.expect("subscribed");
    let request = json!({"deliver_subject": inbox, "chunk_size": 4096});
    let answer = done(client, "STREAM.SNAPSHOT.S", request).await;
    let mut archive = Vec::new();
    loop {
        let chunk = next(&mut chunks).await;
        if chunk.payload.is_empty() {
            assert_eq!(chunk.status.map(|status| status.as_u16()), Some(204));
            return (answer["config"].clone(), archive);
        }
        archive.extend_from_slice(&chunk.payload);
        if let Some(reply) = chunk.reply {
            client.publish(reply, "".into()).await.expect("published");
        }
    }
}

/// Gives a backup back; what the cluster says at the end.
async fn give(client: &Client, config: &Value, archive: &[u8]) -> Value {
    let request = json!({"config": config, "state": {}});
    let answer = done(client, "STREAM.RESTORE.S", request).await;
    let subject = answer["deliver_subject"].as_str().expect("a subject");
    send(client, subject, archive).await
}

/// Sends an archive; what the cluster says at the end.
async fn send(client: &Client, subject: &str, archive: &[u8]) -> Value {
    for chunk in archive.chunks(2 << 10) {
        let reply = client
            .request(subject.to_owned(), chunk.to_vec().into())
            .await;
        let reply = reply.expect("every chunk is answered");
        if !reply.payload.is_empty() {
            return serde_json::from_slice(&reply.payload).expect("JSON");
        }
    }
    ask(client, subject, &Value::Null).await
}

/// The servers that a stream is on, once all of its replicas are current.
async fn places(client: &Client, replicas: usize) -> Vec<String> {
    eventually_async("all replicas are current", async || {
        let info = api(client, "STREAM.INFO.S", Value::Null).await;
        let mut places = vec![info["cluster"]["leader"].as_str()?.to_owned()];
        for other in info["cluster"]["replicas"].as_array().into_iter().flatten() {
            if other["current"] != true {
                return None;
            }
            places.push(other["name"].as_str()?.to_owned());
        }
        (places.len() == replicas).then_some(places)
    })
    .await
}

/// A server that the stream is not on.
fn outside<'a>(servers: &'a [Server], places: &[String]) -> &'a Server {
    let names = ["s1", "s2", "s3", "s4"];
    let at = names
        .iter()
        .position(|name| !places.contains(&(*name).to_owned()));
    &servers[at.expect("a server without a replica")]
}

/// What is left of a stream and of its consumer.
async fn shown(client: &Client) -> Value {
    let stream = done(client, "STREAM.INFO.S", Value::Null).await;
    let consumer = done(client, "CONSUMER.INFO.S.C", Value::Null).await;
    json!({
        "config": stream["config"],
        "created": stream["created"],
        "state": stream["state"],
        "consumer": consumer["config"],
        "delivered": consumer["delivered"]["stream_seq"],
        "ack_floor": consumer["ack_floor"]["stream_seq"],
        "pending": consumer["num_pending"],
    })
}

async fn comes_back(replicas: u64) {
    let servers = tokio::task::spawn_blocking(four_servers);
    let servers = servers.await.expect("four servers");
    let client = connect(&servers[0]).await;
    fill(&client, replicas).await;
    let count = usize::try_from(replicas).expect("a number");
    let on = places(&client, count).await;
    let before = shown(&client).await;

    let far = connect(outside(&servers, &on)).await;
    let (config, archive) = take(&far).await;
    let taken = api(&far, "STREAM.RESTORE.S", json!({"config": config})).await;
    assert_eq!(taken["error"]["err_code"], 10130, "{taken}");
    done(&far, "STREAM.DELETE.S", Value::Null).await;

    let mut told = far
        .subscribe("$JS.EVENT.ADVISORY.STREAM.*.S")
        .await
        .expect("subscribed");
    // Any server may be the one that tells.
    for server in &servers {
        let teller = connect(server).await;
        let subject = format!(
            "$JS.EVENT.ADVISORY.STREAM.PROBE-{}.S",
            server.address().port()
        );
        eventually_async("all servers know who listens", async || {
            teller.publish(subject.clone(), "".into()).await.ok()?;
            let heard = tokio::time::timeout(Duration::from_millis(20), told.next()).await;
            let heard = heard.ok().flatten()?;
            (heard.subject.as_str() == subject).then_some(())
        })
        .await;
    }
    let restored = give(&far, &config, &archive).await;
    assert_eq!(
        restored["type"],
        "io.nats.jetstream.api.v1.stream_create_response"
    );
    assert_eq!(restored["state"]["messages"], 200, "{restored}");
    assert!(!restored["cluster"]["leader"].is_null(), "{restored}");
    let begun = restore_advisory(&mut told).await;
    assert!(begun.subject.contains("RESTORE_CREATE"), "{begun:?}");
    let begun: Value = serde_json::from_slice(&begun.payload).expect("JSON");
    assert_eq!(begun["stream"], "S");
    let info = far.server_info();
    assert_eq!(begun["client"]["server"], info.server_name, "{begun}");
    let ended = restore_advisory(&mut told).await;
    assert!(ended.subject.contains("RESTORE_COMPLETE"), "{ended:?}");
    let ended: Value = serde_json::from_slice(&ended.payload).expect("JSON");
    assert_eq!(ended["bytes"], archive.len());

    let on = places(&far, count).await;
    let out = connect(outside(&servers, &on)).await;
    assert_eq!(shown(&out).await, before);
    let ack = ask(&out, "s.more", &Value::Null).await;
    assert_eq!(ack["seq"], 201, "{ack}");

    // Each replica has all of it, also when the one that was restored goes.
    if replicas > 1 {
        // Replicas that do not vote yet cannot take over.
        eventually_async("the leader steps down", async || {
            let answer = ask(&out, "$JS.API.STREAM.LEADER.STEPDOWN.S", &Value::Null).await;
            answer["success"].as_bool().filter(|done| *done)
        })
        .await;
        eventually_async("another one leads with all messages", async || {
            let info = api(&out, "STREAM.INFO.S", Value::Null).await;
            let leader = info["cluster"]["leader"].as_str()?;
            (leader != on[0] && info["state"]["messages"] == 201).then_some(())
        })
        .await;
        let last = done(&out, "STREAM.MSG.GET.S", json!({"seq": 200})).await;
        assert_eq!(last["message"]["subject"], "s.199");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_one_replica_is_restored_through_a_server_that_does_not_have_it() {
    comes_back(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_three_replicas_is_restored_with_its_consumers() {
    comes_back(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_leaves_nothing_on_any_server() {
    let servers = tokio::task::spawn_blocking(four_servers);
    let servers = servers.await.expect("four servers");
    let client = connect(&servers[1]).await;
    fill(&client, 3).await;
    let (config, archive) = take(&client).await;
    done(&client, "STREAM.DELETE.S", Value::Null).await;
    let mut flipped = archive.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let answer = give(&client, &config, &flipped).await;
    assert_eq!(answer["error"]["err_code"], 10062, "{answer}");

    // Whoever takes the name while the archive comes has it.
    let request = json!({"config": config, "state": {}});
    let answer = done(&client, "STREAM.RESTORE.S", request).await;
    let subject = answer["deliver_subject"].as_str().expect("a subject");
    let subject = subject.to_owned();
    let other = json!({"name": "S", "subjects": ["other"]});
    done(&client, "STREAM.CREATE.S", other).await;
    let answer = send(&client, &subject, &archive).await;
    assert_eq!(answer["error"]["err_code"], 10130, "{answer}");
    done(&client, "STREAM.DELETE.S", Value::Null).await;
    for server in &servers {
        eventually("nothing is left", || {
            let answer = http_get(server.monitor_address(), "/jsz").ok()?;
            let jsz: Value = serde_json::from_str(&answer.body).ok()?;
            (jsz["streams"] == 0 && jsz["storage"] == 0).then_some(())
        });
    }
    let whole = give(&client, &config, &archive).await;
    assert_eq!(whole["state"]["messages"], 200, "{whole}");
}
