//! JetStream as one part of a server: started, asked, stopped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use storage::engine::{EngineFigures, EngineOptions};
use thiserror::Error;

use super::api::backup::Backups;
use super::api::handler::{Server, StreamMaker};
use super::api::route::{ACCOUNT_INFO, ADMINISTRATION, PATTERNS};
use super::api::workers::{Accounts, ApiWorkers};
use super::api::{ApiStats, now};
use super::limits::{AccountLimits, ServerLimits};
use super::meta::PeerProfile;
use super::monitor::{
    JetStreamInfo, JetStreamStats, Overview, Query, Settings, Usage, account_detail,
};
use super::registry::{AccountStreams, Found, Stream};
use super::replication::{Cluster, ClusterSetup, Parts};
pub use super::shard::WaitingMax;
use super::shard::{OpenedStreams, Streams};
use super::types::{ClusterInfo, Storage, Strictness};
use crate::broker::{Broker, InternalSubscription};

/// Accounts on a page of `/jsz` when nothing else is asked for.
const ACCOUNTS_PAGE: usize = 1024;

/// The queue group in which the servers of a cluster hear requests.
const API_QUEUE: &str = "_js_api_";

/// Why JetStream did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("JetStream store {path}: {reason}")]
    Store {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The groups of a cluster cannot be started.
    #[error("JetStream cluster: {0}")]
    Cluster(String),
    /// A thread did not start.
    #[error("JetStream thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What JetStream is told by the server it is part of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The server's name, shown as the leader of its streams.
    pub server_name: String,
    /// How it is set up.
    pub settings: Settings,
    /// What it allows.
    pub limits: ServerLimits,
    /// The accounts that have it, and what they may use.
    pub accounts: Vec<(String, AccountLimits)>,
    /// The accounts that do not have it, which are told so when they ask.
    pub accounts_without: Vec<String>,
    /// API requests that may wait.
    pub requests_max: usize,
    /// Publishes that may wait for one stream.
    pub waiting: WaitingMax,
}

/// Keeps the streams of a server running.
pub(crate) trait Backend: StreamMaker {
    /// Stops all streams; what they hold is checkpointed when this returns.
    fn stop(&self);
    /// What is wrong with a stream that takes nothing any more, if there is one.
    fn fault(&self) -> Option<String>;
    /// What the storage engine has done so far.
    fn engine_figures(&self) -> EngineFigures;
}

/// A running JetStream.
pub struct JetStream {
    server: Arc<Server>,
    backend: Arc<dyn Backend>,
    accounts: Arc<Accounts>,
    settings: Settings,
    cluster: Option<Arc<Cluster>>,
    running: Mutex<Option<Running>>,
}

/// What ends with a shutdown, in this order: no new requests, then those in work.
struct Running {
    _subscriptions: Vec<InternalSubscription>,
    workers: ApiWorkers,
}

impl JetStream {
    /// Opens the store, brings its streams back and answers requests from then on. May take long.
    pub fn start(
        setup: Setup,
        broker: &Arc<Broker>,
        storage: EngineOptions,
    ) -> Result<Self, StartError> {
        let opened = Streams::open(storage, &setup, broker)?;
        Self::assemble(setup, broker, opened.streams, opened.found)
    }

    /// The same on a server that is part of a cluster. Not to be called on a thread of a runtime.
    pub fn start_in_cluster(
        setup: Setup,
        broker: &Arc<Broker>,
        storage: EngineOptions,
        cluster: ClusterSetup,
    ) -> Result<Self, StartError> {
        let OpenedStreams {
            streams,
            found,
            replicas,
            aside,
            others,
            damage,
        } = Streams::open(storage, &setup, broker)?;
        let accounts = accounts(&setup.accounts, found)?;
        let profile = PeerProfile {
            server: setup.server_name.clone(),
            cluster: cluster.name.clone(),
            domain: String::new(),
            tags: cluster.tags.clone(),
            memory_bytes_max: setup.settings.max_memory,
            storage_bytes_max: setup.settings.max_storage,
            jetstream: true,
        };
        let parts = Parts {
            own: setup.server_name.clone(),
            setup: cluster,
            accounts: Arc::clone(&accounts),
            streams: Arc::clone(&streams),
            replicas,
            aside,
            others,
            damage,
            profile,
            limits: setup.limits,
        };
        let cluster = Cluster::start(parts)?;
        let relieved = Arc::downgrade(&cluster);
        streams.relieve_others_by(move || {
            if let Some(cluster) = relieved.upgrade() {
                cluster.relieve();
            }
        });
        Self::complete(setup, broker, streams, accounts, Some(cluster))
    }

    /// Puts the API in front of a backend and the streams it brought back.
    pub(crate) fn assemble(
        setup: Setup,
        broker: &Arc<Broker>,
        backend: Arc<dyn Backend>,
        recovered: Vec<(String, Found)>,
    ) -> Result<Self, StartError> {
        let accounts = accounts(&setup.accounts, recovered)?;
        Self::complete(setup, broker, backend, accounts, None)
    }

