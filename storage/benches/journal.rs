//! The journal beside the raw limit: group commits of 128-byte frames with 4,096 in flight, and the same payload bytes in batches of the same
//! size through plain write and fdatasync.
//!
//! The submitter fills up to 4,096 frames in flight as commits complete, 256 to a call, as shards do: what it submits while a commit is
//! written and synced is the next commit.
//!
//! `cargo bench -p storage --bench journal [-- DIRECTORY]`; the directory should be on the device that is of interest.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use storage::disk::{Disk, OpenMode, RealDisk};
use storage::entropy::SystemEntropy;
use storage::executor::ThreadPool;
use storage::journal::{
    Commit, CommitSink, Durability, Frame, FrameKind, Journal, JournalError, JournalOptions, Owner,
    Payload,
};
use storage::seal::{Cipher, KeyRing};

const IN_FLIGHT: u64 = 4096;
/// The most frames of one call.
const CALL_FRAMES_MAX: u64 = 256;
const PAYLOAD_BYTES: usize = 128;
const OWNERS: u64 = 64;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const RAW_FILE_BYTES: u64 = 64 << 20;

/// What one run came to.
#[derive(Clone, Copy, Default)]
struct Rate {
    frames: u64,
    commits: u64,
    seconds: f64,
}

impl Rate {
    fn per_second(&self) -> f64 {
        self.frames as f64 / self.seconds
    }

    fn frames_per_commit(&self) -> u64 {
        self.frames.div_ceil(self.commits.max(1))
    }

    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.commits += other.commits;
        self.seconds += other.seconds;
    }
}

/// Counts completions, and wakes the submitter once per commit.
#[derive(Default)]
struct Counter {
    done: Mutex<(u64, u64)>,
    changed: Condvar,
}

impl CommitSink for Counter {
    fn committed(&self, commits: &[Commit]) {
        let mut done = self.done.lock();
        done.0 += commits.len() as u64;
        done.1 += 1;
        self.changed.notify_one();
    }

    fn failed(&self, error: &JournalError) {
        eprintln!("the journal failed: {error}");
        std::process::exit(1);
    }
}

fn journal_round(directory: &Path, options: JournalOptions) -> Rate {
    let options = JournalOptions {
        background: Arc::new(ThreadPool::new("zeros", 1)),
        ..options
    };
    let disk = Arc::new(RealDisk);
    let (journal, _) = Journal::open(disk, directory, options, Arc::new(SystemEntropy))
        .expect("the journal opens");
    let counter = Arc::new(Counter::default());
    let sink: Arc<dyn CommitSink> = counter.clone();
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let mut submitted = 0;
    // The first segment is new, the ones after it are spares: what is measured is a journal that runs for a while.
    let warm = 3 * (64 << 20) / (PAYLOAD_BYTES as u64 + 32);
    let mut start = Instant::now();
    let mut before = (0, 0);
    loop {
        let mut done = counter.done.lock();
        while submitted - done.0 >= IN_FLIGHT {
            counter.changed.wait(&mut done);
        }
        let (completed, commits) = *done;
        drop(done);
        if before.0 == 0 && completed >= warm {
            start = Instant::now();
            before = (completed, commits);
        }
        if before.0 > 0 && start.elapsed() >= ROUND {
            return Rate {
                frames: completed - before.0,
                commits: commits - before.1,
                seconds: start.elapsed().as_secs_f64(),
            };
        }
        let upto = (completed + IN_FLIGHT).min(submitted + CALL_FRAMES_MAX);
        let frames = (submitted..upto).map(|number| {
            let frame = Frame {
                owner: Owner(16 + number % OWNERS),
                index: number / OWNERS,
                kind: FrameKind::Entry,
                payload: Payload::Whole(payload.clone()),
            };
            (frame, number)
        });
        journal
            .submit(frames, &sink)
            .expect("the journal takes frames");
        submitted = upto;
        for owner in 0..OWNERS {
            if submitted % 65536 < CALL_FRAMES_MAX {
                journal.release(Owner(16 + owner), (completed / OWNERS).saturating_sub(1));
            }
        }
    }
}

/// The same payload bytes through plain write and fdatasync, over a file that was written before.
fn raw_round(path: &Path, frames_per_commit: u64) -> Rate {
    let file = match RealDisk.open(path, OpenMode::Write) {
        Ok(file) => file,
        Err(_) => {
            let file = RealDisk.open(path, OpenMode::CreateNew).expect("a file");
            let zeros = vec![0; 1 << 20];
            for at in (0..RAW_FILE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at).expect("zeros");
            }
            file.sync_data().expect("a sync");
            file
        }
    };
    let payload = vec![7u8; PAYLOAD_BYTES];
    let mut batch = Vec::new();
    let mut at = 0;
    let mut rate = Rate::default();
    let start = Instant::now();
    while start.elapsed() < ROUND {
        batch.clear();
        for _ in 0..frames_per_commit {
            batch.extend_from_slice(black_box(&payload));
        }
        batch.resize(batch.len().div_ceil(4096) * 4096, 0);
        if at + batch.len() as u64 > RAW_FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&batch, at).expect("a write");
        file.sync_data().expect("a sync");
        at += batch.len() as u64;
        rate.frames += frames_per_commit;
        rate.commits += 1;
    }
    rate.seconds = start.elapsed().as_secs_f64();
    rate
}

fn print(name: &str, rate: Rate, raw: Option<Rate>) {
    let micros = rate.seconds * 1e6 / rate.commits.max(1) as f64;
    print!(
        "{name:<34} {:>10.0} frames/s   {:>5} frames/commit   {micros:>7.0} µs/commit",
        rate.per_second(),
        rate.frames_per_commit(),
    );
    match raw {
        Some(raw) => println!(
            "   {:>4.0} % of raw",
            100.0 * rate.per_second() / raw.per_second()
        ),
        None => println!(),
    }
}

fn compare(name: &str, root: &Path, options: &JournalOptions) {
    let (mut journal, mut raw) = (Rate::default(), Rate::default());
    // In turns, so that a busy machine is busy for both.
    for round in 0..ROUNDS {
        let directory = root.join(format!("{name}-{round}"));
        let rate = journal_round(&directory, options.clone());
        journal.add(rate);
        raw.add(raw_round(&root.join("raw"), rate.frames_per_commit()));
        std::fs::remove_dir_all(&directory).expect("the journal is removed");
    }
    print(&format!("raw, for {name}"), raw, None);
    print(name, journal, Some(raw));
}

fn main() {
    let given = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let base = given.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let root = tempfile::tempdir_in(base).expect("a directory");
    println!(
        "{IN_FLIGHT} frames of {PAYLOAD_BYTES} B in flight, {OWNERS} owners, in {}",
        root.path().display()
    );
    let options = JournalOptions::default();
    compare("journal", root.path(), &options);
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let keys = root.path().join(format!("{cipher:?}"));
        std::fs::create_dir(&keys).expect("a directory");
        let ring = KeyRing::open(&RealDisk, &keys, b"bench", None, cipher, &SystemEntropy);
        let sealed = JournalOptions {
            encryption: Some(Arc::new(ring.expect("a key ring"))),
            ..options.clone()
        };
        compare(&format!("journal, {cipher:?}"), root.path(), &sealed);
    }
    let lazy = JournalOptions {
        durability: Durability::Interval(Duration::from_secs(1)),
        ..options
    };
    let rate = journal_round(&root.path().join("lazy"), lazy);
    print("journal, lazy (1 s)", rate, None);
}
