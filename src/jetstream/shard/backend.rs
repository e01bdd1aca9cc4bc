//! All streams of a server: storage, shard and subscriptions together.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use storage::disk::RealDisk;
use storage::engine::{
    EngineFigures, EngineOptions, FileEngine, Recovered, StoreOptions, StreamId,
};
use storage::entropy::SystemEntropy;
use storage::journal::{Damage, Owner, OwnerReplay};
use storage::store::FileStore;

use super::Shards;
use super::aside::Aside;
use super::engine_log::EngineLog;
use super::faults::{Outage, OutageCause};
use super::parked::Parked;
use super::port::Port;
use super::remembered::Remembered;
use super::worker::now_ns;
use crate::broker::{
    Account, Broker, InternalSubscription, InternalTarget, Outgoing, PublishCache,
};
use crate::jetstream::advisory::StreamAction;
use crate::jetstream::archive;
use crate::jetstream::core::{AckNames, BatchQuota, StreamCore, StreamTerms, VolatileConsumers};
use crate::jetstream::intake;
use crate::jetstream::limits::{AccountTiers, reservation};
use crate::jetstream::log::{InstantLog, Log};
use crate::jetstream::registry::{AccountStreams, Found, Stream};
use crate::jetstream::runtime::{Backend, Setup, StartError};
use crate::jetstream::types::{Storage, StreamConfig, Time};
use crate::jetstream::usage::{AccountUsage, HeldByTier, Meter, Usage};

/// What was brought back: the account of each, and the stream.
pub(crate) type FoundStreams = Vec<(String, Found)>;

/// All streams of a server, as they were opened.
pub(crate) struct OpenedStreams {
    pub streams: Arc<Streams>,
    pub found: FoundStreams,
    /// Replicas of streams on several servers, which somebody else starts.
    pub replicas: Vec<Recovered<FileStore>>,
    /// What was set aside in earlier runs.
    pub aside: Vec<Aside>,
    /// What the journal holds of others than streams.
    pub others: BTreeMap<Owner, OwnerReplay>,
    /// What was durable in the journal and can no longer be read.
    pub damage: Vec<Damage>,
}

/// Owners in the journal below this one are no streams.
const OWNERS_OF_STREAMS: u64 = 16;

/// All streams of a server with what keeps them.
pub(crate) struct Streams {
    pub(super) broker: Arc<Broker>,
    engine: Arc<FileEngine>,
    files: Arc<dyn Log>,
    memory: Arc<dyn Log>,
    shards: Arc<Shards>,
    domain: String,
    pub(super) bytes_max: [AtomicU64; 2],
    usage: Arc<Usage>,
    terms: StreamTerms,
    /// Streams that could not be brought back, and why.
    pub(super) offline: Mutex<BTreeMap<(String, String), (StreamId, String)>>,
    accounts: RwLock<HashMap<String, Arc<AccountUsage>>>,
    pub(super) held: Mutex<HashMap<(String, String), Held>>,
    pub(super) parked: Mutex<Parked>,
    /// Called when the journal would like to forget what others than streams hold in it.
    relief: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called when nothing can be stored any more.
    outage_listener: OnceLock<OutageListener>,
}

/// Hears that nothing can be stored any more.
pub(crate) type OutageListener = Box<dyn Fn(&Outage) + Send + Sync>;

/// What belongs to one stream.
pub(super) struct Held {
    pub(super) port: Port,
    pub(super) storage: StreamId,
    /// Present for a stream in memory.
    pub(super) remembered: Option<Remembered>,
    pub(super) created_ns: i64,
    pub(super) subscriptions: Vec<InternalSubscription>,
    pub(super) reserved: (Storage, u64),
}

