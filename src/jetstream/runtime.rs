//! JetStream as one part of a server: started, asked, stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use storage::engine::{EngineFigures, EngineOptions};
use thiserror::Error;

use super::accounts::Accounts;
use super::api::backup::Backups;
use super::api::handler::{Server, StreamMaker};
use super::api::workers::ApiWorkers;
use super::api::{ApiStats, now};
use super::core::{AckForm, VolatileConsumers};
use super::farewell::Run;
use super::limits::{AccountTiers, ServerLimits, Tier};
use super::meta::PeerProfile;
use super::monitor::{
    GroupDetails, JetStreamInfo, JetStreamStats, Overview, Query, Settings, StreamFault, Usage,
    account_detail,
};
use super::registry::{AccountStreams, Found, Stream};
use super::reload::ApiSubscriptions;
use super::replication::{Cluster, ClusterSetup, Parts};
pub use super::shard::WaitingMax;
use super::shard::{OpenedStreams, OutageListener, Streams};
use super::types::{ClusterInfo, Storage, Strictness};
use crate::broker::Broker;

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
    /// Its id.
    pub server_id: String,
    /// How it is set up.
    pub settings: Settings,
    /// What it allows.
    pub limits: ServerLimits,
    /// Which ack subjects its consumers write.
    pub ack_form: AckForm,
    /// The accounts that have it, and what they may use.
    pub accounts: Vec<(String, AccountTiers)>,
    /// The accounts that do not have it, which are told so when they ask; not those that take it from another account.
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
    /// Whom to tell when nothing can be stored any more. It may be told more than once.
    fn on_outage(&self, listener: OutageListener);
    /// Tells those who listen in the system account.
    fn tell_system(&self, subject: &str, payload: Vec<u8>);
    /// What all streams may use together from now on.
    fn set_server_limits(&self, memory: u64, storage: u64);
    /// What the streams of an account may use from now on.
    fn set_account_limits(&self, account: &str, limits: &AccountTiers);
    /// Stops the streams of an account and keeps what they hold. Those that cannot run again are named.
    fn park(&self, account: &AccountStreams) -> Vec<Found>;
    /// Lets them run again.
    fn unpark(&self, account: &str) -> Vec<Arc<Stream>>;
    /// How much waits for each thread on which streams live.
    fn waiting(&self) -> Vec<usize> {
        Vec::new()
    }
}

/// A running JetStream.
pub struct JetStream {
    server: Arc<Server>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) broker: Arc<Broker>,
    pub(super) running: Mutex<Option<Running>>,
    /// Whether this server was removed from its cluster.
    pub(super) is_removed: AtomicBool,
    /// Which run of the server this is.
    run: Arc<Run>,
}

/// What ends with a shutdown, in this order: no new requests, then those in work.
pub(super) struct Running {
    pub(super) subscriptions: ApiSubscriptions,
    pub(super) workers: ApiWorkers,
}

impl JetStream {
    /// Opens the store, brings its streams back and answers requests from then on. May take long.
    pub fn start(
        setup: Setup,
        broker: &Arc<Broker>,
        storage: EngineOptions,
    ) -> Result<Self, StartError> {
        let opened = Streams::open(storage, &setup, broker, VolatileConsumers::End)?;
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
        } = Streams::open(storage, &setup, broker, VolatileConsumers::Restart)?;
        let accounts = Arc::new(Accounts::new(&setup.accounts, found));
        for without in accounts.take_unlisted() {
            accounts.unlist(&without.name, streams.park_all(&without));
        }
        let cluster_name = cluster.name.clone();
        let profile = PeerProfile {
            server: setup.server_name.clone(),
            cluster: cluster.name.clone(),
            domain: setup.settings.domain.clone(),
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
        Self::complete(
            setup,
            broker,
            streams,
            accounts,
            Some((cluster, cluster_name)),
        )
    }

