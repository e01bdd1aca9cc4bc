//! `nats-tool bench` against a real server.

mod server;

use std::process::Command;

use serde_json::Value;
use server::Server;

#[test]
fn every_load_runs_and_reports_each_server() {
    let store = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(store.path()) else {
        return;
    };
    for load in ["publish", "consume", "kv-put", "kv-get"] {
        let both = format!("{}={}", server.address, server.process.id());
        let output = Command::new(env!("CARGO_BIN_EXE_nats-tool"))
            .args([
                "bench",
                "js",
                load,
                "--json",
                "--rounds",
                "2",
                "--messages",
                "600",
            ])
            .args(["--clients", "2", "--server", &both, "--server", &both])
            .output()
            .unwrap();
        assert!(output.status.success(), "{load}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0]["per_second"].as_f64().unwrap() > 0.0, "{text}");
        assert!(lines[0]["server_ns"].is_number(), "{text}");
        assert_eq!(lines[1]["ratio"], 1.0);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .args(["bench", "js", "publish", "--server", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
