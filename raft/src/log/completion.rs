//! Who waits for which frames to be durable.

use std::collections::VecDeque;
use std::io;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use storage::journal::{Commit, CommitSink, JournalError};
use tokio::sync::oneshot;

use crate::types::Group;

/// What happens when the frame with a token is durable.
pub(super) enum Waiter {
    /// openraft hears that an append is flushed.
    Flushed(IOFlushed<Group>),
    /// A caller that awaits.
    Caller(oneshot::Sender<Result<(), io::Error>>),
}

impl Waiter {
    fn complete(self, result: Result<(), io::Error>) {
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // A caller that went away does not need to know.
            Self::Caller(sender) => drop(sender.send(result)),
        }
    }
}

/// The waiters of one group, by rising token. Frames of a group complete in the order they were submitted.
#[derive(Default)]
pub(super) struct Completions {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last_token: u64,
    queue: VecDeque<(u64, Waiter)>,
    failed: Option<String>,
}

impl Completions {
    /// A token for the last frame of the next submission. After a failure the waiter hears of it at once, and the token is
    /// never reported.
    pub(super) fn expect(&self, waiter: Waiter) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.last_token += 1;
        let token = waiting.last_token;
        match &waiting.failed {
            None => waiting.queue.push_back((token, waiter)),
            Some(reason) => {
                let error = io::Error::other(reason.clone());
                drop(waiting);
                waiter.complete(Err(error));
            }
        }
        token
    }

    /// Why the journal takes nothing more, if it does not.
    pub(super) fn failure(&self) -> Option<io::Error> {
        let waiting = self.waiting.lock();
        waiting.failed.clone().map(io::Error::other)
    }
}

impl CommitSink for Completions {
    fn committed(&self, commits: &[Commit]) {
        let newest = commits.iter().map(|commit| commit.token).max();
        let newest = newest.unwrap_or(0);
        let mut done = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            while waiting
                .queue
                .front()
                .is_some_and(|(token, _)| *token <= newest)
            {
                done.extend(waiting.queue.pop_front());
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