    /// Puts the API in front of a backend and the streams it brought back.
    pub(crate) fn assemble(
        setup: Setup,
        broker: &Arc<Broker>,
        backend: Arc<dyn Backend>,
        recovered: Vec<(String, Found)>,
    ) -> Result<Self, StartError> {
        let accounts = Arc::new(Accounts::new(&setup.accounts, recovered));
        for without in accounts.take_unlisted() {
            accounts.unlist(&without.name, backend.park(&without));
        }
        Self::complete(setup, broker, backend, accounts, None)
    }

    fn complete(
        setup: Setup,
        broker: &Arc<Broker>,
        backend: Arc<dyn Backend>,
        accounts: Arc<Accounts>,
        cluster: Option<(Arc<Cluster>, String)>,
    ) -> Result<Self, StartError> {
        let (cluster, cluster_name) = cluster.unzip();
        let cluster_name = cluster_name.unwrap_or_default();
        let maker = match &cluster {
            Some(cluster) => cluster.maker(),
            None => Arc::clone(&backend) as Arc<dyn StreamMaker>,
        };
        let elsewhere = cluster.as_ref().map(|cluster| cluster.elsewhere());
        let server = Arc::new(Server {
            name: setup.server_name,
            cluster: cluster_name,
            domain: setup.settings.domain.clone(),
            steward: cluster.as_ref().map(|cluster| cluster.steward()),
            strictness: if setup.settings.strict {
                Strictness::Strict
            } else {
                Strictness::Lenient
            },
            limits: setup.limits,
            maker,
            backups: Backups::new(broker, &setup.settings.domain),
            cluster_infos: cluster.as_ref().map(|cluster| cluster.infos()),
            is_disabled: AtomicBool::new(false),
            now,
        });
        let run = Arc::new(Run {
            server_id: setup.server_id,
        });
        run.end_at_outage(&server, &backend);
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
        let mut subscriptions = ApiSubscriptions::default();
        let names = accounts.names().into_iter().chain(setup.accounts_without);
        let names: Vec<String> = names.collect();
        subscriptions.listen(
            names.iter().map(String::as_str),
            broker,
            &workers.queue(),
            queue,
        );
        Ok(Self {
            server,
            backend,
            accounts,
            settings: ArcSwap::from_pointee(setup.settings),
            cluster,
            broker: Arc::clone(broker),
            running: Mutex::new(Some(Running {
                subscriptions,
                workers,
            })),
            is_removed: AtomicBool::new(false),
            run,
        })
    }

