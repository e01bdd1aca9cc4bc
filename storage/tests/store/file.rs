//! The store in block files keeps the promises of a store, through restarts, crashes and damage.

#[path = "file/aside.rs"]
mod aside;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use storage::block::BlockCache;
use storage::codec::Compression;
use storage::disk::sim::SimDisk;
use storage::disk::{Disk, DiskError};
use storage::entropy::SeededEntropy;
use storage::executor::Executor;
use storage::seal::{Cipher, KeyRing};
use storage::store::{
    Deletion, FileOpenError, FileOptions, FileStore, Frozen, Limits, Opened, ReadError, Store,
};

use crate::driver::{
    Concrete, Step, apply, cases, compare_everything, compare_state, concrete, limits, step,
};
use crate::model::ModelStore;

const DIRECTORY: &str = "/stream";

/// How a test's store keeps its messages.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub block_bytes: u64,
    pub flush_bytes: usize,
    pub compression: Compression,
    pub cipher: Option<Cipher>,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop_oneof![Just(5_000u64), Just(7_000), Just(20_000)],
        prop_oneof![Just(1usize), Just(300), Just(1_000), Just(4_000)],
        prop_oneof![Just(Compression::None), Just(Compression::S2)],
        prop_oneof![
            3 => Just(None),
            1 => Just(Some(Cipher::Aes256Gcm)),
            1 => Just(Some(Cipher::ChaCha20Poly1305)),
        ],
    )
        .prop_map(|(block_bytes, flush_bytes, compression, cipher)| Shape {
            // A block that is encrypted has its key slots in front.
            block_bytes: block_bytes + if cipher.is_some() { 8192 } else { 0 },
            flush_bytes,
            compression,
            cipher,
        })
}

/// What happens besides changes.
#[derive(Debug, Clone)]
pub enum Event {
    Change(Step),
    /// One job of the background runs.
    RunJob,
    Freeze,
    /// The frozen cut is made durable.
    Save,
    /// The open block is ended, if it is long.
    End,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => step(200).prop_map(Event::Change),
        8 => Just(Event::RunJob),
        3 => Just(Event::Freeze),
        3 => Just(Event::Save),
        1 => Just(Event::End),
        1 => Just(Event::Restart),
    ]
}

type Job = Box<dyn FnOnce() + Send>;

/// Keeps jobs until the test runs them.
#[derive(Default)]
struct Queue(Mutex<VecDeque<Job>>);

impl Executor for Queue {
    fn spawn(&self, job: Job) {
        self.0.lock().push_back(job);
    }
}

impl Queue {
    fn run_one(&self) -> bool {
        let job = self.0.lock().pop_front();
        job.map(|job| job()).is_some()
    }
}

/// A server as far as one stream is concerned: its log, its disk, its store.
struct Server {
    disk: SimDisk,
    options: FileOptions,
    first_limits: Limits,
    store: FileStore,
    model: ModelStore,
    now_ns: i64,
    /// The log: what entry `index + 1` did.
    log: Vec<Concrete>,
    carried: Option<Bytes>,
    /// The newest cut that is known to be durable, and the one that may be.
    durable: u64,
    pending: Option<u64>,
    save: Option<Box<dyn FnOnce() -> Result<(), DiskError> + Send>>,
    background: Arc<Queue>,
}

impl Server {
    fn start(seed: u64, shape: Shape, limits: Limits) -> Self {
        let disk = SimDisk::new(seed);
        let entropy = Arc::new(SeededEntropy::new(seed));
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        let cache = Arc::new(BlockCache::new(1 << 20));
        let background = Arc::new(Queue::default());
        let mut options = FileOptions::new(7, entropy.clone(), cache, background.clone());
        options.block_bytes = Some(shape.block_bytes);
        options.flush_bytes = shape.flush_bytes;
        options.compression = shape.compression;
        if let Some(cipher) = shape.cipher {
            let ring = KeyRing::open(
                &disk,
                Path::new("/"),
                b"passphrase",
                None,
                cipher,
                &*entropy,
            );
            options.ring = Some(Arc::new(ring.unwrap()));
            options.cipher = Some(cipher);
        }
        let store = FileStore::create(
            Arc::new(disk.clone()),
            PathBuf::from(DIRECTORY),
            options.clone(),
            limits,
        );
        Self {
            disk,
            options,
            first_limits: limits,
            store,
            model: ModelStore::new(limits),
            now_ns: 1_000,
            log: Vec::new(),
            carried: None,
            durable: 0,
            pending: None,
            save: None,
            background,
        }
    }

