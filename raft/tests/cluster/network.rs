//! Carries frames between servers of one process, except where it is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Channel, Groups, Outbound};

#[derive(Default)]
pub struct Network {
    servers: Mutex<BTreeMap<String, Weak<Groups>>>,
    cuts: Mutex<BTreeSet<(String, String)>>,
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
}

impl Network {
    pub fn join(&self, name: &str, groups: &Arc<Groups>) {
        self.servers
            .lock()
            .insert(name.to_owned(), Arc::downgrade(groups));
    }

    pub fn leave(&self, name: &str) {
        self.servers.lock().remove(name);
    }

    /// Nothing passes between the two, either way.
    pub fn cut(&self, a: &str, b: &str) {
        let mut cuts = self.cuts.lock();
        cuts.insert((a.to_owned(), b.to_owned()));
        cuts.insert((b.to_owned(), a.to_owned()));
    }

    /// Nothing passes to or from the server.
    pub fn isolate(&self, name: &str) {
        let others: Vec<String> = self.servers.lock().keys().cloned().collect();
        for other in others.iter().filter(|other| *other != name) {
            self.cut(name, other);
        }
    }

    pub fn heal(&self) {
        self.cuts.lock().clear();
    }

    fn carry(&self, from: &str, to: &str, channel: Channel, frame: Bytes) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if self.cuts.lock().contains(&(from.to_owned(), to.to_owned())) {
            return;
        }
        let groups = self.servers.lock().get(to).and_then(Weak::upgrade);
        if let Some(groups) = groups {
            groups.received(from, channel, frame);
        }
    }
}

/// The way out of one server.
pub struct Link {
    pub from: String,
    pub network: Arc<Network>,
}

impl Outbound for Link {
    fn send(&self, to: &str, channel: Channel, frame: Bytes) {
        self.network.carry(&self.from, to, channel, frame);
    }
}
