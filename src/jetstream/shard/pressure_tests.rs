//! A shard whose journal is full: publishes wait, and cuts are taken only where they free something.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::block::BlockCache;
use storage::disk::RealDisk;
use storage::entropy::SystemEntropy;
use storage::executor::Executor;
use storage::journal::CommitSink;
use storage::store::{FileOptions, FileStore, Limits};

use super::tests::{HeldLog, scene, scene_over};
use crate::broker::Outgoing;
use crate::jetstream::log::{Checkpoint, Entry, InstantLog, Log, LogError, Pressure};

/// A log that is full when it is told to be.
struct FullLog {
    inner: Arc<HeldLog>,
    pressure: Mutex<Pressure>,
    /// How often somebody asked whether it is full.
    asked: AtomicUsize,
    /// Where cuts were taken.
    cuts: Mutex<Vec<u64>>,
}

impl FullLog {
    fn new() -> Arc<Self> {
        let (inner, _) = HeldLog::new();
        Arc::new(Self {
            inner,
            pressure: Mutex::new(Pressure::None),
            asked: AtomicUsize::new(0),
            cuts: Mutex::default(),
        })
    }

    fn set(&self, pressure: Pressure) {
        *self.pressure.lock() = pressure;
    }

    /// Waits until publishes that are held were looked at so many times.
    fn wait_for_rounds(&self, rounds: usize) {
        let before = self.asked.load(Ordering::SeqCst);
        while self.asked.load(Ordering::SeqCst) < before + rounds {
            std::thread::yield_now();
        }
    }

    fn wait_for_cuts(&self, wanted: &[u64]) {
        let begun = std::time::Instant::now();
        while *self.cuts.lock() != wanted {
            assert!(begun.elapsed() < super::tests::PATIENCE, "{:?}", self.cuts);
            std::thread::yield_now();
        }
    }
}

impl Log for FullLog {
    fn submit(&self, entries: Vec<Entry>, sink: &Arc<dyn CommitSink>) -> Result<(), LogError> {
        self.inner.submit(entries, sink)
    }

    fn checkpoint(
        &self,
        _stream: u64,
        _store: &mut dyn Any,
        index: u64,
        _core: Bytes,
    ) -> Result<Checkpoint, LogError> {
        self.cuts.lock().push(index);
        Ok(Checkpoint::Begun)
    }

    fn pressure(&self) -> Pressure {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.pressure.lock()
    }

    fn has_room(&self) -> bool {
        true
    }

    fn wait_until_idle(&self) {}
}

#[test]
fn a_stream_whose_publishes_wait_is_cut_once_and_not_again_and_again() {
    let log = FullLog::new();
    log.inner.open();
    let scene = scene(Arc::clone(&log) as Arc<dyn Log>);
    log.set(Pressure::Checkpoints);
    scene.publish(&["s.a"]);
    log.wait_for_cuts(&[0]);
    // A cut is written to the journal too: one in each round would fill it.
    log.wait_for_rounds(20);
    assert_eq!(*log.cuts.lock(), [0]);

    log.set(Pressure::None);
    assert!(scene.heard().contains(r#""seq":1"#));
    log.set(Pressure::Checkpoints);
    scene.publish(&["s.b"]);
    log.wait_for_cuts(&[0, 1]);
    log.wait_for_rounds(20);
    assert_eq!(*log.cuts.lock(), [0, 1]);
    log.set(Pressure::None);
    assert!(scene.heard().contains(r#""seq":2"#));
}

#[test]
fn a_stream_that_holds_back_a_full_journal_is_cut_again_when_it_has_applied_more() {
    let log = FullLog::new();
    let scene = scene(Arc::clone(&log) as Arc<dyn Log>);
    scene.publish(&["s.a"]);
    log.inner.wait_for_entries();
    log.set(Pressure::Checkpoints);
    scene.shards.checkpoint(7);
    log.wait_for_cuts(&[0]);
    // What it has in the journal is durable only now. Nobody asks again, as nothing changes in the journal.
    log.inner.open();
    log.wait_for_cuts(&[0, 1]);
    assert!(scene.heard().contains(r#""seq":1"#));
}

/// Does what it is given when it is told to.
#[derive(Default)]
struct Later(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl Executor for Later {
    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().push(job);
    }
}

impl Later {
    fn run(&self) {
        let jobs = std::mem::take(&mut *self.0.lock());
        jobs.into_iter().for_each(|job| job());
    }
}

#[test]
fn who_publishes_faster_than_files_are_written_waits_for_them() {
    const MESSAGES: usize = 60;
    let directory = tempfile::tempdir().expect("there is room");
    let later = Arc::new(Later::default());
    let options = FileOptions::new(
        7,
        Arc::new(SystemEntropy),
        Arc::new(BlockCache::new(1 << 20)),
        Arc::<Later>::clone(&later),
    );
    let (disk, place) = (Arc::new(RealDisk), directory.path().to_owned());
    let store = FileStore::create(disk, place, options, Limits::default());
    let scene = scene_over(Box::new(store), Arc::new(InstantLog));
    let payload = Bytes::from(vec![b'x'; 1 << 20]);
    let send = |number: usize| {
        scene.send(&[Outgoing {
            subject: Bytes::from_static(b"s.a"),
            reply: Bytes::from(format!("reply.{number}")),
            payload: payload.clone(),
            ..Outgoing::default()
        }]);
    };
    // As many as may be in memory only: with their subjects they are a little more.
    let taken = 24;
    for number in 0..taken {
        send(number);
        scene.heard();
    }
    (taken..MESSAGES).for_each(send);
    let more = scene.inbox.recv_timeout(Duration::from_millis(100));
    assert!(more.is_err(), "{more:?}");
    // In the order in which they came.
    for number in taken..MESSAGES {
        let heard = loop {
            later.run();
            match scene.inbox.recv_timeout(Duration::from_millis(5)) {
                Ok(heard) => break heard,
                Err(_) => continue,
            }
        };
        assert_eq!(heard.subject, format!("reply.{number}"));
    }
    // The stream's last work ends with it.
    let ending = std::thread::spawn({
        let later = Arc::clone(&later);
        move || {
            for _ in 0..200 {
                later.run();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    drop(scene);
    ending.join().expect("it ends");
}