    fn core(index: u64) -> Bytes {
        Bytes::from(format!("core at {index}"))
    }

    fn change(&mut self, step: &Step) {
        let change = concrete(step, &self.model.state(), &mut self.now_ns);
        self.apply(change);
    }

    fn apply(&mut self, change: Concrete) {
        let expected = apply(&mut self.model, &change);
        let found = apply(&mut self.store, &change);
        self.log.push(change);
        let change = self.log.last().unwrap();
        assert_eq!(expected, found, "entry {}: {change:?}", self.log.len());
        compare_state(&self.model, &self.store);
    }

    fn run_job(&mut self) {
        self.background.run_one();
    }

    /// Lets the store hand out and take in jobs until none is left.
    fn run_jobs(&mut self) {
        loop {
            // A change that is refused: the store sees to its jobs and changes nothing.
            let _ = self.store.skip(0, 0);
            if !self.background.run_one() {
                return;
            }
        }
    }

    fn freeze(&mut self) {
        let index = self.log.len() as u64;
        if self.save.is_some() {
            return;
        }
        match self.store.freeze(index, Self::core(index), 3_000) {
            Frozen::Carry(bytes) => {
                self.carried = Some(bytes);
                self.durable = index;
            }
            Frozen::Files(save) => {
                self.pending = Some(index);
                self.save = Some(save);
            }
        }
    }

    fn save(&mut self) {
        let Some(save) = self.save.take() else {
            return;
        };
        if save().is_ok() {
            self.durable = self.pending.take().unwrap();
        }
    }

    /// Opens the store again, applies what the log has after its cut, and says that this was all.
    fn recover(&mut self) {
        self.reopen();
        self.store.caught_up(self.log.len() as u64);
    }

    /// Opens the store again and applies what the log has after its cut.
    fn reopen(&mut self) {
        self.try_reopen().unwrap();
        compare_everything(&self.model, &self.store);
    }

    fn try_reopen(&mut self) -> Result<(), FileOpenError> {
        let opened = self.open()?;
        let possible = [Some(self.durable), self.pending];
        assert!(
            possible.contains(&Some(opened.index)),
            "opened at {} of {possible:?}",
            opened.index
        );
        if opened.index > 0 {
            assert_eq!(opened.core, Self::core(opened.index));
        }
        self.durable = opened.index;
        self.pending = None;
        self.store = opened.store;
        for change in &self.log[opened.index as usize..] {
            apply(&mut self.store, change).0.ok();
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Opened, FileOpenError> {
        self.save = None;
        self.background.0.lock().clear();
        FileStore::open(
            Arc::new(self.disk.clone()),
            PathBuf::from(DIRECTORY),
            self.carried.clone(),
            self.options.clone(),
            self.first_limits,
        )
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Change(step) => self.change(step),
            Event::RunJob => self.run_job(),
            Event::Freeze => self.freeze(),
            Event::Save => self.save(),
            Event::End => self.store.end_open_block(4_500),
            Event::Restart => {
                self.disk.kill();
                self.recover();
            }
        }
    }

    /// Makes a checkpoint of all that there is.
    fn checkpoint(&mut self) {
        self.save();
        self.run_jobs();
        self.freeze();
        self.save();
        assert_eq!(self.durable, self.log.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), ..ProptestConfig::default() })]

    #[test]
    fn a_file_store_agrees_with_the_model_through_restarts(
        seed in any::<u64>(),
        shape in shape(),
        limits in limits(),
        events in proptest::collection::vec(event(), 1..250),
    ) {
        let mut server = Server::start(seed, shape, limits);
        for (at, event) in events.iter().enumerate() {
            server.play(event);
            if at % 40 == 39 {
                compare_everything(&server.model, &server.store);
            }
        }
        server.disk.kill();
        server.recover();
        server.checkpoint();
        server.disk.crash();
        server.recover();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(6), ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_write_or_sync_loses_nothing_that_was_checkpointed(
        seed in any::<u64>(),
        shape in shape(),
        limits in limits(),
        events in proptest::collection::vec(event(), 60..140),
    ) {
        let events: Vec<Event> = events
            .into_iter()
            .filter(|event| !matches!(event, Event::Restart))
            .collect();
        let mut halt = 3;
        loop {
            let mut server = Server::start(seed, shape, limits);
            server.disk.halt_at(server.disk.changes() + halt);
            for event in &events {
                server.play(event);
                if server.disk.is_halted() {
                    break;
                }
            }
            let halted = server.disk.is_halted();
            server.disk.crash();
            server.recover();
            // It goes on as if nothing had been.
            for event in events.iter().take(20) {
                server.play(event);
            }
            server.checkpoint();
            server.disk.crash();
            server.recover();
            if !halted {
                break;
            }
            halt += 1;
        }
    }
}

