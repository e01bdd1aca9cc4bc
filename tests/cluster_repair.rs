//! Three servers of one cluster, one of which loses or damages what it holds: it says so, is given everything anew, and votes again.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, eventually, eventually_async, healthy, http_get};
use serde_json::{Value, json};

const MESSAGES: u64 = 300;
const MESSAGE_BYTES: usize = 10_000;
const ACCOUNTS: &str = "accounts {\n\
    A { jetstream: enabled, users: [ {user: a, password: a} ] }\n\
    SYS { users: [ {user: admin, password: admin} ] }\n}\n\
    system_account: SYS";

/// Servers `s1`, `s2` and `s3`.
fn three_servers() -> Vec<Server> {
    Members::of("tri").beside(ACCOUNTS).start_healthy::<3>()
}

async fn connect(server: &Server) -> Client {
    connect_as(server, "a").await
}

async fn connect_as(server: &Server, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), user.into())
        .request_timeout(Some(Duration::from_secs(5)));
    options.connect(server.url()).await.expect("it listens")
}

/// The answer to a request that somebody who can answer gives.
async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    eventually_async("the request is answered", async || {
        let asked = client.request(format!("$JS.API.{subject}"), body.clone().into());
        let answer: Value = serde_json::from_slice(&asked.await.ok()?.payload).ok()?;
        let unavailable = matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10009));
        (!unavailable).then_some(answer)
    })
    .await
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = format!("{number} ").into_bytes();
    // Not to be compressed away.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while payload.len() < MESSAGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        payload.extend_from_slice(&state.to_le_bytes());
    }
    payload
}

async fn publish(client: &Client, numbers: std::ops::RangeInclusive<u64>) {
    let context = async_nats::jetstream::new(client.clone());
    for number in numbers {
        eventually_async("the message is stored", async || {
            let sent = context.publish("s.x", payload(number).into()).await.ok()?;
            let ack = tokio::time::timeout(Duration::from_secs(3), sent.into_future());
            ack.await.ok()?.ok()
        })
        .await;
    }
}

/// The leader and the others, once they are three and all are current.
async fn places(client: &Client) -> Vec<String> {
    eventually_async("all three replicas are current", async || {
        let info = ask(client, "STREAM.INFO.S", Value::Null).await;
        let leader = info["cluster"]["leader"].as_str()?.to_owned();
        let others = info["cluster"]["replicas"].as_array()?;
        let current = others.iter().filter(|other| other["current"] == true);
        let current = current.filter_map(|other| other["name"].as_str());
        let places: Vec<String> = std::iter::once(leader)
            .chain(current.map(str::to_owned))
            .collect();
        (places.len() == 3).then_some(places)
    })
    .await
}

/// The server of that name, by its place.
fn at(name: &str) -> usize {
    name[1..].parse::<usize>().expect("a number") - 1
}

async fn made(servers: &[Server]) -> Client {
    let client = connect(&servers[0]).await;
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3});
    let created = ask(&client, "STREAM.CREATE.S", config).await;
    assert!(created["error"].is_null(), "{created}");
    publish(&client, 1..=MESSAGES).await;
    client
}

/// Lets every server lead in turn, and finds all messages on each.
async fn all_hold_everything(client: &Client, messages: u64) {
    for name in ["s1", "s2", "s3"] {
        let body = json!({"placement": {"preferred": name}});
        eventually_async("it leads", async || {
            if places(client).await[0] == name {
                return Some(());
            }
            ask(client, "STREAM.LEADER.STEPDOWN.S", body.clone()).await;
            None
        })
        .await;
        for number in 1..=messages {
            let got = ask(client, "STREAM.MSG.GET.S", json!({ "seq": number })).await;
            let length = got["message"]["data"].as_str().map_or(0, str::len);
            assert!(length > MESSAGE_BYTES, "{number} on {name}: {got}");
        }
    }
}

/// The directories in which the server keeps streams that are in use or were.
fn stream_directories(server: &Server) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(server.store_directory().join("jetstream/streams")).expect("streams");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The files with messages of a stream, the largest first.
fn blocks(server: &Server) -> Vec<PathBuf> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for directory in stream_directories(server) {
        for entry in fs::read_dir(directory).expect("a stream") {
            let path = entry.expect("an entry").path();
            let length = fs::metadata(&path).map_or(0, |found| found.len());
            if path.extension().is_some_and(|end| end == "block") {
                files.push((length, path));
            }
        }
    }
    files.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
    files.into_iter().map(|(_, path)| path).collect()
}

