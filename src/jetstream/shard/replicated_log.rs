//! The log of a replicated stream: what is decided is proposed to the stream's group, and what is committed comes back by its state machine.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use raft::group::{Group, Outcome};
use storage::journal::CommitSink;

use super::inbox::{Inbox, Item};
use crate::jetstream::log::{Checkpoint, Entry, Log, LogError, Pressure};

/// How long a proposal may take before it counts as unknown what becomes of it.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Proposals of one stream that may be open before its publishers wait.
const OPEN_PROPOSALS_MAX: u64 = 2048;
/// And their bytes.
const OPEN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A group, as far as a stream's log needs it.
pub(crate) trait Proposer: Send + Sync {
    /// Proposes a command; `done` hears once what became of it.
    fn propose(
        &self,
        command: Bytes,
        timeout: Duration,
        done: Box<dyn FnOnce(Outcome) + Send + 'static>,
    );
    /// A checkpoint is durable.
    fn released(&self, checkpoint: raft::group::Checkpoint);
}

impl Proposer for Group {
    fn propose(
        &self,
        command: Bytes,
        timeout: Duration,
        done: Box<dyn FnOnce(Outcome) + Send + 'static>,
    ) {
        Self::propose(self, command, timeout, done);
    }

    fn released(&self, checkpoint: raft::group::Checkpoint) {
        Self::released(self, checkpoint);
    }
}

/// Proposals that are not answered yet.
#[derive(Debug, Default)]
struct Open {
    proposals: AtomicU64,
    bytes: AtomicU64,
    /// Of one that was answered it is not known that it is applied. Nothing is proposed then until the stream proposes again.
    in_doubt: AtomicBool,
}

/// Proposes the entries of one stream, in order.
///
/// A proposal that is refused, or whose outcome is unknown, is no end: when all are answered the stream is told, and as long as it leads it proposes again what it
/// has not seen applied. An entry that comes twice fits only once.
pub(crate) struct ReplicatedLog {
    /// Where checkpoints go.
    storage: Arc<dyn Log>,
    group: OnceLock<Arc<dyn Proposer>>,
    inbox: Arc<Inbox>,
    slot: u64,
    open: Arc<Open>,
}

impl ReplicatedLog {
    pub(super) fn new(storage: Arc<dyn Log>, inbox: Arc<Inbox>, slot: u64) -> Self {
        Self {
            storage,
            group: OnceLock::new(),
            inbox,
            slot,
            open: Arc::default(),
        }
    }

    /// The group runs. It is told once.
    pub(super) fn join(&self, group: Arc<dyn Proposer>) {
        // A second one would be the same.
        let _ = self.group.set(group);
    }

    /// Whether every proposal is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.open.proposals.load(Ordering::Acquire) == 0
    }

    pub(super) fn released(&self, checkpoint: raft::group::Checkpoint) {
        if let Some(group) = self.group.get() {
            group.released(checkpoint);
        }
    }

    /// What was in doubt is proposed again now, or given up.
    pub(super) fn is_resolved(&self) {
        self.open.in_doubt.store(false, Ordering::Release);
    }

    pub(super) fn propose(&self, entries: impl IntoIterator<Item = Bytes>) {
        for entry in entries {
            let bytes = entry.len() as u64;
            self.open.proposals.fetch_add(1, Ordering::AcqRel);
            self.open.bytes.fetch_add(bytes, Ordering::AcqRel);
            let (open, inbox) = (Arc::clone(&self.open), Arc::clone(&self.inbox));
            let slot = self.slot;
            let done = move |outcome: Outcome| {
                open.bytes.fetch_sub(bytes, Ordering::AcqRel);
                if !matches!(outcome, Outcome::Committed(_)) {
                    open.in_doubt.store(true, Ordering::Release);
                }
                let was_last = open.proposals.fetch_sub(1, Ordering::AcqRel) == 1;
                if was_last && open.in_doubt.load(Ordering::Acquire) {
                    inbox.push(Item::InDoubt { slot });
                }
            };
            match self.group.get() {
                Some(group) => group.propose(entry, PROPOSAL_TIMEOUT, Box::new(done)),
                None => done(Outcome::Refused { leader: None }),
            }
        }
    }
}

impl Log for ReplicatedLog {
    fn submit(&self, entries: Vec<Entry>, _sink: &Arc<dyn CommitSink>) -> Result<(), LogError> {
        // Otherwise they come with all the others that are in flight.
        if !self.open.in_doubt.load(Ordering::Acquire) {
            self.propose(entries.into_iter().map(|entry| entry.payload));
        }
        Ok(())
    }

    fn checkpoint(
        &self,
        stream: u64,
        store: &mut dyn Any,
        index: u64,
        core: Bytes,
    ) -> Result<Checkpoint, LogError> {
        self.storage.checkpoint(stream, store, index, core)
    }

    fn pressure(&self) -> Pressure {
        let open = &self.open;
        if open.proposals.load(Ordering::Relaxed) >= OPEN_PROPOSALS_MAX
            || open.bytes.load(Ordering::Relaxed) >= OPEN_BYTES_MAX
        {
            return Pressure::Wait;
        }
        self.storage.pressure()
    }

    fn has_room(&self) -> bool {
        self.storage.has_room()
    }

    fn wait_until_idle(&self) {
        self.storage.wait_until_idle();
    }
}