    fn complete(
        setup: Setup,
        broker: &Arc<Broker>,
        backend: Arc<dyn Backend>,
        accounts: Arc<Accounts>,
        cluster: Option<Arc<Cluster>>,
    ) -> Result<Self, StartError> {
        let maker = match &cluster {
            Some(cluster) => cluster.maker(),
            None => Arc::clone(&backend) as Arc<dyn StreamMaker>,
        };
        let elsewhere = cluster.as_ref().map(|cluster| cluster.elsewhere());
        let server = Arc::new(Server {
            name: setup.server_name,
            domain: String::new(),
            steward: cluster.as_ref().map(|cluster| cluster.steward()),
            strictness: if setup.settings.strict {
                Strictness::Strict
            } else {
                Strictness::Lenient
            },
            limits: setup.limits,
            maker,
            backups: Backups::new(broker),
            cluster_infos: cluster.as_ref().map(|cluster| cluster.infos()),
            now,
        });
        let workers = ApiWorkers::start(
            &server,
            &accounts,
            broker,
            elsewhere.as_ref(),
            setup.requests_max,
        )?;
        if let Some(cluster) = &cluster {
            cluster.serve(&server, workers.queue());
        }
        // Of the servers of a cluster one takes each request.
        let queue = cluster.as_ref().map(|_| API_QUEUE);
        let mut subscriptions = Vec::new();
        for account in accounts.values() {
            let account = broker.ensure_account(&account.name);
            for pattern in PATTERNS {
                // The patterns are ours and valid.
                subscriptions.extend(account.subscribe(pattern, queue, workers.queue(), 0));
            }
        }
        for name in &setup.accounts_without {
            let account = broker.ensure_account(name);
            subscriptions.extend(account.subscribe(ACCOUNT_INFO, queue, workers.queue(), 0));
        }
        if cluster.is_some() {
            for pattern in ADMINISTRATION {
                let system = broker.system();
                subscriptions.extend(system.subscribe(pattern, queue, workers.queue(), 0));
            }
        }
        Ok(Self {
            server,
            backend,
            accounts,
            settings: setup.settings,
            cluster,
            running: Mutex::new(Some(Running {
                _subscriptions: subscriptions,
                workers,
            })),
        })
    }

    /// What the streams of an account may use from now on.
    pub fn set_limits(&self, account: &str, limits: AccountLimits) {
        if let Some(account) = self.accounts.get(account) {
            account.set_limits(limits);
        }
    }

    /// How it is set up, what it uses and what it allows, as `/varz` shows it.
    pub fn overview(&self) -> Overview {
        Overview {
            config: self.settings.clone(),
            stats: self.stats(),
            meta: self.cluster.as_ref().map(|cluster| cluster.meta_info()),
            limits: self.server.limits,
        }
    }

    /// What it uses.
    pub fn stats(&self) -> JetStreamStats {
        let usages: Vec<Usage> = self
            .accounts
            .values()
            .map(|account| Usage::of(&self.held(account)))
            .collect();
        self.sum(&usages)
    }

    /// The streams of an account that this server has a copy of.
    fn held(&self, account: &AccountStreams) -> Vec<Arc<Stream>> {
        let mut streams = account.all();
        if let Some(cluster) = &self.cluster {
            streams.retain(|stream| cluster.holds(&account.name, &stream.name));
        }
        streams
    }

    /// Who holds copies of a stream, as this server sees it.
    fn cluster_info(&self, account: &str, stream: &str) -> ClusterInfo {
        let cluster = self.cluster.as_ref();
        let seen = cluster.and_then(|cluster| cluster.seen_here(account, stream));
        seen.unwrap_or_else(|| ClusterInfo {
            leader: self.server.name.clone(),
            ..ClusterInfo::default()
        })
    }

    fn sum(&self, usages: &[Usage]) -> JetStreamStats {
        let reserved = |storage| {
            let accounts = self.accounts.values();
            accounts.fold(0u64, |sum, account| {
                sum.saturating_add(account.reserved(storage, None))
            })
        };
        JetStreamStats {
            memory: usages.iter().map(|usage| usage.memory).sum(),
            storage: usages.iter().map(|usage| usage.storage).sum(),
            reserved_memory: reserved(Storage::Memory),
            reserved_storage: reserved(Storage::File),
            accounts: self.accounts.len(),
            ha_assets: self.cluster.as_ref().map_or(0, |cluster| cluster.groups()),
            api: self.api_stats(),
        }
    }

    fn api_stats(&self) -> ApiStats {
        let (mut total, mut errors) = (0, 0);
        for account in self.accounts.values() {
            let (answered, refused) = account.api.get();
            total += answered;
            errors += refused;
        }
        let running = self.running.lock();
        let inflight = running
            .as_ref()
            .map_or(0, |running| running.workers.queue().inflight());
        ApiStats::new(total, errors, inflight)
    }

    /// The accounts that have it, in no order.
    pub fn account_names(&self) -> Vec<String> {
        self.accounts.keys().cloned().collect()
    }

