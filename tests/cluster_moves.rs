//! Four servers of one cluster: streams get more and fewer replicas, move, and outlive servers that go, while clients publish to them.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, eventually_async};
use rustix::process::Signal;
use serde_json::{Value, json};

const ACCOUNTS: &str = "accounts {\n\
    A { jetstream: enabled, users: [ {user: a, password: a} ] }\n\
    SYS { users: [ {user: admin, password: admin} ] }\n}\n\
    system_account: SYS";

/// Servers `s1` to `s4`, which know each other and have said what they have room for; the first two have the tag `old`, the others `new`.
fn four_servers() -> Vec<Server> {
    let members = Members::of("four").beside(ACCOUNTS);
    let tagged = members.each(|at| match at {
        1 | 2 => "server_tags: [old]".to_owned(),
        _ => "server_tags: [new]".to_owned(),
    });
    tagged.start_healthy::<4>()
}

async fn connect_as(server: &Server, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), user.into())
        .request_timeout(Some(Duration::from_secs(5)));
    options.connect(server.url()).await.expect("it listens")
}

/// The answer to a request, or none when nobody gave one in time.
async fn try_ask(client: &Client, subject: &str, body: &Value) -> Option<Value> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let asked = client.request(subject.to_owned(), body.into()).await;
    serde_json::from_slice(&asked.ok()?.payload).ok()
}

/// Asks until somebody who can answer does.
async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    eventually_async("the request is answered", async || {
        let answer = try_ask(client, &format!("$JS.API.{subject}"), &body).await?;
        let unavailable = matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10009));
        (!unavailable).then_some(answer)
    })
    .await
}

async fn done(client: &Client, subject: &str, body: Value) -> Value {
    let answer = ask(client, subject, body).await;
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}

/// Moves or scales a stream, as soon as it does not move any more.
async fn update(client: &Client, config: Value) {
    eventually_async("the stream is changed", async || {
        let answer = ask(client, "STREAM.UPDATE.S", config.clone()).await;
        let moving = answer["error"]["err_code"] == 10124;
        assert!(moving || answer["error"].is_null(), "{answer}");
        (!moving).then_some(())
    })
    .await;
}

/// The servers that a stream is on, its leader first, once all of them are current.
async fn places(client: &Client, stream: &str) -> Option<Vec<String>> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let info = try_ask(client, &subject, &Value::Null).await?;
    let leader = info["cluster"]["leader"].as_str()?;
    let mut places = vec![leader.to_owned()];
    for other in info["cluster"]["replicas"].as_array().into_iter().flatten() {
        if other["current"] != true {
            return None;
        }
        places.push(other["name"].as_str()?.to_owned());
    }
    Some(places)
}

async fn settled_on(client: &Client, stream: &str, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    eventually_async("the stream is where it is to be", async || {
        let on: BTreeSet<String> = places(client, stream).await?.into_iter().collect();
        (on == wanted).then_some(())
    })
    .await;
}

async fn settled_with(client: &Client, stream: &str, replicas: usize) -> Vec<String> {
    eventually_async("the stream has its replicas", async || {
        let places = places(client, stream).await?;
        (places.len() == replicas).then_some(places)
    })
    .await
}

/// Publishes numbers until it is told to stop, and knows which were acknowledged.
struct Publisher {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<u64>>,
}

impl Publisher {
    fn start(client: &Client, subject: &'static str) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client.clone());
        let stopped = Arc::clone(&stop);
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 1u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let asked = client.request(subject, number.to_string().into());
                let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
                let ack = answer.ok().and_then(Result::ok);
                let ack = ack.and_then(|ack| serde_json::from_slice::<Value>(&ack.payload).ok());
                match ack.filter(|ack| ack["seq"].is_u64()) {
                    Some(_) => {
                        acknowledged.push(number);
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    // Nobody listens for a moment while a stream changes its form or its leader.
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
            acknowledged
        });
        Self { stop, count, task }
    }

