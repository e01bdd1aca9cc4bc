//! What goes on at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::broker::{Account, Broker, Outgoing, PublishCache};

/// How many go on at one time.
const MAX: usize = 64;
/// How long it may take until interest in the subject of a restore is known where its client is, and how often that is looked at.
const INTEREST_WAIT: Duration = Duration::from_secs(2);
const INTEREST_LOOK: Duration = Duration::from_millis(2);

/// The backups that go on.
pub(crate) struct Backups {
    broker: Arc<Broker>,
    domain: String,
    state: Mutex<State>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Account and stream.
    streams: HashSet<(String, String)>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a backup does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("snapshot in progress")]
    InProgress,
    #[error("too many backups at one time")]
    TooMany,
}

impl Backups {
    pub(crate) fn new(broker: &Arc<Broker>, domain: &str) -> Arc<Self> {
        Arc::new(Self {
            broker: Arc::clone(broker),
            domain: domain.to_owned(),
            state: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// One that is about to begin. Its place is free again when the claim is dropped.
    pub(super) fn claim(self: &Arc<Self>, account: &str, stream: &str) -> Result<Claim, Refused> {
        let mut state = self.state.lock();
        let key = (account.to_owned(), stream.to_owned());
        if state.streams.contains(&key) {
            return Err(Refused::InProgress);
        }
        if state.streams.len() >= MAX {
            return Err(Refused::TooMany);
        }
        state.streams.insert(key.clone());
        Ok(Claim {
            backups: Arc::clone(self),
            account: self.broker.ensure_account(account),
            key,
            is_free: AtomicBool::new(false),
        })
    }

    /// Says something once somebody listens on a subject, or after a while in any case.
    pub(crate) fn once_heard(
        self: &Arc<Self>,
        account: Arc<Account>,
        subject: String,
        say: impl FnOnce() + Send + 'static,
    ) {
        if account.has_interest(&subject) {
            return say();
        }
        let backups = Arc::clone(self);
        self.run("js-restore-heard", move || {
            let begun = Instant::now();
            while !account.has_interest(&subject)
                && begun.elapsed() < INTEREST_WAIT
                && !backups.stopping.load(Ordering::Relaxed)
            {
                std::thread::sleep(INTEREST_LOOK);
            }
            say();
        });
    }

    /// Lets those that go on end, and waits for them. Nothing begins any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.state.lock().threads);
        for thread in threads {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }

    fn run(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        if self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let thread = std::thread::Builder::new().name(name.to_owned());
        match thread.spawn(work) {
            Ok(thread) => state.threads.push(thread),
            Err(error) => tracing::error!("{name} did not start: {error}"),
        }
    }
}

/// A backup that goes on.
pub(super) struct Claim {
    backups: Arc<Backups>,
    pub(super) account: Arc<Account>,
    key: (String, String),
    is_free: AtomicBool,
}

impl Claim {
    /// Lets the next one begin: before the client hears of the end, which may ask for it at once.
    pub(super) fn free(&self) {
        if !self.is_free.swap(true, Ordering::Relaxed) {
            self.backups.state.lock().streams.remove(&self.key);
        }
    }

    /// Goes on with it on a thread of its own.
    pub(super) fn run(self, name: &str, work: impl FnOnce(&Self) + Send + 'static) {
        let backups = Arc::clone(&self.backups);
        backups.run(name, move || work(&self));
    }

    /// Whether it is to end at once.
    pub(super) fn is_stopping(&self) -> bool {
        self.backups.stopping.load(Ordering::Relaxed)
    }

    /// The stream's name.
    pub(super) fn stream(&self) -> &str {
        &self.key.1
    }

    /// The server's domain; empty for none.
    pub(super) fn domain(&self) -> &str {
        &self.backups.domain
    }

    /// Account and stream, as they stand in the log.
    pub(super) fn title(&self) -> String {
        format!("{} > {}", self.key.0, self.key.1)
    }

    pub(super) fn publish(&self, message: Outgoing, cache: &mut PublishCache) {
        self.backups
            .broker
            .publish(&self.account, &[message], cache);
    }

    /// Answers whoever waits on a subject.
    pub(super) fn answer(&self, reply: &Bytes, payload: Vec<u8>) {
        let message = Outgoing {
            subject: reply.clone(),
            payload: payload.into(),
            ..Outgoing::default()
        };
        self.publish(message, &mut PublishCache::new());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_backed_up_once_at_a_time_and_there_are_not_too_many() {
        let backups = Backups::new(&Arc::new(Broker::new()), "");
        let first = backups.claim("$G", "S").expect("it begins");
        let again = backups.claim("$G", "S").err();
        assert_eq!(again, Some(Refused::InProgress));
        drop(first);
        let name = |number: usize| format!("S{number}");
        let all: Vec<Claim> = (0..MAX)
            .map(|number| backups.claim("$G", &name(number)).expect("it begins"))
            .collect();
        let more = backups.claim("$G", "S").err();
        assert_eq!(more, Some(Refused::TooMany));
        drop(all);
        assert!(backups.claim("$G", "S").is_ok());
    }
}
