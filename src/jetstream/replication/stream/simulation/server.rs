//! A server of a simulation: broker, shard, storage engine and groups as they are, over a simulated disk, network and clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{
    Begin, Checkpoint, Group, GroupNumber, GroupSpec, Groups, GroupsOptions, Machine, Outbound,
    Outcome, Role, Timing,
};
use raft::log::{LogImage, LogJournal};
use raft::simulation::{Link, Network};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage::disk::sim::SimDisk;
use storage::engine::{
    EngineOptions, FileEngine, Form, Opened, Recovered, Replica, StreamId, Threads,
};
use storage::entropy::SeededEntropy;
use storage::journal::{Damage, Durability, Pressure};
use storage::store::{FileStore, Limits, MemStore, Store};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::journal::SlowJournal;
use super::oracle::{CREATED_NS, Committed, Tap};
use crate::broker::{
    Broker, Inbound, InternalSubscription, InternalTarget, Outgoing, PublishCache,
};
use crate::jetstream::core::{Retirement, StreamCore};
use crate::jetstream::log::Log;
use crate::jetstream::replication::stream::fetch::{Fetch, FetchError, Fetching, Sources};
use crate::jetstream::replication::stream::machine::Pace;
use crate::jetstream::replication::stream::recover::recover;
use crate::jetstream::replication::stream::replica::{Replicas, StreamReplica};
use crate::jetstream::shard::{
    EngineLog, HandShard, Proposer, ReplicaSetup, ReplicaStatus, Shards, Streams, WaitingMax,
};
use crate::jetstream::types::{Storage, StreamConfig};
use crate::jetstream::usage::Meter;

/// What a broken simulation says.
type Result<T> = std::result::Result<T, String>;

/// What all servers of a simulation share.
pub(super) struct Surroundings {
    pub(super) network: Arc<Network>,
    sources: Mutex<BTreeMap<String, Weak<Sources>>>,
    pub(super) committed: Arc<Committed>,
    pub(super) heard: Mutex<Vec<Heard>>,
    begun: Instant,
}

impl Surroundings {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            network: Arc::default(),
            sources: Mutex::default(),
            committed: Arc::default(),
            heard: Mutex::default(),
            begun: Instant::now(),
        })
    }
}

/// Something that a server sent to a client.
pub(super) struct Heard {
    standings: BTreeMap<GroupNumber, Standing>,
    pub(super) message: Inbound,
}

/// How a server stood in a group when it sent something.
#[derive(Clone, Copy, Default)]
struct Standing {
    /// In which term it led, when it did.
    led: Option<u64>,
    /// The term that it was in: nothing that it had applied was written in a later one.
    term: u64,
}

impl Heard {
    /// In which term the server led the group; 0 when it did not.
    pub(super) fn term_led(&self, group: GroupNumber) -> u64 {
        let standing = self.standings.get(&group);
        standing.and_then(|standing| standing.led).unwrap_or(0)
    }

    /// In which term what the server had applied was committed, at the latest. Whoever leads in that term or a later one has all of it.
    pub(super) fn term_of_commits(&self, group: GroupNumber) -> u64 {
        let standing = self.standings.get(&group);
        // A replica that has ended says 0, and that is not known then.
        let known = standing.filter(|standing| standing.term > 0);
        known.map_or(u64::MAX, |standing| standing.term)
    }
}

/// Hears for the clients, as long as the server's power is on.
struct Ear {
    surroundings: Arc<Surroundings>,
    statuses: Mutex<BTreeMap<GroupNumber, StreamReplica>>,
    is_shut: AtomicBool,
}

impl Ear {
    fn standings(&self) -> BTreeMap<GroupNumber, Standing> {
        let statuses = self.statuses.lock();
        let standings = statuses.iter().map(|(group, replica)| {
            let led = match replica.status().role {
                Role::Leader { term } => Some(term),
                _ => None,
            };
            let term = replica.group.term();
            (*group, Standing { led, term })
        });
        standings.collect()
    }
}

impl InternalTarget for Ear {
    fn deliver(&self, batch: Vec<Inbound>) {
        if self.is_shut.load(Ordering::Relaxed) {
            return;
        }
        let standings = self.standings();
        let heard = batch.into_iter().map(|message| Heard {
            standings: standings.clone(),
            message,
        });
        self.surroundings.heard.lock().extend(heard);
    }
}

/// A group whose proposals are sometimes not waited for: nobody knows then what becomes of them, and they are proposed again.
struct Impatient {
    group: Group,
    random: Mutex<SmallRng>,
}