fn small_shape() -> Shape {
    Shape {
        block_bytes: 40_000,
        flush_bytes: 8_000,
        compression: Compression::None,
        cipher: None,
    }
}

fn append(subject: u8, payload: u16) -> Step {
    Step::Append {
        subject,
        headers: 0,
        payload,
        later_ns: 1,
        expiry: crate::driver::Dies::ByAge,
    }
}

fn filled(shape: Shape, messages: u16) -> Server {
    let mut server = Server::start(1, shape, Limits::default());
    for at in 0..messages {
        server.change(&append((at % 16) as u8, 150));
        server.run_jobs();
    }
    server.checkpoint();
    server
}

fn block_files(disk: &SimDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIRECTORY)).unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".block")).collect()
}

#[test]
fn a_small_stream_has_no_files_and_lives_in_its_checkpoint() {
    let mut server = Server::start(
        1,
        Shape {
            flush_bytes: 1 << 20,
            ..small_shape()
        },
        Limits::default(),
    );
    for at in 0..20 {
        server.change(&append(at % 16, 50));
    }
    server.checkpoint();
    assert!(server.carried.is_some());
    assert_eq!(server.disk.list(Path::new(DIRECTORY)).unwrap(), []);
    server.disk.crash();
    server.recover();
    assert_eq!(server.durable, 20);
}

#[test]
fn a_flipped_bit_costs_the_messages_of_its_chunk_and_no_others() {
    let server = filled(small_shape(), 1000);
    let files = block_files(&server.disk);
    assert!(files.len() > 3, "{files:?}");
    let path = Path::new(DIRECTORY).join(&files[0]);
    for at in [500, 3000, 5000] {
        server.disk.flip_bit(&path, 4096 + at, 3);
    }
    server.disk.kill();
    let opened = FileStore::open(
        Arc::new(server.disk.clone()),
        PathBuf::from(DIRECTORY),
        None,
        server.options.clone(),
        Limits::default(),
    )
    .unwrap();
    let mut damaged = 0;
    for sequence in 1..=1000 {
        match opened.store.load(sequence) {
            Ok(found) => assert_eq!(found, server.model.load(sequence).unwrap()),
            Err(ReadError::Damaged { .. }) => damaged += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..60).contains(&damaged), "{damaged}");
    assert!(opened.store.damage().is_some(), "a read has found it");
    assert_eq!(opened.store.state().messages, 1000);
    let unreadable: Vec<u64> = (1..=1000)
        .filter(|sequence| opened.store.load(*sequence).is_err())
        .collect();
    let lost = opened.store.lost_messages(usize::MAX);
    assert_eq!(lost.sequences, unreadable);
    assert!(lost.bytes > 0);
    assert_eq!(opened.store.state().lost, damaged);
    assert_eq!(opened.store.lost_messages(1).sequences, unreadable[..1]);
    assert_eq!(opened.store.lost_messages(1).bytes, lost.bytes);
    let mut store = opened.store;
    let gone = unreadable[0];
    store
        .delete(gone, Deletion::Unlink, &mut ())
        .expect("it is deleted");
    let left = store.lost_messages(usize::MAX);
    assert_eq!(left.sequences, unreadable[1..]);
    store.compact(unreadable[2], &mut ()).expect("it compacts");
    assert_eq!(store.state().lost, damaged - 2);
    store
        .truncate(unreadable[2], &mut ())
        .expect("it truncates");
    let left = store.lost_messages(usize::MAX);
    assert_eq!(left.sequences, [unreadable[2]]);
}

