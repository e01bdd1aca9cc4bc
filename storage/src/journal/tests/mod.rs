//! What the journal promises.

mod corruption;
mod crash;
mod encrypted;
mod format;
mod model;
mod mutation;
mod recycling;
mod threaded;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::entropy::SeededEntropy;

/// Small enough that a test sees many segments.
const SEGMENT_BYTES: u64 = 64 * 1024;

fn directory() -> PathBuf {
    PathBuf::from("/journal")
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        commit_bytes_max: 16 * 1024,
        soft_bytes: 2 * SEGMENT_BYTES,
        hard_bytes: 4 * SEGMENT_BYTES,
        ..JournalOptions::default()
    }
}

fn lazy() -> JournalOptions {
    JournalOptions {
        durability: Durability::Interval(Duration::from_secs(3600)),
        ..options()
    }
}

fn try_open(
    disk: &SimDisk,
    options: JournalOptions,
) -> Result<(JournalCore, Replay), OpenJournalError> {
    let entropy = Arc::new(SeededEntropy::new(disk.changes()));
    JournalCore::open(Arc::new(disk.clone()), &directory(), options, entropy)
}

fn open(disk: &SimDisk, options: JournalOptions) -> (JournalCore, Replay) {
    try_open(disk, options).unwrap()
}

fn frame(owner: u64, index: u64, kind: FrameKind, payload: impl Into<Bytes>) -> Frame {
    Frame {
        owner: Owner(owner),
        index,
        kind,
        payload: Payload::Whole(payload.into()),
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Recorder {
    commits: Mutex<Vec<Commit>>,
    failures: Mutex<Vec<JournalError>>,
}

impl Recorder {
    fn new() -> (Arc<Self>, Arc<dyn CommitSink>) {
        let recorder = Arc::new(Self::default());
        let sink: Arc<dyn CommitSink> = recorder.clone();
        (recorder, sink)
    }
}

impl CommitSink for Recorder {
    fn committed(&self, commits: &[Commit]) {
        self.commits.lock().extend_from_slice(commits);
    }

    fn failed(&self, error: &JournalError) {
        self.failures.lock().push(error.clone());
    }
}

/// Commits one frame by itself.
fn append(core: &mut JournalCore, frame: Frame) -> Result<Commit, JournalError> {
    let (recorder, sink) = Recorder::new();
    core.stage(&frame, 0, &sink)?;
    core.commit()?;
    let commit = recorder.commits.lock()[0];
    Ok(commit)
}

fn append_entry(core: &mut JournalCore, owner: u64, index: u64) {
    append(
        core,
        frame(owner, index, FrameKind::Entry, content(owner, index)),
    )
    .unwrap();
}

/// What the entry at `index` of `owner` says, of some length.
fn content(owner: u64, index: u64) -> Bytes {
    let length = (owner * 31 + index * 97) % 400;
    let word = format!("{owner}/{index};").repeat(1 + length as usize / 5);
    Bytes::from(word)
}

fn indexes(replay: &Replay, owner: u64) -> Vec<u64> {
    let Some(replayed) = replay.owners.get(&Owner(owner)) else {
        return Vec::new();
    };
    for entry in &replayed.entries {
        assert_eq!(entry.payload, content(owner, entry.index));
    }
    replayed.entries.iter().map(|entry| entry.index).collect()
}

/// Segment files, ascending.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    files(disk, "seg")
}

fn files(disk: &SimDisk, extension: &str) -> Vec<PathBuf> {
    let names = disk.list(&directory()).unwrap();
    let paths = names.iter().map(|entry| directory().join(&entry.name));
    paths
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect()
}

/// Where `needle` stands in a file.
fn find(disk: &SimDisk, path: &Path, needle: &[u8]) -> Option<u64> {
    let content = disk.content(path)?;
    let at = content
        .windows(needle.len())
        .position(|window| window == needle)?;
    Some(at as u64)
}
