//! `nats-tool filestore` on a whole store as an engine leaves it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use nats_server::jetstream::core::StreamCore;
use nats_server::jetstream::types::StreamConfig;
use serde_json::Value;
use storage::disk::RealDisk;
use storage::engine::{
    EncryptionOptions, Engine, EngineOptions, LogEntry, Opened, StoreOptions, StreamId, Threads,
};
use storage::entropy::SystemEntropy;
use storage::journal::{Commit, CommitSink, JournalError, JournalOptions};
use storage::seal::Cipher;
use storage::store::{Expiry, FileStore, Limits, MemStore, NewMessage, Store};

const PASSPHRASE: &str = "a long and random passphrase";

struct Unheard;

impl CommitSink for Unheard {
    fn committed(&self, _commits: &[Commit]) {}
    fn failed(&self, error: &JournalError) {
        panic!("{error}");
    }
}

const SUBJECT: &[u8] = b"subject";
const TIME_NS: i64 = 1_700_000_000_000_000_000;

fn payload(sequence: u64) -> String {
    format!("{sequence:-^100}")
}

/// A log entry for that index, of a stream whose last sequence is `base`.
fn entry(index: u64, base: u64, operations: &[u8]) -> Bytes {
    let mut bytes = vec![2];
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((TIME_NS + base as i64 + 1).to_le_bytes());
    bytes.extend(base.to_le_bytes());
    // Decided upon the entry before, and the first that was.
    bytes.extend((index - 1).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(operations);
    bytes.into()
}

/// The operation that stores a message.
fn message(payload: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for part in [SUBJECT, b"", payload.as_bytes()] {
        bytes.push(u8::try_from(part.len()).unwrap());
        bytes.extend(part);
    }
    bytes
}

/// The operation that deletes a message.
fn delete(sequence: u8) -> Vec<u8> {
    vec![2, sequence, 0]
}

/// What a stream's core says of itself at an index of its log.
fn core(name: &str, index: u64) -> Bytes {
    let config = StreamConfig {
        name: name.to_owned(),
        ..StreamConfig::default()
    };
    let store = Box::new(MemStore::new(Limits::default()));
    let mut core = StreamCore::create(config, "", 0, store).unwrap();
    core.birth(index)
}

fn submit(engine: &Engine<FileStore>, id: StreamId, index: u64, payload: Bytes) {
    let sink: Arc<dyn CommitSink> = Arc::new(Unheard);
    let entry = LogEntry {
        stream: id,
        index,
        payload: payload.into(),
        token: 0,
    };
    engine.submit([entry], &sink).unwrap();
}

/// Appends in one commit.
fn append(
    engine: &Engine<FileStore>,
    id: StreamId,
    store: &mut FileStore,
    sequences: std::ops::RangeInclusive<u64>,
) {
    let sink: Arc<dyn CommitSink> = Arc::new(Unheard);
    let entries = sequences.clone().map(|sequence| LogEntry {
        stream: id,
        index: sequence,
        payload: entry(sequence, sequence - 1, &message(&payload(sequence))).into(),
        token: 0,
    });
    engine.submit(entries, &sink).unwrap();
    for sequence in sequences {
        let payload = payload(sequence);
        let message = NewMessage {
            sequence,
            time_ns: TIME_NS + sequence as i64,
            subject: SUBJECT,
            headers: b"",
            payload: payload.as_bytes(),
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).unwrap();
    }
}

/// A store with a large stream in files and a small one in the journal, whose last five entries are in no checkpoint.
fn store(directory: &Path, cipher: Option<Cipher>) {
    let opened = open(directory, cipher);
    let engine = &opened.engine;
    for (name, checkpointed, last) in [("LARGE", 2000, 2000), ("SMALL", 20, 25)] {
        let (id, mut store) = engine.create("$G", name, StoreOptions::default()).unwrap();
        append(engine, id, &mut store, 1..=checkpointed);
        let core = core(name, checkpointed);
        engine
            .checkpoint(id, &mut store, checkpointed, core)
            .unwrap();
        append(engine, id, &mut store, checkpointed + 1..=last);
    }
    engine.close();
}

fn open(directory: &Path, cipher: Option<Cipher>) -> Opened<FileStore> {
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
    Engine::open(disk, options, Arc::new(SystemEntropy)).unwrap()
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

/// The sequences of the messages that `cat` or `inspect --records` shows as live.
fn sequences(output: &Output) -> Vec<u64> {
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    lines
        .filter(|line| line["live"] != false && line["problem"].is_null())
        .map(|line| {
            let sequence = line["seq"].as_u64();
            sequence.or(line["sequence"].as_u64()).unwrap()
        })
        .collect()
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

/// A replica whose checkpoint covers ten entries and whose log goes on to 15, of which 13 are known to be committed.
fn replica(directory: &Path) {
    use raft::codec::{encode_entry, encode_mark, log_id};
    use raft::types::{Command, Entry, Payload};
    use storage::engine::{Form, Replica};
    use storage::journal::{Frame, FrameKind};

    let opened = open(directory, None);
    let engine = &opened.engine;
    let form = Form::Replicated(Replica { group: 3, node: 7 });
    let options = StoreOptions::default();
    let (id, mut store) = engine.create_as("$G", "REPLICA", options, form).unwrap();
    let frame = |index: u64, kind, payload: Bytes| {
        let frame = Frame {
            owner: id.owner(),
            index,
            kind,
            payload: payload.into(),
        };
        (frame, 0)
    };
    let entries = (11..=15u64).map(|index| {
        // The eleventh is the leader's own.
        let payload = match index {
            11 => Payload::Blank,
            _ => {
                let last = index - 2;
                let mut command = entry(index, last, &message(&payload(last + 1))).to_vec();
                command[1..9].copy_from_slice(&1u64.to_le_bytes());
                Payload::Normal(Command(command.into()))
            }
        };
        let log_id = log_id(1, index);
        frame(
            index,
            FrameKind::Entry,
            encode_entry(&Entry { log_id, payload }),
        )
    });
    for sequence in 1..=10 {
        let payload = payload(sequence);
        let message = NewMessage {
            sequence,
            time_ns: TIME_NS + sequence as i64,
            subject: SUBJECT,
            headers: b"",
            payload: payload.as_bytes(),
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).unwrap();
    }
    let core = core("REPLICA", 10);
    engine.checkpoint(id, &mut store, 10, core).unwrap();
    let sink: Arc<dyn CommitSink> = Arc::new(Unheard);
    let committed = encode_mark(Some(&log_id(1, 13)));
    let mark = frame(0, FrameKind::Committed, committed);
    engine.submit_frames(entries.chain([mark]), &sink).unwrap();
    engine.close();
}

#[test]
fn a_replica_shows_what_its_own_log_tells_to_be_committed() {
    let directory = tempfile::tempdir().unwrap();
    replica(directory.path());
    let report = json(&tool(&["inspect", "--json"], directory.path(), None));
    let stream = &report["streams"][0];
    assert_eq!(stream["replica"]["group"], 3, "{report}");
    assert_eq!(stream["log"]["entries"], 5);
    let output = tool(&["cat"], directory.path(), None);
    assert_eq!(
        sequences(&output),
        (1..=12).collect::<Vec<u64>>(),
        "{output:?}"
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("14 to 15"), "{told}");
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
        assert_eq!(sequences(&output), (1..=25).collect::<Vec<_>>());
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

/// Two streams whose journal goes on after their checkpoints: messages come, others of both sides go. One begins in the journal.
fn with_tails(directory: &Path, cipher: Option<Cipher>) {
    let opened = open(directory, cipher);
    let engine = &opened.engine;
    for (name, last) in [("LARGE", 2000), ("SMALL", 20)] {
        let (id, mut store) = engine.create("$G", name, StoreOptions::default()).unwrap();
        append(engine, id, &mut store, 1..=last);
        engine
            .checkpoint(id, &mut store, last, core(name, last))
            .unwrap();
        // Five more, of which the second goes, and one that the checkpoint has.
        append(engine, id, &mut store, last + 1..=last + 5);
        let operations = [delete(7), message("after"), delete(7)].concat();
        submit(engine, id, last + 6, entry(last + 6, last + 5, &operations));
        let second = [vec![2], varint(last + 2), vec![0]].concat();
        submit(engine, id, last + 7, entry(last + 7, last + 6, &second));
    }
    let (id, _) = engine.create("$G", "NEW", StoreOptions::default()).unwrap();
    submit(engine, id, 1, core("NEW", 1));
    for index in 2..=4 {
        submit(engine, id, index, entry(index, index - 2, &message("new")));
    }
}

/// A number of at most two bytes as entries have it.
fn varint(number: u64) -> Vec<u8> {
    match number {
        0..128 => vec![number as u8],
        _ => vec![number as u8 | 128, (number >> 7) as u8],
    }
}

fn expected(last: u64) -> Vec<u64> {
    (1..=last + 6)
        .filter(|&sequence| sequence != 7 && sequence != last + 2)
        .collect()
}

#[test]
fn messages_in_the_journal_are_shown_as_a_start_would_have_them() {
    for cipher in [None, Some(Cipher::Aes256Gcm)] {
        let key = cipher.map(|_| PASSPHRASE);
        let directory = tempfile::tempdir().unwrap();
        with_tails(directory.path(), cipher);
        let of = |arguments: &[&str]| {
            let output = tool(arguments, directory.path(), key);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            output
        };
        for (name, sequences_of_it) in [
            ("LARGE", expected(2000)),
            ("SMALL", expected(20)),
            ("NEW", vec![1, 2, 3]),
        ] {
            let shown = sequences(&of(&["cat", "--stream", name]));
            assert_eq!(shown, sequences_of_it, "{name}");
            let listed = of(&["inspect", "--records", "--json", "--stream", name]);
            assert_eq!(sequences(&listed), sequences_of_it, "{name}");
            let in_journal = String::from_utf8(listed.stdout).unwrap();
            let in_journal = in_journal
                .lines()
                .filter(|line| line.contains(r#""file":"journal""#));
            assert_eq!(in_journal.count(), if name == "NEW" { 3 } else { 5 });
        }
        let narrowed = of(&["cat", "--stream", "LARGE", "--seq", "1999-2003"]);
        assert_eq!(sequences(&narrowed), [1999, 2000, 2001, 2003]);
        let block = of(&["cat", "--stream", "LARGE", "--block", "1"]);
        let blocked: Vec<u64> = (1..=2000).filter(|&sequence| sequence != 7).collect();
        assert_eq!(sequences(&block), blocked);
        let text = of(&["inspect", "--records", "--stream", "NEW"]);
        assert_eq!(
            String::from_utf8(text.stdout)
                .unwrap()
                .matches(" journal ")
                .count(),
            3
        );
    }
}

#[test]
fn the_directory_of_a_stream_is_shown_with_what_its_store_has_in_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    with_tails(directory.path(), None);
    let report = json(&tool(&["inspect", "--json"], directory.path(), None));
    let large = report["streams"][0]["directory"].as_str().unwrap();
    let output = tool(&["cat"], Path::new(large), None);
    assert_eq!(sequences(&output), expected(2000));
}

#[test]
fn a_store_that_is_looked_at_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    with_tails(directory.path(), None);
    let before = files(directory.path());
    for arguments in [&["cat"][..], &["inspect", "--records"], &["verify"]] {
        let output = tool(arguments, directory.path(), None);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert!(before == files(directory.path()));
}

/// Every file below a directory with its content.
fn files(directory: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.append(&mut files(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn a_damaged_entry_is_named_and_the_rest_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    with_tails(directory.path(), None);
    // The third message of the small stream's tail.
    let lost = payload(23);
    let journal = directory.path().join("journal");
    let mut flipped = 0;
    for entry in std::fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(lost.len())
            .rposition(|window| window == lost.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            flipped += 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(flipped, 1);
    let output = tool(&["cat", "--stream", "SMALL"], directory.path(), None);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let shown = sequences(&output);
    // What was committed with it is lost with it; what came later is not.
    assert!(!shown.contains(&23) && shown.ends_with(&[26]), "{shown:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("are lost"), "{errors}");
}

#[test]
fn without_a_readable_checkpoint_the_journal_is_shown_too() {
    let directory = tempfile::tempdir().unwrap();
    with_tails(directory.path(), None);
    let report = json(&tool(&["inspect", "--json"], directory.path(), None));
    let large = report["streams"][0]["directory"].as_str().unwrap();
    let checkpoint = Path::new(large).join("checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[120] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let output = tool(&["cat", "--stream", "LARGE"], directory.path(), None);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let shown: std::collections::BTreeSet<u64> = sequences(&output).into_iter().collect();
    assert!(
        expected(2000)
            .iter()
            .all(|sequence| shown.contains(sequence))
    );
}
