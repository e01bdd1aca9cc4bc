//! Three servers of one cluster, one of which has a small disk: when that is full the server says so, and the streams go on where there is room.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, ServerOptions, eventually, eventually_async, http_get};
use serde_json::{Value, json};

/// Two segments of the journal and little more.
const SMALL_MEBIBYTES: u32 = 200;
const MESSAGE_BYTES: usize = 500_000;
/// More than the small disk holds.
const MESSAGES: u64 = 500;

/// Servers `s1`, `s2` and `s3`, the last with the small disk. Nothing where there can be no such disk.
fn three_servers() -> Option<Vec<Server>> {
    if !ServerOptions::can_have_small_stores() {
        println!("skipped, this machine lets nobody have file systems of their own");
        return None;
    }
    let disks = |at, options: ServerOptions| match at {
        3 => options.small_store(SMALL_MEBIBYTES),
        _ => options,
    };
    Some(Members::of("tri").options(disks).start_healthy::<3>())
}

/// The status of a health check, and what it says is wrong.
fn health(server: &Server) -> Option<(u16, String)> {
    let answer = http_get(server.monitor_address(), "/healthz").ok()?;
    let text: Value = serde_json::from_slice(answer.body.as_ref()).ok()?;
    let error = text["error"].as_str().unwrap_or_default();
    Some((answer.status, error.to_owned()))
}

async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    eventually_async("the request is answered", async || {
        let body = body.to_string();
        let asked = client.request(format!("$JS.API.{subject}"), body.into());
        let answer: Value = serde_json::from_slice(&asked.await.ok()?.payload).ok()?;
        let unavailable = matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10009));
        (!unavailable).then_some(answer)
    })
    .await
}

async fn leader(client: &Client) -> Option<String> {
    let info = ask(client, "STREAM.INFO.S", json!({})).await;
    info["cluster"]["leader"].as_str().map(str::to_owned)
}

/// A stream on all three, led by that server.
async fn made(servers: &[Server], led_by: &str) -> Client {
    let options = ConnectOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let client = options.connect(servers[0].url()).await.expect("it listens");
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3});
    let created = ask(&client, "STREAM.CREATE.S", config).await;
    assert!(created["error"].is_null(), "{created}");
    eventually_async("it leads", async || {
        if leader(&client).await? == led_by {
            return Some(());
        }
        let body = json!({"placement": {"preferred": led_by}});
        ask(&client, "STREAM.LEADER.STEPDOWN.S", body).await;
        None
    })
    .await;
    client
}

/// Publishes until all are stored, whatever is refused meanwhile.
async fn publish(client: &Client) {
    let body = vec![b'x'; MESSAGE_BYTES];
    for number in 1..=MESSAGES {
        let subject = format!("s.{number}");
        eventually_async("the message is stored", async || {
            let asked = client.request(subject.clone(), body.clone().into());
            let ack: Value = serde_json::from_slice(&asked.await.ok()?.payload).ok()?;
            (ack["error"].is_null() && ack["seq"].as_u64()? >= number).then_some(())
        })
        .await;
    }
}

/// The server whose disk is full says so; the others are well, and one of them leads.
async fn goes_on_elsewhere(servers: &[Server], client: &Client) {
    eventually("the server with the full disk says so", || {
        let (status, error) = health(&servers[2])?;
        (status == 503 && !error.is_empty()).then_some(())
    });
    for server in &servers[..2] {
        eventually("the others are well", || {
            (health(server)?.0 == 200).then_some(())
        });
    }
    let led_by = eventually_async("another leads", async || leader(client).await).await;
    assert_ne!(led_by, "s3");
    let info = ask(client, "STREAM.INFO.S", json!({})).await;
    assert!(
        info["state"]["messages"].as_u64() >= Some(MESSAGES),
        "{info}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_is_full_says_so_and_the_stream_goes_on() {
    let Some(servers) = three_servers() else {
        return;
    };
    let client = made(&servers, "s1").await;
    publish(&client).await;
    goes_on_elsewhere(&servers, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_has_another_lead_and_the_stream_goes_on() {
    let Some(servers) = three_servers() else {
        return;
    };
    let client = made(&servers, "s3").await;
    publish(&client).await;
    goes_on_elsewhere(&servers, &client).await;
}
