//! What all groups of a server share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::liveness::{Heard, Liveness};
use super::options::GroupsOptions;
use super::post::{Calls, Post};
use super::replica::Replica;
use super::spec::GroupNumber;
use crate::log::LogJournal;

/// A server that is lost is taken to be replaced after so many times the time after which it is lost.
const SILENT_FACTOR: u32 = 4;
/// Leaders look for their majority in every so-manieth round of the supervisor, while a server is lost.
const MAJORITY_ROUNDS: u32 = 5;

pub(super) struct Hub {
    pub options: GroupsOptions,
    pub config: Arc<openraft::Config>,
    pub journal: Arc<dyn LogJournal>,
    pub post: Arc<Post>,
    pub calls: Calls,
    pub runtime: Handle,
    /// The number of this run of the server: by another one, peers know that it was started anew.
    pub run: u64,
    liveness: Mutex<Liveness>,
    replicas: RwLock<BTreeMap<GroupNumber, Arc<Replica>>>,
}

impl Hub {
    pub fn new(
        options: GroupsOptions,
        config: openraft::Config,
        journal: Arc<dyn LogJournal>,
        post: Arc<Post>,
        runtime: Handle,
    ) -> Self {
        Self {
            liveness: Mutex::new(Liveness::new(&options.timing)),
            options,
            config: Arc::new(config),
            journal,
            post,
            calls: Calls::default(),
            runtime,
            run: crate::runtime::random(),
            replicas: RwLock::default(),
        }
    }

    pub fn replica(&self, number: GroupNumber) -> Option<Arc<Replica>> {
        self.replicas.read().get(&number).cloned()
    }

    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().values().cloned().collect()
    }

    /// Puts a replica in its place; false when there is one already.
    pub fn insert(&self, replica: &Arc<Replica>) -> bool {
        let mut replicas = self.replicas.write();
        if replicas.contains_key(&replica.number) {
            return false;
        }
        replicas.insert(replica.number, Arc::clone(replica));
        true
    }

    pub fn remove(&self, number: GroupNumber) -> Option<Arc<Replica>> {
        let removed = self.replicas.write().remove(&number);
        self.want(number, BTreeSet::new());
        removed
    }

    /// The group has members on these servers.
    pub fn want(&self, number: GroupNumber, mut servers: BTreeSet<String>) {
        servers.remove(&self.options.server);
        self.liveness.lock().want(number, servers, Instant::now());
    }

    pub fn is_lost(&self, server: &str) -> bool {
        self.liveness.lock().is_lost(server)
    }

    /// Whether the server has been lost for so long that others may have replaced it.
    pub fn is_silent(&self, server: &str) -> bool {
        let silent_after = self.options.timing.peer_lost_after * SILENT_FACTOR;
        let liveness = self.liveness.lock();
        let contact = liveness.last_contact(server, Instant::now());
        liveness.is_lost(server) && contact.is_none_or(|ago| ago > silent_after)
    }

    pub fn last_contact(&self, server: &str) -> Option<std::time::Duration> {
        self.liveness.lock().last_contact(server, Instant::now())
    }

    /// Something came from that server.
    pub fn heard(&self, server: &str, run: Option<u64>) {
        let heard = self.liveness.lock().heard(server, run, Instant::now());
        match heard {
            Heard::Alive => {}
            Heard::Stranger => {
                // It has a member of a group here that knows nothing of it: one that was told of nobody yet, or that lacks the entry with which
                // that server came in. Whom it does not hear of it takes for gone, and it sends nothing to who is gone: no entries, so that the
                // member never learns of it, and no calls for votes, even where this vote is all that is missing.
                if !self.replicas.read().is_empty() {
                    self.post.send_liveness(server, self.run);
                }
            }
            Heard::Back => {
                for replica in self.replicas() {
                    replica.peer_is_back(server);
                }
            }
            Heard::Restarted => {
                self.calls.fail(server);
                for replica in self.replicas() {
                    replica.leader_is_lost(server);
                    replica.peer_is_back(server);
                }
            }
        }
    }

    /// Looks after peers and replicas, for as long as the groups run.
    pub async fn supervise(self: Arc<Self>) {
        let period = self.options.timing.liveness_interval / 2;
        let mut rounds = 0u32;
        let mut was_lost = false;
        loop {
            tokio::time::sleep(period).await;
            let now = Instant::now();
            let changes = self.liveness.lock().look(now);
            for server in &changes.signs_to {
                self.post.send_liveness(server, self.run);
            }
            let replicas = self.replicas();
            for server in &changes.lost {
                tracing::info!(server, "not heard of any more");
                self.calls.fail(server);
                for replica in &replicas {
                    replica.leader_is_lost(server);
                }
            }
            for replica in &replicas {
                replica.look_after(now);
            }
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(MAJORITY_ROUNDS) {
                let any_lost = self.liveness.lock().any_lost();
                if any_lost || was_lost {
                    for replica in &replicas {
                        replica.check_majority();
                    }
                }
                was_lost = any_lost;
            }
        }
    }
}
