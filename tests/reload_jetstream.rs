//! What a reload changes of JetStream: whether there is one, who has it, and how much it may hold.

mod common;

use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, ConnectOptions};
use common::{Server, ServerOptions, eventually, eventually_async, free_ports, http_get};
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::Value;

#[track_caller]
fn is_refused(server: &mut Server, config: &str, reason: &str) {
    server.write_config(config);
    server.signal(Signal::HUP);
    server.wait_for_log(&format!("config reload not supported for {reason}"));
}

async fn client(server: &Server, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), "p".into());
    options.connect(server.url()).await.unwrap()
}

async fn streams(server: &Server, user: &str) -> Context {
    let mut context = jetstream::new(client(server, user).await);
    context.set_timeout(Duration::from_secs(10));
    context
}

async fn messages(context: &Context, stream: &str) -> u64 {
    let mut stream = context.get_stream(stream).await.unwrap();
    stream.info().await.unwrap().state.messages
}

async fn publish(context: &Context, subject: &'static str) {
    let ack = context.publish(subject, "x".into()).await.unwrap();
    ack.await.unwrap();
}

/// What `$JS.API.INFO` answers.
async fn ask(server: &Server, user: &str) -> String {
    let asked = client(server, user).await;
    match asked.request("$JS.API.INFO", "".into()).await {
        Ok(answer) => String::from_utf8_lossy(&answer.payload).into_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn jetstream_begins_and_ends_and_what_it_holds_comes_back() {
    let on = "jetstream { store_dir: '@DIR@/js' }";
    let mut server = ServerOptions::default()
        .config("max_payload: 1000")
        .monitoring()
        .start();
    assert!(ask(&server, "").await.contains("no responders"));
    server.reload(on);
    let context = streams(&server, "").await;
    for storage in [stream::StorageType::File, stream::StorageType::Memory] {
        let config = stream::Config {
            name: format!("{storage:?}"),
            subjects: vec![format!("{storage:?}.>")],
            storage,
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
    }
    publish(&context, "File.a").await;
    publish(&context, "Memory.a").await;
    let health = |server: &Server| http_get(server.monitor_address(), "/healthz").unwrap();
    assert!(health(&server).body.contains("ok"));
    assert!(client(&server, "").await.server_info().jetstream);

    server.reload("jetstream: disabled");
    assert!(ask(&server, "").await.contains("no responders"));
    assert!(!client(&server, "").await.server_info().jetstream);
    assert!(health(&server).body.contains("ok"));
    let jsz = http_get(server.monitor_address(), "/jsz").unwrap().body;
    let jsz: Value = serde_json::from_str(&jsz).unwrap();
    assert_eq!(jsz["disabled"], true);

    server.reload(on);
    assert_eq!(messages(&context, "File").await, 1);
    // Memory is forgotten, the stream is not.
    assert_eq!(messages(&context, "Memory").await, 0);
    publish(&context, "File.b").await;
    server.kill();
    server.start_again();
    let context = streams(&server, "").await;
    assert_eq!(messages(&context, "File").await, 2);
}

#[tokio::test]
async fn an_account_gets_jetstream_loses_it_and_finds_what_it_had() {
    let config = |a: &str, b: &str, more: &str| {
        format!(
            "jetstream {{ store_dir: '@DIR@/js' }}\n\
             accounts {{ A {{ users: [{{user: a, password: p}}], {a} }}, B {{ users: [{{user: b, password: p}}], {b} }} {more} }}"
        )
    };
    let with = "jetstream: enabled";
    let mut server = ServerOptions::default()
        .config(&config(with, "", ""))
        .start();
    let a = streams(&server, "a").await;
    let memory = stream::Config {
        name: "M".into(),
        subjects: vec!["m".into()],
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    a.create_stream(memory.clone()).await.unwrap();
    publish(&a, "m").await;
    assert!(ask(&server, "b").await.contains("10039"));

    // Whoever has it keeps on, in memory, too.
    server.reload(&config(with, with, ""));
    assert_eq!(messages(&a, "M").await, 1);
    let b = streams(&server, "b").await;
    let file = stream::Config {
        name: "F".into(),
        subjects: vec!["f".into()],
        ..Default::default()
    };
    let made = b.create_stream(file).await.unwrap();
    b.create_stream(memory).await.unwrap();
    let durable = jetstream::consumer::pull::Config {
        durable_name: Some("d".into()),
        ..Default::default()
    };
    let consumer = made.create_consumer(durable).await.unwrap();
    for _ in 0..3 {
        publish(&b, "f").await;
    }
    publish(&b, "m").await;
    let mut fetched = consumer.fetch().max_messages(2).messages().await.unwrap();
    for _ in 0..2 {
        let message = fetched.next().await.unwrap().unwrap();
        message.double_ack().await.unwrap();
    }

    // Nobody listens there any more.
    server.reload(&config(with, "", ""));
    assert!(ask(&server, "b").await.contains("10039"));
    let plain = client(&server, "b").await;
    let lost = plain.request("f", "x".into()).await.unwrap_err();
    assert!(lost.to_string().contains("no responders"), "{lost}");
    publish(&a, "m").await;

    server.reload(&config(with, with, ""));
    assert_eq!(messages(&b, "F").await, 3);
    assert_eq!(messages(&b, "M").await, 1);
    publish(&b, "f").await;
    let mut fetched = consumer.fetch().max_messages(5).messages().await.unwrap();
    let mut sequences = Vec::new();
    while let Some(Ok(message)) = fetched.next().await {
        sequences.push(message.info().unwrap().stream_sequence);
        message.double_ack().await.unwrap();
        if sequences.len() == 2 {
            break;
        }
    }
    assert_eq!(sequences, [3, 4]);

    // Also over a start without it, and for an account that comes new.
    server.reload(&config(with, "", ""));
    server.kill();
    server.start_again();
    let plain = client(&server, "b").await;
    assert!(plain.request("f", "x".into()).await.is_err());
    let c = ", C { users: [{user: c, password: p}], jetstream: {max_streams: 1} }";
    server.reload(&config(with, with, c));
    let b = streams(&server, "b").await;
    assert_eq!(messages(&b, "F").await, 4);
    publish(&b, "f").await;
    assert!(ask(&server, "c").await.contains("\"max_streams\":1"));
    server.reload(&config(with, with, ""));
    let a = streams(&server, "a").await;
    assert_eq!(messages(&a, "M").await, 0);
}

#[tokio::test]
async fn tiers_have_limits_of_their_own_which_a_reload_changes() {
    let config = |tiers: &str| {
        format!(
            "jetstream {{ store_dir: '@DIR@/js' }}\n\
             accounts {{ A {{ users: [{{user: a, password: p}}], jetstream: {{ tiers: {{ {tiers} }} }} }} }}"
        )
    };
    let mut server = ServerOptions::default()
        .config(&config("R1: { max_file: 64KB }"))
        .start();
    let a = client(&server, "a").await;
    let ask = async |subject: &str, body: Vec<u8>| -> Value {
        let answer = a.request(subject.to_owned(), body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let make = async |name: &str, more: &str| {
        let config = format!(r#"{{"name":"{name}","subjects":["{name}"]{more}}}"#);
        ask(&format!("$JS.API.STREAM.CREATE.{name}"), config.into()).await
    };
    assert!(make("S", "").await["error"].is_null());
    assert_eq!(
        make("R", r#","num_replicas":3"#).await["error"]["err_code"],
        10120
    );
    assert_eq!(
        make("B", r#","max_bytes":65537"#).await["error"]["err_code"],
        10047
    );
    for _ in 0..7 {
        assert!(ask("S", vec![0; 8 << 10]).await["error"].is_null());
    }
    assert_eq!(
        ask("S", vec![0; 16 << 10]).await["error"]["err_code"],
        10002
    );
    let info = ask("$JS.API.INFO", Vec::new()).await;
    assert_eq!(info["limits"]["max_storage"], 0);
    assert_eq!(info["tiers"]["R1"]["limits"]["max_storage"], 64 << 10);
    assert_eq!(info["tiers"]["R1"]["storage"], info["storage"]);
    assert_eq!(info["tiers"]["R1"]["streams"], 1);
    let reload = |server: &mut Server, tiers: &str| {
        server.reload(&config(tiers));
        server.wait_for_log("Reloaded: JetStream of accounts");
    };
    reload(&mut server, "R1: { max_file: 1MB }, R3: {}");
    assert!(ask("S", vec![0; 16 << 10]).await["error"].is_null());
    // Without limits for those that it has, nothing more is stored.
    reload(&mut server, "R3: { max_file: 1MB }");
    eventually_async("the tier is closed", async || {
        let ack = ask("S", b"x".to_vec()).await;
        (ack["error"]["err_code"] == 10120).then_some(())
    })
    .await;
    let info = ask("$JS.API.INFO", Vec::new()).await;
    assert_eq!(info["tiers"]["R1"]["limits"]["max_storage"], 0, "{info}");
    assert_eq!(info["tiers"]["R3"]["streams"], 0, "{info}");
}

#[tokio::test]
async fn more_may_be_held_and_less_is_refused() {
    let config = |file: &str, account: &str| {
        format!(
            "jetstream {{ store_dir: '@DIR@/js', max_mem: 1MB, max_file: {file} }}\n\
             accounts {{ A {{ users: [{{user: a, password: p}}], jetstream: {{ max_file: {account} }} }} }}"
        )
    };
    let mut server = ServerOptions::default()
        .config(&config("1MB", "64KB"))
        .monitoring()
        .start();
    let a = streams(&server, "a").await;
    let big = |bytes: i64| stream::Config {
        name: format!("S{bytes}"),
        subjects: vec![format!("s{bytes}")],
        max_bytes: bytes,
        ..Default::default()
    };
    let open = stream::Config {
        name: "OPEN".into(),
        subjects: vec!["open".into()],
        ..Default::default()
    };
    a.create_stream(open).await.unwrap();
    let fill = async || -> bool {
        for _ in 0..20 {
            let payload = vec![0u8; 8 << 10];
            let sent = a.publish("open", payload.into()).await.unwrap();
            if sent.await.is_err() {
                return false;
            }
        }
        true
    };
    assert!(!fill().await);
    assert!(a.create_stream(big(2 << 20)).await.is_err());
    server.reload(&config("8MB", "4MB"));
    server.wait_for_log("Reloaded: JetStream max_file_store = 8.00 MB");
    assert!(fill().await);
    a.create_stream(big(2 << 20)).await.unwrap();
    let varz = http_get(server.monitor_address(), "/varz").unwrap().body;
    let varz: Value = serde_json::from_str(&varz).unwrap();
    assert_eq!(varz["jetstream"]["config"]["max_storage"], 8 << 20);
    is_refused(
        &mut server,
        &config("2MB", "4MB"),
        "decreasing jetstream max memory and store",
    );
    let moved = config("8MB", "4MB").replace("@DIR@/js", "@DIR@/other");
    is_refused(&mut server, &moved, "jetstream storage directory");
    let nowhere = config("8MB", "4MB").replace("store_dir: '@DIR@/js', ", "");
    is_refused(&mut server, &nowhere, "jetstream storage dir");
}

/// JetStream, with a store of its own.
const ON: &str = "jetstream { store_dir: '@DIR@/js' }";

/// What stands in the file of each of three servers: which one, whether account B has JetStream, and what is said of JetStream.
fn trio_config() -> impl Fn(usize, &str, &str) -> String {
    let ports: [u16; 3] = free_ports();
    let routes = ports
        .map(|port| format!("'nats://127.0.0.1:{port}'"))
        .join(",");
    move |at, b, jetstream| {
        format!(
            "server_name: s{at}\ncluster {{ name: c, listen: '127.0.0.1:{}', routes: [{routes}] }}\n{jetstream}\n\
             accounts {{ A {{ users: [{{user: a, password: p}}], jetstream: enabled }}, B {{ users: [{{user: b, password: p}}], {b} }} }}",
            ports[at]
        )
    }
}

fn member(config: &str) -> Server {
    ServerOptions::default().config(config).monitoring().start()
}

/// Makes a stream of that kind as soon as the cluster can.
async fn make_like(context: &Context, wanted: stream::Config) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match context.get_or_create_stream(wanted.clone()).await {
            Ok(_) => return,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn replicated(name: &str) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        num_replicas: 3,
        ..Default::default()
    }
}

async fn make(context: &Context, name: &str) {
    make_like(context, replicated(name)).await;
}

/// Publishes as soon as somebody takes it, and says under which sequence.
async fn publish_again(context: &Context, subject: &'static str) -> u64 {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let sent = context.publish(subject, "x".into()).await.unwrap();
        match sent.await {
            Ok(ack) => return ack.sequence,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    }
}

fn jsz(server: &Server, query: &str) -> Value {
    let path = format!("/jsz?{query}");
    let answer = http_get(server.monitor_address(), &path).unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn accounts_and_jetstream_itself_come_and_go_in_a_cluster() {
    let (config, on, with) = (trio_config(), ON, "jetstream: enabled");
    let mut servers: Vec<_> = (0..3).map(|at| member(&config(at, "", on))).collect();
    make(&streams(&servers[0], "a").await, "one").await;
    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, with, on));
    }
    let b = streams(&servers[1], "b").await;
    make(&b, "two").await;
    publish(&b, "two.x").await;
    // A server without it is one that is away; when it has it again, it is a replica as before.
    servers[2].reload(&config(2, with, "jetstream: disabled"));
    let b = streams(&servers[1], "b").await;
    publish_again(&b, "two.y").await;
    servers[2].reload(&config(2, with, on));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let jsz = jsz(&servers[2], "acc=B&streams=true");
        let stream = &jsz["account_details"][0]["stream_detail"][0];
        if stream["state"]["messages"].as_u64() >= Some(2) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{jsz}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[track_caller]
fn is_well(server: &Server) {
    eventually("the server is well", || {
        let health = http_get(server.monitor_address(), "/healthz").unwrap();
        (health.status == 200).then_some(())
    });
}

/// Nobody in account B is heard by JetStream on this server, and all others are well.
async fn is_taken_from_b(server: &Server) {
    is_well(server);
    assert!(ask(server, "b").await.contains("10039"));
    let plain = client(server, "b").await;
    let info = plain.request("$JS.API.STREAM.INFO.three", "".into());
    let info = info.await.unwrap().payload;
    assert!(String::from_utf8_lossy(&info).contains("10039"));
    for subject in ["three.x", "one.x", "memory.x"] {
        let lost = plain.request(subject, "x".into()).await.unwrap_err();
        assert!(lost.to_string().contains("no responders"), "{lost}");
    }
    assert_eq!(jsz(server, "")["accounts"], 1);
    publish_again(&streams(server, "a").await, "a.x").await;
}

#[tokio::test]
async fn an_account_of_a_cluster_loses_jetstream_and_finds_what_it_had() {
    let (config, with) = (trio_config(), "jetstream: enabled");
    let mut servers: Vec<_> = (0..3).map(|at| member(&config(at, with, ON))).collect();
    make(&streams(&servers[0], "a").await, "a").await;
    let b = streams(&servers[0], "b").await;
    make(&b, "three").await;
    let alone = stream::Config {
        num_replicas: 1,
        ..replicated("one")
    };
    make_like(&b, alone).await;
    let in_memory = stream::Config {
        storage: stream::StorageType::Memory,
        ..replicated("memory")
    };
    make_like(&b, in_memory).await;
    for subject in ["three.x", "three.x", "three.x", "one.x", "memory.x"] {
        publish_again(&b, subject).await;
    }
    let durable = jetstream::consumer::pull::Config {
        durable_name: Some("d".into()),
        ..Default::default()
    };
    let three = b.get_stream("three").await.unwrap();
    let consumer = three.create_consumer(durable).await.unwrap();
    let fetch = async |count: usize| -> Vec<u64> {
        let mut sequences = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while sequences.len() < count {
            assert!(std::time::Instant::now() < deadline, "{sequences:?}");
            let fetch = consumer.fetch().max_messages(count - sequences.len());
            let Ok(mut fetched) = fetch.messages().await else {
                continue;
            };
            while let Some(Ok(message)) = fetched.next().await {
                sequences.push(message.info().unwrap().stream_sequence);
                message.double_ack().await.unwrap();
            }
        }
        sequences
    };
    assert_eq!(fetch(2).await, [1, 2]);

    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, "", ON));
    }
    for server in &servers {
        is_taken_from_b(server).await;
    }
    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, with, ON));
    }
    // On whatever server, all is as it was, and goes on.
    let taken = [
        publish_again(&streams(&servers[0], "b").await, "three.x").await,
        publish_again(&streams(&servers[1], "b").await, "one.x").await,
        publish_again(&streams(&servers[2], "b").await, "memory.x").await,
    ];
    assert_eq!(taken, [4, 2, 2]);
    assert_eq!(fetch(2).await, [3, 4]);

    // Also over starts without it.
    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, "", ON));
        server.kill();
    }
    for server in &mut servers {
        server.start_again();
    }
    for server in &servers {
        is_taken_from_b(server).await;
    }
    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, with, ON));
    }
    let b = streams(&servers[1], "b").await;
    assert_eq!(publish_again(&b, "three.x").await, 5);
    assert_eq!(publish_again(&b, "one.x").await, 3);
    publish_again(&b, "memory.x").await;
    let mut info = b.get_stream("three").await.unwrap();
    assert_eq!(info.info().await.unwrap().state.messages, 5);
}