    /// The queue group in which requests are heard.
    pub(super) fn api_group(&self) -> Option<&'static str> {
        self.cluster.as_ref().map(|_| API_QUEUE)
    }

    /// How it is set up, what it uses and what it allows, as `/varz` shows it.
    pub fn overview(&self) -> Overview {
        Overview {
            config: Settings::clone(&self.settings.load()),
            stats: self.stats(),
            meta: self.cluster.as_ref().map(|cluster| cluster.meta_info()),
            limits: self.server.limits,
        }
    }

    /// What it uses.
    pub fn stats(&self) -> JetStreamStats {
        let usages: Vec<Usage> = self
            .accounts
            .all()
            .iter()
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
            let accounts = self.accounts.all();
            accounts.iter().fold(0u64, |sum, account| {
                sum.saturating_add(account.reserved(Tier::All, storage, None))
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
        for account in self.accounts.all() {
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
        self.accounts.names()
    }

    /// What `/jsz` shows.
    pub fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        let mut query = query.clone();
        query.streams |= query.consumers;
        query.accounts |= query.streams && query.account.is_none();
        let all = self.accounts.all();
        let mut accounts: Vec<(&Arc<AccountStreams>, Usage)> = all
            .iter()
            .map(|account| (account, Usage::of(&self.held(account))))
            .collect();
        accounts.sort_by(|(left, _), (right, _)| left.name.cmp(&right.name));
        let usages = || accounts.iter().map(|(_, usage)| usage);
        let (mut streams_leader, mut consumers_leader) = (0, 0);
        if query.groups {
            let leads = |account: &str, stream: &str| {
                let cluster = self.cluster.as_ref();
                cluster.is_none_or(|cluster| cluster.leads(account, stream))
            };
            for (account, usage) in &accounts {
                let led = usage.streams.iter();
                for stream in led.filter(|info| leads(&account.name, &info.config.name)) {
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
            disabled: self.is_disabled(),
            config: Some(Settings::clone(&self.settings.load())),
            limits: Some(self.server.limits),
            streams: streams().count(),
            streams_leader,
            consumers_leader,
            consumers: usages().map(Usage::consumers).sum(),
            messages: streams().map(|stream| stream.state.messages).sum(),
            bytes: streams().map(|stream| stream.state.bytes).sum(),
            meta_cluster: self
                .cluster
                .as_ref()
                .filter(|_| !self.is_disabled())
                .map(|cluster| cluster.meta_info()),
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
                let group_of = |stream: &str| {
                    let cluster = self.cluster.as_ref()?;
                    cluster.group_name(&account.name, stream)
                };
                let own = &self.server.name;
                account_detail(account, usage, &query, own, of_stream, group_of)
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

    /// What the server's part in its cluster is.
    #[cfg(test)]
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
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

    /// The groups of a cluster that this server is part of, by name, as `/raftz` shows them; `None` outside of a cluster.
    pub fn raft_groups(&self) -> Option<GroupDetails> {
        Some(self.cluster.as_ref()?.group_details())
    }

    /// A stream that is to be here and is not as it is to be, and why.
    pub fn stream_fault(&self) -> Option<StreamFault> {
        self.cluster.as_ref()?.stream_fault()
    }

    /// Whether it has ended because nothing can be stored any more.
    pub fn is_disabled(&self) -> bool {
        self.server.is_disabled.load(Ordering::Acquire)
    }

    /// Whether it has ended, or is about to, because this server was removed from its cluster.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// What is wrong with a stream that takes nothing any more, or with a replica that nothing has replaced yet, if there is one.
    pub fn fault(&self) -> Option<String> {
        let of_cluster = || self.cluster.as_ref()?.fault();
        self.backend.fault().or_else(of_cluster)
    }

    /// What the storage engine has done so far.
    pub fn engine_figures(&self) -> EngineFigures {
        self.backend.engine_figures()
    }

    /// Has other servers lead what this one leads, before it goes. Waits a short while for them.
    pub fn hand_leads_over(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.hand_leads_over();
        }
    }

    /// Whom to tell, on a thread that must not be held up, when this server is removed from its cluster while it runs.
    pub fn on_removal(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Some(cluster) = &self.cluster {
            cluster.on_removal(listener);
        }
    }

    /// Ends because the server was removed from its cluster: others lead what it led, and answer. The rest of the server goes on. It joins anew with the next start, or
    /// when the operator switches JetStream off and on. May take long.
    pub fn end_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
        tracing::error!("JetStream being DISABLED, our server was removed from the cluster");
        self.run.tell_of_removal(&self.server, &*self.backend);
        self.hand_leads_over();
        self.shutdown();
        // Not before it hears no requests any more: others answer them.
        self.server.is_disabled.store(true, Ordering::Release);
        tracing::info!("JetStream Shutdown");
    }

    /// Requests that wait for an answer, and those that are being answered.
    pub fn requests_under_way(&self) -> (u64, u64) {
        let running = self.running.lock();
        let queue = running.as_ref().map(|running| running.workers.queue());
        queue.map_or((0, 0), |queue| {
            let waiting = queue.waiting();
            (waiting, queue.inflight().saturating_sub(waiting))
        })
    }

    /// How much waits for each thread on which streams live.
    pub fn waiting(&self) -> Vec<usize> {
        self.backend.waiting()
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