impl Proposer for Impatient {
    fn propose(
        &self,
        command: Bytes,
        timeout: Duration,
        done: Box<dyn FnOnce(Outcome) + Send + 'static>,
    ) {
        let patience = {
            let mut random = self.random.lock();
            match random.random_range(0..8) {
                0 => Duration::from_millis(random.random_range(2..200)),
                _ => timeout,
            }
        };
        Group::propose(&self.group, command, patience, done);
    }

    fn released(&self, checkpoint: Checkpoint) {
        Group::released(&self.group, checkpoint);
    }
}

struct SimulatedFetch {
    link: Arc<Link>,
    surroundings: Arc<Surroundings>,
}

impl Fetch for SimulatedFetch {
    fn fetch<'a>(&'a self, server: &'a str, request: Bytes) -> Fetching<'a> {
        Box::pin(async move {
            let lost = || FetchError("nothing was heard".to_owned());
            let (from, network) = (&self.link.from, &self.surroundings.network);
            if !network.passes(from, server).await {
                tokio::time::sleep(Duration::from_secs(3)).await;
                return Err(lost());
            }
            let sources = self.surroundings.sources.lock().get(server).cloned();
            let sources = sources.and_then(|sources| sources.upgrade());
            let answer = sources.ok_or_else(lost)?.answer(request).await;
            match network.passes(server, from).await {
                true => Ok(answer),
                false => Err(lost()),
            }
        })
    }
}

pub(super) struct Server {
    pub(super) name: String,
    seed: u64,
    boots: u64,
    pub(super) disk: SimDisk,
    /// By how much its clock is wrong.
    pub(super) skew_ns: Arc<AtomicI64>,
    pub(super) durability: Durability,
    surroundings: Arc<Surroundings>,
    running: Option<Running>,
}

struct Running {
    broker: Arc<Broker>,
    engine: Arc<FileEngine>,
    journal: Arc<SlowJournal>,
    link: Arc<Link>,
    replicas: Replicas,
    streams: BTreeMap<GroupNumber, (StreamReplica, StreamId)>,
    shard: JoinHandle<()>,
    ear: Arc<Ear>,
    _hears: InternalSubscription,
}

fn new_disk(seed: u64) -> SimDisk {
    SimDisk::new(seed)
}

