//! What a shard is handed from outside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use raft::group::{Applied, MachineFailed, Role};
use storage::journal::{Commit, CommitSink, JournalError};
use storage::rest::Rest;
use tokio::sync::oneshot;

use super::slot::{Slot, Surrendered};
use crate::broker::Inbound;
use crate::jetstream::core::{StreamReply, StreamRequest};

/// Called with the answer to a request.
pub(crate) type Answer = Box<dyn FnOnce(StreamReply) + Send>;
/// Called when something is done.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

/// Hears when a replica has taken what was committed; dropped when it never will.
pub(crate) type Taken = oneshot::Sender<Result<(), MachineFailed>>;
/// Takes a stream that was handed back.
pub(crate) type Taker = Box<dyn FnOnce(Surrendered) + Send>;
/// What a replica is to do, and at which time.
pub(crate) type Act = Box<dyn FnOnce(&mut Slot, i64) + Send>;

/// Something for a shard to do.
pub(super) enum Item {
    /// Take a stream in.
    Adopt(Box<Slot>),
    /// Messages for a stream.
    Inbound {
        slot: u64,
        batch: Vec<Inbound>,
        /// Whether little is to be done for them, none of which waits for a disk.
        is_light: bool,
    },
    /// Publishes that found a stream's queue full: their reply subjects.
    Overrun { slot: u64, replies: Vec<Bytes> },
    /// Listeners on a push consumer's deliver subject came or went.
    Interest {
        slot: u64,
        consumer: u64,
        active: bool,
    },
    /// A management request.
    Request {
        slot: u64,
        request: StreamRequest,
        answer: Answer,
    },
    /// Write a checkpoint when possible; by the stream's number in storage.
    Checkpoint { stream: u64 },
    /// A checkpoint is durable; by the stream's number in storage.
    Checkpointed { stream: u64, index: u64 },
    /// Entries that a replica's group has committed.
    Committed {
        slot: u64,
        batch: Vec<Applied>,
        done: Taken,
    },
    /// A replica has another role in its group.
    Role { slot: u64, role: Role },
    /// Every proposal of a replica is answered, and of some it is not known what became of them.
    InDoubt { slot: u64 },
    /// Something that concerns a replica alone.
    Replica { slot: u64, act: Act },
    /// The stream's store takes no changes any more.
    Fail { stream: u64, reason: String },
    /// No stream takes anything any more.
    FailAll { reason: String },
    /// Let a stream go.
    Remove { slot: u64, done: Done },
    /// Take nothing new, and hand the stream back when everything decided is applied.
    Surrender { slot: u64, taker: Taker },
    /// Bring everything to an end.
    Stop { done: Done },
}

/// What a shard finds when it looks.
#[derive(Default)]
pub(super) struct Work {
    pub(super) items: Vec<Item>,
    /// Entries that are durable: slot and index.
    pub(super) commits: Vec<(u64, u64)>,
    /// Why the log takes nothing any more.
    pub(super) failure: Option<JournalError>,
    /// Whether the thread is to look again when to wake.
    pub(super) is_called: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.commits.is_empty()
            && self.failure.is_none()
            && !self.is_called
    }

    /// Whether all there is are messages that an offer was made for, and what became durable of those before.
    fn is_offered(&self, decided: &[(u64, u64)]) -> bool {
        let is_light = |item: &Item| matches!(item, Item::Inbound { is_light: true, .. });
        self.failure.is_none()
            && !self.is_called
            && self.items.iter().all(is_light)
            && self.commits.iter().all(|commit| decided.contains(commit))
    }
}

/// The inbox of a shard: one lock and at most one wake-up per hand-over.
#[derive(Default)]
pub(crate) struct Inbox {
    work: Mutex<Work>,
    ready: Condvar,
    /// Somebody works for the shard, and looks again afterwards: commits need wake nobody. Changed with `work` locked.
    is_attended: AtomicBool,
    /// The shard has ended: what comes is dropped. Changed with `work` locked.
    is_closed: AtomicBool,
    /// Rung for a shard without a thread.
    #[cfg(test)]
    pub(super) bell: std::sync::OnceLock<std::sync::Arc<tokio::sync::Notify>>,
}

impl Inbox {
    fn wake(&self) {
        self.ready.notify_one();
        #[cfg(test)]
        if let Some(bell) = self.bell.get() {
            bell.notify_one();
        }
    }

    /// What waits.
    pub(super) fn len(&self) -> usize {
        let work = self.work.lock();
        work.items.len() + work.commits.len()
    }

