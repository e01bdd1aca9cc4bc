//! `nats-tool bench` against a real server.

mod server;

use std::process::Command;

use serde_json::Value;
use server::Server;

/// What the tool reports of one server that is named twice, a line for each.
fn report(server: &Server, load: &[&str], arguments: &[&str]) -> Vec<Value> {
    let both = format!("{}={}", server.address, server.process.id());
    let output = Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .arg("bench")
        .args(load)
        .args([
            "--json", "--rounds", "2", "--server", &both, "--server", &both,
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{load:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert_eq!(lines.len(), 2, "{text}");
    lines
}

#[test]
fn every_load_runs_and_reports_each_server() {
    let store = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(store.path()) else {
        return;
    };
    let operations = ["--messages", "600", "--clients", "2"];
    let pushed = ["--messages", "600", "--delivery", "push"];
    for (load, arguments) in [
        ("publish", &operations[..]),
        ("batch", &operations[..2]),
        ("consume", &operations),
        ("consume", &pushed),
        ("ordered", &operations[..2]),
        ("kv-put", &operations),
        ("kv-get", &operations),
    ] {
        let lines = report(&server, &["js", load], arguments);
        assert!(lines[0]["per_second"].as_f64().unwrap() > 0.0, "{lines:?}");
        assert!(lines[0]["server_ns"].is_number(), "{lines:?}");
        assert_eq!(lines[1]["ratio"], 1.0);
    }
    for load in ["publish", "deliver", "request"] {
        let lines = report(&server, &["core", load], &["--seconds", "0.2"]);
        assert!(lines[0]["per_second"].as_f64().unwrap() > 0.0, "{lines:?}");
    }
    let idle = ["--connections", "20", "--hold", "0"];
    let lines = report(&server, &["core", "idle"], &idle);
    assert_eq!(lines[0]["connections"], 20, "{lines:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .args(["bench", "js", "publish", "--server", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
