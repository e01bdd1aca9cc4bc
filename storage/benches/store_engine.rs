//! The whole engine: a message goes into the log, is committed, and is then applied to its store.
//!
//! One publisher keeps 4,096 messages in flight, up to 1,024 to an entry, as a shard does it that drains its
//! inbox: what came back is applied while the rest is committed. Each durable figure stands beside what plain writes and
//! syncs of the same bytes reach, in the sizes that the log's commits had. The start is that of a process
//! whose predecessor was killed.

use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use storage::disk::{Disk, OpenMode, RealDisk};
use storage::engine::{Engine, EngineOptions, LogEntry, StoreOptions, StreamId};
use storage::entropy::SystemEntropy;
use storage::journal::{Commit, CommitSink, Durability, JournalError, PressureLevel};
use storage::store::{Expiry, FileStore, NewMessage, Store};

const IN_FLIGHT: u64 = 4096;
/// What becomes one entry, so that some are applied while others are committed.
const ENTRY_MESSAGES_MAX: u64 = 1024;
/// Names the directory in which this program, started once more, writes and then dies.
const CHILD_DIRECTORY: &str = "STORE_ENGINE_CHILD";

/// Completions, until the publisher looks.
#[derive(Default)]
struct Sink {
    upto: Mutex<u64>,
    woken: Condvar,
}

impl CommitSink for Sink {
    fn committed(&self, commits: &[Commit]) {
        if let Some(last) = commits.last() {
            *self.upto.lock() = last.index;
            self.woken.notify_one();
        }
    }

