//! `nats-tool filestore export`: what comes out of a store is read by what restores backups.

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use client::Client;
use nats_server::jetstream::archive::{
    ArchiveError, ArchiveReader, ConsumerMeta, Landing, OnDamage, Record, RecordKind,
    StreamBuilder, StreamMeta, Sums, write_consumer_state, write_record,
};
use nats_server::jetstream::core::{Pending, Place, Progress, StreamCore};
use nats_server::jetstream::types::{AckPolicy, ConsumerConfig, StreamConfig, Time};
use serde_json::Value;
use server::Server;
use storage::disk::RealDisk;
use storage::engine::{EngineOptions, FileEngine};
use storage::entropy::SystemEntropy;
use storage::filter::Filter;
use storage::store::{Limits, MemStore, Message};

const SECOND_NS: i64 = 1_000_000_000;
const BEGIN_NS: i64 = 1_700_000_000 * SECOND_NS;
/// More than one block of the archive holds.
const MESSAGES: u64 = 12_000;
/// The sequences behind the last message are used up too.
const LAST: u64 = MESSAGES + 5;

fn message(sequence: u64) -> Message {
    Message {
        sequence,
        time_ns: BEGIN_NS + sequence as i64,
        subject: format!("orders.{}", sequence % 3).into(),
        headers: match sequence % 2 {
            0 => "NATS/1.0\r\nA: b\r\n\r\n".into(),
            _ => "".into(),
        },
        payload: format!("{sequence:-^500}").into(),
    }
}

/// Every seventh message is missing.
fn live() -> Vec<Message> {
    (3..=MESSAGES)
        .filter(|sequence| sequence % 7 != 0)
        .map(message)
        .collect()
}

fn stream_meta() -> StreamMeta {
    StreamMeta {
        created: Time::from_nanoseconds(BEGIN_NS + 17),
        config: StreamConfig {
            name: "ORDERS".to_owned(),
            subjects: vec!["orders.>".to_owned()],
            max_msgs: -1,
            max_bytes: -1,
            max_msgs_per_subject: -1,
            max_consumers: -1,
            ..StreamConfig::default()
        },
    }
}

fn consumer_meta() -> ConsumerMeta {
    ConsumerMeta {
        created: Time::from_nanoseconds(BEGIN_NS + 18),
        name: "C".to_owned(),
        config: ConsumerConfig {
            name: "C".to_owned(),
            durable_name: "C".to_owned(),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        },
    }
}

fn progress() -> Progress {
    let mut progress = Progress {
        delivered: Place {
            consumer: 4,
            stream: 9,
        },
        floor: Place {
            consumer: 2,
            stream: 5,
        },
        ..Progress::default()
    };
    let pending = Pending {
        consumer_sequence: 4,
        time_ns: BEGIN_NS,
    };
    progress.pending.insert(9, pending);
    progress
}

/// A store with one stream, as a server leaves it behind.
fn fill(store: &Path) {
    let directory = store.join("jetstream");
    std::fs::create_dir_all(&directory).unwrap();
    let options = EngineOptions::new(directory);
    let opened = FileEngine::open(Arc::new(RealDisk), options, Arc::new(SystemEntropy)).unwrap();
    let begun = Landing::begin(
        &opened.engine,
        "$G",
        stream_meta(),
        "ORDERS",
        OnDamage::Fail,
    );
    let (landing, mut builder) = begun.unwrap();
    let (mut block, sums) = (Vec::new(), Sums::of_block("ORDERS", 1));
    for message in live() {
        let record = Record {
            kind: RecordKind::Message,
            sequence: message.sequence,
            time_ns: message.time_ns,
            subject: &message.subject,
            headers: &message.headers,
            payload: &message.payload,
        };
        write_record(&mut block, &sums, &record);
    }
    let end = Record {
        kind: RecordKind::Erased,
        sequence: LAST,
        time_ns: BEGIN_NS + LAST as i64,
        subject: b"",
        headers: b"",
        payload: b"",
    };
    write_record(&mut block, &sums, &end);
    builder.block(1, "1.blk", &block[..]).unwrap();
    let state = write_consumer_state(&progress(), BEGIN_NS + SECOND_NS);
    builder
        .consumer("o.dat", consumer_meta(), Some(&state))
        .unwrap();
    let (mut core, _) = builder.finish(BEGIN_NS + SECOND_NS).unwrap();
    landing.finish(&mut core).unwrap();
    drop(core);
    opened.engine.close();
}

fn export(from: &Path, stream: &str, to: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nats-tool"))
        .args(["filestore", "export", "--stream", stream, "--from"])
        .arg(from)
        .arg("--to")
        .arg(to)
        .env_remove("NATS_JETSTREAM_KEY")
        .output()
        .unwrap()
}

/// What a server makes of an archive.
fn restored(archive: &Path) -> StreamCore {
    let reader = ArchiveReader::open(std::fs::File::open(archive).unwrap()).unwrap();
    let meta = reader.meta().clone();
    let name = meta.config.name.clone();
    let store = Box::new(MemStore::new(Limits::default()));
    let mut builder = StreamBuilder::new(meta, &name, store, OnDamage::Fail).unwrap();
    reader
        .read_into(&mut builder, |_| Ok::<(), ArchiveError>(()))
        .unwrap();
    builder.finish(BEGIN_NS + 2 * SECOND_NS).unwrap().0
}