#[tokio::test]
async fn one_server_without_an_account_does_not_lead_for_it_and_keeps_up() {
    let (config, with) = (trio_config(), "jetstream: enabled");
    let mut servers: Vec<_> = (0..3).map(|at| member(&config(at, with, ON))).collect();
    let b = streams(&servers[0], "b").await;
    make(&b, "three").await;
    publish_again(&b, "three.x").await;
    let leader = async |context: &Context| -> Option<usize> {
        let mut stream = context.get_stream("three").await.ok()?;
        let cluster = stream.info().await.ok()?.cluster.clone()?;
        cluster.leader?.trim_start_matches('s').parse().ok()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let led = loop {
        if let Some(led) = leader(&b).await {
            break led;
        }
        assert!(std::time::Instant::now() < deadline, "nobody leads");
    };
    servers[led].reload(&config(led, "", ON));
    let other = (led + 1) % 3;
    let elsewhere = streams(&servers[other], "b").await;
    assert_eq!(publish_again(&elsewhere, "three.x").await, 2);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while leader(&elsewhere).await.is_none_or(|leads| leads == led) {
        assert!(std::time::Instant::now() < deadline, "nobody else leads");
    }
    assert!(ask(&servers[led], "b").await.contains("10039"));
    servers[led].reload(&config(led, with, ON));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let jsz = jsz(&servers[led], "acc=B&streams=true");
        let stream = &jsz["account_details"][0]["stream_detail"][0];
        if stream["state"]["messages"] == 2 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{jsz}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_meta_group_is_compacted_as_a_reload_says() {
    let config = trio_config();
    let often = "jetstream { store_dir: '@DIR@/js', meta_compact: 3, meta_compact_sync: true }";
    let mut servers: Vec<_> = (0..3).map(|at| member(&config(at, "", ON))).collect();
    let a = streams(&servers[0], "a").await;
    for name in ["s1", "s2", "s3", "s4", "s5", "s6"] {
        make(&a, name).await;
    }
    let pending = |server: &Server| {
        let jsz = jsz(server, "");
        jsz["meta_cluster"]["snapshot"]["pending_entries"].as_u64()
    };
    for server in &servers {
        eventually("all is applied", || {
            pending(server).filter(|open| *open >= 6)
        });
    }
    for (at, server) in servers.iter_mut().enumerate() {
        server.reload(&config(at, "", often));
        eventually("it is compacted", || {
            pending(server).filter(|open| *open < 3)
        });
    }
    make(&a, "s7").await;
}

#[tokio::test]
async fn an_account_that_is_gone_from_a_cluster_can_come_back_or_be_emptied() {
    let (config, with) = (trio_config(), "jetstream: enabled");
    let system = "system_account: SYS\naccounts { SYS { users: [{user: s, password: p}] }, ";
    let whole = |at: usize| config(at, with, ON).replace("accounts { ", system);
    let of_b = format!(", B {{ users: [{{user: b, password: p}}], {with} }}");
    let without = |at: usize| whole(at).replace(&of_b, "");
    assert_ne!(whole(0), without(0));
    let mut servers: Vec<_> = (0..3).map(|at| member(&whole(at))).collect();
    let change = |servers: &mut Vec<Server>, config: &dyn Fn(usize) -> String| {
        for (at, server) in servers.iter_mut().enumerate() {
            server.reload(&config(at));
        }
        for server in servers.iter() {
            is_well(server);
        }
    };
    let b = streams(&servers[0], "b").await;
    make(&b, "three").await;
    let alone = stream::Config {
        num_replicas: 1,
        ..replicated("one")
    };
    make_like(&b, alone.clone()).await;
    assert_eq!(publish_again(&b, "three.x").await, 1);
    assert_eq!(publish_again(&b, "one.x").await, 1);

    // It comes back as another account of that name.
    change(&mut servers, &without);
    change(&mut servers, &whole);
    let b = streams(&servers[1], "b").await;
    assert_eq!(publish_again(&b, "three.x").await, 2);
    assert_eq!(publish_again(&b, "one.x").await, 2);

    // What nobody can ask for any more is removed where it rests.
    change(&mut servers, &without);
    let system = client(&servers[0], "s").await;
    let emptied = system.request("$JS.API.ACCOUNT.PURGE.B", "".into()).await;
    let emptied = String::from_utf8_lossy(&emptied.unwrap().payload).into_owned();
    assert!(emptied.contains("\"initiated\":true"), "{emptied}");
    change(&mut servers, &whole);
    let b = streams(&servers[2], "b").await;
    make(&b, "three").await;
    make_like(&b, alone).await;
    assert_eq!(publish_again(&b, "three.x").await, 1);
    assert_eq!(publish_again(&b, "one.x").await, 1);
    for server in &servers {
        assert!(!server.log().contains("set aside"), "{}", server.log());
    }
}
