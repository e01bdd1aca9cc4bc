//! What a shard is handed from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use raft::group::{Applied, MachineFailed, Role};
use storage::journal::{Commit, CommitSink, JournalError};
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
    Inbound { slot: u64, batch: Vec<Inbound> },
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
    pub(super) failure: Option<String>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.commits.is_empty() && self.failure.is_none()
    }
}

/// The inbox of a shard: one lock and at most one wake-up per hand-over.
#[derive(Default)]
pub(crate) struct Inbox {
    work: Mutex<Work>,
    ready: Condvar,
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

    pub(super) fn push(&self, item: Item) {
        let mut work = self.work.lock();
        let first = work.is_empty();
        work.items.push(item);
        drop(work);
        if first {
            self.wake();
        }
    }

    /// Takes all that is there into `work`, waiting up to `patience` for something.
    pub(super) fn take(&self, work: &mut Work, patience: Option<Duration>) {
        let mut here = self.work.lock();
        if here.is_empty() {
            match patience {
                Some(Duration::ZERO) => {}
                Some(patience) => {
                    self.ready.wait_for(&mut here, patience);
                }
                None => self.ready.wait(&mut here),
            }
        }
        std::mem::swap(&mut *here, work);
    }
}

impl CommitSink for Inbox {
    fn committed(&self, commits: &[Commit]) {
        let mut work = self.work.lock();
        let first = work.is_empty();
        work.commits
            .extend(commits.iter().map(|commit| (commit.token, commit.index)));
        drop(work);
        if first {
            self.wake();
        }
    }

    fn failed(&self, error: &JournalError) {
        let mut work = self.work.lock();
        work.failure = Some(error.to_string());
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
