//! The journal on its thread, over real files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::*;
use crate::disk::RealDisk;
use crate::entropy::SystemEntropy;
use crate::executor::ThreadPool;

const PATIENCE: Duration = Duration::from_secs(60);

struct Channel(mpsc::Sender<Result<Vec<Commit>, JournalError>>);

impl CommitSink for Channel {
    fn committed(&self, commits: &[Commit]) {
        let _ = self.0.send(Ok(commits.to_vec()));
    }

    fn failed(&self, error: &JournalError) {
        let _ = self.0.send(Err(error.clone()));
    }
}

type Told = mpsc::Receiver<Result<Vec<Commit>, JournalError>>;

fn channel() -> (Arc<dyn CommitSink>, Told) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Channel(sender)), receiver)
}

fn open_real(path: &Path, options: JournalOptions) -> (Journal, Replay) {
    let options = JournalOptions {
        background: Arc::new(ThreadPool::new("test", 1)),
        ..options
    };
    Journal::open(Arc::new(RealDisk), path, options, Arc::new(SystemEntropy)).unwrap()
}

#[test]
fn many_threads_share_commits_and_each_hears_of_its_own_in_order() {
    share(options());
}

#[test]
fn threads_that_commit_themselves_hear_of_their_own_in_order() {
    share(lazy());
}

/// Every other thread commits itself where it can.
fn share(options: JournalOptions) {
    const THREADS: u64 = 4;
    const FRAMES: u64 = 500;
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("journal");
    let (journal, _) = open_real(&directory, options.clone());
    std::thread::scope(|scope| {
        for owner in 1..=THREADS {
            let journal = &journal;
            scope.spawn(move || {
                let (sink, told) = channel();
                let mut heard = 0;
                for index in 1..=FRAMES {
                    let payload = content(owner, index);
                    let entry = frame(owner, index, FrameKind::Entry, payload);
                    let frames = [(entry, owner * 1_000_000 + index)];
                    let submitted = match owner % 2 {
                        0 => journal.submit(frames, &sink),
                        _ => journal.submit_here(frames, &sink),
                    };
                    submitted.unwrap();
                }
                while heard < FRAMES {
                    for commit in told.recv_timeout(PATIENCE).unwrap().unwrap() {
                        heard += 1;
                        assert_eq!(commit.token, owner * 1_000_000 + heard);
                        assert_eq!((commit.owner, commit.index), (Owner(owner), heard));
                    }
                }
            });
        }
    });
    assert_eq!(journal.staged_bytes(), 0);
    drop(journal);
    let (_journal, replay) = open_real(&directory, options);
    assert!(replay.clean);
    for owner in 1..=THREADS {
        assert_eq!(indexes(&replay, owner), (1..=FRAMES).collect::<Vec<_>>());
    }
}

#[test]
fn what_need_not_be_synced_is_committed_before_the_submitter_goes_on() {
    let disk = SimDisk::new(1);
    let entropy = Arc::new(SeededEntropy::new(1));
    let (journal, _) =
        Journal::open(Arc::new(disk.clone()), &directory(), lazy(), entropy).unwrap();
    let (sink, told) = channel();
    let here = |index, kind| {
        let frames = [(frame(1, index, kind, content(1, index)), index)];
        journal.submit_here(frames, &sink).unwrap();
    };
    here(1, FrameKind::Entry);
    let [commit] = told.try_recv().unwrap().unwrap()[..] else {
        panic!("one frame was submitted");
    };
    assert_eq!((commit.token, journal.staged_bytes()), (1, 0));
    // What has to be synced is left to the thread.
    let before = disk.changes();
    here(2, FrameKind::Vote);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap()[0].token, 2);
    assert!(disk.changes() >= before + 2, "written, then synced");
    disk.crash();
    drop(journal);
    let entropy = Arc::new(SeededEntropy::new(2));
    let (_journal, replay) =
        Journal::open(Arc::new(disk.clone()), &directory(), lazy(), entropy).unwrap();
    assert_eq!(indexes(&replay, 1), [1]);
}

#[test]
fn a_lazy_journal_acknowledges_before_the_sync_and_syncs_on_its_timer() {
    let disk = SimDisk::new(1);
    let interval = Duration::from_millis(20);
    let options = JournalOptions {
        durability: Durability::Interval(interval),
        ..options()
    };
    let open = || {
        let entropy = Arc::new(SeededEntropy::new(disk.changes()));
        Journal::open(
            Arc::new(disk.clone()),
            &directory(),
            options.clone(),
            entropy,
        )
        .unwrap()
    };
    let (journal, _) = open();
    let (sink, told) = channel();
    let entry = frame(1, 1, FrameKind::Entry, content(1, 1));
    let before = disk.changes();
    journal.submit([(entry, 7)], &sink).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap()[0].token, 7);
    // Zeros ahead, the commit, and then the sync.
    while disk.changes() < before + 3 {
        std::thread::yield_now();
    }
    disk.crash();
    drop(journal);
    let (_journal, replay) = open();
    assert_eq!(indexes(&replay, 1), [1]);
}

