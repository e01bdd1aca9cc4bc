//! Three servers of one cluster that are asked to let others lead.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Members, Server, Wire, eventually, eventually_async, http_get};
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};

const STREAM: &str = r#"{"name":"S","subjects":["s.>"],"num_replicas":3}"#;

/// Servers `s1`, `s2` and `s3`, with what stands beside the cluster in their configuration.
fn three_servers(beside: &str) -> Vec<Server> {
    let members = Members::of("tri").beside(beside);
    let tagged = members.each(|at| format!("server_tags: ['tag:s{at}', all]"));
    tagged.start::<3>()
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
async fn a_consumer_can_be_made_as_soon_as_its_stream_is_answered() {
    let servers = tokio::task::spawn_blocking(|| three_servers(""));
    let servers = servers.await.expect("three servers");
    for (at, server) in servers.iter().enumerate() {
        let client = connect(server).await;
        for number in 0..12 {
            let name = format!("S{at}-{number}");
            let config = format!(r#"{{"name":"{name}","subjects":["{name}"],"num_replicas":3}}"#);
            create(&client, &name, &config).await;
            let consumer = format!(
                r#"{{"stream_name":"{name}","config":{{"durable_name":"C","ack_policy":"explicit"}}}}"#
            );
            let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.C");
            let made = ask(&client, &subject, &consumer).await;
            assert!(made["error"].is_null(), "{name}: {made}");
        }
    }
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

/// A step-down request whose next leader is to have these tags.
fn tagged(tags: &[&str]) -> String {
    json!({"placement": {"tags": tags}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_tags_that_a_request_names_leads_next() {
    let servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[0], "a").await,
        connect_as(&servers[1], "admin").await,
    );
    create(&client, "S", STREAM).await;
    let consumer = r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    ask_leader(&client, "$JS.API.CONSUMER.DURABLE.CREATE.S.C", consumer).await;
    for subject in [
        "$JS.API.STREAM.LEADER.STEPDOWN.S",
        "$JS.API.CONSUMER.LEADER.STEPDOWN.S.C",
    ] {
        let leader =
            eventually_async("somebody leads", async || stream_leader(&client).await).await;
        let next = another(&leader);
        let tag = format!("TAG:{next}");
        let answer = ask_leader(&client, subject, &tagged(&["all", &tag])).await;
        assert_eq!(answer["success"], true, "{answer}");
        eventually_async("the server with the tags leads", async || {
            (stream_leader(&client).await? == next).then_some(())
        })
        .await;
        let none = ask_leader(&client, subject, &tagged(&["tag:s1", "tag:s2"])).await;
        assert_eq!(none["error"]["err_code"], 10005, "{none}");
    }
    let subject = "$JS.API.META.LEADER.STEPDOWN";
    let none = ask_leader(&admin, subject, &tagged(&["nowhere"])).await;
    assert_eq!(none["error"]["err_code"], 10005, "{none}");
    // Asked a second time, the server with the tag leads already, and nobody else has it.
    eventually_async("s2 leads the meta group", async || {
        let answer = try_ask(&admin, subject, &tagged(&["tag:s2"])).await?;
        (answer["error"]["err_code"] == 10005).then_some(())
    })
    .await;
    let preferred = json!({"placement": {"preferred": "s2"}}).to_string();
    let answer = ask_leader(&admin, subject, &preferred).await;
    let text = "preferred server \"s2\" is already leader";
    assert_eq!(answer["error"]["description"], text, "{answer}");
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

/// What a server says of its health, and the status.
fn health(server: &Server) -> Option<(u16, String)> {
    let answer = http_get(server.monitor_address(), "/healthz").ok()?;
    Some((answer.status, answer.body))
}

/// How many servers the meta group has, as a server shows it; nothing where JetStream is off.
fn cluster_size(server: &Server) -> Option<u64> {
    let answer = http_get(server.monitor_address(), "/jsz").ok()?;
    let shown: Value = serde_json::from_str(&answer.body).ok()?;
    shown["meta_cluster"]["cluster_size"].as_u64()
}

/// Removes a server that runs: it ends its JetStream, the others go on, and no reload brings it back. Its next start joins again, or it does when JetStream is
/// switched off and on.
async fn remove_one_that_runs(leads_meta: bool) {
    let mut servers = three_servers(ACCOUNTS);
    let (client, admin) = (
        connect_as(&servers[0], "a").await,
        connect_as(&servers[0], "admin").await,
    );
    create(&client, "S", STREAM).await;
    assert_eq!(publish(&client).await, 1);
    let leader = eventually_async("somebody leads", async || {
        let answer = http_get(servers[0].monitor_address(), "/jsz").ok()?;
        let shown: Value = serde_json::from_str(&answer.body).ok()?;
        shown["meta_cluster"]["leader"].as_str().map(str::to_owned)
    })
    .await;
    let gone = match leads_meta {
        true => leader,
        false => ["s2", "s3"]
            .into_iter()
            .find(|name| *name != leader)
            .expect("another")
            .to_owned(),
    };
    let at = gone[1..].parse::<usize>().expect("a number") - 1;
    let other = (at + 1) % 3;
    let (client, admin) = match at {
        0 => (
            connect_as(&servers[other], "a").await,
            connect_as(&servers[other], "admin").await,
        ),
        _ => (client, admin),
    };
    let from_there = connect_as(&servers[at], "a").await;
    let its_id = from_there.server_info().server_id;
    let mut told = admin
        .subscribe("$JS.EVENT.ADVISORY.SERVER.REMOVED")
        .await
        .expect("it listens");
    admin.flush().await.expect("it is heard");
    let (subject, body) = ("$JS.API.SERVER.REMOVE", json!({"peer": gone}).to_string());
    let removed = ask_leader(&admin, subject, &body).await;
    assert_eq!(removed["success"], true, "{removed}");
    let told = advisory(&mut told, |_| true).await;
    assert_eq!(
        (&told["server"], &told["server_id"], &told["cluster"]),
        (&json!(gone), &json!(its_id), &json!("tri"))
    );

    eventually("its JetStream ends", || {
        let (status, body) = health(&servers[at])?;
        (status == 503 && body.contains("JetStream not enabled")).then_some(())
    });
    assert_eq!(cluster_size(&servers[at]), None);
    let others = (0..3).filter(|one| *one != at);
    for one in others {
        eventually("the others are two", || {
            (cluster_size(&servers[one])? == 2).then_some(())
        });
        eventually("the others are well", || {
            (health(&servers[one])?.0 == 200).then_some(())
        });
    }
    assert_eq!(publish(&client).await, 2);
    assert_eq!(publish(&from_there).await, 3, "others answer");
    let info = ask_leader(&from_there, "$JS.API.STREAM.INFO.S", "").await;
    assert_eq!(info["state"]["messages"], 3, "{info}");
    let again = ask_leader(&admin, subject, &body).await;
    assert_eq!(again["error"]["err_code"], 10044, "{again}");

    let file = servers[at].directory().join("server.conf");
    let config = std::fs::read_to_string(file).expect("its configuration");
    servers[at].reload(&config);
    servers[at].wait_for_log("JetStream stays off: our server was removed from the cluster");
    assert_eq!(cluster_size(&servers[at]), None);
    if leads_meta {
        servers[at].stop();
        servers[at].start_again();
    } else {
        let off = config.replace("jetstream {", "jetstream { enabled: false,");
        servers[at].reload(&off);
        servers[at].reload(&config);
    }
    servers[at].wait_for_log("joins again under a new id");
    eventually("it is one of three again", || {
        (cluster_size(&servers[at])? == 3 && health(&servers[at])?.0 == 200).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_is_removed_and_comes_back_when_jetstream_is_switched_off_and_on() {
    remove_one_that_runs(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_leads_is_removed_and_comes_back_with_its_next_start() {
    remove_one_that_runs(true).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_lame_duck_mode_has_others_lead_before_it_stops() {
    let beside = format!("{ACCOUNTS}\nlame_duck_duration: '60s', lame_duck_grace_period: '30s'");
    let mut servers = three_servers(&beside);
    let client = connect_as(&servers[0], "a").await;
    let admin = connect_as(&servers[0], "admin").await;
    create(&client, "S", STREAM).await;
    assert_eq!(publish(&client).await, 1);
    // Not the server that the clients are at.
    let body = json!({"placement": {"preferred": "s2"}}).to_string();
    ask_leader(&client, "$JS.API.STREAM.LEADER.STEPDOWN.S", &body).await;
    eventually_async("s2 leads the stream", async || {
        (stream_leader(&client).await? == "s2").then_some(())
    })
    .await;
    ask_leader(&admin, "$JS.API.META.LEADER.STEPDOWN", &body).await;
    let mut told = admin.subscribe("$SYS.SERVER.*.LAMEDUCK").await.unwrap();
    admin.flush().await.unwrap();
    // It waits for this client, which is told to go.
    let mut held = Wire::ready(
        servers[1].address(),
        r#"{"user":"a","pass":"a","verbose":false,"protocol":1}"#,
    );
    servers[1].signal(Signal::USR2);
    let event = tokio::time::timeout(Duration::from_secs(20), told.next()).await;
    let event = event.expect("told in time").expect("subscribed");
    let event: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event["name"], "s2");
    held.expect("\"ldm\":true");
    let log = servers[1].log();
    for unexpected in ["found no other leader", "found another leader in time"] {
        assert!(!log.contains(unexpected), "{log}");
    }
    // The others were made leaders; nobody had to notice that one was gone.
    let leader = stream_leader(&client).await;
    assert!(matches!(leader.as_deref(), Some("s1" | "s3")), "{leader:?}");
    assert_eq!(publish(&client).await, 2);
    drop(held);
    servers[1].kill();
}