    fn failed(&self, error: &JournalError) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn put(entry: &mut BytesMut, sequence: u64, payload: &[u8]) {
    entry.put_u64_le(sequence);
    entry.put_u32_le(payload.len() as u32);
    entry.put_slice(b"sensors.floor.0000");
    entry.put_u8(b'0' + (sequence / 10 % 10) as u8);
    entry.put_u8(b'0' + (sequence % 10) as u8);
    entry.put_slice(payload);
}

fn apply(store: &mut FileStore, mut entry: Bytes) -> u64 {
    let mut count = 0;
    while entry.has_remaining() {
        let sequence = entry.get_u64_le();
        let length = entry.get_u32_le() as usize;
        let (subject, rest) = entry.split_at(20);
        let message = NewMessage {
            sequence,
            time_ns: sequence as i64,
            subject,
            headers: b"",
            payload: &rest[..length],
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).expect("an append");
        entry.advance(20 + length);
        count += 1;
    }
    count
}

fn open(directory: &Path, durability: Durability) -> storage::engine::Opened<FileStore> {
    let mut options = EngineOptions::new(directory);
    options.durability = durability;
    Engine::open(Arc::new(RealDisk), options, Arc::new(SystemEntropy)).expect("an engine")
}

/// Publishes `messages` and returns how long that took and how many commits it made.
fn publish(
    engine: &Engine<FileStore>,
    id: StreamId,
    store: &mut FileStore,
    payload: &[u8],
    messages: u64,
) -> (Duration, u64) {
    let sink = Arc::new(Sink::default());
    let dynamic: Arc<dyn CommitSink> = sink.clone();
    let mut staged: VecDeque<(u64, u64, Bytes)> = VecDeque::new();
    let (mut sequence, mut applied, mut index, mut commits): (u64, u64, u64, u64) = (0, 0, 0, 0);
    let mut checkpointed = 0;
    let begun = Instant::now();
    while applied < messages {
        while sequence - applied < IN_FLIGHT && sequence < messages {
            let room = IN_FLIGHT - (sequence - applied);
            let count = room.min(messages - sequence).min(ENTRY_MESSAGES_MAX);
            let mut entry = BytesMut::with_capacity(count as usize * (payload.len() + 32));
            for _ in 0..count {
                sequence += 1;
                put(&mut entry, sequence, payload);
            }
            index += 1;
            let bytes = entry.freeze();
            staged.push_back((index, count, bytes.clone()));
            let entry = LogEntry {
                stream: id,
                index,
                payload: bytes.into(),
                token: 0,
            };
            engine.submit([entry], &dynamic).expect("a submit");
        }
        let mut upto = sink.upto.lock();
        let first = staged.front().map_or(0, |(index, ..)| *index);
        while *upto < first {
            sink.woken.wait(&mut upto);
        }
        let upto = *upto;
        commits += 1;
        while let Some((index, ..)) = staged.front()
            && *index <= upto
            && let Some((_, count, bytes)) = staged.pop_front()
        {
            apply(store, bytes);
            applied += count;
        }
        if engine.pressure_level() >= PressureLevel::Soft && upto > checkpointed {
            let started = engine.checkpoint(id, store, upto, Bytes::new());
            black_box(started.expect("a checkpoint"));
            checkpointed = upto;
        }
    }
    (begun.elapsed(), commits)
}

/// Plain writes and syncs of the same bytes to one file that is written over.
fn raw(directory: &Path, bytes: u64, commits: u64, sync: bool) -> Duration {
    let path = directory.join("raw");
    let file = RealDisk
        .open(&path, OpenMode::CreateNew)
        .expect("a new file");
    let each = vec![7u8; (bytes / commits).max(1) as usize];
    let room = 64 << 20;
    let mut offset = 0;
    while offset < room {
        file.write_all_at(&vec![0; 1 << 20], offset)
            .expect("a write");
        offset += 1 << 20;
    }
    file.sync_data().expect("a sync");
    let begun = Instant::now();
    let mut offset = 0;
    for _ in 0..commits {
        if offset + each.len() as u64 > room {
            offset = 0;
        }
        file.write_all_at(&each, offset).expect("a write");
        offset += each.len() as u64;
        if sync {
            file.sync_data().expect("a sync");
        }
    }
    begun.elapsed()
}

fn appends() {
    for payload_bytes in [16usize, 128, 1024, 16384] {
        let messages = match payload_bytes {
            16 | 128 => 4_000_000,
            1024 => 500_000,
            _ => 30_000,
        };
        let payload = vec![b'x'; payload_bytes];
        let ways = [
            ("lazy", Durability::Interval(Duration::from_secs(120))),
            ("durable", Durability::Always),
        ];
        for (name, durability) in ways {
            let directory = tempfile::tempdir().expect("a directory");
            let engine = open(&directory.path().join("store"), durability).engine;
            let options = StoreOptions::default();
            let (id, mut store) = engine.create("$G", "S", options).expect("a stream");
            let (elapsed, commits) = publish(&engine, id, &mut store, &payload, messages);
            let rate = messages as f64 / elapsed.as_secs_f64() / 1e6;
            let bytes = messages * (payload_bytes as u64 + 32);
            let sync = durability == Durability::Always;
            let limit = raw(directory.path(), bytes, commits, sync);
            let limit = messages as f64 / limit.as_secs_f64() / 1e6;
            println!(
                "{name:>8} append of {payload_bytes:>5} B: {rate:8.3} M/s in {commits} commits; plain writes of the same: {limit:8.3} M/s"
            );
            engine.wait_until_idle();
            engine.close();
        }
    }
}

fn start_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let status = std::process::Command::new(program)
        .env(CHILD_DIRECTORY, directory.path().join("store"))
        .status()
        .expect("a child");
    assert!(!status.success(), "the child is to die");
    let begun = Instant::now();
    let opened = open(&directory.path().join("store"), Durability::Always);
    let read = begun.elapsed();
    let mut streams = opened.streams;
    let content = streams.pop().expect("a stream").content.expect("a store");
    let mut store = content.store;
    let mut replayed = 0;
    for (_, entry) in content.entries {
        replayed += apply(&mut store, entry);
    }
    let elapsed = begun.elapsed();
    let state = store.state();
    println!(
        "start after a kill: {} messages in {elapsed:?} ({read:?} to open, {replayed} messages from the log); goal 1 s for 10 M",
        state.messages
    );
    assert_eq!(state.messages, 10_000_000);
    opened.engine.close();
}

fn child(directory: &Path) -> ! {
    let engine = open(directory, Durability::Always).engine;
    let (id, mut store) = engine
        .create("$G", "S", StoreOptions::default())
        .expect("a stream");
    publish(&engine, id, &mut store, &[b'x'; 128], 10_000_000);
    std::process::abort();
}

fn main() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        child(Path::new(&directory));
    }
    start_after_a_kill();
    appends();
}
