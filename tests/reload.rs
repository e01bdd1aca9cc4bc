//! A new configuration is taken up while the server runs, whole or not at all.

mod common;

use std::path::Path;
use std::time::Duration;

use async_nats::ConnectOptions;
use common::{Server, ServerOptions, Wire, eventually, http_get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// Puts this into the file and has the server read it; `told` is what it says of it.
#[track_caller]
fn reload(server: &mut Server, config: &str, told: &str) {
    server.write_config(config);
    server.signal(Signal::HUP);
    server.wait_for_log(told);
}

fn login(user: &str, password: &str) -> String {
    format!(r#"{{"verbose":false,"protocol":1,"user":"{user}","pass":"{password}"}}"#)
}

fn start(config: &str) -> Server {
    ServerOptions::default().config(config).monitoring().start()
}

#[track_caller]
fn max_payload(server: &Server) -> u64 {
    let varz = http_get(server.monitor_address(), "/varz").unwrap().body;
    let varz: Value = serde_json::from_str(&varz).unwrap();
    varz["max_payload"].as_u64().unwrap()
}

#[test]
fn users_that_are_gone_or_changed_are_let_go_and_the_others_stay() {
    let users = |list: &str, payload: u32| {
        format!("authorization {{ users: [ {list} ] }}\nmax_payload: {payload}")
    };
    let hash = bcrypt::hash("h", 4).unwrap();
    let before = format!(
        "{{user: gone, password: gone}}, {{user: changed, password: old}}, {{user: stays, password: stays}}, {{user: hashed, password: '{hash}'}}"
    );
    let mut server = start(&users(&before, 1000));
    let mut gone = Wire::ready(server.address(), &login("gone", "gone"));
    let mut changed = Wire::ready(server.address(), &login("changed", "old"));
    let mut stays = Wire::ready(server.address(), &login("stays", "stays"));
    let mut hashed = Wire::ready(server.address(), &login("hashed", "h"));
    let after = format!(
        "{{user: changed, password: new}}, {{user: stays, password: stays}}, {{user: hashed, password: '{hash}'}}, {{user: comes, password: comes}}"
    );
    reload(
        &mut server,
        &users(&after, 2000),
        "Reloaded: max_payload = 2000",
    );
    assert_eq!(gone.expect_closed(), "");
    assert_eq!(
        changed.expect_closed(),
        "-ERR 'Authorization Violation'\r\n"
    );
    stays.round_trip();
    hashed.round_trip();
    Wire::ready(server.address(), &login("comes", "comes"));
    Wire::ready(server.address(), &login("changed", "new"));
    let mut refused = Wire::connect(server.address());
    refused.expect("\r\n");
    refused.send(format!("CONNECT {}\r\nPING\r\n", login("gone", "gone")));
    assert!(refused.expect_closed().contains("Authorization Violation"));
    // What else was in the file holds for those who stayed, too.
    stays.send(format!("PUB a 1500\r\n{}\r\n", "x".repeat(1500)));
    stays.round_trip();
}

#[test]
fn permissions_hold_for_clients_that_are_there() {
    let user = |permissions: &str| {
        format!(
            "authorization {{ users: [ {{user: a, password: a, permissions: {{ {permissions} }} }} ] }}"
        )
    };
    let mut server = start(&user("publish: '>', subscribe: '>'"));
    let mut wire = Wire::ready(server.address(), &login("a", "a"));
    wire.send("SUB _INBOX.> 1\r\nSUB news.> group 2\r\nSUB open.> 3\r\n");
    wire.round_trip();
    let narrow = user("publish: 'open.>', subscribe: { allow: ['open.>'], deny: 'open.secret' }");
    reload(&mut server, &narrow, "Reloaded server configuration");
    let mut told = wire.expect("(sid ");
    told += &wire.expect("(sid ");
    wire.round_trip();
    assert!(
        told.contains("Permissions Violation for Subscription to \"_INBOX.>\" (sid "),
        "{told}"
    );
    assert!(
        told.contains(
            "Permissions Violation for Subscription to \"news.>\" using queue \"group\" (sid "
        ),
        "{told}"
    );
    wire.send("PUB open.x 0\r\n\r\nPUB open.secret 0\r\n\r\nPUB news.x 0\r\n\r\n");
    let heard = wire.expect("Permissions Violation for Publish to \"news.x\"");
    assert!(heard.contains("MSG open.x 3 0"), "{heard}");
    assert!(!heard.contains("open.secret"), "{heard}");
    let wide = user("publish: '>'");
    reload(
        &mut server,
        &format!("{wide}\nmax_payload: 7000"),
        "max_payload = 7000",
    );
    wire.round_trip();
    wire.send("PUB open.secret 0\r\n\r\n");
    wire.expect("MSG open.secret 3 0");
}

#[test]
fn what_cannot_change_or_is_wrong_leaves_everything_as_it_was() {
    let mut server = start("max_payload: 1000");
    for (config, told) in [
        (
            "max_payload: 2000, max_pending: 5MB",
            "config reload not supported for MaxPending",
        ),
        (
            "max_payload: 2000, server_name: other",
            "config reload not supported for ServerName",
        ),
        (
            "max_payload: 2000, lame_duck_duration: '3m'",
            "config reload not supported for LameDuckDuration",
        ),
        (
            "max_payload: 2000, nonsense: 1",
            "unknown field \"nonsense\"",
        ),
        (
            "max_payload: 2000\ntls { cert_file: 'no.pem', key_file: 'no.key' }",
            "error reading no.key",
        ),
        ("max_payload: {", "Parse error"),
    ] {
        reload(&mut server, config, told);
        let failed = "Failed to reload server configuration";
        assert!(server.wait_for_log(told).contains(failed), "{config}");
        assert_eq!(max_payload(&server), 1000, "{config}");
    }
    reload(
        &mut server,
        "max_payload: 3000",
        "Reloaded: max_payload = 3000",
    );
    eventually("the new limit", || {
        (max_payload(&server) == 3000).then_some(())
    });
    let varz = http_get(server.monitor_address(), "/varz").unwrap().body;
    let varz: Value = serde_json::from_str(&varz).unwrap();
    assert_ne!(varz["config_load_time"], varz["start"]);
}

#[test]
fn limits_timing_and_mappings_change_for_those_who_are_there() {
    let mut server = start("max_connections: 10");
    let mut first = Wire::ready(server.address(), &login("", ""));
    first.send("SUB to.> 1\r\n");
    first.round_trip();
    let mut second = Wire::ready(server.address(), &login("", ""));
    let config = "max_connections: 1, max_payload: 10, ping_interval: '100ms', ping_max: 100, mappings { from: to.b }";
    reload(
        &mut server,
        config,
        "Closed 1 connections to fall within max_connections",
    );
    assert!(
        second
            .expect_closed()
            .contains("maximum connections exceeded")
    );
    first.expect("PING\r\n");
    first.send("PUB from 2\r\nhi\r\n");
    first.expect("MSG to.b 1 2\r\nhi\r\n");
    first.send("PUB to.c 11\r\nhello world\r\n");
    assert!(first.expect_closed().contains("Maximum Payload Violation"));
}

#[test]
fn the_log_changes_place_and_level_and_flags_still_win() {
    let config = |more: &str| format!("max_payload: 1000\n{more}");
    let mut server = ServerOptions::default().config(&config("")).start();
    let path = server.directory().join("other.log");
    reload(
        &mut server,
        &config("debug: true"),
        "Reloaded: debug = true",
    );
    drop(Wire::ready(server.address(), "{\"verbose\":false}"));
    server.wait_for_log("[DBG]");
    let moved = config(&format!(
        "debug: true, trace: true, log_file: '{}'",
        path.display()
    ));
    server.write_config(&moved);
    server.signal(Signal::HUP);
    let logged = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the other log", || {
        logged()
            .contains("Reloaded server configuration")
            .then_some(())
    });
    let mut wire = Wire::ready(server.address(), "{\"verbose\":false,\"pass\":\"secret\"}");
    wire.send("SUB traced 1\r\n");
    wire.round_trip();
    eventually("the protocol in the log", || {
        logged().contains("<<- [SUB traced 1]").then_some(())
    });
    assert!(!logged().contains("secret"));

    let mut server = ServerOptions::default()
        .config("debug: false, max_payload: 1000")
        .arguments(["-D"])
        .start();
    reload(
        &mut server,
        "debug: false, max_payload: 2000",
        "Reloaded: max_payload = 2000",
    );
    drop(Wire::ready(server.address(), "{\"verbose\":false}"));
    let before = server.log().matches("Client connection closed").count();
    drop(Wire::ready(server.address(), "{\"verbose\":false}"));
    eventually("lines for debugging", || {
        (server.log().matches("Client connection closed").count() > before).then_some(())
    });
}

