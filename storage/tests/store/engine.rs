//! A whole engine over a disk that crashes: what was acknowledged is there, and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use storage::disk::sim::SimDisk;
use storage::engine::{
    EncryptionOptions, Engine, EngineOptions, LogEntry, StoreOptions, StreamId, Threads,
};
use storage::entropy::SeededEntropy;
use storage::journal::{Commit, CommitSink, JournalError};
use storage::seal::Cipher;
use storage::store::{FileStore, Limits};

use crate::driver::{Concrete, Step, apply, cases, compare_everything, concrete, limits, step};
use crate::model::ModelStore;

#[derive(Debug, Clone)]
enum Event {
    Change(Step),
    Checkpoint,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => step(400).prop_map(Event::Change),
        1 => Just(Event::Checkpoint),
    ]
}

/// The highest index that was committed.
#[derive(Default)]
struct Acknowledged(Mutex<u64>);

impl CommitSink for Acknowledged {
    fn committed(&self, commits: &[Commit]) {
        for commit in commits {
            *self.0.lock() = commit.index;
        }
    }

    fn failed(&self, _error: &JournalError) {}
}

fn options(cipher: Option<Cipher>) -> EngineOptions {
    let mut options = EngineOptions::new("/store");
    options.journal.segment_bytes = 64 << 10;
    options.carry_bytes_max = 2_000;
    options.reserve_bytes = 0;
    options.threads = Threads::None;
    options.encryption = cipher.map(|cipher| EncryptionOptions {
        passphrase: b"passphrase".to_vec(),
        previous: None,
        cipher,
    });
    options
}

/// Everything that was ever submitted; an entry of the log is its place in here.
type Changes = Vec<Concrete>;

fn payload(at: usize) -> Bytes {
    Bytes::copy_from_slice(&(at as u64).to_le_bytes())
}

fn change_of<'a>(changes: &'a Changes, entry: &[u8]) -> &'a Concrete {
    let at = u64::from_le_bytes(entry.try_into().unwrap());
    &changes[at as usize]
}

/// Plays until the end or until the machine stops; the answer is what was submitted and how much of it was acknowledged.
fn play(
    disk: &SimDisk,
    cipher: Option<Cipher>,
    limits: Limits,
    events: &[Event],
) -> Option<(StreamId, Changes, u64)> {
    let entropy = Arc::new(SeededEntropy::new(1));
    let engine = Engine::<FileStore>::open(Arc::new(disk.clone()), options(cipher), entropy)
        .ok()?
        .engine;
    let store = StoreOptions {
        limits,
        block_bytes: Some(20_000),
        ..StoreOptions::default()
    };
    let (id, mut store) = engine.create("account", "stream", store).ok()?;
    let mut model = ModelStore::new(limits);
    let mut changes = Changes::new();
    let acknowledged = Arc::new(Acknowledged::default());
    let sink: Arc<dyn CommitSink> = acknowledged.clone();
    let mut now_ns = 1_000;
    for event in events {
        match event {
            Event::Change(step) => {
                let change = concrete(step, &storage::store::Store::state(&model), &mut now_ns);
                let index = changes.len() as u64 + 1;
                let entry = LogEntry {
                    stream: id,
                    index,
                    payload: payload(changes.len()).into(),
                    token: 0,
                };
                changes.push(change);
                let submitted = engine.submit([entry], &sink);
                if submitted.is_err() || *acknowledged.0.lock() < index {
                    break;
                }
                let change = &changes[index as usize - 1];
                let expected = apply(&mut model, change);
                let found = apply(&mut store, change);
                if disk.is_halted() {
                    // A job met the end before the journal did: nothing can be read any more.
                    break;
                }
                assert_eq!(expected, found);
            }
            Event::Checkpoint => {
                let index = changes.len() as u64;
                let _ = engine.checkpoint(id, &mut store, index, Bytes::new());
            }
        }
        if disk.is_halted() {
            break;
        }
    }
    let acknowledged = *acknowledged.0.lock();
    Some((id, changes, acknowledged))
}

fn check_after_crash(
    disk: &SimDisk,
    cipher: Option<Cipher>,
    limits: Limits,
    played: Option<(StreamId, Changes, u64)>,
) {
    let entropy = Arc::new(SeededEntropy::new(2));
    let opened =
        Engine::<FileStore>::open(Arc::new(disk.clone()), options(cipher), entropy).unwrap();
    assert!(opened.damage.is_empty(), "{:?}", opened.damage);
    let Some((id, changes, acknowledged)) = played else {
        return;
    };
    let stream = opened.streams.into_iter().find(|stream| stream.id == id);
    let content = stream.unwrap().content.unwrap();
    let mut store = content.store;
    let mut last = content.index;
    for (index, entry) in content.entries {
        assert_eq!(index, last + 1);
        apply(&mut store, change_of(&changes, &entry)).0.ok();
        last = index;
    }
    let submitted = changes.len() as u64;
    assert!(
        (acknowledged..=submitted).contains(&last),
        "{last} of {acknowledged} acknowledged and {submitted} submitted"
    );
    let mut model = ModelStore::new(limits);
    for change in &changes[..last as usize] {
        apply(&mut model, change).0.ok();
    }
    compare_everything(&model, &store);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(4), ..ProptestConfig::default() })]

    #[test]
    fn an_engine_that_crashes_at_any_change_has_what_it_acknowledged(
        seed in any::<u64>(),
        limits in limits(),
        cipher in prop_oneof![2 => Just(None), 1 => Just(Some(Cipher::Aes256Gcm))],
        events in proptest::collection::vec(event(), 40..120),
    ) {
        let mut halt = 0;
        loop {
            let disk = SimDisk::new(seed);
            disk.halt_at(halt);
            let played = play(&disk, cipher, limits, &events);
            let halted = disk.is_halted();
            disk.crash();
            check_after_crash(&disk, cipher, limits, played);
            if !halted {
                break;
            }
            // Every change near the start, then one in seven: the journal alone makes hundreds.
            halt += if halt < 30 { 1 } else { 1 + seed % 7 };
        }
    }
}
