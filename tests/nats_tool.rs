//! What `nats-tool` shows of a store whose server was killed is what the server has when it starts again.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::SystemTime;

use async_nats::jetstream::{self, stream};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Server, ServerOptions};
use serde_json::Value;

const KEY: &str = "a long and random passphrase";

/// When the newest file below a directory was changed.
fn newest(directory: &Path) -> SystemTime {
    let entries = std::fs::read_dir(directory).expect("a directory of ours");
    let changed = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => newest(&path),
        _ => entry
            .metadata()
            .and_then(|found| found.modified())
            .expect("a file tells when it was changed"),
    };
    let times = entries.map(|entry| changed(entry.expect("a directory can be read")));
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether the tool was built from the sources as they are, as it is when the whole workspace is tested.
fn is_fresh(tool: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "storage/src", "raft/src", "tools/src"];
    let built = std::fs::metadata(tool).and_then(|found| found.modified());
    built.is_ok_and(|built| sources.iter().all(|name| newest(&root.join(name)) <= built))
}

/// The tool, built as it is; cargo tells no test where the binary of another package is.
fn tool_path() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(build_tool)
}

fn build_tool() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_nats-server"));
    let profile = server.parent().expect("a target directory");
    let tool = profile.join("nats-tool");
    if is_fresh(&tool) {
        return tool;
    }
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--offline", "--package", "tools"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success());
    tool
}

fn tool(arguments: &[&str], store: &Path) -> Output {
    let output = Command::new(tool_path())
        .arg("filestore")
        .args(arguments)
        .arg(store)
        .env("NATS_JETSTREAM_KEY", KEY)
        .output()
        .expect("the tool runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let lines = output.stdout.split(|&byte| byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect()
}

/// By sequence: the payload.
type Messages = BTreeMap<u64, String>;

fn shown(stream: &str, store: &Path) -> Messages {
    let output = tool(&["cat", "--stream", stream], store);
    let message = |line: &Value| {
        let data = BASE64_STANDARD.decode(line["data"].as_str()?).ok()?;
        Some((line["seq"].as_u64()?, String::from_utf8(data).ok()?))
    };
    let messages = lines(&output);
    let messages = messages
        .iter()
        .map(|line| message(line).expect("a message"));
    messages.collect()
}

fn listed(stream: &str, store: &Path) -> Vec<u64> {
    let output = tool(
        &["inspect", "--records", "--json", "--stream", stream],
        store,
    );
    let records = lines(&output);
    let live = records.iter().filter(|record| record["live"] == true);
    live.map(|record| record["sequence"].as_u64().expect("a sequence"))
        .collect()
}

async fn context(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(server.url()).await;
    jetstream::new(client.expect("the server takes clients"))
}

async fn make(context: &jetstream::Context, config: stream::Config) -> stream::Stream {
    let config = stream::Config {
        subjects: vec![format!("{}.>", config.name)],
        ..config
    };
    context
        .create_stream(config)
        .await
        .expect("the stream is made")
}

/// Publishes messages and keeps what was acknowledged.
async fn publish(
    context: &jetstream::Context,
    stream: &str,
    bytes: usize,
    count: usize,
) -> Messages {
    let mut acks = Vec::new();
    for number in 0..count {
        let payload = format!("{number:=<bytes$}");
        let subject = format!("{stream}.{}", number % 3);
        let ack = context.publish(subject, payload.clone().into()).await;
        acks.push((payload, ack.expect("is sent")));
    }
    let mut messages = Messages::new();
    for (payload, ack) in acks {
        messages.insert(ack.await.expect("is acknowledged").sequence, payload);
    }
    messages
}

#[tokio::test]
async fn after_a_kill_the_tool_shows_exactly_the_acknowledged_messages_that_are_live() {
    let mut server = ServerOptions::default()
        .config(&format!(
            "listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"@DIR@/store\", key: \"{KEY}\", cipher: aes }}\n"
        ))
        .start();
    let context_now = context(&server).await;
    let named = |name: &str| stream::Config {
        name: name.to_owned(),
        ..stream::Config::default()
    };
    let large = make(&context_now, named("LARGE")).await;
    let small = make(&context_now, named("SMALL")).await;
    make(
        &context_now,
        stream::Config {
            max_messages: 5,
            ..named("LIMITED")
        },
    )
    .await;
    make(
        &context_now,
        stream::Config {
            storage: stream::StorageType::Memory,
            ..named("MEMORY")
        },
    )
    .await;
    let mut expected = BTreeMap::new();
    for (name, bytes, count) in [
        ("LARGE", 4000, 1500),
        ("SMALL", 10, 20),
        ("LIMITED", 10, 30),
        ("MEMORY", 10, 3),
    ] {
        expected.insert(name, publish(&context_now, name, bytes, count).await);
    }
    for (stream, name) in [(&large, "LARGE"), (&small, "SMALL")] {
        stream.delete_message(11).await.expect("is deleted");
        expected.get_mut(name).expect("a stream").remove(&11);
    }
    small.purge().filter("SMALL.2").await.expect("is purged");
    let kept = expected.get_mut("SMALL").expect("a stream");
    kept.retain(|sequence, _| (sequence - 1) % 3 != 2);
    expected
        .get_mut("LIMITED")
        .expect("a stream")
        .retain(|&sequence, _| sequence > 25);
    // It ends with the process.
    expected.insert("MEMORY", Messages::new());
    server.kill();
    let store = server.directory().join("store");
    for (name, messages) in &expected {
        assert_eq!(&shown(name, &store), messages, "{name}");
        let sequences: Vec<u64> = messages.keys().copied().collect();
        assert_eq!(listed(name, &store), sequences, "{name}");
    }
    // The server that starts on it has the same.
    server.start_again();
    let context_now = context(&server).await;
    for (name, messages) in &expected {
        let stream = context_now
            .get_stream(name)
            .await
            .expect("the stream is there");
        let state = &stream.cached_info().state;
        assert_eq!(state.messages, messages.len() as u64, "{name}");
        for (&sequence, payload) in messages.iter().step_by(97) {
            let message = stream.get_raw_message(sequence).await.expect("it is there");
            assert_eq!(message.payload, payload.as_bytes());
        }
    }
}