    pub(super) fn push(&self, item: Item) {
        if self.put(item) {
            self.wake();
        }
    }

    /// Takes something in and wakes nobody. Whether there was nothing before: then the caller has to see to it that it is done.
    pub(super) fn put(&self, item: Item) -> bool {
        let mut work = self.work.lock();
        if self.is_closed.load(Ordering::Relaxed) {
            drop(work);
            drop(item);
            return false;
        }
        let first = work.is_empty();
        work.items.push(item);
        first
    }

    /// Has the thread look what there is, and when it should wake.
    pub(super) fn call(&self) {
        self.work.lock().is_called = true;
        self.wake();
    }

    /// Takes all that is there into `work`, if all of it was offered: messages, and what is durable of the entries that were `decided` for such messages
    /// before. Who was given something has to [`Inbox::leave`].
    pub(super) fn take_offered(&self, work: &mut Work, decided: &[(u64, u64)]) -> bool {
        let mut here = self.work.lock();
        let is_offered = here.is_offered(decided);
        if is_offered {
            std::mem::swap(&mut *here, work);
            self.is_attended.store(true, Ordering::Relaxed);
        }
        is_offered
    }

    /// The work that was taken is done. Whether nothing waits.
    pub(super) fn leave(&self) -> bool {
        let here = self.work.lock();
        self.is_attended.store(false, Ordering::Relaxed);
        here.is_empty()
    }

    /// Puts what was taken back in front of all that came since.
    pub(super) fn put_back(&self, work: &mut Work) {
        let mut here = self.work.lock();
        work.items.append(&mut here.items);
        work.commits.append(&mut here.commits);
        std::mem::swap(&mut here.items, &mut work.items);
        std::mem::swap(&mut here.commits, &mut work.commits);
    }

    /// The work that was taken is done: waits up to `patience` for more.
    pub(super) fn wait(&self, patience: Option<Duration>, rest: &mut Rest) {
        let mut here = self.work.lock();
        self.is_attended.store(false, Ordering::Relaxed);
        if !here.is_empty() {
            return;
        }
        if patience != Some(Duration::ZERO) {
            rest.wait(&self.ready, &mut here, patience);
        }
    }

    /// Drops what is there and all that still comes, so that nobody waits for an answer.
    pub(super) fn close(&self) {
        let mut work = self.work.lock();
        self.is_closed.store(true, Ordering::Relaxed);
        let left = std::mem::take(&mut *work);
        // Who is told may have something to say.
        drop(work);
        drop(left);
    }

    /// Takes all that is there into `work`. Who does has to [`Inbox::wait`] or [`Inbox::leave`] afterwards.
    pub(super) fn take(&self, work: &mut Work) {
        let mut here = self.work.lock();
        std::mem::swap(&mut *here, work);
        self.is_attended.store(true, Ordering::Relaxed);
    }
}

impl CommitSink for Inbox {
    fn committed(&self, commits: &[Commit]) {
        let mut work = self.work.lock();
        let is_waited_for = work.is_empty() && !self.is_attended.load(Ordering::Relaxed);
        work.commits
            .extend(commits.iter().map(|commit| (commit.token, commit.index)));
        drop(work);
        if is_waited_for {
            self.wake();
        }
    }

    fn failed(&self, error: &JournalError) {
        let mut work = self.work.lock();
        work.failure = Some(error.clone());
        drop(work);
        self.wake();
    }
}

/// How much may wait for one stream; what comes beyond that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingMax {
    /// Publishes.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How much waits for one stream.
#[derive(Debug)]
pub(super) struct Gauge {
    max: WaitingMax,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Gauge {
    pub(super) fn new(max: WaitingMax) -> Self {
        Self {
            max,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Counts what comes in; `false`, and nothing counted, when too much waits already.
    pub(super) fn admit(&self, messages: u64, bytes: u64) -> bool {
        if self.messages.load(Ordering::Relaxed) >= self.max.messages
            || self.bytes.load(Ordering::Relaxed) >= self.max.bytes
        {
            return false;
        }
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Counts what was taken out.
    pub(super) fn release(&self, messages: u64, bytes: u64) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The size of a batch for the gauge.
pub(super) fn measure(batch: &[Inbound]) -> (u64, u64) {
    let bytes = batch.iter().map(|inbound| {
        inbound.subject.len() + inbound.reply.len() + inbound.headers.len() + inbound.payload.len()
    });
    (batch.len() as u64, bytes.sum::<usize>() as u64)
}
