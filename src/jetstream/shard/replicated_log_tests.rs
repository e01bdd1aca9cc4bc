//! What a replicated log promises, with a group of our own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Outcome, Position};
use storage::journal::CommitSink;

use super::inbox::{Inbox, Item, Work};
use super::replicated_log::{Proposer, ReplicatedLog};
use crate::jetstream::log::{Entry, InstantLog, Log, Pressure};

type Done = Box<dyn FnOnce(Outcome) + Send>;

/// A group that answers when it is told to.
#[derive(Default)]
struct Told(Mutex<Vec<(Bytes, Done)>>);

impl Proposer for Told {
    fn propose(&self, command: Bytes, _timeout: Duration, done: Done) {
        self.0.lock().push((command, done));
    }

    fn released(&self, _checkpoint: raft::group::Checkpoint) {}
}

impl Told {
    fn answer(&self, outcome: &Outcome) -> Bytes {
        let (command, done) = self.0.lock().remove(0);
        done(outcome.clone());
        command
    }
}

fn entry(payload: &'static [u8]) -> Entry {
    Entry {
        stream: 1,
        index: 1,
        payload: Bytes::from_static(payload),
        token: 7,
    }
}

fn scene() -> (ReplicatedLog, Arc<Told>, Arc<Inbox>, Arc<dyn CommitSink>) {
    let (inbox, told) = (Arc::new(Inbox::default()), Arc::new(Told::default()));
    let log = ReplicatedLog::new(Arc::new(InstantLog), Arc::clone(&inbox), 7);
    log.join(Arc::<Told>::clone(&told));
    let sink: Arc<dyn CommitSink> = Arc::<Inbox>::clone(&inbox);
    (log, told, inbox, sink)
}

/// How often the stream was told that something is in doubt.
fn doubts(inbox: &Inbox) -> usize {
    let mut work = Work::default();
    inbox.take(&mut work);
    let items = work.items.iter();
    items
        .filter(|item| matches!(item, Item::InDoubt { slot: 7 }))
        .count()
}

const COMMITTED: Outcome = Outcome::Committed(Position { term: 1, index: 1 });

#[test]
fn what_is_committed_is_told_by_the_state_machine_alone() {
    let (log, told, inbox, sink) = scene();
    log.submit(vec![entry(b"a"), entry(b"b")], &sink)
        .expect("takes");
    assert_eq!(told.answer(&COMMITTED), "a");
    assert_eq!(told.answer(&COMMITTED), "b");
    assert_eq!(doubts(&inbox), 0);
    assert!(log.is_answered());
}

#[test]
fn a_doubt_is_told_once_all_are_answered_and_nothing_new_is_proposed_before_that() {
    let (log, told, inbox, sink) = scene();
    log.submit(vec![entry(b"a"), entry(b"b")], &sink)
        .expect("takes");
    told.answer(&Outcome::Unknown);
    log.submit(vec![entry(b"c")], &sink).expect("takes");
    assert_eq!(doubts(&inbox), 0);
    told.answer(&COMMITTED);
    assert_eq!(doubts(&inbox), 1);
    assert!(
        told.0.lock().is_empty(),
        "c comes with all that is in flight"
    );
    log.is_resolved();
    log.propose([Bytes::from_static(b"a"), Bytes::from_static(b"c")]);
    log.submit(vec![entry(b"d")], &sink).expect("takes");
    let order: Vec<Bytes> = (0..3).map(|_| told.answer(&COMMITTED)).collect();
    assert_eq!(order, ["a", "c", "d"]);
    assert_eq!(doubts(&inbox), 0);
}

#[test]
fn too_much_that_is_open_makes_publishers_wait() {
    let (log, told, _inbox, sink) = scene();
    let many = (0..2048).map(|_| entry(b"a")).collect();
    log.submit(many, &sink).expect("takes");
    assert_eq!(log.pressure(), Pressure::Wait);
    told.answer(&COMMITTED);
    assert_eq!(log.pressure(), Pressure::None);
}

#[test]
fn without_a_group_everything_is_in_doubt() {
    let inbox = Arc::new(Inbox::default());
    let log = ReplicatedLog::new(Arc::new(InstantLog), Arc::clone(&inbox), 7);
    let sink: Arc<dyn CommitSink> = Arc::<Inbox>::clone(&inbox);
    log.submit(vec![entry(b"a")], &sink).expect("takes");
    assert_eq!(doubts(&inbox), 1);
}