#[test]
fn what_a_removal_cannot_read_is_counted_as_guessed() {
    let server = filled(small_shape(), 1000);
    let files = block_files(&server.disk);
    let path = Path::new(DIRECTORY).join(&files[0]);
    server.disk.flip_bit(&path, 4096 + 3000, 3);
    server.disk.kill();
    let opened = FileStore::open(
        Arc::new(server.disk.clone()),
        PathBuf::from(DIRECTORY),
        None,
        server.options.clone(),
        Limits::default(),
    )
    .unwrap();
    let mut store = opened.store;
    let is_damaged = |store: &FileStore, sequence: &u64| store.load(*sequence).is_err();
    let damaged = (1..=1000).find(|sequence| is_damaged(&store, sequence));
    let damaged = damaged.expect("the bit is in a message");
    let whole = (1..=1000).find(|sequence| !is_damaged(&store, sequence));
    let whole = whole.expect("the others are not");
    assert_eq!(store.guesses(), 0, "a read says that it fails");
    assert!(store.delete(whole, Deletion::Unlink, &mut ()).unwrap());
    assert_eq!(store.guesses(), 0, "what this one counted can be read");
    assert!(store.delete(damaged, Deletion::Unlink, &mut ()).unwrap());
    assert!(store.guesses() > 0, "nobody knows what this one counted");
    assert_eq!(store.state().messages, 998);
    store.truncate(0, &mut ()).unwrap();
    assert_eq!(store.guesses(), 0, "of nothing everything is known");
}

#[test]
fn a_question_about_what_cannot_be_read_is_no_guess() {
    let mut server = filled(small_shape(), 1000);
    let files = block_files(&server.disk);
    let path = Path::new(DIRECTORY).join(&files[0]);
    server.disk.flip_bit(&path, 4096 + 3000, 3);
    server.disk.kill();
    let mut store = server.open().unwrap().store;
    let damaged = (1..=1000).find(|sequence| store.load(*sequence).is_err());
    let damaged = damaged.expect("the bit is in a message");
    store.compact(damaged, &mut ()).unwrap();
    let state = store.state();
    assert_eq!(
        (state.first_sequence, state.messages),
        (damaged, 1001 - damaged)
    );
    assert!(store.next_expiry_ns().is_none());
    assert_eq!(store.guesses(), 0);
}

#[test]
fn what_was_written_lately_is_at_hand_and_what_is_sealed_may_not_be() {
    let mut server = filled(small_shape(), 1000);
    server.run_jobs();
    assert!(block_files(&server.disk).len() > 2);
    let store = &server.store;
    let at_hand: Vec<bool> = (1..=1000).map(|at| store.is_at_hand(at)).collect();
    assert!(!at_hand[0] && at_hand[999]);
    assert!(at_hand.is_sorted(), "only the end of the stream is");
    assert!(store.is_at_hand(5000), "that there is none is known");
}

