//! `nats-tool filestore` on a whole store as an engine leaves it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use storage::disk::RealDisk;
use storage::engine::{
    EncryptionOptions, Engine, EngineOptions, LogEntry, Opened, StoreOptions, StreamId, Threads,
};
use storage::entropy::SystemEntropy;
use storage::journal::{Commit, CommitSink, JournalError, JournalOptions};
use storage::seal::Cipher;
use storage::store::{Expiry, FileStore, NewMessage, Store};

const PASSPHRASE: &str = "a long and random passphrase";

struct Unheard;

impl CommitSink for Unheard {
    fn committed(&self, _commits: &[Commit]) {}
    fn failed(&self, error: &JournalError) {
        panic!("{error}");
    }
}

/// Appends in one commit.
fn append(
    engine: &Engine<FileStore>,
    id: StreamId,
    store: &mut FileStore,
    sequences: std::ops::RangeInclusive<u64>,
) {
    let sink: Arc<dyn CommitSink> = Arc::new(Unheard);
    let payload = |sequence: u64| format!("{sequence:-^100}");
    let entries = sequences.clone().map(|sequence| LogEntry {
        stream: id,
        index: sequence,
        payload: Bytes::from(payload(sequence)).into(),
        token: 0,
    });
    engine.submit(entries, &sink).unwrap();
    for sequence in sequences {
        let payload = payload(sequence);
        let message = NewMessage {
            sequence,
            time_ns: 1_700_000_000_000_000_000 + sequence as i64,
            subject: b"subject",
            headers: b"",
            payload: payload.as_bytes(),
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).unwrap();
    }
}

/// A store with a large stream in files and a small one in the journal, whose last five entries are in no checkpoint.
fn store(directory: &Path, cipher: Option<Cipher>) {
    let options = EngineOptions {
        encryption: cipher.map(|cipher| EncryptionOptions {
            passphrase: PASSPHRASE.into(),
            previous: None,
            cipher,
        }),
        journal: JournalOptions {
            segment_bytes: 1 << 20,
            ..JournalOptions::default()
        },
        reserve_bytes: 0,
        threads: Threads::None,
        ..EngineOptions::new(directory)
    };
    let disk = Arc::new(RealDisk);
    let opened: Opened<FileStore> = Engine::open(disk, options, Arc::new(SystemEntropy)).unwrap();
    let engine = &opened.engine;
    for (name, checkpointed, last) in [("LARGE", 2000, 2000), ("SMALL", 20, 25)] {
        let (id, mut store) = engine.create("$G", name, StoreOptions::default()).unwrap();
        append(engine, id, &mut store, 1..=checkpointed);
        let core = Bytes::from_static(b"core");
        engine
            .checkpoint(id, &mut store, checkpointed, core)
            .unwrap();
        append(engine, id, &mut store, checkpointed + 1..=last);
    }
    engine.close();
}

fn tool(arguments: &[&str], path: &Path, key: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nats-tool"));
    command.arg("filestore").args(arguments).arg(path);
    match key {
        Some(key) => command.env("NATS_JETSTREAM_KEY", key),
        None => command.env_remove("NATS_JETSTREAM_KEY"),
    };
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_store_shows_its_streams_wherever_their_messages_are() {
    for cipher in [None, Some(Cipher::ChaCha20Poly1305)] {
        let key = cipher.map(|_| PASSPHRASE);
        let directory = tempfile::tempdir().unwrap();
        let jetstream = directory.path().join("jetstream");
        store(&jetstream, cipher);
        // The directory that the server was given, and the one it made in it.
        for path in [directory.path(), &jetstream] {
            let output = tool(&["inspect", "--json"], path, key);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let report = json(&output);
            assert_eq!(report["kind"], "store");
            let [large, small] = &report["streams"].as_array().unwrap()[..] else {
                panic!("{report}");
            };
            assert_eq!(
                (&large["account"], &large["name"]),
                (&"$G".into(), &"LARGE".into())
            );
            assert_eq!(large["checkpoint"]["messages"], 2000);
            assert!(!large["blocks"].as_array().unwrap().is_empty());
            assert_eq!(small["name"], "SMALL");
            assert_eq!(small["checkpoint"]["messages"], 20);
            assert_eq!(small["checkpoint"]["messages_held"], 20);
            assert_eq!(small["blocks"], Value::Array(vec![]));
            assert_eq!(small["log"]["entries"], 5);
            assert!(!report["journal"].as_array().unwrap().is_empty());
        }
        let output = tool(&["verify"], directory.path(), key);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(tool(&["inspect"], directory.path(), key).stdout).unwrap();
        assert!(
            text.contains("$G/SMALL") && text.contains("only in the journal"),
            "{text}"
        );
    }
}

#[test]
fn without_its_key_a_store_is_locked_and_not_damaged() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path(), Some(Cipher::Aes256Gcm));
    let output = tool(&["inspect", "--json"], directory.path(), None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(
        (&report["locked"], &report["catalog_damaged"]),
        (&true.into(), &false.into())
    );
    assert_eq!(report["journal"][0]["state"], "locked");
    let [large] = &report["streams"].as_array().unwrap()[..] else {
        panic!("only a directory shows without the catalog: {report}");
    };
    assert_eq!(
        (&large["name"], &large["locked"]),
        (&"LARGE".into(), &true.into())
    );
    // What cannot be checked is not called well.
    let output = tool(&["verify", "--json"], directory.path(), None);
    assert_eq!(output.status.code(), Some(1));
    let problems = json(&output)["problems"].clone();
    let unchecked = |problem: &Value| problem["severity"] == "unchecked";
    assert!(
        problems.as_array().unwrap().iter().all(unchecked),
        "{problems}"
    );
}

#[test]
fn one_stream_is_asked_for_by_name_or_id() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path(), None);
    let report = json(&tool(&["inspect", "--json"], directory.path(), None));
    let id = report["streams"][1]["id"].to_string();
    for name in ["SMALL", "$G/SMALL", &id] {
        let output = tool(&["cat", "--stream", name], directory.path(), None);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout.split(|&byte| byte == b'\n').count(), 21);
        let warning = String::from_utf8(output.stderr).unwrap();
        assert!(warning.contains("5 log entries"), "{warning}");
    }
    let output = tool(&["cat", "--stream", "OTHER"], directory.path(), None);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_damaged_journal_is_found_and_what_the_directories_know_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    store(directory.path(), None);
    let journal = directory.path().join("journal");
    for entry in std::fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[4096 + 10] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let output = tool(&["verify"], directory.path(), None);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = tool(&["inspect", "--json"], directory.path(), None);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["streams"][0]["name"], "LARGE");
    let output = tool(&["cat", "--stream", "LARGE"], directory.path(), None);
    assert_eq!(output.stdout.split(|&byte| byte == b'\n').count(), 2001);
}