impl Streams {
    /// Opens the store directory and brings its streams back.
    pub(crate) fn open(
        options: EngineOptions,
        setup: &Setup,
        broker: &Arc<Broker>,
        volatile: VolatileConsumers,
    ) -> Result<OpenedStreams, StartError> {
        let settings = &setup.settings;
        let path = options.directory.display().to_string();
        let opened = FileEngine::open(Arc::new(RealDisk), options, Arc::new(SystemEntropy))
            .map_err(|error| StartError::Store {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        for damage in &opened.damage {
            tracing::error!("JetStream store {path} is damaged: {damage:?}");
        }
        if let Some(torn) = &opened.torn {
            tracing::info!("JetStream store {path}: what was not synced is cut: {torn:?}");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = Arc::new(Shards::start(cores, broker, setup.waiting)?);
        let streams = Arc::new(Self {
            broker: Arc::clone(broker),
            files: Arc::new(EngineLog(Arc::clone(&opened.engine))),
            engine: opened.engine,
            memory: Arc::new(InstantLog),
            shards,
            domain: settings.domain.clone(),
            bytes_max: [settings.max_memory, settings.max_storage].map(AtomicU64::new),
            usage: Arc::new(Usage::of_server(settings.max_memory, settings.max_storage)),
            terms: StreamTerms {
                batches: Arc::new(BatchQuota::new(setup.limits.batches())),
                ack_form: setup.ack_form,
            },
            offline: Mutex::default(),
            accounts: RwLock::new(
                setup
                    .accounts
                    .iter()
                    .map(|(name, limits)| (name.clone(), Arc::new(AccountUsage::new(limits))))
                    .collect(),
            ),
            held: Mutex::default(),
            parked: Mutex::default(),
            relief: OnceLock::new(),
            outage_listener: OnceLock::new(),
        });
        listen_to(&streams);
        let mut found = Vec::new();
        let damaged = !opened.damage.is_empty();
        let (streams_found, aside) = streams.part_asides(opened.streams);
        let (replicas, alone): (Vec<_>, Vec<_>) = streams_found
            .into_iter()
            .partition(|recovered| recovered.form.is_replicated());
        for recovered in alone {
            found.extend(streams.bring_back(recovered, damaged, volatile));
        }
        Ok(OpenedStreams {
            streams,
            found,
            replicas,
            aside,
            others: opened.others,
            damage: opened.damage,
        })
    }

    /// Whom to tell when the journal would like to forget what others than streams hold in it.
    pub(crate) fn relieve_others_by(&self, relief: impl Fn() + Send + Sync + 'static) {
        // Once per run.
        let _ = self.relief.set(Box::new(relief));
    }

    /// The shards on which streams live.
    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    /// Where streams in files keep what they hold.
    pub(crate) fn files_log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.files)
    }

    /// An account, as the broker knows it.
    pub(crate) fn account(&self, name: &str) -> Arc<Account> {
        self.broker.ensure_account(name)
    }

    /// Counts what a stream of an account holds.
    pub(crate) fn meter(&self, account: &str, config: &StreamConfig) -> Meter {
        let in_account = self.usage_of(account);
        let meter = Meter::new(&self.usage, &in_account, config.storage, config.replicas());
        meter.under(&self.terms)
    }

    fn usage_of(&self, account: &str) -> Arc<AccountUsage> {
        if let Some(usage) = self.accounts.read().get(account) {
            return Arc::clone(usage);
        }
        let mut accounts = self.accounts.write();
        Arc::clone(accounts.entry(account.to_owned()).or_default())
    }

    /// What the streams of an account hold here.
    pub(crate) fn held_by(&self, account: &str) -> HeldByTier {
        self.usage_of(account).held()
    }

    /// The same of every account that may not hold as much as it likes, where that is anything.
    pub(crate) fn held_by_limited(&self) -> BTreeMap<String, HeldByTier> {
        let accounts = self.accounts.read();
        let limited = accounts.iter().filter(|(_, usage)| usage.is_limited());
        let held = limited.map(|(name, usage)| (name.clone(), usage.held()));
        held.filter(|(_, held)| held.all != (0, 0)).collect()
    }

    /// What the streams of an account hold on all other servers together.
    pub(crate) fn set_held_elsewhere(&self, account: &str, held: &HeldByTier) {
        self.usage_of(account).set_elsewhere(held);
    }

    pub(super) fn ack_names(&self, account: &str, stream: &str) -> AckNames {
        AckNames::new(&self.domain, account, stream, self.terms.ack_form)
    }

    /// Bytes that all streams here hold together.
    pub(crate) fn held_bytes(&self, storage: Storage) -> u64 {
        self.usage.bytes(storage)
    }

    /// How a stream of that configuration is stored.
    pub(crate) fn store_options(config: &StreamConfig) -> StoreOptions {
        archive::store_options(config)
    }

    /// What the streams are stored in.
    pub(crate) fn engine(&self) -> &Arc<FileEngine> {
        &self.engine
    }

    /// Puts a stream on a shard and lets it listen.
    pub(super) fn run(
        &self,
        account: &str,
        core: StreamCore,
        storage: StreamId,
        remembered: Option<Remembered>,
    ) -> Arc<Stream> {
        let config = StreamConfig::clone(core.config());
        let created_ns = core.created_ns();
        let (log, id) = match remembered {
            None => (&self.files, storage.0),
            Some(_) => (&self.memory, 0),
        };
        let in_broker = self.broker.ensure_account(account);
        let meter = self.meter(account, &config);
        let log = Arc::clone(log);
        let port = self.shards.adopt_counted(core, in_broker, log, id, meter);
        let held = Held {
            subscriptions: self.subscribe(account, &config, &port),
            reserved: (config.storage, reservation(&config)),
            port: port.clone(),
            storage,
            remembered,
            created_ns,
        };
        let key = (account.to_owned(), config.name.clone());
        let created = Time::from_nanoseconds(created_ns);
        self.held.lock().insert(key, held);
        Arc::new(Stream::new(config, Box::new(port)).created_at(created))
    }

    /// Lets a stream run that was taken in and is durable.
    pub(crate) fn run_landed(&self, account: &str, core: StreamCore, id: StreamId) -> Arc<Stream> {
        let stream = self.run(account, core, id, None);
        self.advise(account, &stream.name, StreamAction::Created);
        stream
    }

    pub(super) fn subscribe(
        &self,
        account: &str,
        config: &StreamConfig,
        port: &Port,
    ) -> Vec<InternalSubscription> {
        let names = self.ack_names(account, &config.name);
        let account = self.broker.ensure_account(account);
        intake::patterns(config, &names)
            .into_iter()
            .filter_map(|(pattern, purpose)| {
                let target: Arc<dyn InternalTarget> = Arc::new(port.clone());
                // The API has checked a stream's subjects; the other patterns are ours.
                account
                    .subscribe(&pattern, purpose.queue(), target, purpose as u64)
                    .ok()
            })
            .collect()
    }

    /// The domain of its streams; empty for none.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Reports what happened to a stream to those who listen.
    pub(crate) fn advise(&self, account: &str, stream: &str, action: StreamAction) {
        let now = Time::from_nanoseconds(now_ns());
        self.tell(Some(account), &action.subject(stream), || {
            action.payload(stream, &self.domain, now)
        });
    }

    /// Tells those who listen in an account, or in the system account without one.
    pub(crate) fn tell(
        &self,
        account: Option<&str>,
        subject: &str,
        payload: impl FnOnce() -> Vec<u8>,
    ) {
        let account = match account {
            Some(name) => self.broker.ensure_account(name),
            None => Arc::clone(self.broker.system()),
        };
        if !account.has_interest(subject) {
            return;
        }
        let advisory = Outgoing {
            subject: Bytes::copy_from_slice(subject.as_bytes()),
            payload: Bytes::from(payload()),
            ..Outgoing::default()
        };
        self.broker
            .publish(&account, &[advisory], &mut PublishCache::new());
    }

    /// Nothing can be stored any more: no stream takes or gives anything, so that clients hear at once that nobody is there.
    fn end_all(&self, outage: &Outage) {
        let reason = match outage.cause {
            OutageCause::NoSpace => {
                tracing::error!("JetStream out of file resources, will be DISABLED");
                "no space left on device"
            }
            OutageCause::PermissionDenied => {
                tracing::error!("File system permission denied while writing, disabling JetStream");
                "permission denied"
            }
        };
        self.shards.fail_all(reason);
        let mut subscriptions = Vec::new();
        for held in self.held.lock().values_mut() {
            subscriptions.append(&mut held.subscriptions);
        }
        drop(subscriptions);
        if let Some(listener) = self.outage_listener.get() {
            listener(outage);
        }
    }

    /// The journal would like to forget the traces of these streams.
    fn checkpoint_remembered(&self, wanted: &[StreamId]) {
        let mut held = self.held.lock();
        let remembered = held
            .values_mut()
            .filter_map(|held| held.remembered.as_mut());
        for one in remembered.filter(|one| wanted.contains(&one.id())) {
            if let Err(error) = one.checkpoint(&self.engine) {
                tracing::error!("a memory stream's configuration could not be kept: {error}");
            }
        }
    }

    /// A stream is about to be here no more.
    pub(super) fn unhold(&self, account: &str, stream: &str) -> Option<Held> {
        let key = (account.to_owned(), stream.to_owned());
        self.held.lock().remove(&key)
    }

    /// A stream cannot run. Nothing of it is removed.
    pub(super) fn keep_offline(&self, account: &str, name: &str, id: StreamId, reason: String) {
        self.engine.set_offline(id);
        let key = (account.to_owned(), name.to_owned());
        self.offline.lock().insert(key, (id, reason));
    }

    /// A stream that could not be brought back is nobody's any more. Says where it is stored.
    pub(crate) fn forget_offline(&self, account: &str, name: &str) -> Option<StreamId> {
        let key = (account.to_owned(), name.to_owned());
        self.offline.lock().remove(&key).map(|(id, _)| id)
    }

    /// Takes a stream off its shard and lets it hear nothing any more. Says where it is stored.
    pub(crate) fn let_go(&self, account: &AccountStreams, stream: &Stream) -> Option<StreamId> {
        let held = self.unhold(&account.name, &stream.name)?;
        drop(held.subscriptions);
        let (sender, receiver) = mpsc::sync_channel(1);
        held.port.remove(Box::new(move || {
            // Whoever waits is there until it has heard.
            let _ = sender.try_send(());
        }));
        // A shard that has ended holds nothing any more.
        let _ = receiver.recv();
        Some(held.storage)
    }
}

/// What the engine asks for reaches the streams.
fn listen_to(streams: &Arc<Streams>) {
    let engine = &streams.engine;
    let weak = Arc::downgrade(streams);
    engine.set_pressure_listener(move |pressure| {
        let Some(streams) = weak.upgrade() else {
            return;
        };
        let wanted: Vec<StreamId> = pressure
            .owners
            .iter()
            .map(|owner| StreamId(owner.0))
            .collect();
        for id in &wanted {
            streams.shards.checkpoint(id.0);
        }
        let of_others = wanted
            .iter()
            .any(|id| id.0 != 0 && id.0 < OWNERS_OF_STREAMS);

        // Called on the journal's thread, which must not wait for itself.
        let weak = weak.clone();
        streams.engine.background().spawn(Box::new(move || {
            if let Some(streams) = weak.upgrade() {
                streams.checkpoint_remembered(&wanted);
                streams.checkpoint_parked(&wanted);
                if let Some(relief) = streams.relief.get().filter(|_| of_others) {
                    relief();
                }
            }
        }));
    });
    let weak = Arc::downgrade(&streams.shards);
    engine.set_checkpoint_listener(move |id, index| {
        if let Some(shards) = weak.upgrade() {
            shards.checkpointed(id.0, index);
        }
    });
    let weak = Arc::downgrade(streams);
    streams.shards.faults().on_outage(move |outage| {
        let Some(streams) = weak.upgrade() else {
            return;
        };
        // Called on a shard's thread, which must not wait for what listens to its streams.
        let outage = outage.clone();
        let background = Arc::clone(streams.engine.background());
        background.spawn(Box::new(move || streams.end_all(&outage)));
    });
    let weak = Arc::downgrade(streams);
    engine.set_failure_listener(move |id, reason| {
        if let Some(streams) = weak.upgrade() {
            streams.shards.fail(id.0, reason);
        }
    });
}

impl Backend for Streams {
    fn fault(&self) -> Option<String> {
        let offline = || {
            let offline = self.offline.lock();
            let ((account, name), (_, reason)) = offline.first_key_value()?;
            Some(format!(
                "JetStream stream '{account} > {name}' is offline: {reason}"
            ))
        };
        self.shards.faults().first().or_else(offline)
    }