fn messages(core: &StreamCore) -> Vec<Message> {
    let everything = Filter::everything();
    let mut next = 0;
    std::iter::from_fn(|| {
        let message = core.store().next(next, &everything).unwrap()?;
        next = message.sequence + 1;
        Some(message)
    })
    .collect()
}

#[test]
fn a_stream_comes_back_from_its_archive_with_gaps_and_consumers() {
    let directory = tempfile::tempdir().unwrap();
    let (store, backup) = (directory.path().join("store"), directory.path().join("to"));
    fill(&store);
    std::fs::create_dir(&backup).unwrap();
    let output = export(&store, "ORDERS", &backup);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut files: Vec<String> = std::fs::read_dir(&backup)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    assert_eq!(files, ["backup.json", "stream.tar.s2"]);
    let about = std::fs::read(backup.join("backup.json")).unwrap();
    let about: Value = serde_json::from_slice(&about).unwrap();
    assert_eq!(about["config"]["name"], "ORDERS");
    assert_eq!(about["state"]["messages"], live().len());
    assert_eq!(about["state"]["last_seq"], LAST);

    let core = restored(&backup.join("stream.tar.s2"));
    assert!(messages(&core) == live(), "the messages differ");
    let state = core.store().state();
    assert_eq!((state.first_sequence, state.last_sequence), (3, LAST));
    let outline = core.outline(BEGIN_NS + 2 * SECOND_NS);
    assert_eq!(outline.created_ns, stream_meta().created.nanoseconds());
    assert_eq!(outline.config.subjects, stream_meta().config.subjects);
    let [consumer] = outline.consumers.as_slice() else {
        panic!("{:?}", outline.consumers);
    };
    assert_eq!(consumer.name, "C");
    assert_eq!(consumer.created_ns, consumer_meta().created.nanoseconds());
    let come = consumer.progress.as_ref().unwrap();
    assert_eq!(
        (come.delivered, come.floor, &come.pending),
        (progress().delivered, progress().floor, &progress().pending)
    );
}

/// Flips a bit wherever a file below the directory holds the text, and names the places.
fn damage(directory: &Path, text: &str) -> Vec<(PathBuf, usize)> {
    let mut damaged = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damaged.extend(damage(&path, text));
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let windows = bytes.windows(text.len()).enumerate();
        let found = windows.filter(|(_, window)| *window == text.as_bytes());
        let found: Vec<usize> = found.map(|(at, _)| at).collect();
        for at in &found {
            bytes[*at] ^= 1;
            damaged.push((path.clone(), *at));
        }
        if !found.is_empty() {
            std::fs::write(&path, bytes).unwrap();
        }
    }
    damaged
}

#[test]
fn a_stream_that_cannot_be_read_leaves_no_archive() {
    let directory = tempfile::tempdir().unwrap();
    let (store, archive) = (directory.path().join("store"), directory.path().join("a"));
    fill(&store);
    let damaged = damage(&store, "--6001--");
    assert!(!damaged.is_empty(), "no file holds the message");
    let output = export(&store, "ORDERS", &archive);
    assert_eq!(output.status.code(), Some(2), "{damaged:?}: {output:?}");
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "only the store is there");
}

#[test]
fn what_only_the_journal_has_is_exported_and_what_was_in_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, archive) = (directory.path().join("store"), directory.path().join("a"));
    std::fs::create_dir(&store).unwrap();
    let Some(server) = Server::start(&store) else {
        return;
    };
    let mut client = Client::connect(&server.address);
    let mut ask = |subject: &str, body: &str| {
        let answer = client.request(subject, body);
        assert!(answer["error"].is_null(), "{subject}: {answer}");
    };
    for (name, storage) in [("J", "file"), ("M", "memory")] {
        let config = format!(
            r#"{{"name":"{name}","subjects":["{name}.>"],"storage":"{storage}","retention":"limits"}}"#
        );
        ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config);
        for number in 1..=20 {
            ask(&format!("{name}.{number}"), &number.to_string());
        }
    }
    ask("$JS.API.STREAM.MSG.DELETE.J", r#"{"seq":7}"#);
    let consumer = r#"{"stream_name":"J","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    ask("$JS.API.CONSUMER.DURABLE.CREATE.J.C", consumer);
    drop(server);

    let output = export(&store, "$G/J", &archive);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let core = restored(&archive);
    let found: Vec<(u64, String)> = messages(&core)
        .into_iter()
        .map(|message| {
            let payload = String::from_utf8(message.payload.to_vec()).unwrap();
            (message.sequence, payload)
        })
        .collect();
    let sent = (1..=20).filter(|sequence| *sequence != 7);
    let sent: Vec<(u64, String)> = sent
        .map(|sequence: u64| (sequence, sequence.to_string()))
        .collect();
    assert_eq!(found, sent);
    assert_eq!(core.consumer_count(), 1);

    std::fs::remove_file(&archive).unwrap();
    let output = export(&store, "M", &archive);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!archive.exists());
}
