//! Three servers of one cluster that are asked to let others lead.

mod common;

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Server, ServerOptions, eventually_async};
use futures_util::StreamExt;
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
    let made = ask_leader(&client, "$JS.API.CONSUMER.DURABLE.CREATE.S.C", consumer).await;
    assert!(made["error"].is_null(), "{made}");
    assert_eq!(publish(&client).await, 1);

    let leader = eventually_async("somebody leads", async || stream_leader(&client).await).await;
    let preferred = another(&leader);
    let body = json!({"placement": {"preferred": preferred}}).to_string();
    let subject = "$JS.API.STREAM.LEADER.STEPDOWN.S";
    assert_eq!(
        ask_leader(&client, subject, &body).await,
        json!({"type": "io.nats.jetstream.api.v1.stream_leader_stepdown_response", "success": true})
    );
    eventually_async("the preferred server leads", async || {
        (stream_leader(&client).await? == preferred).then_some(())
    })
    .await;
    assert_eq!(publish(&client).await, 2);

    let refused = ask_leader(&client, subject, &body).await;
    assert_eq!(refused["error"]["err_code"], 10005, "{refused}");
    let unknown = json!({"placement": {"preferred": "nobody"}}).to_string();
    let refused = ask_leader(&client, subject, &unknown).await;
    let text = "preferred server \"nobody\" not known";
    assert_eq!(refused["error"]["description"], text, "{refused}");

    let subject = "$JS.API.CONSUMER.LEADER.STEPDOWN.S.C";
    assert_eq!(
        ask_leader(&client, subject, "").await,
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
        let refused = ask_leader(&client, subject, "").await;
        assert_eq!(refused["error"]["err_code"], code, "{refused}");
    }
}

const ACCOUNTS: &str = "accounts {\n\
    A { jetstream: enabled, users: [ {user: a, password: a} ] }\n\
    SYS { users: [ {user: admin, password: admin} ] }\n}\n\
    system_account: SYS";

async fn connect_as(server: &Server, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), user.into())
        .request_timeout(Some(Duration::from_secs(6)));
    let connected = options.connect(server.url()).await;
    connected.expect("the user is known")
}

