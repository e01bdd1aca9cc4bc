//! Making, bringing back and removing streams: storage, shard and subscriptions together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::codec::Compression;
use storage::disk::RealDisk;
use storage::engine::{
    EngineOptions, FileEngine, LogEntry, Recovered, RecoveredStore, StoreOptions, StreamId,
};
use storage::entropy::SystemEntropy;
use storage::journal::{Commit, CommitSink, JournalError};
use storage::store::{FileStore, Limits, MemStore};

use super::Shards;
use super::engine_log::EngineLog;
use super::port::Port;
use super::worker::now_ns;
use crate::broker::{Broker, InternalSubscription, InternalTarget, Outgoing, PublishCache};
use crate::jetstream::advisory::StreamAction;
use crate::jetstream::api::handler::StreamMaker;
use crate::jetstream::core::{StreamCore, limits};
use crate::jetstream::intake;
use crate::jetstream::limits::reservation;
use crate::jetstream::log::{InstantLog, Log};
use crate::jetstream::registry::{AccountStreams, Found, Stream};
use crate::jetstream::runtime::{Backend, Setup, StartError};
use crate::jetstream::types::{ApiError, ErrorCode, Storage, StoreCompression, StreamConfig, Time};
use crate::jetstream::usage::{Meter, Usage};

/// The index of a stream's first entry, which holds what the stream was born with.
const BIRTH_INDEX: u64 = 1;

/// What was brought back: the account of each, and the stream.
pub(crate) type FoundStreams = Vec<(String, Found)>;

/// All streams of a server with what keeps them.
pub(crate) struct Streams {
    broker: Arc<Broker>,
    engine: Arc<FileEngine>,
    files: Arc<dyn Log>,
    memory: Arc<dyn Log>,
    shards: Arc<Shards>,
    domain: String,
    bytes_max: [u64; 2],
    usage: Arc<Usage>,
    /// Streams that could not be brought back, and why.
    offline: Mutex<BTreeMap<(String, String), (StreamId, String)>>,
    accounts: HashMap<String, Arc<Usage>>,
    held: Mutex<HashMap<(String, String), Held>>,
}

/// What belongs to one stream.
struct Held {
    port: Port,
    storage: Option<StreamId>,
    subscriptions: Vec<InternalSubscription>,
    reserved: (Storage, u64),
}

impl Streams {
    /// Opens the store directory and brings its streams back.
    pub(crate) fn open(
        options: EngineOptions,
        setup: &Setup,
        broker: &Arc<Broker>,
    ) -> Result<(Arc<Self>, FoundStreams), StartError> {
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
        listen_to(&opened.engine, &shards);
        let streams = Arc::new(Self {
            broker: Arc::clone(broker),
            files: Arc::new(EngineLog(Arc::clone(&opened.engine))),
            engine: opened.engine,
            memory: Arc::new(InstantLog),
            shards,
            domain: String::new(),
            bytes_max: [settings.max_memory, settings.max_storage],
            usage: Arc::new(Usage::of_server(settings.max_memory, settings.max_storage)),
            offline: Mutex::default(),
            accounts: setup
                .accounts
                .iter()
                .map(|(name, limits)| (name.clone(), Arc::new(Usage::of_account(limits))))
                .collect(),
            held: Mutex::default(),
        });
        let mut found = Vec::new();
        let damaged = !opened.damage.is_empty();
        for recovered in opened.streams {
            found.extend(streams.bring_back(recovered, damaged));
        }
        Ok((streams, found))
    }

    /// Replays a stream and lets it run. One that cannot be brought back is kept as it is and named, and does not stand in the
    /// way of the others. `None` when it had not been born yet, which nobody was told that it was.
    fn bring_back(
        &self,
        recovered: Recovered<FileStore>,
        damaged: bool,
    ) -> Option<(String, Found)> {
        let Recovered {
            id, account, name, ..
        } = &recovered;
        let (id, account, name) = (*id, account.clone(), name.clone());
        let found = match self.revive(recovered, damaged) {
            Ok(found) => Found::Running(found?),
            Err(reason) => {
                tracing::error!("JetStream stream '{account} > {name}' is offline: {reason}");
                self.engine.set_offline(id);
                let key = (account.clone(), name.clone());
                self.offline.lock().insert(key, (id, reason.clone()));
                Found::Offline { name, reason }
            }
        };
        Some((account, found))
    }

    /// Where the journal is damaged, a stream without any entries may have lost them, and is not removed.
    fn revive(
        &self,
        recovered: Recovered<FileStore>,
        damaged: bool,
    ) -> Result<Option<Arc<Stream>>, String> {
        let content = recovered.content.map_err(|error| error.to_string())?;
        if let Some((first, last)) = recovered.holes.first() {
            return Err(format!("log entries {first} to {last} are lost to damage"));
        }
        let id = recovered.id;
        if !damaged && content.core.is_empty() && content.entries.is_empty() {
            self.engine.remove(id).map_err(|error| error.to_string())?;
            return Ok(None);
        }
        let core = self.replay(content)?;
        let config = StreamConfig::clone(core.config());
        Ok(Some(self.run(&recovered.account, config, core, Some(id))))
    }

