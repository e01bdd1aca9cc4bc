//! A leader that is flooded while nobody follows: what waits has a limit, the rest is refused, and all goes on when the others are back.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, eventually_async, resident_bytes};
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};

const MESSAGE_BYTES: usize = 100_000;
/// Twenty times what may wait, and be open.
const MESSAGES: usize = 20_000;
/// What the leader may take on while it is flooded: 64 MiB of open proposals, 32 MiB that wait, what is on its way to others, and the allocator's share.
const GROWTH_MAX: u64 = 600 * 1024 * 1024;

fn three_servers() -> Vec<Server> {
    let members = Members::of("tri").jetstream("max_buffered_size: 32MiB");
    members.start_healthy::<3>()
}

async fn ask(client: &Client, subject: &str, body: Value) -> Option<Value> {
    let asked = client.request(subject.to_owned(), body.to_string().into());
    serde_json::from_slice(&asked.await.ok()?.payload).ok()
}

async fn leader(client: &Client) -> Option<usize> {
    let info = ask(client, "$JS.API.STREAM.INFO.S", json!({})).await?;
    let name = info["cluster"]["leader"].as_str()?;
    name[1..].parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_follows_holds_no_more_than_its_limits_and_goes_on() {
    let servers = three_servers();
    let options = || ConnectOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let client = options().connect(servers[0].url()).await.expect("listens");
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3});
    eventually_async("the stream is made", async || {
        let made = ask(&client, "$JS.API.STREAM.CREATE.S", config.clone()).await?;
        made["error"].is_null().then_some(())
    })
    .await;
    let leads = eventually_async("somebody leads", async || leader(&client).await).await;
    let (leader, others): (Vec<_>, Vec<_>) = (1..)
        .zip(&servers)
        .partition(|(number, _)| *number == leads);
    let leader = leader[0].1;
    let client = options().connect(leader.url()).await.expect("it listens");
    let first = ask(&client, "s.first", json!("x")).await.expect("an ack");
    assert_eq!(first["seq"], 1, "{first}");

    let before = resident_bytes(leader);
    for (_, other) in &others {
        other.signal(Signal::STOP);
    }
    let mut answers = client.subscribe("answer").await.expect("subscribes");
    client.flush().await.expect("it is heard");
    let counting = tokio::spawn(async move {
        let (mut refused, mut stored) = (0, 0);
        while refused + stored < MESSAGES {
            let answer = tokio::time::timeout(Duration::from_secs(30), answers.next());
            let Ok(Some(answer)) = answer.await else {
                break;
            };
            match serde_json::from_slice::<Value>(&answer.payload) {
                Ok(ack) if ack["error"].is_null() => stored += 1,
                _ => refused += 1,
            }
        }
        (refused, stored)
    });
    let body = vec![b'x'; MESSAGE_BYTES];
    let mut most = before;
    for number in 0..MESSAGES {
        let sent = client.publish_with_reply("s.x", "answer", body.clone().into());
        sent.await.expect("it is connected");
        if number % 100 == 0 {
            client.flush().await.expect("it is connected");
            most = most.max(resident_bytes(leader));
        }
    }
    client.flush().await.expect("it is connected");
    most = most.max(resident_bytes(leader));
    for (_, other) in &others {
        other.signal(Signal::CONT);
    }
    let growth = most - before;
    println!("the leader grew by {} MiB", growth >> 20);
    assert!(growth < GROWTH_MAX, "{growth}");

    let next = eventually_async("messages are stored again", async || {
        let ack = ask(&client, "s.next", json!("x")).await?;
        ack["error"].is_null().then(|| ack["seq"].as_u64())?
    })
    .await;
    let (refused, stored) = counting.await.expect("it counts");
    println!("refused {refused}, stored {stored}");
    assert!(refused > 0, "nothing was refused");
    assert!(next > stored as u64, "{next} after {stored}");
}