#[test]
fn a_long_open_block_is_ended_before_the_last_checkpoint_and_a_short_one_is_not() {
    for (messages, is_ended) in [(10, false), (100, true)] {
        let shape = Shape {
            block_bytes: 64 << 20,
            ..small_shape()
        };
        let mut server = Server::start(1, shape, Limits::default());
        for at in 0..messages {
            server.change(&append((at % 16) as u8, 60_000));
        }
        server.run_jobs();
        server.store.end_open_block(4 << 20);
        server.checkpoint();
        assert_eq!(!server.store.is_at_hand(1), is_ended, "{messages}");
        server.disk.crash();
        server.recover();
        assert_eq!(!server.store.is_at_hand(1), is_ended, "{messages}");
        // It goes on.
        for at in 0..20 {
            server.change(&append(at, 60_000));
        }
        server.checkpoint();
        server.disk.crash();
        server.recover();
    }
}

#[test]
fn a_checkpoint_syncs_a_block_once_however_often_it_was_written() {
    let shape = Shape {
        block_bytes: 1 << 20,
        flush_bytes: 1,
        ..small_shape()
    };
    let mut server = Server::start(1, shape, Limits::default());
    for at in 0..40 {
        server.change(&append(at, 150));
        server.run_jobs();
    }
    assert_eq!(block_files(&server.disk).len(), 1);
    let before = server.disk.changes();
    server.freeze();
    server.save();
    let changes = server.disk.changes() - before;
    assert!(changes < 12, "{changes} writes and syncs");
}

#[test]
fn a_missing_block_is_reported_with_its_range_and_the_rest_is_served() {
    let mut server = filled(small_shape(), 1000);
    let files = block_files(&server.disk);
    let path = Path::new(DIRECTORY).join(&files[1]);
    server.disk.remove_file(&path).unwrap();
    let opened = FileStore::open(
        Arc::new(server.disk.clone()),
        PathBuf::from(DIRECTORY),
        None,
        server.options.clone(),
        Limits::default(),
    )
    .unwrap();
    let mut store = opened.store;
    let ranges = store.lost_ranges();
    let [(first, last)] = ranges[..] else {
        panic!("{ranges:?}");
    };
    assert_eq!(store.state().lost, last + 1 - first);
    let lost = store.lost_messages(usize::MAX);
    assert_eq!(lost.sequences, Vec::from_iter(first..=last));
    assert!(lost.bytes > last + 1 - first);
    let known = format!("sequences {first} to {last} cannot be read");
    assert_eq!(store.damage(), Some(known.as_str()));
    assert_eq!(store.state().messages, 1000);
    for sequence in 1..=1000 {
        match store.load(sequence) {
            Ok(found) => assert_eq!(found, server.model.load(sequence).unwrap()),
            Err(_) => assert!((first..=last).contains(&sequence)),
        }
    }
    // What is lost can still be deleted, and then nothing is lost any more.
    assert_eq!(store.compact(last + 1, &mut ()).unwrap(), last);
    assert_eq!(store.state().lost, 0);
    assert_eq!(store.state().messages, 1000 - last);
    server.store = store;
}

#[test]
fn erased_bytes_are_in_no_file_after_the_next_checkpoint() {
    let mut server = Server::start(1, small_shape(), Limits::default());
    let secret = b"the-secret-that-must-go";
    let contains = |server: &Server| {
        let mut names = block_files(&server.disk);
        names.push("checkpoint".into());
        names.iter().any(|name| {
            let content = server.disk.content(&Path::new(DIRECTORY).join(name));
            let content = content.unwrap_or_default();
            content.windows(secret.len()).any(|window| window == secret)
        })
    };
    for at in 0..800u64 {
        let change = Concrete::Append {
            sequence: at + 1,
            time_ns: 5,
            subject: "a".into(),
            headers: Vec::new(),
            payload: if at == 100 || at == 780 {
                secret.to_vec()
            } else {
                vec![7; 150]
            },
            expiry: storage::store::Expiry::ByAge,
        };
        server.apply(change);
        server.run_jobs();
    }
    server.checkpoint();
    assert!(contains(&server));
    for sequence in [101, 781] {
        let change = Concrete::Delete(sequence, Deletion::Erase);
        server.apply(change);
    }
    server.checkpoint();
    assert!(!contains(&server));
    server.disk.crash();
    server.recover();
    assert!(!contains(&server));
}

