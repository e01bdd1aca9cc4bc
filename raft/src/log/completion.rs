//! Who waits for which frames to be durable, and where entries then stand.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use storage::journal::{Commit, CommitSink, FrameKind, JournalError};
use tokio::sync::oneshot;

use super::state::LogImage;
use crate::types::Types;

/// What happens when the frame with a token is durable.
pub(super) enum Waiter {
    /// openraft hears that an append is flushed.
    Flushed(IOFlushed<Types>),
    /// A caller that awaits.
    Caller(oneshot::Sender<Result<(), io::Error>>),
    /// Nobody.
    Nobody,
}

impl Waiter {
    pub(super) fn complete(self, result: Result<(), io::Error>) {
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // A caller that went away does not need to know.
            Self::Caller(sender) => drop(sender.send(result)),
            Self::Nobody => {}
        }
    }
}

/// The waiters of one group, by rising token. Frames of a group complete in the order they were submitted.
pub(super) struct Completions {
    image: Arc<Mutex<LogImage>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<(u64, Waiter)>,
    failed: Option<String>,
}

impl Completions {
    pub(super) fn new(image: Arc<Mutex<LogImage>>) -> Self {
        Self {
            image,
            waiting: Mutex::default(),
        }
    }

    /// `waiter` hears when the frame with `token` is durable; at once, and never again, when the journal failed before.
    pub(super) fn expect(&self, token: u64, waiter: Waiter) {
        let mut waiting = self.waiting.lock();
        match &waiting.failed {
            None => waiting.queue.push_back((token, waiter)),
            Some(reason) => {
                let error = io::Error::other(reason.clone());
                drop(waiting);
                waiter.complete(Err(error));
            }
        }
    }

    /// Takes back the waiter of a submission that was refused.
    pub(super) fn withdraw(&self, token: u64) -> Option<Waiter> {
        let mut waiting = self.waiting.lock();
        let at = waiting.queue.iter().rposition(|(of, _)| *of == token)?;
        waiting.queue.remove(at).map(|(_, waiter)| waiter)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().queue.len()
    }

    /// Why the journal takes nothing more, if it does not.
    pub(super) fn failure(&self) -> Option<io::Error> {
        let waiting = self.waiting.lock();
        waiting.failed.clone().map(io::Error::other)
    }
}

impl CommitSink for Completions {
    fn committed(&self, commits: &[Commit]) {
        let mut newest = 0;
        {
            let mut image = self.image.lock();
            for commit in commits {
                newest = newest.max(commit.token);
                if commit.kind == FrameKind::Entry {
                    image.locate(commit.index, commit.token, commit.location);
                }
            }
            image.evict();
        }
        let mut done = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let queue = &mut waiting.queue;
            while queue.front().is_some_and(|(token, _)| *token <= newest) {
                done.extend(queue.pop_front());
            }
        }
        for (_, waiter) in done {
            waiter.complete(Ok(()));
        }
    }

    fn failed(&self, error: &JournalError) {
        let queue = {
            let mut waiting = self.waiting.lock();
            waiting.failed = Some(error.to_string());
            std::mem::take(&mut waiting.queue)
        };
        for (_, waiter) in queue {
            waiter.complete(Err(io::Error::other(error.to_string())));
        }
    }
}
