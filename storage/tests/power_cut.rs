//! A power cut for a process under load: its file system, mounted from an image, is shut down in the middle of it, without flushing
//! anything. After mounting it again every acknowledged entry is there.
//!
//! Needs root, loop devices and mkfs.ext4; where they are missing it says that it was skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use storage::disk::RealDisk;
use storage::engine::{
    Engine, EngineOptions, FileEngine, LogEntry, Opened, StoreOptions, StreamId,
};
use storage::entropy::SystemEntropy;
use storage::journal::{Commit, CommitSink, JournalError, JournalOptions};
use storage::store::{Expiry, FileStore, NewMessage, Store};

const CHILD_DIRECTORY: &str = "POWER_CUT_STORE";
const STREAMS: [&str; 3] = ["small", "middle", "large"];
const PATIENCE: Duration = Duration::from_secs(120);

/// Entries that a stream's owner has in flight, and how large they are.
fn load(stream: usize) -> (u64, usize) {
    [(1, 40), (16, 300), (64, 4000)][stream]
}

fn content(stream: usize, index: u64) -> Bytes {
    let (_, length) = load(stream);
    let mut bytes = format!("{stream}/{index};").into_bytes();
    bytes.resize(length, index as u8);
    bytes.into()
}

fn options(directory: &Path) -> EngineOptions {
    EngineOptions {
        journal: JournalOptions {
            segment_bytes: 8 << 20,
            soft_bytes: 16 << 20,
            hard_bytes: 64 << 20,
            ..JournalOptions::default()
        },
        ..EngineOptions::new(directory)
    }
}

fn open(directory: &Path) -> Opened<FileStore> {
    Engine::open(
        Arc::new(RealDisk),
        options(directory),
        Arc::new(SystemEntropy),
    )
    .unwrap()
}

fn apply(store: &mut FileStore, stream: usize, index: u64, payload: &[u8]) {
    let message = NewMessage {
        sequence: index,
        time_ns: index as i64,
        subject: STREAMS[stream].as_bytes(),
        headers: b"",
        payload,
        expiry: Expiry::ByAge,
    };
    store.append(&message, &mut ()).unwrap();
}

/// A stream as it is driven: its id, its store, and the last entry that was applied.
struct Driven {
    id: StreamId,
    store: FileStore,
    index: u64,
}

/// Recovers all streams and checks every message they hold.
fn recover(opened: Opened<FileStore>) -> (Arc<FileEngine>, BTreeMap<usize, Driven>) {
    assert!(opened.damage.is_empty(), "{:?}", opened.damage);
    let mut streams = BTreeMap::new();
    for recovered in opened.streams {
        let stream = STREAMS
            .iter()
            .position(|name| *name == recovered.name)
            .unwrap();
        let content_found = recovered.content.unwrap();
        let (mut store, mut index) = (content_found.store, content_found.index);
        for (at, payload) in content_found.entries {
            index += 1;
            assert_eq!(at, index);
            apply(&mut store, stream, at, &payload);
        }
        assert_eq!(store.state().messages, index);
        for at in 1..=index {
            let message = store.load(at).unwrap().unwrap();
            assert!(message.payload == content(stream, at), "{stream}/{at}");
        }
        let id = recovered.id;
        streams.insert(stream, Driven { id, store, index });
    }
    (opened.engine, streams)
}

struct Hand(mpsc::Sender<Option<u64>>);

impl CommitSink for Hand {
    fn committed(&self, commits: &[Commit]) {
        let _ = self.0.send(commits.last().map(|commit| commit.index));
    }

    fn failed(&self, _error: &JournalError) {
        let _ = self.0.send(None);
    }
}

/// What the child does until its disk is gone: append to all streams, tell what was acknowledged, write checkpoints.
fn child(directory: &Path) {
    let (engine, mut streams) = recover(open(directory));
    for (stream, name) in STREAMS.iter().enumerate() {
        streams.entry(stream).or_insert_with(|| {
            let created = engine.create("account", name, StoreOptions::default());
            let (id, store) = created.unwrap();
            Driven {
                id,
                store,
                index: 0,
            }
        });
    }
    std::thread::scope(|scope| {
        for (stream, mut driven) in streams {
            let engine = &engine;
            scope.spawn(move || while append(engine, stream, &mut driven) {});
        }
    });
}