    /// Waits until more is acknowledged than before.
    async fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        eventually_async("publishes are acknowledged", async || {
            (self.count.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    /// What was acknowledged, the last of it now.
    async fn stop(self) -> Vec<u64> {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it ends")
    }
}

/// All messages of a stream, as whoever leads it has them.
async fn content(client: &Client, stream: &str) -> Vec<(u64, String)> {
    let info = done(client, &format!("STREAM.INFO.{stream}"), Value::Null).await;
    let state = &info["state"];
    let (first, last) = (state["first_seq"].as_u64(), state["last_seq"].as_u64());
    let mut content = Vec::new();
    for sequence in first.unwrap_or(1)..=last.unwrap_or(0) {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let got = ask(client, &subject, json!({ "seq": sequence })).await;
        if let Some(data) = got["message"]["data"].as_str() {
            content.push((sequence, data.to_owned()));
        }
    }
    content
}

/// All of a stream's replicas hold the same, and all that was acknowledged.
async fn holds_all(client: &Client, stream: &str, acknowledged: &[u64]) {
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let content_now = content(client, stream).await;
    for number in acknowledged {
        let data = base64(&number.to_string());
        let held = content_now.iter().any(|(_, held)| *held == data);
        assert!(held, "{number} was acknowledged and is lost");
    }
    let on = settled_with(client, stream, places_count(client, stream).await).await;
    for server in on.iter().skip(1) {
        let subject = format!("STREAM.LEADER.STEPDOWN.{stream}");
        let body = json!({"placement": {"preferred": server}});
        eventually_async("another replica leads", async || {
            let leads = places(client, stream).await?.first()? == server;
            if leads {
                return Some(());
            }
            ask(client, &subject, body.clone()).await;
            None
        })
        .await;
        assert_eq!(content(client, stream).await, content_now, "on {server}");
    }
}

async fn places_count(client: &Client, stream: &str) -> usize {
    let info = done(client, &format!("STREAM.INFO.{stream}"), Value::Null).await;
    1 + info["cluster"]["replicas"].as_array().map_or(0, Vec::len)
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bits = [0u8; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for at in 0..4 {
            let digit = (number >> (18 - 6 * at)) & 63;
            out.push(match at <= chunk.len() {
                true => char::from(DIGITS[digit as usize]),
                false => '=',
            });
        }
    }
    out
}

async fn four() -> (Vec<Server>, Client) {
    let servers = tokio::task::spawn_blocking(four_servers).await;
    let servers = servers.expect("four servers");
    let client = connect_as(&servers[0], "a").await;
    (servers, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_more_and_fewer_replicas_while_it_is_published_to() {
    let (_servers, client) = four().await;
    let config =
        |replicas: u64| json!({"name": "S", "subjects": ["s.>"], "num_replicas": replicas});
    done(&client, "STREAM.CREATE.S", config(1)).await;
    let consumer =
        json!({"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    done(&client, "CONSUMER.DURABLE.CREATE.S.C", consumer).await;
    let publisher = Publisher::start(&client, "s.x");
    for replicas in [3, 1, 2, 3, 1] {
        if replicas == 1 {
            // The group comes to a later term than the one that follows it begins with. Replicas that do not vote yet cannot take over.
            eventually_async("the leader steps down", async || {
                let answer = ask(&client, "STREAM.LEADER.STEPDOWN.S", Value::Null).await;
                answer["success"].as_bool().filter(|done| *done)
            })
            .await;
            publisher.goes_on().await;
        }
        let updated = done(&client, "STREAM.UPDATE.S", config(replicas as u64)).await;
        assert_eq!(
            updated["config"]["num_replicas"], replicas as u64,
            "{updated}"
        );
        settled_with(&client, "S", replicas).await;
    }
    done(&client, "STREAM.UPDATE.S", config(3)).await;
    settled_with(&client, "S", 3).await;
    let acknowledged = publisher.stop().await;
    holds_all(&client, "S", &acknowledged).await;
    let consumer = done(&client, "CONSUMER.INFO.S.C", Value::Null).await;
    let state = done(&client, "STREAM.INFO.S", Value::Null).await["state"].clone();
    assert_eq!(consumer["num_pending"], state["messages"], "{consumer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_memory_gets_more_and_fewer_replicas() {
    let (_servers, client) = four().await;
    let config = |replicas: u64| json!({"name": "M", "subjects": ["m"], "storage": "memory", "num_replicas": replicas});
    done(&client, "STREAM.CREATE.M", config(1)).await;
    let publisher = Publisher::start(&client, "m");
    for replicas in [3, 1, 3] {
        done(&client, "STREAM.UPDATE.M", config(replicas as u64)).await;
        settled_with(&client, "M", replicas).await;
    }
    let acknowledged = publisher.stop().await;
    holds_all(&client, "M", &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_moves_to_other_servers_and_a_move_is_cancelled() {
    let (servers, client) = four().await;
    let config = |replicas: u64, tag: &str| json!({"name": "S", "subjects": ["s.>"], "num_replicas": replicas, "placement": {"tags": [tag]}});
    done(&client, "STREAM.CREATE.S", config(1, "old")).await;
    let publisher = Publisher::start(&client, "s.x");
    let from = settled_with(&client, "S", 1).await;
    assert!(from[0] == "s1" || from[0] == "s2", "{from:?}");
    // The one replica of a stream goes with all that it has.
    update(&client, config(1, "new")).await;
    eventually_async("the stream has moved", async || {
        let on = places(&client, "S").await?;
        (on == ["s3"] || on == ["s4"]).then_some(())
    })
    .await;
    update(&client, config(2, "new")).await;
    settled_on(&client, "S", &["s3", "s4"]).await;
    // And two do.
    update(&client, config(2, "old")).await;
    settled_on(&client, "S", &["s1", "s2"]).await;
    let subject = "ACCOUNT.STREAM.CANCEL_MOVE.A.S";
    let refused = ask(&client, subject, Value::Null).await;
    assert_eq!(refused["error"]["err_code"], 10129, "{refused}");

    // One of the servers that it is to move to takes nothing, so that it stays under way.
    servers[3].signal(Signal::STOP);
    update(&client, config(2, "new")).await;
    let again = ask(&client, "STREAM.UPDATE.S", config(2, "!old")).await;
    assert_eq!(again["error"]["err_code"], 10124, "{again}");
    let cancelled = done(&client, subject, Value::Null).await;
    assert_eq!(
        cancelled["type"],
        "io.nats.jetstream.api.v1.stream_update_response"
    );
    servers[3].signal(Signal::CONT);
    settled_on(&client, "S", &["s1", "s2"]).await;
    let acknowledged = publisher.stop().await;
    holds_all(&client, "S", &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_moves_off_a_server_that_is_named() {
    let (_servers, client) = four().await;
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3});
    done(&client, "STREAM.CREATE.S", config).await;
    let publisher = Publisher::start(&client, "s.x");
    let before = settled_with(&client, "S", 3).await;
    let leader = before[0].clone();
    let moved = done(
        &client,
        "ACCOUNT.STREAM.MOVE.A.S",
        json!({"server": leader}),
    )
    .await;
    assert_eq!(moved["config"]["name"], "S", "{moved}");
    eventually_async("the replica is elsewhere", async || {
        let on = places(&client, "S").await?;
        (on.len() == 3 && !on.contains(&leader)).then_some(())
    })
    .await;
    // A replica is taken off for good, and the server that had none takes its place.
    let on = settled_with(&client, "S", 3).await;
    let removed = done(&client, "STREAM.PEER.REMOVE.S", json!({"peer": on[1]})).await;
    assert_eq!(removed["success"], true, "{removed}");
    eventually_async("another server has its place", async || {
        let now = places(&client, "S").await?;
        (now.len() == 3 && !now.contains(&on[1])).then_some(())
    })
    .await;
    let refused = ask(&client, "STREAM.PEER.REMOVE.S", json!({"peer": on[1]})).await;
    assert_eq!(refused["error"]["err_code"], 10040, "{refused}");
    let acknowledged = publisher.stop().await;
    holds_all(&client, "S", &acknowledged).await;
    // Without a server that could take the place it is an error, and the replica goes all the same.
    let config = json!({"name": "W", "subjects": ["w"], "num_replicas": 4});
    done(&client, "STREAM.CREATE.W", config).await;
    let on = settled_with(&client, "W", 4).await;
    let lost = ask(&client, "STREAM.PEER.REMOVE.W", json!({"peer": on[1]})).await;
    assert_eq!(lost["error"]["err_code"], 10075, "{lost}");
    assert!(!settled_with(&client, "W", 3).await.contains(&on[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_server_that_is_removed_get_replicas_elsewhere() {
    let (mut servers, client) = four().await;
    let admin = connect_as(&servers[0], "admin").await;
    let config =
        json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3, "placement": {"tags": []}});
    done(&client, "STREAM.CREATE.S", config).await;
    let publisher = Publisher::start(&client, "s.x");
    let on = settled_with(&client, "S", 3).await;
    publisher.goes_on().await;
    // Not the one that the clients are connected to.
    let gone = on
        .iter()
        .find(|name| *name != "s1")
        .expect("another")
        .clone();
    let at: usize = gone[1..].parse().expect("a number");
    servers[at - 1].kill();
    let body = json!({ "peer": gone });
    eventually_async("the server is removed", async || {
        let answer = try_ask(&admin, "$JS.API.SERVER.REMOVE", &body).await?;
        answer["error"].is_null().then_some(())
    })
    .await;
    eventually_async("another server has its place", async || {
        let now = places(&client, "S").await?;
        (now.len() == 3 && !now.contains(&gone)).then_some(())
    })
    .await;
    let acknowledged = publisher.stop().await;
    holds_all(&client, "S", &acknowledged).await;
}
