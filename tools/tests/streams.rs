//! `nats-tool filestore` on a stream's directory as a file store leaves it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use storage::block::BlockCache;
use storage::disk::RealDisk;
use storage::entropy::SeededEntropy;
use storage::executor::InlineExecutor;
use storage::store::{Deletion, Expiry, FileOptions, FileStore, Frozen, Limits, NewMessage, Store};

const STREAM: u64 = 23;
const LAST: u64 = 5000;

/// A stream of 5,000 messages, of which every seventh and the first hundred are deleted.
fn stored(directory: &Path) -> Vec<u64> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let entropy = Arc::new(SeededEntropy::new(1));
    let mut options = FileOptions::new(STREAM, entropy, cache, Arc::new(InlineExecutor));
    options.block_bytes = Some(256 << 10);
    options.flush_bytes = 64 << 10;
    let disk = Arc::new(RealDisk);
    let mut store = FileStore::create(disk, directory.to_owned(), options, Limits::default());
    for sequence in 1..=LAST {
        let payload = format!("{sequence:-^200}");
        let message = NewMessage {
            sequence,
            time_ns: 1_700_000_000_000_000_000 + sequence as i64,
            subject: b"orders.new",
            headers: b"",
            payload: payload.as_bytes(),
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).unwrap();
    }
    for sequence in (7..=LAST).step_by(7) {
        store.delete(sequence, Deletion::Unlink, &mut ()).unwrap();
    }
    store.compact(101, &mut ()).unwrap();
    match store.freeze(4321, Bytes::from_static(b"core"), 0) {
        Frozen::Files(save) => save().unwrap(),
        Frozen::Carry(_) => panic!("a stream of this size has files"),
    }
    (101..=LAST).filter(|sequence| sequence % 7 != 0).collect()
}

fn tool(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .arg("filestore")
        .args(arguments)
        .arg(path)
        .env_remove("NATS_JETSTREAM_KEY")
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sequences(output: &Output) -> Vec<u64> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64();
    text.lines().filter_map(sequence).collect()
}

#[test]
fn live_and_dead_records_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let live = stored(directory.path());
    let output = tool(&["inspect", "--json"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let stream = &report["streams"][0];
    assert_eq!(stream["id"], STREAM);
    let checkpoint = &stream["checkpoint"];
    assert_eq!(checkpoint["log_index"], 4321);
    assert_eq!(checkpoint["messages"], live.len());
    assert_eq!(
        (&checkpoint["first_sequence"], &checkpoint["last_sequence"]),
        (&101.into(), &LAST.into())
    );
    assert_eq!(checkpoint["core_bytes"], 4);
    let blocks = stream["blocks"].as_array().unwrap();
    assert!(blocks.len() > 2, "{blocks:?}");
    let sum = |field: &str| -> u64 {
        blocks
            .iter()
            .filter_map(|block| block[field].as_u64())
            .sum()
    };
    let held = checkpoint["messages_held"].as_u64().unwrap();
    assert_eq!(sum("live") + held, live.len() as u64);
    assert!(sum("dead") > 0);
    assert!(blocks.iter().any(|block| block["footer"] == "intact"));

    let output = tool(&["cat"], directory.path());
    assert_eq!(sequences(&output), live);
    let output = tool(&["verify"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_block_alone_is_read_with_what_the_checkpoint_beside_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let live = stored(directory.path());
    let report = json(&tool(&["inspect", "--json"], directory.path()));
    let name = report["streams"][0]["blocks"][1]["file"].as_str().unwrap();
    let block = directory.path().join(name);
    let read = sequences(&tool(&["cat"], &block));
    assert!(!read.is_empty() && read.iter().all(|sequence| live.contains(sequence)));
    let report = json(&tool(&["inspect", "--json"], &block));
    assert_eq!(report["kind"], "block");
    assert_eq!(report["streams"][0]["blocks"][0]["live"], read.len());
}

#[test]
fn a_missing_block_and_a_damaged_checkpoint_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let live = stored(directory.path());
    let report = json(&tool(&["inspect", "--json"], directory.path()));
    let name = report["streams"][0]["blocks"][1]["file"].as_str().unwrap();
    let block = directory.path().join(name);
    let content = std::fs::read(&block).unwrap();
    std::fs::remove_file(&block).unwrap();
    let output = tool(&["verify"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(name) && text.contains("missing"), "{text}");
    std::fs::write(&block, content).unwrap();

    // Without a readable checkpoint everything that is in the blocks is shown.
    let checkpoint = directory.path().join("checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let output = tool(&["verify"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let output = tool(&["cat"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let read = sequences(&output);
    assert!(read.len() > live.len() / 2 && read.contains(&(7 * 20)));
}