/// One batch. `false` when the journal is gone.
fn append(engine: &Arc<FileEngine>, stream: usize, driven: &mut Driven) -> bool {
    let (sender, told) = mpsc::channel();
    let sink: Arc<dyn CommitSink> = Arc::new(Hand(sender));
    let (batch, _) = load(stream);
    let last = driven.index + batch;
    let entries = (driven.index + 1..=last).map(|index| LogEntry {
        stream: driven.id,
        index,
        payload: content(stream, index).into(),
        token: 0,
    });
    if engine.submit(entries, &sink).is_err() {
        return false;
    }
    while driven.index < last {
        let Ok(Some(committed)) = told.recv_timeout(PATIENCE) else {
            return false;
        };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "\nacknowledged {stream} {committed}").is_err() {
            return false;
        }
        drop(out);
        while driven.index < committed {
            driven.index += 1;
            let payload = content(stream, driven.index);
            apply(&mut driven.store, stream, driven.index, &payload);
        }
    }
    if driven.index.is_multiple_of(batch * 100) {
        let core = Bytes::new();
        let index = driven.index;
        if engine
            .checkpoint(driven.id, &mut driven.store, index, core)
            .is_err()
        {
            return false;
        }
    }
    true
}

/// An ext4 file system in an image file. Unmounted when dropped.
struct Mount {
    image: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// `Err` says what is missing here.
    fn new(root: &Path) -> Result<Self, String> {
        let image = root.join("image");
        let point = root.join("mounted");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(1 << 30).map_err(|error| error.to_string())?;
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mount = Self { image, point };
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        run(command
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.point))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.point))
    }

    /// Takes the device away from under the file system: nothing that is not on it yet gets there.
    fn cut_power(&self) {
        const SHUTDOWN: libc::c_ulong = 0x8004_587d; // FS_IOC_SHUTDOWN
        const NO_LOG_FLUSH: u32 = 2;
        let directory = File::open(&self.point).unwrap();
        // SAFETY: the descriptor is open, and the kernel reads four bytes from a place that outlives the call.
        let result = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// Runs the child until that many acknowledgements were heard, cuts its power, and says what the last ones were.
///
/// What is heard later does not count: ext4 answers a sync with success that waits for its log while that is shut down, though
/// nothing of it got there.
fn run_and_cut(mount: &Mount, acknowledgements: u64) -> BTreeMap<usize, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_of_a_power_cut", "--nocapture"])
        .env(CHILD_DIRECTORY, mount.point.join("store"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = BTreeMap::new();
    let mut heard = 0;
    let mut before_the_cut = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(line) = line.strip_prefix("acknowledged ") else {
            continue;
        };
        let (stream, index) = line.split_once(' ').unwrap();
        last.insert(stream.parse().unwrap(), index.parse().unwrap());
        heard += 1;
        if heard == acknowledgements {
            before_the_cut.clone_from(&last);
            mount.cut_power();
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(
        heard >= acknowledgements,
        "the child ended by itself after {heard}"
    );
    before_the_cut
}

#[test]
fn the_child_of_a_power_cut() {
    if let Ok(directory) = std::env::var(CHILD_DIRECTORY) {
        child(Path::new(&directory));
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts_under_load() {
    let root = tempfile::tempdir().unwrap();
    let mount = match Mount::new(root.path()) {
        Ok(mount) => mount,
        Err(reason) => return println!("skipped: {reason}"),
    };
    for acknowledgements in [50, 700, 300] {
        let acknowledged = run_and_cut(&mount, acknowledgements);
        mount.unmount().unwrap();
        mount.mount().unwrap();
        let (engine, streams) = recover(open(&mount.point.join("store")));
        for (stream, index) in &acknowledged {
            let found = streams.get(stream).map_or(0, |driven| driven.index);
            assert!(found >= *index, "{}: {found} of {index}", STREAMS[*stream]);
            println!("{}: {index} acknowledged, {found} found", STREAMS[*stream]);
        }
        drop(streams);
        engine.close();
    }
}