/// Overwrites pieces of a file everywhere but at its ends.
fn damage(path: &PathBuf) {
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.expect("it can be written");
    let length = file.metadata().expect("a file").len();
    let mut offset = 16 * 1024;
    while offset + 16 * 1024 < length {
        file.write_all_at(b"this is not what was here", offset)
            .expect("it can be written");
        offset += 16 * 1024;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_memory_begins_anew_as_one_when_its_servers_come_one_after_the_other() {
    let mut servers = tokio::task::spawn_blocking(three_servers)
        .await
        .expect("three servers");
    let client = connect(&servers[0]).await;
    let config = json!({"name": "M", "subjects": ["m"], "num_replicas": 3, "storage": "memory"});
    let made = ask(&client, "STREAM.CREATE.M", config).await;
    assert!(made["error"].is_null(), "{made}");
    let group = |server: &Server| -> Option<Value> {
        let raftz = http_get(server.monitor_address(), "/raftz?acc=A").ok()?;
        let raftz: Value = serde_json::from_str(&raftz.body).ok()?;
        let groups = raftz["A"].as_object()?;
        groups.values().next().cloned()
    };
    for server in &mut servers {
        server.kill();
    }
    // The two that come first have lost what they had, and so has the third, which they take for the only one that has not.
    for server in &mut servers[..2] {
        server.start_again();
    }
    for server in &servers[..2] {
        eventually("it waits for the third", || group(server));
    }
    servers[2].start_again();
    let mut leaders = Vec::new();
    for server in &servers {
        healthy(server);
        leaders.push(eventually("the group is one", || {
            let group = group(server)?;
            let leader = group["leader"].as_str()?.to_owned();
            (group["size"] == 3 && group["applied"].as_u64() >= Some(1)).then_some(leader)
        }));
    }
    leaders.dedup();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    let client = connect(&servers[2]).await;
    let context = async_nats::jetstream::new(client);
    eventually_async("the message is stored", async || {
        let sent = context.publish("m", "x".into()).await.ok()?;
        let ack = tokio::time::timeout(Duration::from_secs(3), sent.into_future());
        ack.await.ok()?.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_of_two_replicas_that_is_left_has_all_that_was_acknowledged() {
    let mut servers = tokio::task::spawn_blocking(three_servers)
        .await
        .expect("three servers");
    let client = connect(&servers[0]).await;
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 2});
    let created = ask(&client, "STREAM.CREATE.S", config).await;
    assert!(created["error"].is_null(), "{created}");
    let (leads, follows) = eventually_async("both replicas are current", async || {
        let info = ask(&client, "STREAM.INFO.S", Value::Null).await;
        let other = &info["cluster"]["replicas"][0];
        let leads = at(info["cluster"]["leader"].as_str()?);
        let follows = at(other["name"].as_str()?);
        (other["current"] == true).then_some((leads, follows))
    })
    .await;
    let client = connect(&servers[3 - leads - follows]).await;
    publish(&client, 1..=20).await;
    // Who follows has not heard yet that the last message is committed, and nobody will tell it: the leader loses all that it has.
    servers[follows].kill();
    servers[leads].kill();
    fs::remove_dir_all(servers[leads].store_directory()).expect("it can be removed");
    servers[follows].start_again();
    servers[leads].start_again();
    eventually_async("both replicas are current again", async || {
        let info = ask(&client, "STREAM.INFO.S", Value::Null).await;
        let others = info["cluster"]["replicas"].as_array()?;
        (others.len() == 1 && others[0]["current"] == true).then_some(())
    })
    .await;
    for number in 1..=20 {
        let got = ask(&client, "STREAM.MSG.GET.S", json!({ "seq": number })).await;
        let length = got["message"]["data"].as_str().map_or(0, str::len);
        assert!(length > MESSAGE_BYTES, "{number}: {got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_files_are_gone_after_a_stop_is_given_everything_anew() {
    let mut servers = tokio::task::spawn_blocking(three_servers)
        .await
        .expect("three servers");
    let client = connect(&servers[0]).await;
    // Two replicas come to a stream that is there already: what they are given is in files, and a checkpoint lists these.
    let config =
        |replicas: u64| json!({"name": "S", "subjects": ["s.>"], "num_replicas": replicas});
    let created = ask(&client, "STREAM.CREATE.S", config(1)).await;
    assert!(created["error"].is_null(), "{created}");
    publish(&client, 1..=MESSAGES).await;
    let updated = ask(&client, "STREAM.UPDATE.S", config(3)).await;
    assert!(updated["error"].is_null(), "{updated}");
    let gone = places(&client).await[2].clone();
    let client = match gone.as_str() {
        "s1" => connect(&servers[1]).await,
        _ => client,
    };
    let server = &mut servers[at(&gone)];
    server.stop();
    let files = blocks(server);
    assert!(!files.is_empty(), "there are no messages on disk");
    for file in files {
        fs::remove_file(file).expect("it can be removed");
    }
    server.start_again();
    server.wait_for_log("is set aside as");
    healthy(server);
    publish(&client, MESSAGES + 1..=MESSAGES + 5).await;
    places(&client).await;
    all_hold_everything(&client, MESSAGES + 5).await;
    // Nothing of what it had left is removed.
    assert_eq!(stream_directories(&servers[at(&gone)]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_files_are_altered_while_it_runs_hands_over_and_is_replaced() {
    let mut servers = tokio::task::spawn_blocking(three_servers)
        .await
        .expect("three servers");
    let client = made(&servers).await;
    // So that nothing is read from memory.
    let damaged = places(&client).await[0].clone();
    let client = match damaged.as_str() {
        "s1" => connect(&servers[1]).await,
        _ => client,
    };
    let server = &mut servers[at(&damaged)];
    server.stop();
    server.start_again();
    healthy(server);
    places(&client).await;
    for file in blocks(&servers[at(&damaged)]) {
        damage(&file);
    }
    let body = json!({"placement": {"preferred": damaged}});
    ask(&client, "STREAM.LEADER.STEPDOWN.S", body).await;
    // A consumer gets every message, although its leader cannot read them.
    let context = async_nats::jetstream::new(client.clone());
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        eventually_async("it is made", async || {
            let config = async_nats::jetstream::consumer::pull::Config {
                durable_name: Some("C".to_owned()),
                ..Default::default()
            };
            context.create_consumer_on_stream(config, "S").await.ok()
        })
        .await;
    let mut seen = 0;
    eventually_async("all are delivered", async || {
        use futures_util::StreamExt;
        let batch = consumer.fetch().max_messages(50);
        let mut batch = batch
            .expires(Duration::from_secs(2))
            .messages()
            .await
            .ok()?;
        while let Some(Ok(message)) = batch.next().await {
            let sequence = message.info().expect("an info").stream_sequence;
            assert!(sequence <= seen + 1, "{sequence} after {seen}");
            seen = seen.max(sequence);
            message.ack().await.ok()?;
        }
        (seen == MESSAGES).then_some(())
    })
    .await;
    let server = &servers[at(&damaged)];
    server.wait_for_log("replica is damaged");
    server.wait_for_log("is set aside as");
    server.wait_for_log("replica was replaced");
    healthy(server);
    publish(&client, MESSAGES + 1..=MESSAGES + 5).await;
    all_hold_everything(&client, MESSAGES + 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_removed_comes_back_under_new_ids_and_is_placed_on_again() {
    let mut servers = tokio::task::spawn_blocking(three_servers)
        .await
        .expect("three servers");
    let client = made(&servers).await;
    let admin = connect_as(&servers[0], "admin").await;
    places(&client).await;
    servers[2].kill();
    let removed = json!({ "peer": "s3" });
    eventually_async("the server is removed", async || {
        let asked = admin.request("$JS.API.SERVER.REMOVE", removed.to_string().into());
        let answer: Value = serde_json::from_slice(&asked.await.ok()?.payload).ok()?;
        answer["error"].is_null().then_some(())
    })
    .await;
    publish(&client, MESSAGES + 1..=MESSAGES + 5).await;
    servers[2].start_again();
    servers[2].wait_for_log("joins again under a new id");
    servers[2].wait_for_log("is set aside as");
    healthy(&servers[2]);
    assert!(!blocks(&servers[2]).is_empty(), "what it held is there");
    let config = json!({"name": "T", "subjects": ["t.>"], "num_replicas": 3});
    let created = ask(&client, "STREAM.CREATE.T", config).await;
    assert!(created["error"].is_null(), "{created}");
    let from_there = connect(&servers[2]).await;
    let context = async_nats::jetstream::new(from_there.clone());
    eventually_async("a message is stored", async || {
        let sent = context.publish("t.x", "hello".into()).await.ok()?;
        let ack = tokio::time::timeout(Duration::from_secs(3), sent.into_future());
        ack.await.ok()?.ok()
    })
    .await;
    eventually_async("the server has a current replica", async || {
        let info = ask(&from_there, "STREAM.INFO.T", Value::Null).await;
        if info["cluster"]["leader"] == "s3" {
            return Some(());
        }
        let others = info["cluster"]["replicas"].as_array()?;
        let own = others.iter().find(|other| other["name"] == "s3")?;
        (own["current"] == true).then_some(())
    })
    .await;
    // The stream that lost a replica with it, and found nobody to take it, has one there again.
    places(&client).await;
    all_hold_everything(&client, MESSAGES + 5).await;
}
