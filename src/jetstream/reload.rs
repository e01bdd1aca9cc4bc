//! What a reload changes of a JetStream that runs: which accounts have it, what they may use, and what there is.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::route::PATTERNS;
use super::api::workers::ApiQueue;
use super::limits::AccountTiers;
use super::monitor::Settings;
use super::runtime::JetStream;
use crate::broker::{Account, Broker, InternalSubscription};
use crate::config::options::MetaCompaction;

/// The subscriptions to the API's subjects, by account.
#[derive(Default)]
pub(super) struct ApiSubscriptions {
    /// With the account that they are in: one that went and came back is another one.
    of: HashMap<String, (Arc<Account>, Vec<InternalSubscription>)>,
}

impl ApiSubscriptions {
    /// Listens in these accounts, and in no others.
    pub(super) fn listen<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
        broker: &Broker,
        queue: &Arc<ApiQueue>,
        group: Option<&str>,
    ) {
        let mut before = std::mem::take(&mut self.of);
        for name in names {
            let account = broker.ensure_account(name);
            let known = before
                .remove(name)
                .filter(|(known, _)| Arc::ptr_eq(known, &account));
            let subscribed = known.unwrap_or_else(|| {
                // The patterns are ours and valid.
                let all = PATTERNS
                    .iter()
                    .filter_map(|pattern| account.subscribe(pattern, group, queue.clone(), 0).ok())
                    .collect();
                (account, all)
            });
            self.of.insert(name.to_owned(), subscribed);
        }
    }
}

impl JetStream {
    /// These accounts have it from now on, and may use so much; `without` are told that they have it not. What an account that loses it has
    /// stored stays, is not reached any more, and takes nothing in. Waits for shards.
    pub fn set_accounts(&self, with: &[(String, AccountTiers)], without: &[String]) {
        let keeps = |name: &str| with.iter().any(|(kept, _)| kept == name);
        for name in self.accounts.names() {
            if keeps(&name) {
                continue;
            }
            match &self.cluster {
                Some(cluster) => cluster.take_from(&name),
                None => {
                    if let Some(account) = self.accounts.disable(&name) {
                        let offline = self.backend.park(&account);
                        self.accounts.unlist(&name, offline);
                    }
                }
            }
        }
        for (name, limits) in with {
            self.backend.set_account_limits(name, limits);
            if let Some(account) = self.accounts.get(name) {
                account.set_limits(limits.clone());
                continue;
            }
            if let Some(cluster) = &self.cluster {
                cluster.give_to(name, limits.clone());
                continue;
            }
            let account = self.accounts.enable(name, limits.clone());
            for stream in self.backend.unpark(name) {
                account.insert(stream);
            }
        }
        let mut running = self.running.lock();
        if let Some(running) = &mut *running {
            let names = with.iter().map(|(name, _)| name).chain(without);
            let queue = running.workers.queue();
            let group = self.api_group();
            running
                .subscriptions
                .listen(names.map(String::as_str), &self.broker, &queue, group);
        }
    }

    /// All streams together may use so much from now on.
    pub fn set_server_limits(&self, memory: Option<u64>, storage: Option<u64>) {
        let before = self.settings.load_full();
        let after = Settings {
            max_memory: memory.unwrap_or(before.max_memory),
            max_storage: storage.unwrap_or(before.max_storage),
            ..Settings::clone(&before)
        };
        self.backend
            .set_server_limits(after.max_memory, after.max_storage);
        if let Some(cluster) = &self.cluster {
            cluster.change_profile(|profile| {
                profile.memory_bytes_max = after.max_memory;
                profile.storage_bytes_max = after.max_storage;
            });
        }
        self.settings.store(Arc::new(after));
    }

    /// The meta group's state is carried at other times from now on.
    pub fn set_meta_compaction(&self, compaction: MetaCompaction) {
        if let Some(cluster) = &self.cluster {
            cluster.set_compaction(compaction);
        }
    }

    /// The server has these tags from now on; streams that are placed later follow them.
    pub fn set_tags(&self, tags: &[String]) {
        if let Some(cluster) = &self.cluster {
            cluster.change_profile(|profile| profile.tags = tags.to_vec());
        }
    }
}
