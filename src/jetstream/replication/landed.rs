//! Streams that came out of backups, between the moment at which they are durable here and the one at which the state names them.
//!
//! # Invariant
//! One of these is kept until the state names it, or it is certain that it never will: it may be what whoever restored it has been promised.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;
use storage::engine::StreamId;
use tokio::sync::Notify;

use super::super::core::StreamCore;
use super::super::meta::Meta;
use super::super::types::Time;

/// A stream that came out of a backup. It does not run yet.
pub(super) struct Landed {
    pub core: StreamCore,
    /// Its place in storage.
    pub id: StreamId,
}

impl Landed {
    pub fn created(&self) -> Time {
        Time::from_nanoseconds(self.core.created_ns())
    }

    fn is_assigned(&self, meta: &Meta, account: &str, server: &str) -> bool {
        let assigned = meta.stream(account, &self.core.config().name);
        assigned.is_some_and(|stream| {
            stream.created == self.created() && stream.group.member_on(server).is_some()
        })
    }
}

/// One that is kept.
struct Kept {
    landed: Box<Landed>,
    /// The entry of the meta group with which it is certain whether the state names the stream, once that is known.
    decided_at: Option<u64>,
}

/// All of them on this server, by account and name.
#[derive(Default)]
pub(super) struct LandedStreams {
    kept: Mutex<HashMap<(String, String), Kept>>,
    decided: Notify,
}

fn key(account: &str, stream: &str) -> (String, String) {
    (account.to_owned(), stream.to_owned())
}

impl LandedStreams {
    /// Keeps a stream until the state names it. Gives it back when there is one under its name already.
    pub fn put(&self, account: &str, landed: Box<Landed>) -> Result<(), Box<Landed>> {
        let key = key(account, &landed.core.config().name);
        match self.kept.lock().entry(key) {
            Entry::Occupied(_) => Err(landed),
            Entry::Vacant(free) => {
                free.insert(Kept {
                    landed,
                    decided_at: None,
                });
                Ok(())
            }
        }
    }

    /// Gives back a stream that the state does not name, for good.
    pub fn take(&self, account: &str, stream: &str) -> Option<Box<Landed>> {
        let kept = self.kept.lock().remove(&key(account, stream))?;
        Some(kept.landed)
    }

    /// Whether one is kept under that name that was created then.
    pub fn holds(&self, account: &str, stream: &str, created: Time) -> bool {
        let kept = self.kept.lock();
        let kept = kept.get(&key(account, stream));
        kept.is_some_and(|kept| kept.landed.created() == created)
    }

    /// Everything that could have the state name a stream was applied with an entry, or never will be.
    pub fn decide(&self, account: &str, stream: &str, created: Time, at: u64) {
        let mut kept = self.kept.lock();
        let kept = kept.get_mut(&key(account, stream));
        if let Some(kept) = kept.filter(|kept| kept.landed.created() == created) {
            kept.decided_at = Some(at);
            self.decided.notify_one();
        }
    }

    /// Ready when it has become certain of one whether the state names it.
    pub async fn decided(&self) {
        self.decided.notified().await;
    }

    /// Those that the state has assigned to a server, with the account of each.
    pub fn take_assigned(&self, meta: &Meta, server: &str) -> Vec<(String, Box<Landed>)> {
        self.take_where(|account, kept| kept.landed.is_assigned(meta, account, server))
    }

    /// Those that the state does not name and never will, with the account of each.
    pub fn take_unnamed(&self, meta: &Meta, server: &str) -> Vec<(String, Box<Landed>)> {
        self.take_where(|account, kept| {
            let is_decided = kept.decided_at.is_some_and(|at| meta.applied() >= at);
            is_decided && !kept.landed.is_assigned(meta, account, server)
        })
    }

    fn take_where(&self, is_it: impl Fn(&str, &Kept) -> bool) -> Vec<(String, Box<Landed>)> {
        let mut kept = self.kept.lock();
        let taken = kept.extract_if(|(account, _), kept| is_it(account, kept));
        taken
            .map(|((account, _), kept)| (account, kept.landed))
            .collect()
    }
}