impl Server {
    pub(super) fn new(name: String, seed: u64, surroundings: &Arc<Surroundings>) -> Self {
        Self {
            name,
            seed,
            boots: 0,
            disk: new_disk(seed),
            skew_ns: Arc::default(),
            durability: Durability::Always,
            surroundings: Arc::clone(surroundings),
            running: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn replica(&self, group: GroupNumber) -> Option<&StreamReplica> {
        let streams = &self.running.as_ref()?.streams;
        streams.get(&group).map(|(replica, _)| replica)
    }

    pub(super) fn status(&self, group: GroupNumber) -> Option<ReplicaStatus> {
        self.replica(group).map(StreamReplica::status)
    }

    pub(super) fn term_led(&self, group: GroupNumber) -> Option<u64> {
        match self.status(group)?.role {
            Role::Leader { term } => Some(term),
            _ => None,
        }
    }

    pub(super) fn groups(&self) -> Vec<GroupNumber> {
        let running = self.running.iter();
        running
            .flat_map(|one| one.streams.keys().copied())
            .collect()
    }

    /// Opens the store and what goes with it; what is found there is not started yet.
    pub(super) fn boot(&mut self) -> Result<(Vec<Recovered<FileStore>>, Vec<Damage>)> {
        self.boots += 1;
        let seed = self.seed.wrapping_mul(1000) + self.boots;
        let mut options = EngineOptions::new("/store");
        options.durability = self.durability;
        options.threads = Threads::None;
        options.cache_bytes = 1024 * 1024;
        options.reserve_bytes = 0;
        // Small, so that segments end and come again.
        options.journal.segment_bytes = 128 * 1024;
        options.journal.commit_bytes_max = 16 * 1024;
        options.journal.soft_bytes = 512 * 1024;
        options.journal.hard_bytes = 2 * 1024 * 1024;
        options.carry_bytes_max = 2048;
        let disk = Arc::new(self.disk.clone());
        let opened = FileEngine::open(disk, options, Arc::new(SeededEntropy::new(seed)));
        let opened = opened.map_err(|error| format!("{}: {error}", self.name))?;
        let Opened {
            engine,
            streams,
            damage,
            ..
        } = opened;
        let broker = Arc::new(Broker::new());
        let waiting = WaitingMax {
            messages: 100_000,
            bytes: 1 << 30,
        };
        let (skew_ns, begun) = (Arc::clone(&self.skew_ns), self.surroundings.begun);
        let clock = move || {
            let since = begun.elapsed().as_nanos() as i64;
            CREATED_NS + since + skew_ns.load(Ordering::Relaxed)
        };
        let (shards, shard) = Shards::by_hand(&broker, waiting, Box::new(clock));
        let shards = Arc::new(shards);
        listen(&engine, &shards);
        let network = &self.surroundings.network;
        let shard = tokio::spawn(drive(shard, self.name.clone(), Arc::clone(network)));
        let link = Arc::new(Link::new(&self.name, network));
        let options = GroupsOptions {
            timing: Timing {
                quiet_after: Duration::from_millis(600),
                ..Timing::default()
            },
            ..GroupsOptions::new(self.name.clone())
        };
        let journal = SlowJournal::new(&self.name, &engine, network, seed);
        let log: Arc<dyn LogJournal> = Arc::<SlowJournal>::clone(&journal);
        let outbound: Arc<dyn Outbound> = Arc::<Link>::clone(&link);
        let runtime = tokio::runtime::Handle::current();
        let groups = Groups::new(options, log, outbound, runtime).expect("the options make sense");
        let groups = Arc::new(groups);
        network.join(&self.name, &groups);
        let sources = Arc::new(Sources::default());
        let mut known = self.surroundings.sources.lock();
        known.insert(self.name.clone(), Arc::downgrade(&sources));
        drop(known);
        let ear = Arc::new(Ear {
            surroundings: Arc::clone(&self.surroundings),
            statuses: Mutex::default(),
            is_shut: AtomicBool::new(false),
        });
        let target: Arc<dyn InternalTarget> = Arc::<Ear>::clone(&ear);
        let hears = broker.global().subscribe("inbox.>", None, target, 0);
        self.running = Some(Running {
            replicas: Replicas {
                groups,
                shards,
                sources,
                fetch: Arc::new(SimulatedFetch {
                    link: Arc::clone(&link),
                    surroundings: Arc::clone(&self.surroundings),
                }),
                pace: Pace::default(),
            },
            broker,
            engine,
            journal,
            link,
            streams: BTreeMap::new(),
            shard,
            ear,
            _hears: hears.expect("a subject"),
        });
        Ok((streams, damage))
    }

    /// Begins a replica that was not here before.
    pub(super) async fn begin(
        &mut self,
        group: GroupNumber,
        node: u64,
        config: StreamConfig,
        founding: Option<Checkpoint>,
    ) -> Result<()> {
        let running = self.running.as_ref().expect("the server runs");
        let form = Form::Replicated(Replica {
            group: group.0,
            node,
        });
        let mut options = Streams::store_options(&config);
        // Small, so that there are several.
        options.block_bytes = Some(4096);
        let made = running.engine.create_as("$G", &config.name, options, form);
        let (id, store) = made.map_err(|error| error.to_string())?;
        let store: Box<dyn Store> = match config.storage {
            Storage::File => Box::new(store),
            Storage::Memory => Box::new(MemStore::new(Limits::default())),
        };
        let core = StreamCore::create(config, "", CREATED_NS, store);
        let core = core.map_err(|error| error.to_string())?;
        let begin = match founding {
            Some(_) => Begin::Founder,
            None => Begin::Joiner,
        };
        let spec = GroupSpec {
            number: group,
            owner: id.owner(),
            node,
            begin,
            image: LogImage::default(),
            checkpoint: founding.clone(),
        };
        self.run(core, id, founding.unwrap_or_default(), spec).await
    }

    /// Lets a replica that was found go on. When it has to come back under another id: why.
    pub(super) async fn go_on(
        &mut self,
        found: Recovered<FileStore>,
        damage: &[Damage],
    ) -> Result<Option<String>> {
        let found = match recover(found, damage, "") {
            Ok(found) => found,
            Err(lost) => return Ok(Some(lost.to_string())),
        };
        let spec = GroupSpec {
            number: GroupNumber(found.replica.group),
            owner: found.id.owner(),
            node: found.replica.node,
            begin: Begin::Again,
            image: found.image,
            checkpoint: Some(found.position.clone()),
        };
        self.run(found.core, found.id, found.position, spec).await?;
        Ok(None)
    }

    async fn run(
        &mut self,
        core: StreamCore,
        id: StreamId,
        position: Checkpoint,
        spec: GroupSpec,
    ) -> Result<()> {
        let running = self.running.as_mut().expect("the server runs");
        let group = spec.number;
        let in_memory = core.config().storage == Storage::Memory;
        let storage_log: Arc<dyn Log> = Arc::new(EngineLog(Arc::clone(&running.engine)));
        let setup = ReplicaSetup {
            core,
            account: Arc::clone(running.broker.global()),
            storage_log,
            storage: if in_memory { 0 } else { id.0 },
            owner: id.0,
            meter: Meter::default(),
            position,
            keeps_nothing: false,
            rests: false,
        };
        let (server, committed) = (self.name.clone(), &self.surroundings.committed);
        let machine = |machine| -> Arc<dyn Machine> {
            Arc::new(Tap {
                server,
                group,
                committed: Arc::clone(committed),
                machine,
            })
        };
        let random = SmallRng::seed_from_u64(self.seed + self.boots);
        let random = Mutex::new(random);
        let proposer = |group| -> Arc<dyn Proposer> { Arc::new(Impatient { group, random }) };
        let started = running
            .replicas
            .start_wrapped(setup, spec, machine, proposer);
        let replica = started.await.map_err(|error| error.to_string())?;
        let mut statuses = running.ear.statuses.lock();
        statuses.insert(group, replica.clone());
        drop(statuses);
        running.streams.insert(group, (replica, id));
        Ok(())
    }

    /// Ends a replica and removes all that it has.
    pub(super) async fn remove(&mut self, group: GroupNumber) -> Result<()> {
        let running = self.running.as_mut().expect("the server runs");
        let Some((replica, id)) = running.streams.remove(&group) else {
            return Ok(());
        };
        running.ear.statuses.lock().remove(&group);
        replica.stop(Retirement::Removed).await;
        running.journal.flush();
        self.remove_stored(id)
    }

    /// Removes what is stored of a replica that does not run.
    pub(super) fn remove_stored(&self, id: StreamId) -> Result<()> {
        let running = self.running.as_ref().expect("the server runs");
        let removed = running.engine.remove(id);
        removed.map_err(|error| error.to_string())
    }

    /// The power goes: nothing more reaches the disk, nobody hears anything, and what was not synced may be lost.
    pub(super) async fn power_off(&mut self) {
        let Some(running) = self.running.take() else {
            // What a start left behind that did not succeed.
            self.disk.crash();
            return;
        };
        running.link.shut();
        running.ear.is_shut.store(true, Ordering::Relaxed);
        self.disk.halt_at(self.disk.changes());
        let network = &self.surroundings.network;
        network.leave(&self.name);
        network.thaw(&self.name);
        running.replicas.groups.close().await;
        running.journal.flush();
        running.shard.abort();
        // The shard's task holds streams, and they the store.
        let _ = running.shard.await;
        running.ear.statuses.lock().clear();
        self.disk.crash();
    }

    /// Loses all that it had.
    pub(super) fn lose_everything(&mut self) {
        assert!(self.running.is_none(), "its power is off");
        self.disk = new_disk(self.seed.wrapping_mul(7919) + self.boots);
    }

    /// A client that is connected here publishes something.
    pub(super) fn publish(&self, message: Outgoing) {
        if let Some(running) = &self.running {
            let account = running.broker.global();
            let cache = &mut PublishCache::new();
            running.broker.publish(account, &[message], cache);
        }
    }
}

/// What the engine asks for reaches the streams.
fn listen(engine: &Arc<FileEngine>, shards: &Arc<Shards>) {
    let weak = Arc::downgrade(shards);
    let last = Mutex::new(Pressure::default());
    engine.set_pressure_listener(move |pressure| {
        // Only what is new is told, as the journal's thread does.
        let before = std::mem::replace(&mut *last.lock(), pressure.clone());
        if let Some(shards) = weak.upgrade().filter(|_| before != *pressure) {
            for owner in &pressure.owners {
                shards.checkpoint(owner.0);
            }
        }
    });
    let weak = Arc::downgrade(shards);
    engine.set_checkpoint_listener(move |id, index| {
        if let Some(shards) = weak.upgrade() {
            shards.checkpointed(id.0, index);
        }
    });
    let weak = Arc::downgrade(shards);
    engine.set_failure_listener(move |id, reason| {
        if let Some(shards) = weak.upgrade() {
            shards.fail(id.0, reason);
        }
    });
}

/// Lets a shard run, as its thread would.
async fn drive(mut shard: HandShard, server: String, network: Arc<Network>) {
    let bell = shard.bell();
    loop {
        network.while_frozen(&[&server]).await;
        match shard.turn() {
            Some(Duration::ZERO) => {}
            Some(wait) => tokio::select! {
                biased;
                () = bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
            },
            None => bell.notified().await,
        }
        // What rings while it turns must not keep the groups from running, which have threads of their own.
        tokio::task::yield_now().await;
    }
}