/// Makes an authority and a certificate for the loopback address.
fn certificate(folder: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let write = |file: String, text: String| std::fs::write(folder.join(file), text).unwrap();
    write(format!("{name}-ca.pem"), authority.pem());
    write("server.pem".into(), certificate.pem());
    write("server.key".into(), key.serialize_pem());
}

#[tokio::test]
async fn renewed_certificates_are_shown_to_who_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "old");
    let path = folder.path().display();
    let config = |payload: u32| {
        format!(
            "max_payload: {payload}\ntls {{ cert_file: '{path}/server.pem', key_file: '{path}/server.key' }}"
        )
    };
    let mut server = start(&config(1000));
    let trusting = |name: &str| {
        let authority = folder.path().join(format!("{name}-ca.pem"));
        ConnectOptions::new()
            .add_root_certificates(authority)
            .require_tls(true)
    };
    let there = trusting("old").connect(server.url()).await.unwrap();
    certificate(folder.path(), "new");
    reload(&mut server, &config(2000), "Reloaded: tls = enabled");
    server.wait_for_log("Reloaded server configuration");
    let new = trusting("new").connect(server.url()).await.unwrap();
    new.flush().await.unwrap();
    trusting("old")
        .connect(server.url())
        .await
        .expect_err("that authority has not signed it");
    // Who was there is not asked again.
    tokio::time::timeout(PATIENCE, there.flush())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_system_account_reloads_a_server_and_lets_connections_go() {
    let config = |payload: u32| {
        format!(
            "max_payload: {payload}\naccounts {{ $SYS {{ users: [{{user: admin, password: admin}}] }} }}"
        )
    };
    let mut server = start(&config(1000));
    let admin = ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(server.url()).await.unwrap();
    let id = admin.server_info().server_id;
    let ask = async |what: &str, body: &str| -> Value {
        let subject = format!("$SYS.REQ.SERVER.{id}.{what}");
        let answer = admin
            .request(subject, body.to_owned().into())
            .await
            .unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    server.write_config(&config(2000));
    let answer = ask("RELOAD", "").await;
    assert!(
        answer["server"]["id"].is_string() && answer.get("error").is_none(),
        "{answer}"
    );
    assert_eq!(max_payload(&server), 2000);
    server.write_config("max_pending: 5MB");
    let answer = ask("RELOAD", "").await;
    let description = answer["error"]["description"].as_str().unwrap().to_owned();
    assert!(description.contains("not supported for"), "{answer}");

    let mut wire = Wire::connect(server.address());
    let info: Value = serde_json::from_str(&wire.expect("\r\n")["INFO ".len()..]).unwrap();
    let target = format!("{{\"cid\":{}}}", info["client_id"]);
    wire.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n");
    wire.round_trip();
    let answer = ask("LDM", &target).await;
    assert!(answer.get("error").is_none(), "{answer}");
    wire.expect("\"ldm\":true");
    ask("KICK", &target).await;
    wire.expect_closed();
    let answer = ask("KICK", &target).await;
    assert_eq!(
        answer["error"]["description"],
        "no such client or leafnode id"
    );
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let server = Server::core();
    server.signal(Signal::HUP);
    server.wait_for_log("can only reload config when a file is provided using -c or --config");
}

#[test]
fn clients_are_told_the_address_that_is_advertised() {
    let mut server = start("client_advertise: 'one.example:9999'");
    let told = |server: &Server| -> (String, u64) {
        let mut wire = Wire::connect(server.address());
        let info: Value = serde_json::from_str(&wire.expect("\r\n")["INFO ".len()..]).unwrap();
        let host = info["host"].as_str().unwrap().to_owned();
        (host, info["port"].as_u64().unwrap())
    };
    assert_eq!(told(&server), ("one.example".into(), 9999));
    reload(
        &mut server,
        "client_advertise: two.example",
        "Reloaded: client_advertise = two.example",
    );
    let port = u64::from(server.address().port());
    assert_eq!(told(&server), ("two.example".into(), port));
    reload(&mut server, "max_payload: 9", "Reloaded: max_payload = 9");
    assert_eq!(told(&server), ("127.0.0.1".into(), port));
}