    fn replay(&self, content: RecoveredStore<FileStore>) -> Result<StreamCore, String> {
        let RecoveredStore {
            store,
            core,
            entries,
            ..
        } = content;
        let mut entries = entries.into_iter();
        let mut core = if core.is_empty() {
            let birth = entries.next().filter(|(index, _)| *index == BIRTH_INDEX);
            let Some((_, birth)) = birth else {
                return Err("its first log entry is missing".to_owned());
            };
            StreamCore::begin(&birth, &self.domain, Box::new(store))
        } else {
            StreamCore::restore(&core, &self.domain, Box::new(store))
        }
        .map_err(|error| error.to_string())?;
        for (index, entry) in entries {
            core.replay(index, &entry)
                .map_err(|error| error.to_string())?;
        }
        Ok(core)
    }

    /// Puts a stream on a shard and lets it listen.
    fn run(
        &self,
        account: &str,
        config: StreamConfig,
        core: StreamCore,
        storage: Option<StreamId>,
    ) -> Arc<Stream> {
        let log = match storage {
            Some(_) => &self.files,
            None => &self.memory,
        };
        let id = storage.map_or(0, |id| id.0);
        let in_broker = self.broker.ensure_account(account);
        let in_account = self.accounts.get(account).cloned().unwrap_or_default();
        let meter = Meter::new(&self.usage, &in_account, config.storage);
        let log = Arc::clone(log);
        let port = self.shards.adopt_counted(core, in_broker, log, id, meter);
        let held = Held {
            subscriptions: self.subscribe(account, &config, &port),
            reserved: (config.storage, reservation(&config)),
            port: port.clone(),
            storage,
        };
        let key = (account.to_owned(), config.name.clone());
        self.held.lock().insert(key, held);
        Arc::new(Stream::new(config, Box::new(port)))
    }

    fn subscribe(
        &self,
        account: &str,
        config: &StreamConfig,
        port: &Port,
    ) -> Vec<InternalSubscription> {
        let account = self.broker.ensure_account(account);
        intake::patterns(config)
            .into_iter()
            .filter_map(|(pattern, purpose)| {
                let target: Arc<dyn InternalTarget> = Arc::new(port.clone());
                // The API has checked a stream's subjects; the other patterns are ours.
                account
                    .subscribe(&pattern, None, target, purpose as u64)
                    .ok()
            })
            .collect()
    }

    /// Reports what happened to a stream to those who listen.
    fn advise(&self, account: &str, stream: &str, action: StreamAction) {
        let account = self.broker.ensure_account(account);
        let subject = action.subject(stream);
        if !account.has_interest(&subject) {
            return;
        }
        let now = Time::from_nanoseconds(now_ns());
        let advisory = Outgoing {
            subject: Bytes::from(subject),
            payload: Bytes::from(action.payload(stream, now)),
            ..Outgoing::default()
        };
        self.broker
            .publish(&account, &[advisory], &mut PublishCache::new());
    }

    /// Makes a stream's store, and durable what it was born with.
    fn make_file_stream(
        &self,
        account: &str,
        config: &StreamConfig,
        created: Time,
    ) -> Result<(StreamCore, StreamId), String> {
        let options = StoreOptions {
            limits: limits(config),
            compression: match config.compression {
                StoreCompression::None => Compression::None,
                StoreCompression::S2 => Compression::S2,
            },
            block_bytes: None,
        };
        let (id, store) = self
            .engine
            .create(account, &config.name, options)
            .map_err(|error| error.to_string())?;
        let made = self.bear(id, store, config, created);
        if made.is_err() {
            // What is left of it is removed at the next start in any case.
            let _ = self.engine.remove(id);
        }
        made.map(|core| (core, id))
    }

    fn bear(
        &self,
        id: StreamId,
        store: FileStore,
        config: &StreamConfig,
        created: Time,
    ) -> Result<StreamCore, String> {
        let created_ns = created.nanoseconds();
        let mut core =
            StreamCore::create(config.clone(), &self.domain, created_ns, Box::new(store))
                .map_err(|error| error.to_string())?;
        let birth = core.birth(BIRTH_INDEX);
        self.append(id, birth).map_err(|error| error.to_string())?;
        Ok(core)
    }

    /// Makes a stream's first entry durable.
    fn append(&self, id: StreamId, birth: Bytes) -> Result<(), JournalError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let sink: Arc<dyn CommitSink> = Arc::new(Waiter(sender));
        let entry = LogEntry {
            stream: id,
            index: BIRTH_INDEX,
            payload: birth.into(),
            token: 0,
        };
        self.engine.submit([entry], &sink)?;
        drop(sink);
        receiver.recv().unwrap_or(Err(JournalError::Closed))
    }
}