#[test]
fn a_failed_write_poisons_the_store_and_what_was_checkpointed_survives() {
    let mut server = filled(small_shape(), 300);
    for at in 0..100 {
        server.change(&append(at % 16, 150));
    }
    assert!(server.background.0.lock().len() == 1);
    let change = server.disk.changes();
    server
        .disk
        .fail_change(change, storage::disk::sim::Fault::Error);
    server.run_jobs();
    let message = storage::store::NewMessage {
        sequence: server.store.state().last_sequence + 1,
        time_ns: 0,
        subject: b"a",
        headers: b"",
        payload: b"",
        expiry: storage::store::Expiry::ByAge,
    };
    assert!(server.store.append(&message, &mut ()).is_err());
    assert!(server.store.load(1).unwrap().is_some());
    server.disk.kill();
    server.recover();
}

#[test]
fn a_stream_of_overwritten_keys_ends_in_few_blocks() {
    let mut server = Server::start(
        1,
        small_shape(),
        Limits {
            per_subject_max: Some(1),
            ..Limits::default()
        },
    );
    for at in 0..6000u32 {
        // A few keys are written once and never again.
        let subject = if at % 97 == 0 {
            15 + (at / 97 % 9) as u8
        } else {
            (at % 15) as u8
        };
        server.change(&append(subject, 150));
        server.run_jobs();
    }
    server.checkpoint();
    let files = block_files(&server.disk);
    assert!(files.len() <= 3, "{files:?}");
    server.disk.crash();
    server.recover();
}

#[test]
fn an_encrypted_block_is_continued_after_any_number_of_restarts() {
    let shape = Shape {
        block_bytes: 1 << 20,
        flush_bytes: 100,
        cipher: Some(Cipher::Aes256Gcm),
        ..small_shape()
    };
    let mut server = Server::start(1, shape, Limits::default());
    for restart in 0..80 {
        for at in 0..3 {
            server.change(&append(at, 150));
            server.run_jobs();
        }
        server.checkpoint();
        if restart % 2 == 0 {
            server.disk.crash();
        } else {
            server.disk.kill();
        }
        server.recover();
    }
    assert_eq!(server.store.state().messages, 240);
}

#[test]
fn a_block_that_is_sealed_while_it_is_purged_and_removed_fails_nothing() {
    let shape = Shape {
        block_bytes: 5_000,
        flush_bytes: 1,
        ..small_shape()
    };
    let mut server = Server::start(1, shape, Limits::default());
    for at in 0..8 {
        server.change(&append(at, 150));
    }
    // The first flush takes the first message along, the second the others: it fills the block, and taking it in hands out
    // the sealing, which then waits in the queue.
    for _ in 0..2 {
        server.run_job();
        server.change(&append(8, 150));
    }
    assert!(!server.background.0.lock().is_empty());
    let blocks = block_files(&server.disk);
    assert_eq!(blocks.len(), 1);
    server.change(&Step::Purge {
        filter: 0,
        below: None,
        keep: 0,
    });
    server.freeze();
    server.save();
    assert_ne!(block_files(&server.disk), blocks);
    server.run_jobs();
    for at in 0..30 {
        server.change(&append(at, 150));
        server.run_jobs();
    }
    server.checkpoint();
    server.disk.crash();
    server.recover();
}

#[test]
fn a_full_disk_poisons_the_store_and_nothing_that_was_checkpointed_is_lost() {
    let mut server = filled(small_shape(), 300);
    server.disk.set_capacity(Some(150_000));
    for at in 0..2_000u16 {
        let before = server.store.state().last_sequence;
        let payload = [7; 150];
        let message = storage::store::NewMessage {
            sequence: before + 1,
            time_ns: 5_000,
            subject: b"a",
            headers: b"",
            payload: &payload,
            expiry: storage::store::Expiry::ByAge,
        };
        if server.store.append(&message, &mut ()).is_err() {
            assert!(at > 0);
            server.disk.crash();
            server.recover();
            assert_eq!(server.store.state().last_sequence, 300);
            return;
        }
        server.run_jobs();
    }
    panic!("the disk was never full");
}
