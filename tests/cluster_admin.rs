//! Three servers of one cluster that are asked to let others lead.

mod common;

use std::net::{Ipv4Addr, TcpListener};

use async_nats::Client;
use common::{Server, ServerOptions, eventually_async};
use serde_json::{Value, json};

const STREAM: &str = r#"{"name":"S","subjects":["s.>"],"num_replicas":3}"#;

/// Servers `s1`, `s2` and `s3`, with what stands beside the cluster in their configuration.
fn three_servers(beside: &str) -> Vec<Server> {
    // Held until all are known, so that they differ.
    let listeners: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
        .collect();
    let ports: Vec<u16> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("it is bound").port())
        .collect();
    drop(listeners);
    let routes: Vec<String> = ports
        .iter()
        .map(|port| format!("'nats-route://127.0.0.1:{port}'"))
        .collect();
    let routes = routes.join(", ");
    let start = |(at, port): (usize, u16)| {
        let config = format!(
            "server_name: s{at}\njetstream {{ store_dir: '@DIR@/store' }}\n\
             cluster {{ name: tri, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n{beside}"
        );
        ServerOptions::default().config(&config).start()
    };
    (1..).zip(ports).map(start).collect()
}

async fn connect(server: &Server) -> Client {
    async_nats::connect(server.url()).await.expect("it listens")
}

/// The answer to a request, or none when nobody gave one in time.
async fn try_ask(client: &Client, subject: &str, body: &str) -> Option<Value> {
    let asked = client.request(subject.to_owned(), body.to_owned().into());
    let answer = asked.await.ok()?;
    serde_json::from_slice(&answer.payload).ok()
}

async fn ask(client: &Client, subject: &str, body: &str) -> Value {
    let answer = try_ask(client, subject, body).await;
    answer.unwrap_or_else(|| panic!("nobody answered {subject} {body}"))
}

/// Makes a stream as soon as the servers have come together.
async fn create(client: &Client, name: &str, config: &str) {
    let subject = format!("$JS.API.STREAM.CREATE.{name}");
    eventually_async("the stream is made", async || {
        let answer = try_ask(client, &subject, config).await?;
        answer["error"].is_null().then_some(())
    })
    .await;
}

async fn stream_leader(client: &Client) -> Option<String> {
    let info = try_ask(client, "$JS.API.STREAM.INFO.S", "").await?;
    info["cluster"]["leader"].as_str().map(str::to_owned)
}

async fn publish(client: &Client) -> u64 {
    eventually_async("a publish is stored", async || {
        try_ask(client, "s.x", "hello").await?["seq"].as_u64()
    })
    .await
}

/// A server that is not that one.
fn another(than: &str) -> &'static str {
    if than == "s1" { "s2" } else { "s1" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_led_by_whom_the_request_prefers_and_publishes_go_on() {
    let servers = three_servers("");
    let client = connect(&servers[0]).await;
    create(&client, "S", STREAM).await;
    let consumer = r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    let made = ask(&client, "$JS.API.CONSUMER.DURABLE.CREATE.S.C", consumer).await;
    assert!(made["error"].is_null(), "{made}");
    assert_eq!(publish(&client).await, 1);

    let leader = stream_leader(&client).await.expect("somebody leads");
    let preferred = another(&leader);
    let body = json!({"placement": {"preferred": preferred}}).to_string();
    let subject = "$JS.API.STREAM.LEADER.STEPDOWN.S";
    assert_eq!(
        ask(&client, subject, &body).await,
        json!({"type": "io.nats.jetstream.api.v1.stream_leader_stepdown_response", "success": true})
    );
    eventually_async("the preferred server leads", async || {
        (stream_leader(&client).await? == preferred).then_some(())
    })
    .await;
    assert_eq!(publish(&client).await, 2);

    let refused = ask(&client, subject, &body).await;
    assert_eq!(refused["error"]["err_code"], 10005, "{refused}");
    let unknown = json!({"placement": {"preferred": "nobody"}}).to_string();
    let refused = ask(&client, subject, &unknown).await;
    let text = "preferred server \"nobody\" not known";
    assert_eq!(refused["error"]["description"], text, "{refused}");

    let subject = "$JS.API.CONSUMER.LEADER.STEPDOWN.S.C";
    assert_eq!(
        ask(&client, subject, "").await,
        json!({"type": "io.nats.jetstream.api.v1.consumer_leader_stepdown_response", "success": true})
    );
    eventually_async("another server leads", async || {
        (stream_leader(&client).await? != preferred).then_some(())
    })
    .await;
    assert_eq!(publish(&client).await, 3);
    for (subject, code) in [
        ("$JS.API.STREAM.LEADER.STEPDOWN.NOPE", 10059),
        ("$JS.API.CONSUMER.LEADER.STEPDOWN.S.NOPE", 10014),
        ("$JS.API.CONSUMER.LEADER.STEPDOWN.NOPE.C", 10059),
    ] {
        let refused = ask(&client, subject, "").await;
        assert_eq!(refused["error"]["err_code"], code, "{refused}");
    }
}