/// Waits for one commit.
struct Waiter(mpsc::SyncSender<Result<(), JournalError>>);

impl CommitSink for Waiter {
    fn committed(&self, _commits: &[Commit]) {
        // The one who waits is there until it has heard.
        let _ = self.0.try_send(Ok(()));
    }

    fn failed(&self, error: &JournalError) {
        let _ = self.0.try_send(Err(error.clone()));
    }
}

/// What the engine asks for reaches the streams on their shards.
fn listen_to(engine: &Arc<FileEngine>, shards: &Arc<Shards>) {
    let pressed = Arc::clone(shards);
    engine.set_pressure_listener(move |pressure| {
        for owner in &pressure.owners {
            pressed.checkpoint(owner.0);
        }
    });
    let failing = Arc::clone(shards);
    engine.set_failure_listener(move |id, reason| failing.fail(id.0, reason));
}

impl StreamMaker for Streams {
    fn create(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<Arc<Stream>, ApiError> {
        let failed = |reason: String| ErrorCode::StreamCreate.with(reason);
        let (core, storage) = match config.storage {
            Storage::File => {
                let made = self.make_file_stream(&account.name, &config, created);
                let (core, id) = made.map_err(failed)?;
                (core, Some(id))
            }
            Storage::Memory => {
                let store = Box::new(MemStore::new(Limits::default()));
                let created_ns = created.nanoseconds();
                let made = StreamCore::create(config.clone(), &self.domain, created_ns, store);
                (made.map_err(|error| failed(error.to_string()))?, None)
            }
        };
        let stream = self.run(&account.name, config, core, storage);
        self.advise(&account.name, &stream.name, StreamAction::Created);
        Ok(stream)
    }

    fn updated(&self, account: &AccountStreams, stream: &Stream, _old: &StreamConfig) {
        let config = stream.config();
        let key = (account.name.clone(), stream.name.clone());
        let mut held = self.held.lock();
        let Some(held) = held.get_mut(&key) else {
            return;
        };
        let wanted = intake::patterns(&config);
        let before = std::mem::take(&mut held.subscriptions);
        // What stays is not heard twice and not missed: only what is new is subscribed, only what is gone is dropped.
        let (kept, _gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|subscription| {
            wanted
                .iter()
                .any(|(pattern, _)| pattern.as_bytes() == subscription.subject().as_ref())
        });
        let in_broker = self.broker.ensure_account(&account.name);
        let new = wanted.into_iter().filter_map(|(pattern, purpose)| {
            let is_kept = kept
                .iter()
                .any(|one| one.subject().as_ref() == pattern.as_bytes());
            if is_kept {
                return None;
            }
            let target: Arc<dyn InternalTarget> = Arc::new(held.port.clone());
            in_broker
                .subscribe(&pattern, None, target, purpose as u64)
                .ok()
        });
        let new: Vec<_> = new.collect();
        held.subscriptions = kept;
        held.subscriptions.extend(new);
        held.reserved = (config.storage, reservation(&config));
        self.advise(&account.name, &stream.name, StreamAction::Updated);
    }

    fn remove(&self, account: &AccountStreams, stream: &Stream) -> Result<(), ApiError> {
        let key = (account.name.clone(), stream.name.clone());
        let held = self.held.lock().remove(&key);
        let Some(held) = held else {
            return Ok(());
        };
        drop(held.subscriptions);
        let (sender, receiver) = mpsc::sync_channel(1);
        held.port.remove(Box::new(move || {
            // Whoever waits is there until it has heard.
            let _ = sender.try_send(());
        }));
        // A shard that has ended holds nothing any more.
        let _ = receiver.recv();
        match held.storage.map(|id| self.engine.remove(id)) {
            Some(Err(error)) => Err(ErrorCode::StreamDelete.with(error)),
            _ => {
                self.advise(&account.name, &stream.name, StreamAction::Deleted);
                Ok(())
            }
        }
    }

    fn remove_offline(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        let key = (account.name.clone(), name.to_owned());
        let Some((id, _)) = self.offline.lock().remove(&key) else {
            return Ok(());
        };
        let removed = self.engine.remove(id);
        removed.map_err(|error| ErrorCode::StreamDelete.with(error))?;
        self.advise(&account.name, name, StreamAction::Deleted);
        Ok(())
    }

    fn unreserved(&self, storage: Storage) -> u64 {
        let max = match storage {
            Storage::Memory => self.bytes_max[0],
            Storage::File => self.bytes_max[1],
        };
        let held = self.held.lock();
        let reserved = held.values().filter(|held| held.reserved.0 == storage);
        max.saturating_sub(reserved.map(|held| held.reserved.1).sum())
    }

    fn has_interest(&self, account: &AccountStreams, subject: &str) -> bool {
        self.broker
            .account(&account.name)
            .is_some_and(|account| account.has_interest(subject))
    }
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

    fn stop(&self) {
        self.held.lock().clear();
        self.shards.stop();
        self.engine.close();
    }
}
