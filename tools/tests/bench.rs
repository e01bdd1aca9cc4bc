//! `nats-tool bench` against a real server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Server {
    process: Child,
    address: String,
    _store: tempfile::TempDir,
}

impl Server {
    /// The server binary that was built beside the tool; none when it was not.
    fn start() -> Option<Self> {
        let tool = std::path::Path::new(env!("CARGO_BIN_EXE_nats-tool"));
        let binary = tool.with_file_name("nats-server");
        if !binary.exists() {
            println!("skipped: {} was not built", binary.display());
            return None;
        }
        let store = tempfile::tempdir().unwrap();
        let mut process = Command::new(binary)
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(store.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = "Listening for client connections on ";
        let address = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, address) = line.split_once(listening)?;
            Some(address.trim().to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            address: address.expect("it listens"),
            process,
            _store: store,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_load_runs_and_reports_each_server() {
    let Some(server) = Server::start() else {
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