/// Asks until there is a leader that answers, and this server has heard of it.
async fn ask_leader(client: &Client, subject: &str, body: &str) -> Value {
    eventually_async("the leader answers", async || {
        let answer = try_ask(client, subject, body).await?;
        let unavailable = matches!(answer["error"]["err_code"].as_u64(), Some(10008 | 10009));
        (!unavailable).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_leads_the_meta_group_and_streams_can_be_made() {
    let servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[0], "a").await,
        connect_as(&servers[1], "admin").await,
    );
    create(&client, "S", STREAM).await;
    let subject = "$JS.API.META.LEADER.STEPDOWN";
    let stepped_down =
        json!({"type": "io.nats.jetstream.api.v1.meta_leader_stepdown_response", "success": true});
    assert_eq!(ask_leader(&admin, subject, "").await, stepped_down);
    // Whoever is preferred either takes over or leads already: asked a second time, it does.
    let preferred = json!({"placement": {"preferred": "s3"}}).to_string();
    eventually_async("s3 leads the meta group", async || {
        let answer = try_ask(&admin, subject, &preferred).await?;
        let text = answer["error"]["description"].as_str()?.to_owned();
        (text == "preferred server \"s3\" is already leader").then_some(())
    })
    .await;
    create(
        &client,
        "T",
        r#"{"name":"T","subjects":["t.>"],"num_replicas":3}"#,
    )
    .await;
    assert_eq!(ask_leader(&admin, subject, "").await, stepped_down);
    create(&client, "U", r#"{"name":"U","subjects":["u.>"]}"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_purged_and_what_cannot_be_done_is_refused() {
    let servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[2], "a").await,
        connect_as(&servers[0], "admin").await,
    );
    create(&client, "S", STREAM).await;
    for (subject, body, code) in [
        ("$JS.API.SERVER.REMOVE", "", 10003),
        ("$JS.API.SERVER.REMOVE", r#"{"peer":"nobody"}"#, 10044),
        // It runs, and would come back at once.
        ("$JS.API.SERVER.REMOVE", r#"{"peer":"s1"}"#, 10041),
        (
            "$JS.API.META.LEADER.STEPDOWN",
            r#"{"placement":{"preferred":"nobody"}}"#,
            10005,
        ),
        (
            "$JS.API.ACCOUNT.STREAM.MOVE.A.NOPE",
            r#"{"server":"s1"}"#,
            10059,
        ),
    ] {
        let refused = ask_leader(&admin, subject, body).await;
        assert_eq!(refused["error"]["err_code"], code, "{subject} {refused}");
    }
    let nobody = r#"{"peer":"nobody"}"#;
    let refused = ask(&client, "$JS.API.STREAM.PEER.REMOVE.S", nobody).await;
    assert_eq!(refused["error"]["err_code"], 10040, "{refused}");
    // Only the system account may ask.
    let body = r#"{"placement":{"preferred":"nobody"}}"#;
    assert_eq!(
        try_ask(&client, "$JS.API.META.LEADER.STEPDOWN", body).await,
        None
    );
    assert_eq!(
        ask_leader(&admin, "$JS.API.ACCOUNT.PURGE.A", "").await,
        json!({"type": "io.nats.jetstream.api.v1.account_purge_response", "initiated": true})
    );
    eventually_async("the stream is gone", async || {
        let info = try_ask(&client, "$JS.API.STREAM.INFO.S", "").await?;
        (info["error"]["err_code"] == 10059).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_removed_and_the_others_go_on() {
    let mut servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[0], "a").await,
        connect_as(&servers[1], "admin").await,
    );
    create(&client, "S", r#"{"name":"S","subjects":["s.>"]}"#).await;
    let info = ask(&client, "$JS.API.STREAM.DELETE.S", "").await;
    assert_eq!(info["success"], true, "{info}");
    servers[2].kill();
    let (subject, body) = ("$JS.API.SERVER.REMOVE", r#"{"peer":"s3"}"#);
    let removed = eventually_async("the server is not reached any more", async || {
        let answer = try_ask(&admin, subject, body).await?;
        answer["error"].is_null().then_some(answer)
    })
    .await;
    assert_eq!(
        removed,
        json!({"type": "io.nats.jetstream.api.v1.meta_server_remove_response", "success": true})
    );
    let again = ask_leader(&admin, subject, body).await;
    assert_eq!(again["error"]["err_code"], 10044, "{again}");
    let three = ask_leader(&client, "$JS.API.STREAM.CREATE.S", STREAM).await;
    assert_eq!(three["error"]["err_code"], 10005, "{three}");
    create(&client, "T", r#"{"name":"T","subjects":["t.>"]}"#).await;
}

/// The next advisory of a subscription, as soon as it is so.
async fn advisory(heard: &mut async_nats::Subscriber, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let next = tokio::time::timeout_at(deadline, heard.next()).await;
        let message = next.expect("an advisory").expect("a subscription");
        let advisory: Value = serde_json::from_slice(&message.payload).expect("JSON");
        if so(&advisory) {
            return advisory;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leads_from_now_on_is_told() {
    let servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[0], "a").await,
        connect_as(&servers[1], "admin").await,
    );
    let subscribe = async |client: &Client, subject: &'static str| {
        let heard = client.subscribe(subject).await.expect("it listens");
        client.flush().await.expect("it is heard");
        heard
    };
    let of_stream = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.S";
    let of_consumer = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.S.C";
    let of_domain = "$JS.EVENT.ADVISORY.DOMAIN.LEADER_ELECTED";
    let mut stream = subscribe(&client, of_stream).await;
    let mut consumer = subscribe(&client, of_consumer).await;
    let mut everywhere = subscribe(&admin, of_stream).await;
    let mut domain = subscribe(&admin, of_domain).await;
    create(&client, "S", STREAM).await;
    let made = r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    ask_leader(&client, "$JS.API.CONSUMER.DURABLE.CREATE.S.C", made).await;
    let leader = eventually_async("somebody leads", async || stream_leader(&client).await).await;
    let preferred = another(&leader);
    let body = json!({"placement": {"preferred": preferred}}).to_string();
    ask_leader(&client, "$JS.API.STREAM.LEADER.STEPDOWN.S", &body).await;
    let told = advisory(&mut stream, |told| told["leader"] == preferred).await;
    assert_eq!(
        told["type"],
        "io.nats.jetstream.advisory.v1.stream_leader_elected"
    );
    assert_eq!(
        (&told["stream"], &told["account"]),
        (&json!("S"), &Value::Null)
    );
    let told = advisory(&mut everywhere, |told| told["leader"] == preferred).await;
    assert_eq!(told["account"], "A", "{told}");
    let told = advisory(&mut consumer, |told| told["leader"] == preferred).await;
    assert_eq!(told["consumer"], "C", "{told}");
    eventually_async("another server leads the meta group", async || {
        let answer = try_ask(&admin, "$JS.API.META.LEADER.STEPDOWN", "").await?;
        answer["error"].is_null().then_some(())
    })
    .await;
    let told = advisory(&mut domain, |told| told["cluster"] == "tri").await;
    assert_eq!(
        told["type"],
        "io.nats.jetstream.advisory.v1.domain_leader_elected"
    );
}
