//! Why connections ended, as `/connz?state=closed` tells it: the words are the reference's.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, http_get};
use rustix::process::Signal;
use serde_json::Value;

const CONFIG: &str = r#"
    max_connections: 4, max_payload: 1000, max_pending: 1000000, write_deadline: "1s"
    ping_interval: "300ms", ping_max: 2
    accounts {
      A { users: [ {user: a, password: a} ], limits: { max_conn: 3 } }
      SYS { users: [ {user: s, password: s} ] }
    }
    system_account: SYS
    authorization { timeout: 1 }
"#;

fn start() -> Server {
    ServerOptions::default().config(CONFIG).monitoring().start()
}

fn connect(name: &str, more: &str) -> String {
    format!(
        "CONNECT {{\"user\":\"a\",\"pass\":\"a\",\"verbose\":false,\"name\":\"{name}\"{more}}}\r\n"
    )
}

fn closed(server: &Server) -> BTreeMap<String, String> {
    let answer = http_get(server.monitor_address(), "/connz?state=closed").unwrap();
    let value: Value = serde_json::from_str(&answer.body).unwrap();
    let connections = value["connections"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    connections
        .iter()
        .map(|one| (text(&one["name"]), text(&one["reason"])))
        .collect()
}

#[track_caller]
fn ended(server: &Server, name: &str, reason: &str) {
    let seen = eventually("the connection is among those that ended", || {
        closed(server).get(name).cloned()
    });
    assert_eq!(seen, reason, "{name}");
}

#[test]
fn what_a_client_says_wrong_is_named() {
    let server = start();
    let headers = r#","headers":true"#;
    let long = format!("PUB {} 0\r\n", "a".repeat(6000));
    for (name, more, said, reason) in [
        ("unknown", "", "HELLO\r\n", "Protocol Violation"),
        ("words", "", "PUB a b c d\r\n", "Protocol Violation"),
        ("json", "", "CONNECT {bad\r\n", "Protocol Violation"),
        ("end", "", "PUB a 2\r\nabcd\r\n", "Protocol Violation"),
        ("headers", "", "HPUB a 12 12\r\n", "Protocol Violation"),
        ("sizes", headers, "HPUB a 12 10\r\n", "Protocol Violation"),
        ("error", "", "-ERR 'no'\r\n", "Parse Error"),
        ("line", "", &long, "Maximum Control Line Exceeded"),
        (
            "payload",
            "",
            "PUB a 1001\r\n",
            "Maximum Message Payload Exceeded",
        ),
        (
            "level",
            r#","protocol":7"#,
            "",
            "Bad Client Protocol Version",
        ),
        (
            "responders",
            r#","no_responders":true"#,
            "",
            "No Responders Requires Headers",
        ),
        ("account", r#","account":"B""#, "", "Authentication Failure"),
    ] {
        let mut wire = Wire::connect(server.address());
        wire.send(connect(name, more));
        wire.send(said);
        wire.expect_closed();
        ended(&server, name, reason);
    }
}

#[test]
fn who_leaves_waits_or_is_one_too_many_is_named() {
    let server = start();
    let mut wire = Wire::connect(server.address());
    wire.send(connect("leaves", ""));
    wire.round_trip();
    drop(wire);
    ended(&server, "leaves", "Client Closed");

    let mut wire = Wire::connect(server.address());
    wire.send(connect("wrong", "").replace("\"pass\":\"a\"", "\"pass\":\"b\""));
    wire.expect("Authorization Violation");
    ended(&server, "wrong", "Authentication Failure");

    let mut silent = Wire::connect(server.address());
    silent.send(connect("silent", ""));
    silent.expect("Stale Connection");
    ended(&server, "silent", "Stale Connection");
}

#[test]
fn who_never_says_who_it_is_is_named() {
    // Who is pinged often is stale before its time is over.
    let config = CONFIG.replace("300ms", "60s");
    let server = ServerOptions::default()
        .config(&config)
        .monitoring()
        .start();
    let mut wire = Wire::connect(server.address());
    wire.expect("Authentication Timeout");
    wire.expect_closed();
    ended(&server, "", "Authentication Timeout");
}

/// A client that has been heard of when its PONG comes.
fn alive(server: &Server, user: &str, name: &str) -> Wire {
    let said = connect(name, "").replace("\"a\"", &format!("\"{user}\""));
    let mut wire = Wire::connect(server.address());
    wire.send(said);
    wire.send("PING\r\n");
    wire
}

#[test]
fn limits_of_the_account_and_of_the_server_are_told_apart() {
    // Nobody is pinged away meanwhile.
    let config = CONFIG.replace("300ms", "60s");
    let mut server = ServerOptions::default()
        .config(&config)
        .monitoring()
        .start();
    let mut held: Vec<Wire> = ["held", "kept", "spare"]
        .map(|name| alive(&server, "a", name))
        .into();
    let greetings: Vec<String> = held.iter_mut().map(|wire| wire.expect("PONG")).collect();
    let mut fourth = alive(&server, "a", "fourth");
    fourth.expect("maximum account active connections exceeded");
    fourth.expect_closed();
    ended(&server, "fourth", "Maximum Account Connections Exceeded");
    let mut other = alive(&server, "s", "other");
    other.expect("PONG");
    let mut fifth = Wire::connect(server.address());
    fifth.expect("maximum connections exceeded");
    fifth.expect_closed();
    ended(&server, "", "Maximum Connections Exceeded");

    // One that is asked to go by an operator.
    let connz = http_get(server.monitor_address(), "/connz").unwrap();
    let connz: Value = serde_json::from_str(&connz.body).unwrap();
    let id = connz["server_id"].as_str().unwrap();
    // The round trip was measured once it had answered, or from its first line on.
    assert!(connz["connections"][0]["rtt"].is_string(), "{connz}");
    let cid = greetings[0].split("\"client_id\":").nth(1).unwrap();
    let cid = cid.split(',').next().unwrap();
    let order = format!("{{\"cid\":{cid}}}");
    other.send(format!(
        "PUB $SYS.REQ.SERVER.{id}.KICK _INBOX.k {}\r\n{order}\r\n",
        order.len()
    ));
    held[0].expect_closed();
    ended(&server, "held", "Kicked");

    // A limit that a reload lowers.
    held[1].send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n");
    held[1].round_trip();
    server.write_config(&config.replace("max_conn: 3", "max_conn: 3, max_subs: 2"));
    server.signal(Signal::HUP);
    held[1].expect("maximum subscriptions exceeded");
    held[1].expect_closed();
    ended(&server, "kept", "Maximum Subscriptions Exceeded");
}

#[test]
fn who_does_not_keep_up_is_named_by_what_ran_out() {
    let config = CONFIG
        .replace("300ms", "60s")
        .replace("max_payload: 1000,", "max_payload: 900000,");
    let server = ServerOptions::default()
        .config(&config)
        .monitoring()
        .start();
    let mut publisher = alive(&server, "a", "publisher");
    publisher.expect("PONG");
    let mut slow = alive(&server, "a", "bytes");
    slow.send("SUB many 1\r\n");
    slow.round_trip();
    let message = format!("PUB many 300000\r\n{}\r\n", "x".repeat(300_000));
    eventually("too much waits for it", || {
        publisher.send(&message);
        publisher.round_trip();
        closed(&server).contains_key("bytes").then_some(())
    });
    ended(&server, "bytes", "Slow Consumer (Pending Bytes)");

    let mut slow = alive(&server, "a", "time");
    slow.send("SUB few 1\r\n");
    slow.round_trip();
    // As much as its socket takes, and a little more that stays below the limit.
    let message = format!("PUB few 50000\r\n{}\r\n", "x".repeat(50_000));
    let pending = || {
        let answer = http_get(server.monitor_address(), "/connz").unwrap();
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        let connections = value["connections"].as_array().unwrap().clone();
        let slow = connections.into_iter().find(|one| one["name"] == "time");
        slow.map_or(1, |one| one["pending_bytes"].as_u64().unwrap_or(0))
    };
    while pending() == 0 {
        publisher.send(&message);
        publisher.round_trip();
    }
    std::thread::sleep(Duration::from_millis(10));
    ended(&server, "time", "Slow Consumer (Write Deadline)");
}
