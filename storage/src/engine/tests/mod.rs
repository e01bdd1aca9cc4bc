//! What the engine promises, over a store that is as small as a store can be.

mod catalog;
mod crash;
mod files;
mod inspect;
mod lifecycle;
mod toy;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::disk::sim::SimDisk;
use crate::entropy::SeededEntropy;
use crate::journal::{Commit, JournalOptions};
use toy::Toy;

const SEGMENT_BYTES: u64 = 32 * 1024;

fn options() -> EngineOptions {
    EngineOptions {
        journal: JournalOptions {
            segment_bytes: SEGMENT_BYTES,
            commit_bytes_max: 8 * 1024,
            soft_bytes: 2 * SEGMENT_BYTES,
            hard_bytes: 8 * SEGMENT_BYTES,
            ..JournalOptions::default()
        },
        carry_bytes_max: 200,
        reserve_bytes: 0,
        threads: Threads::None,
        ..EngineOptions::new("/store")
    }
}

fn try_open(disk: &SimDisk, options: EngineOptions) -> Result<Opened<Toy>, OpenError> {
    let entropy = Arc::new(SeededEntropy::new(disk.changes()));
    Engine::open(Arc::new(disk.clone()), options, entropy)
}

fn open(disk: &SimDisk) -> Opened<Toy> {
    try_open(disk, options()).unwrap()
}

/// What an entry at `index` says.
fn content(id: StreamId, index: u64) -> Bytes {
    Bytes::from(format!("{}/{index};", id.0).repeat(1 + (index % 7) as usize))
}

/// Remembers what was committed.
#[derive(Default)]
struct Recorder {
    commits: Mutex<Vec<Commit>>,
}

impl CommitSink for Recorder {
    fn committed(&self, commits: &[Commit]) {
        self.commits.lock().extend_from_slice(commits);
    }

    fn failed(&self, _error: &JournalError) {}
}

/// A stream as its owner drives it: submit, and apply what was committed.
struct Driven {
    id: StreamId,
    toy: Toy,
    index: u64,
}

impl Driven {
    fn create(engine: &Engine<Toy>, name: &str) -> Result<Self, CreateError> {
        let (id, toy) = engine.create("account", name, name.to_owned())?;
        Ok(Self { id, toy, index: 0 })
    }

    fn recovered(recovered: Recovered<Toy>) -> Self {
        let content = recovered.content.unwrap();
        let mut driven = Self {
            id: recovered.id,
            toy: content.store,
            index: content.index,
        };
        assert_eq!(content.core, Bytes::from(format!("core {}", content.index)));
        for (index, payload) in content.entries {
            driven.index += 1;
            assert_eq!(index, driven.index, "entries follow the cut without a gap");
            driven.toy.apply(payload);
        }
        assert!(recovered.holes.is_empty());
        driven
    }

    /// Whether it was committed.
    fn append(&mut self, engine: &Engine<Toy>) -> bool {
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn CommitSink> = recorder.clone();
        let payload = content(self.id, self.index + 1);
        let entry = LogEntry {
            stream: self.id,
            index: self.index + 1,
            payload: payload.clone().into(),
            token: 0,
        };
        if engine.submit([entry], &sink).is_err() || recorder.commits.lock().is_empty() {
            return false;
        }
        self.index += 1;
        self.toy.apply(payload);
        true
    }

    fn checkpoint(&mut self, engine: &Engine<Toy>) -> Result<CheckpointStart, JournalError> {
        let core = Bytes::from(format!("core {}", self.index));
        engine.checkpoint(self.id, &mut self.toy, self.index, core)
    }
}

fn names(disk: &SimDisk, path: &str) -> Vec<String> {
    let entries = disk.list(Path::new(path)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn stream_directory(id: StreamId) -> PathBuf {
    Path::new("/store/streams").join(id.directory_name())
}