#[test]
fn after_a_failure_everyone_is_told_and_nothing_is_taken() {
    let disk = SimDisk::new(1);
    let entropy = Arc::new(SeededEntropy::new(1));
    let (journal, _) =
        Journal::open(Arc::new(disk.clone()), &directory(), options(), entropy).unwrap();
    let sinks: Vec<_> = (0..3).map(|_| channel()).collect();
    disk.halt_at(disk.changes());
    let refused = AtomicBool::new(false);
    for (owner, (sink, _)) in sinks.iter().enumerate() {
        let entry = frame(owner as u64, 1, FrameKind::Entry, "x");
        let submitted = journal.submit([(entry, 0)], sink);
        refused.fetch_or(submitted.is_err(), Ordering::Relaxed);
        if submitted.is_ok() {
            let told = sinks[owner].1.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(told, Err(JournalError::Failed(_))));
        }
    }
    assert!(refused.load(Ordering::Relaxed));
    let late = journal.submit([(frame(1, 2, FrameKind::Entry, "x"), 0)], &sinks[0].0);
    assert!(matches!(late, Err(JournalError::Failed(_))));
}

#[test]
fn closing_commits_what_was_submitted() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("journal");
    let (journal, _) = open_real(&directory, options());
    let (sink, told) = channel();
    let entries =
        (1..=50).map(|index| (frame(1, index, FrameKind::Entry, content(1, index)), index));
    journal.submit(entries, &sink).unwrap();
    journal.close();
    let tokens: Vec<u64> = told
        .try_iter()
        .flat_map(Result::unwrap)
        .map(|it| it.token)
        .collect();
    assert_eq!(tokens, (1..=50).collect::<Vec<_>>());
    let late = journal.submit([(frame(1, 51, FrameKind::Entry, "x"), 0)], &sink);
    assert!(matches!(late, Err(JournalError::Closed)));
    let (_journal, replay) = open_real(&directory, options());
    assert_eq!(indexes(&replay, 1).len(), 50);
}

/// A journal, and all that it says of its pressure.
fn listened_to() -> (Journal, mpsc::Receiver<Pressure>) {
    let disk = Arc::new(SimDisk::new(1));
    let entropy = Arc::new(SeededEntropy::new(1));
    let (journal, _) = Journal::open(disk, &directory(), options(), entropy).unwrap();
    let (heard, wanted) = mpsc::channel();
    let heard = Mutex::new(heard);
    journal.set_pressure_listener(move |pressure| {
        let _ = heard.lock().send(pressure.clone());
    });
    (journal, wanted)
}

#[test]
fn the_pressure_listener_hears_who_should_checkpoint() {
    let (journal, wanted) = listened_to();
    let (sink, told) = channel();
    let pressure = (1..)
        .find_map(|index| {
            let entry = frame(3, index, FrameKind::Entry, content(3, index));
            journal.submit([(entry, 0)], &sink).unwrap();
            told.recv_timeout(PATIENCE).unwrap().unwrap();
            let soft = |pressure: &Pressure| pressure.level == PressureLevel::Soft;
            wanted
                .try_iter()
                .find(soft)
                .map(|pressure| (index, pressure))
        })
        .unwrap();
    assert_eq!(pressure.1.owners, [Owner(3)]);
    journal.release(Owner(3), pressure.0);
    let calm = |pressure: &Pressure| pressure.level == PressureLevel::None;
    while !calm(&wanted.recv_timeout(PATIENCE).unwrap()) {}
}

#[test]
fn who_holds_back_the_journal_is_asked_again_when_nobody_commits_any_more() {
    for level in [PressureLevel::Soft, PressureLevel::Hard] {
        let (journal, wanted) = listened_to();
        press(&journal, level);
        while wanted.try_recv().is_ok() {}
        for _ in 0..2 {
            let again = wanted.recv_timeout(PATIENCE).unwrap();
            assert_eq!((again.level, again.owners), (level, vec![Owner(3)]));
        }
    }
}

#[test]
fn whoever_begins_to_listen_hears_how_things_are() {
    let (journal, _) = listened_to();
    press(&journal, PressureLevel::Soft);
    let (heard, wanted) = mpsc::channel();
    let heard = Mutex::new(heard);
    let begun = std::time::Instant::now();
    journal.set_pressure_listener(move |pressure| {
        let _ = heard.lock().send((pressure.level, begun.elapsed()));
    });
    let (level, after) = wanted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(level, PressureLevel::Soft);
    assert!(after < Duration::from_secs(1), "{after:?}");
}

/// Fills the journal until the pressure is so.
fn press(journal: &Journal, level: PressureLevel) {
    let (sink, told) = channel();
    for index in 1.. {
        let entry = frame(3, index, FrameKind::Entry, content(3, index));
        journal.submit([(entry, 0)], &sink).unwrap();
        told.recv_timeout(PATIENCE).unwrap().unwrap();
        if journal.pressure_level() == level {
            break;
        }
    }
}

#[test]
fn a_frame_that_is_too_large_is_refused_and_nothing_else_suffers() {
    let disk = SimDisk::new(1);
    let entropy = Arc::new(SeededEntropy::new(1));
    let (journal, _) =
        Journal::open(Arc::new(disk.clone()), &directory(), options(), entropy).unwrap();
    let (sink, told) = channel();
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    let large = Frame {
        payload: Payload::Parts(vec![piece; 257]),
        ..frame(1, 1, FrameKind::Entry, "")
    };
    let refused = journal.submit([(large, 0)], &sink);
    assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    journal
        .submit([(frame(1, 1, FrameKind::Entry, "x"), 5)], &sink)
        .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap()[0].token, 5);
}