    fn engine_figures(&self) -> EngineFigures {
        self.engine.figures()
    }

    fn on_outage(&self, listener: OutageListener) {
        // Once per run.
        let _ = self.outage_listener.set(listener);
        // It may have come before there was anybody to hear of it.
        if let (Some(outage), Some(listener)) =
            (self.shards.faults().outage(), self.outage_listener.get())
        {
            listener(outage);
        }
    }

    fn tell_system(&self, subject: &str, payload: Vec<u8>) {
        self.tell(None, subject, || payload);
    }

    fn set_server_limits(&self, memory: u64, storage: u64) {
        for (limit, bytes) in self.bytes_max.iter().zip([memory, storage]) {
            limit.store(bytes, Ordering::Relaxed);
        }
        self.usage.set_server_limits(memory, storage);
    }

    fn set_account_limits(&self, account: &str, limits: &AccountTiers) {
        self.usage_of(account).set_limits(limits);
    }

    fn park(&self, account: &AccountStreams) -> Vec<Found> {
        self.park_all(account)
    }

    fn unpark(&self, account: &str) -> Vec<Arc<Stream>> {
        self.run_parked(account)
    }

    fn waiting(&self) -> Vec<usize> {
        self.shards.waiting()
    }

    fn stop(&self) {
        self.held.lock().clear();
        self.shards.stop();
        self.engine.close();
    }
}
