//! `nats-tool filestore import` on stores that the reference made.

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use client::Client;
use flate2::read::GzDecoder;
use serde_json::Value;
use server::Server;

const KEY: &str = "fixture key";
const KEY_VARIABLE: &str = "NATS_IMPORT_FROM_KEY";

/// Where the reference's stores are; none when they are not on this machine.
fn fixtures() -> Option<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = manifest.join("../../shared/fixtures");
    let directory = std::env::var_os("FIXTURES_DIR").map_or(beside, PathBuf::from);
    let found = directory.join("store-plain.tar.gz").exists();
    if !found {
        println!(
            "skipped: no stores of the reference in {}",
            directory.display()
        );
    }
    found.then_some(directory)
}

fn unpack(fixtures: &Path, store: &str, into: &Path) -> PathBuf {
    let status = Command::new("tar")
        .arg("xzf")
        .arg(fixtures.join(format!("store-{store}.tar.gz")))
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(status.success());
    into.join("store")
}

fn expected(fixtures: &Path, store: &str) -> Value {
    let packed = std::fs::File::open(fixtures.join(format!("store-{store}.expected.json.gz")));
    serde_json::from_reader(GzDecoder::new(packed.unwrap())).unwrap()
}

fn tool(arguments: &[&str], paths: &[(&str, &Path)], key: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nats-tool"));
    command.arg("filestore").args(arguments);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    command.env_remove(KEY_VARIABLE);
    if let Some(key) = key {
        command.env(KEY_VARIABLE, key);
    }
    command.output().unwrap()
}

fn import(from: &Path, to: &Path, key: Option<&str>, more: &[&str]) -> Output {
    let arguments = [&["import"], more].concat();
    tool(&arguments, &[("--from", from), ("--to", to)], key)
}

fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The live messages of a stream, as lines of JSON.
fn messages(store: &Path, stream: &str) -> Vec<Value> {
    let store = store.to_str().unwrap();
    let output = tool(&["cat", store, "--stream", stream], &[], None);
    assert!(output.status.success(), "{}", text(&output));
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let message = |line: &[u8]| {
        let mut message: Value = serde_json::from_slice(line).unwrap();
        // The reference leaves out what is empty.
        if message["data"] == "" {
            message.as_object_mut().unwrap().remove("data");
        }
        message
    };
    lines.map(message).collect()
}

#[test]
fn every_store_of_the_reference_comes_in_message_by_message() {
    let Some(fixtures) = fixtures() else {
        return;
    };
    for (store, key) in [
        ("plain", None),
        ("s2", None),
        ("aes", Some(KEY)),
        ("chacha-s2", Some(KEY)),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let from = unpack(&fixtures, store, directory.path());
        let to = directory.path().join("ours");
        let output = import(&from, &to, key, &[]);
        assert_eq!(output.status.code(), Some(0), "{store}: {}", text(&output));
        let expected = expected(&fixtures, store);
        let all = expected["messages"].as_array().unwrap();
        for stream in expected["streams"].as_object().unwrap().keys() {
            let theirs = all.iter().filter(|message| message["stream"] == **stream);
            let ours = messages(&to, stream);
            assert!(!ours.is_empty());
            assert!(ours.iter().eq(theirs), "{store}: {stream} differs");
        }
        shown_to_clients(&to, &expected, store);
    }
}

/// What a client sees of streams and consumers is what the reference said of them.
fn shown_to_clients(store: &Path, expected: &Value, name: &str) {
    let Some(server) = Server::start(store) else {
        return;
    };
    let mut client = Client::connect(&server.address);
    for (stream, theirs) in expected["streams"].as_object().unwrap() {
        let request = r#"{"deleted_details":true,"subjects_filter":">"}"#;
        let ours = client.request(&format!("$JS.API.STREAM.INFO.{stream}"), request);
        for key in ["config", "created", "state"] {
            assert_eq!(ours[key], theirs[key], "{name}: {key} of {stream}");
        }
    }
    for (consumer, theirs) in expected["consumers"].as_object().unwrap() {
        let ours = client.request(&format!("$JS.API.CONSUMER.INFO.{consumer}"), "");
        for key in [
            "config",
            "created",
            "num_ack_pending",
            "num_redelivered",
            "num_pending",
        ] {
            assert_eq!(ours[key], theirs[key], "{name}: {key} of {consumer}");
        }
        for place in ["delivered", "ack_floor"] {
            for key in ["consumer_seq", "stream_seq"] {
                let both = (&ours[place][key], &theirs[place][key]);
                assert_eq!(both.0, both.1, "{name}: {place} of {consumer}");
            }
        }
    }
    let message = client.request("$JS.API.STREAM.MSG.GET.ORDERS", r#"{"seq":3000}"#);
    assert_eq!(message["message"]["seq"], 3000);
    let ack = client.request("orders.1.new", "more");
    assert_eq!(ack["seq"], 3001, "{name}: it takes more messages");
}

#[test]
fn a_second_run_leaves_what_is_there_and_a_wrong_key_imports_nothing() {
    let Some(fixtures) = fixtures() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let from = unpack(&fixtures, "aes", directory.path());
    let to = directory.path().join("ours");
    let output = import(&from, &to, Some("another key"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("the key does not fit"));
    let output = import(&from, &to, None, &[]);
    assert!(text(&output).contains("--from-key"), "{}", text(&output));
    let output = import(&from, &to, Some(KEY), &["--stream", "WORK"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = import(&from, &to, Some(KEY), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("$G/WORK: there already"));
    assert_eq!(messages(&to, "ORDERS").len(), 1944);
    assert_eq!(messages(&to, "WORK").len(), 175);
}

#[test]
fn a_damaged_record_is_named_and_skipped_only_when_asked() {
    let Some(fixtures) = fixtures() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let from = unpack(&fixtures, "plain", directory.path());
    let to = directory.path().join("ours");
    let block = from.join("jetstream/$G/streams/WORK/msgs/1.blk");
    let mut bytes = std::fs::read(&block).unwrap();
    // Behind the messages stand the tombstones of those that were acknowledged.
    let at = bytes.len() / 2 + 30;
    bytes[at] ^= 0x20;
    std::fs::write(&block, bytes).unwrap();
    let output = import(&from, &to, None, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("$G/WORK: not imported"));
    assert!(
        text(&output).contains("fails its checksum"),
        "{}",
        text(&output)
    );
    assert_eq!(messages(&to, "ORDERS").len(), 1944, "the others are there");
    let output = import(&from, &to, None, &["--skip-damaged"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("skipped: sequence"),
        "{}",
        text(&output)
    );
    assert_eq!(messages(&to, "WORK").len(), 174);
}