    /// What `/jsz` shows.
    pub fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        let mut query = query.clone();
        query.streams |= query.consumers;
        query.accounts |= query.streams && query.account.is_none();
        let mut accounts: Vec<(&Arc<AccountStreams>, Usage)> = self
            .accounts
            .values()
            .map(|account| (account, Usage::of(&self.held(account))))
            .collect();
        accounts.sort_by(|(left, _), (right, _)| left.name.cmp(&right.name));
        let usages = || accounts.iter().map(|(_, usage)| usage);
        let (mut streams_leader, mut consumers_leader) = (0, 0);
        if let Some(cluster) = &self.cluster {
            for (account, usage) in &accounts {
                let led = usage.streams.iter();
                for stream in led.filter(|info| cluster.leads(&account.name, &info.config.name)) {
                    streams_leader += 1;
                    consumers_leader += stream.state.consumer_count;
                }
            }
        }
        let streams = || usages().flat_map(|usage| &usage.streams);
        let mut info = JetStreamInfo {
            stats: JetStreamStats::default(),
            server_id: server_id.to_owned(),
            now: now(),
            disabled: false,
            config: Some(self.settings.clone()),
            limits: Some(self.server.limits),
            streams: streams().count(),
            streams_leader,
            consumers_leader,
            consumers: usages().map(Usage::consumers).sum(),
            messages: streams().map(|stream| stream.state.messages).sum(),
            bytes: streams().map(|stream| stream.state.bytes).sum(),
            meta_cluster: self.cluster.as_ref().map(|cluster| cluster.meta_info()),
            account_details: Vec::new(),
            total: accounts.len(),
        };
        let (memory, storage) = usages().fold((0, 0), |(memory, storage), usage| {
            (memory + usage.memory, storage + usage.storage)
        });
        info.stats = JetStreamStats {
            memory,
            storage,
            ..self.sum(&[])
        };
        let named = query.account.as_deref();
        let is_named = accounts
            .iter()
            .any(|(account, _)| Some(account.name.as_str()) == named);
        let limit = if query.limit == 0 {
            ACCOUNTS_PAGE
        } else {
            query.limit
        };
        let (offset, limit) = if is_named {
            accounts.retain(|(account, _)| Some(account.name.as_str()) == named);
            (0, 1)
        } else if query.accounts {
            (query.offset, limit)
        } else {
            (0, 0)
        };
        info.account_details = accounts
            .into_iter()
            .skip(offset)
            .take(limit)
            .map(|(account, usage)| {
                let of_stream = |stream: &str| self.cluster_info(&account.name, stream);
                account_detail(account, usage, &query, &self.server.name, of_stream)
            })
            .collect();
        info
    }

    /// The server that leads the meta group, of a server in a cluster.
    pub fn meta_leader(&self) -> Option<Arc<str>> {
        self.cluster.as_ref()?.meta_leader()
    }

    /// Whether requests can be answered: in a cluster there has to be a meta group with a leader.
    pub fn is_ready(&self) -> bool {
        self.cluster
            .as_ref()
            .is_none_or(|cluster| cluster.is_ready())
    }

    /// Whether it is the JetStream of several servers.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether this server leads the meta group, or is on its own.
    pub fn leads_meta(&self) -> bool {
        self.cluster.is_none() || self.meta_leader().as_deref() == Some(self.server.name.as_str())
    }

    /// Why the cluster's meta group cannot be relied on here, if that is so. May wait a moment.
    pub fn meta_fault(&self) -> Option<String> {
        self.cluster.as_ref()?.meta_fault()
    }

    /// What is wrong with a stream that takes nothing any more, if there is one.
    pub fn fault(&self) -> Option<String> {
        self.backend.fault()
    }

    /// What the storage engine has done so far.
    pub fn engine_figures(&self) -> EngineFigures {
        self.backend.engine_figures()
    }

    /// Stops answering, then stops and checkpoints all streams. A second call does nothing.
    pub fn shutdown(&self) {
        let running = self.running.lock().take();
        if running.is_some() {
            drop(running);
            self.server.backups.stop();
            if let Some(cluster) = &self.cluster {
                cluster.stop();
            }
            self.backend.stop();
        }
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn accounts(
    enabled: &[(String, AccountLimits)],
    recovered: Vec<(String, Found)>,
) -> Result<Arc<Accounts>, StartError> {
    let mut accounts: Accounts = HashMap::new();
    for (name, limits) in enabled {
        accounts.insert(
            name.clone(),
            Arc::new(AccountStreams::new(name.clone(), *limits)),
        );
    }
    for (name, found) in recovered {
        // Streams of an account that has lost JetStream stay as they are until it has it again.
        match accounts.get(&name) {
            Some(account) => account.found(found),
            None => {
                let stream = match &found {
                    Found::Running(stream) => &stream.name,
                    Found::Offline { name, .. } => name,
                };
                tracing::warn!(
                    "JetStream stream '{name} > {stream}' belongs to an account without JetStream"
                );
            }
        }
    }
    Ok(Arc::new(accounts))
}
