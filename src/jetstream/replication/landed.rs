//! Streams that came out of backups, between the moment at which they are durable here and the one at which the state names them.
//!
//! # Invariant
//! One of these is kept until the state names it, or it is certain that it never will: it may be what whoever restored it has been promised.

use std::collections::HashMap;

use parking_lot::Mutex;
use storage::engine::StreamId;

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
}

/// All of them on this server, by account and name.
#[derive(Default)]
pub(super) struct LandedStreams(Mutex<HashMap<(String, String), Box<Landed>>>);

impl LandedStreams {
    /// Keeps a stream until the state names it. Gives it back when there is one under its name already.
    pub fn put(&self, account: &str, landed: Box<Landed>) -> Result<(), Box<Landed>> {
        let key = (account.to_owned(), landed.core.config().name.clone());
        match self.0.lock().entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => Err(landed),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(landed);
                Ok(())
            }
        }
    }

    /// Gives back a stream that the state does not name, for good.
    pub fn take(&self, account: &str, stream: &str) -> Option<Box<Landed>> {
        let key = (account.to_owned(), stream.to_owned());
        self.0.lock().remove(&key)
    }

    /// Those that the state has assigned to a server, with the account of each.
    pub fn take_assigned(&self, meta: &Meta, server: &str) -> Vec<(String, Box<Landed>)> {
        let mut landed = self.0.lock();
        if landed.is_empty() {
            return Vec::new();
        }
        let is_assigned = |(account, name): &(String, String), landed: &mut Box<Landed>| {
            let assigned = meta.stream(account, name);
            assigned.is_some_and(|stream| {
                stream.created == landed.created() && stream.group.member_on(server).is_some()
            })
        };
        let assigned = landed.extract_if(is_assigned);
        assigned
            .map(|((account, _), landed)| (account, landed))
            .collect()
    }
}
