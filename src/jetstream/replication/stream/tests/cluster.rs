//! Servers in one process: a broker, shards, a store directory and groups each, and a network between them that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{
    Begin, Channel, Checkpoint, GroupNumber, GroupSpec, Groups, GroupsOptions, Members, Outbound,
    Role, Timing,
};
use raft::log::LogImage;
use storage::disk::RealDisk;
use storage::engine::{
    EngineOptions, FileEngine, Form, OpenError, Opened, Replica, StoreOptions, StreamId,
};
use storage::entropy::SystemEntropy;
use storage::filter::Filter;
use storage::store::{FileStore, Limits, MemStore, Message, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::broker::{
    Account, Broker, Inbound, InternalSubscription, InternalTarget, Outgoing, PublishCache,
};
use crate::jetstream::core::{AckForm, AckNames};
use crate::jetstream::core::{Retirement, StreamCore, StreamReply, StreamRequest};
use crate::jetstream::intake::{self, Purpose};
use crate::jetstream::log::Log;
use crate::jetstream::replication::stream::fetch::{Fetch, FetchError, Fetching, Sources};
use crate::jetstream::replication::stream::machine::Pace;
use crate::jetstream::replication::stream::recover::{LostReplica, recover};
use crate::jetstream::replication::stream::replica::{Replicas, StreamReplica};
use crate::jetstream::replication::stream::scale::{to_joiner, to_plain, to_replicated};
use crate::jetstream::shard::{EngineLog, Port, ReplicaSetup, Shards, WaitingMax};
use crate::jetstream::types::{Storage, StreamConfig};
use crate::jetstream::usage::Meter;

pub(super) const GROUP: GroupNumber = GroupNumber(3);
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What reaches a server.
type Connected = (Weak<Groups>, Arc<Sources>);

#[derive(Default)]
pub(super) struct Network {
    servers: Mutex<BTreeMap<String, Connected>>,
    cuts: Mutex<BTreeSet<(String, String)>>,
    pub(super) fetched_bytes: AtomicU64,
}

impl Network {
    pub(super) fn isolate(&self, name: &str) {
        let others: Vec<String> = self.servers.lock().keys().cloned().collect();
        let mut cuts = self.cuts.lock();
        for other in others {
            cuts.insert((name.to_owned(), other.clone()));
            cuts.insert((other, name.to_owned()));
        }
    }

    pub(super) fn heal(&self) {
        self.cuts.lock().clear();
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts.lock().contains(&(from.to_owned(), to.to_owned()))
    }
}

struct Link {
    from: String,
    network: Arc<Network>,
}

impl Outbound for Link {
    fn send(&self, to: &str, channel: Channel, frame: Bytes) {
        if self.network.is_cut(&self.from, to) {
            return;
        }
        let servers = self.network.servers.lock();
        let groups = servers.get(to).and_then(|server| server.0.upgrade());
        drop(servers);
        if let Some(groups) = groups {
            groups.received(&self.from, channel, frame);
        }
    }
}

impl Fetch for Link {
    fn fetch<'a>(&'a self, server: &'a str, request: Bytes) -> Fetching<'a> {
        Box::pin(async move {
            let lost = || FetchError("not connected".to_owned());
            if self.network.is_cut(&self.from, server) {
                return Err(lost());
            }
            let sources = {
                let servers = self.network.servers.lock();
                let server = servers.get(server).ok_or_else(lost)?;
                Arc::clone(&server.1)
            };
            let answer = sources.answer(request).await;
            if self.network.is_cut(&self.from, server) {
                return Err(lost());
            }
            let length = answer.len() as u64;
            self.network
                .fetched_bytes
                .fetch_add(length, Ordering::Relaxed);
            Ok(answer)
        })
    }
}

/// Keeps what it receives.
#[derive(Default)]
struct Ear(Mutex<Vec<Inbound>>);

impl InternalTarget for Ear {
    fn deliver(&self, batch: Vec<Inbound>) {
        self.0.lock().extend(batch);
    }
}

pub(super) struct Server {
    pub(super) name: String,
    at: usize,
    directory: TempDir,
    config: StreamConfig,
    network: Arc<Network>,
    pub(super) pace: Pace,
    running: Option<Running>,
}

struct Running {
    broker: Arc<Broker>,
    engine: Arc<FileEngine>,
    shards: Arc<Shards>,
    groups: Arc<Groups>,
    runtime: Runtime,
    replicas: Replicas,
    replica: Option<StreamReplica>,
    /// The stream, while it has one replica.
    plain: Option<(Port, Vec<InternalSubscription>)>,
    ear: Arc<Ear>,
    _ears: Vec<InternalSubscription>,
}

/// What a replica holds.
#[derive(Debug, PartialEq)]
struct Content {
    index: u64,
    records: Vec<Message>,
    core: Bytes,
    digest: u64,
}

pub(super) fn node_of(at: usize) -> u64 {
    at as u64 + 1
}

impl Server {
    pub(super) fn replica(&self) -> &StreamReplica {
        let replica = &self.running.as_ref().expect("the server runs").replica;
        replica.as_ref().expect("a replica")
    }

    /// The replica, taken out.
    pub(super) fn take_replica(&mut self) -> StreamReplica {
        let running = self.running.as_mut().expect("the server runs");
        running.replica.take().expect("a replica")
    }

    pub(super) fn leads(&self) -> bool {
        self.term_led().is_some()
    }

    fn is_plain(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.plain.is_some())
    }

    pub(super) fn term_led(&self) -> Option<u64> {
        match self.running.as_ref()?.replica.as_ref()?.status().role {
            Role::Leader { term } => Some(term),
            _ => None,
        }
    }

    pub(super) fn applied(&self) -> u64 {
        self.replica().status().position.at.index
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the server. What it has is found again; `begin` says whether the replica is new.
    pub(super) fn start(&mut self, begin: Begin, founding: Option<Checkpoint>) {
        let opened = self.boot();
        let running = self.running.as_ref().expect("it was booted");
        let (setup, spec) = self.recover(opened, &running.broker, begin, founding);
        self.run(setup, spec);
    }

    fn run(&mut self, setup: ReplicaSetup, spec: GroupSpec) {
        let running = self.running.as_mut().expect("it was booted");
        let started = running
            .runtime
            .block_on(running.replicas.start(setup, spec));
        running.replica = Some(started.expect("the replica starts"));
    }

    /// Makes a stream with one replica, or finds it again, and lets it run.
    pub(super) fn start_plain(&mut self) {
        let mut opened = self.boot();
        let running = self.running.as_ref().expect("it was booted");
        let (id, core) = match opened.streams.pop() {
            Some(found) => {
                assert_eq!(found.form, Form::Plain);
                let content = found.content.expect("restores");
                let store = Box::new(content.store);
                let core = StreamCore::recover(&content.core, content.entries, "", store);
                (found.id, core.expect("recovers"))
            }
            None => {
                let made = running.engine.create("$G", "S", StoreOptions::default());
                let (id, store) = made.expect("creates");
                let store = Box::new(store);
                let core = StreamCore::create(self.config.clone(), "", 1_000, store);
                (id, core.expect("creates"))
            }
        };
        let account = Arc::clone(running.broker.global());
        self.run_plain(core, account, id.0, Meter::default());
    }

    fn run_plain(&mut self, core: StreamCore, account: Arc<Account>, id: u64, meter: Meter) {
        let running = self.running.as_mut().expect("it was booted");
        let log = Arc::new(EngineLog(Arc::clone(&running.engine)));
        let shards = &running.shards;
        let port = shards.adopt_counted(core, Arc::clone(&account), log, id, meter);
        let listen = |(pattern, purpose): (String, Purpose)| {
            let target: Arc<dyn InternalTarget> = Arc::new(port.clone());
            let heard = account.subscribe(&pattern, None, target, purpose as u64);
            heard.expect("a subject")
        };
        let names = AckNames::new("", "$G", &self.config.name, AckForm::Short);
        let heard = intake::patterns(&self.config, &names)
            .into_iter()
            .map(listen);
        running.plain = Some((port.clone(), heard.collect()));
    }

    /// From one replica to the first of several.
    pub(super) fn scale_up(&mut self) {
        let running = self.running.as_mut().expect("the server runs");
        let (port, heard) = running.plain.take().expect("one replica");
        drop(heard);
        let stream = running.runtime.block_on(port.surrender());
        let replica = Replica {
            group: GROUP.0,
            node: node_of(self.at),
        };
        let engine = Arc::clone(&running.engine);
        let log: Arc<dyn Log> = Arc::new(EngineLog(Arc::clone(&engine)));
        let stream = stream.expect("it runs");
        let founding = to_replicated(&engine, log, stream, replica, &self.name);
        let founding = founding.expect("it is reformed");
        self.run(founding.setup, founding.spec);
    }

    /// Comes back under a new id, with nothing of what it held: that is kept under another name.
    pub(super) fn rejoin(&mut self, node: u64) {
        let replica = self.take_replica();
        let running = self.running.as_ref().expect("the server runs");
        // It takes nothing any more: a shard does not hand it back.
        running
            .runtime
            .block_on(replica.stop(Retirement::LeadershipLost));
        let engine = Arc::clone(&running.engine);
        let id = stored(&engine);
        engine.set_offline(id);
        engine.rename(id, "S, set aside").expect("it is renamed");
        let broker = Arc::clone(&running.broker);
        let (setup, spec) = self.make(engine, &broker, node, Begin::Joiner, None);
        self.run(setup, spec);
    }

    /// Starts after an end in the middle of its first state: goes on under a new id with what is there of it. Says how many messages that are.
    pub(super) fn join_on(&mut self, node: u64) -> u64 {
        let mut opened = self.boot();
        let found = opened.streams.pop().expect("the stream is there");
        let id = found.id;
        let core = match recover(found, &opened.damage, "") {
            Err(LostReplica::Receiving(unfinished)) => *unfinished.0,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it has a state"),
        };
        let messages = core.store().state().messages;
        let group = GROUP.0;
        let spec = to_joiner(&opened.engine, id, Replica { group, node });
        let spec = spec.expect("it is reformed");
        let running = self.running.as_ref().expect("it was booted");
        let broker = Arc::clone(&running.broker);
        let known = (id, core, LogImage::default(), None, node);
        let (setup, _) = self.set_up(opened.engine, &broker, Begin::Joiner, known);
        self.run(setup, spec);
        messages
    }

    /// Founds its group anew under another id, with what it has: the others' logs are lost.
    pub(super) fn found_anew(&mut self, node: u64) {
        let replica = self.take_replica();
        let running = self.running.as_ref().expect("the server runs");
        let stream = running.runtime.block_on(replica.surrender_whole());
        let engine = Arc::clone(&running.engine);
        let stream = to_plain(&engine, stream.expect("it is whole")).expect("it is reformed");
        let log: Arc<dyn Log> = Arc::new(EngineLog(Arc::clone(&engine)));
        let group = GROUP.0;
        let replica = Replica { group, node };
        let founding = to_replicated(&engine, log, stream, replica, &self.name);
        let founding = founding.expect("it is reformed");
        self.run(founding.setup, founding.spec);
    }

    /// From the last of several replicas to one.
    pub(super) fn scale_down(&mut self) {
        let replica = self.take_replica();
        let running = self.running.as_mut().expect("the server runs");
        let stream = running.runtime.block_on(replica.surrender());
        let stream = to_plain(&running.engine, stream.expect("it runs"));
        let stream = stream.expect("it is reformed");
        self.run_plain(stream.core, stream.account, stream.storage, stream.meter);
    }

    /// Opens the store and what goes with it, and starts no stream.
    fn boot(&mut self) -> Opened<FileStore> {
        let mut options = EngineOptions::new(self.directory.path().join("store"));
        options.journal.segment_bytes = 4 * 1024 * 1024;
        let mut opened = None;
        // A task of the run before may still be on its way out.
        until("nobody else has the store", || {
            let entropy = Arc::new(SystemEntropy);
            match FileEngine::open(Arc::new(RealDisk), options.clone(), entropy) {
                Err(OpenError::InUse(_)) => false,
                result => {
                    opened = Some(result.expect("the store opens"));
                    true
                }
            }
        });
        let opened = opened.expect("it was opened");
        let engine = Arc::clone(&opened.engine);
        let broker = Arc::new(Broker::new());
        let waiting = WaitingMax {
            messages: 100_000,
            bytes: 1 << 30,
        };
        let shards = Arc::new(Shards::start(1, &broker, waiting).expect("threads start"));
        let weak = Arc::downgrade(&shards);
        engine.set_checkpoint_listener(move |id, index| {
            if let Some(shards) = weak.upgrade() {
                shards.checkpointed(id.0, index);
            }
        });
        let runtime = raft::runtime::start(1).expect("a runtime starts");
        let link = Arc::new(Link {
            from: self.name.clone(),
            network: Arc::clone(&self.network),
        });
        let options = GroupsOptions {
            timing: Timing {
                quiet_after: Duration::from_millis(500),
                ..Timing::default()
            },
            ..GroupsOptions::new(self.name.clone())
        };
        let journal = Arc::clone(&engine);
        let outbound: Arc<dyn Outbound> = Arc::<Link>::clone(&link);
        let groups = Groups::new(options, journal, outbound, runtime.handle().clone());
        let groups = Arc::new(groups.expect("the options make sense"));
        let sources = Arc::new(Sources::default());
        let entry = (Arc::downgrade(&groups), Arc::clone(&sources));
        self.network.servers.lock().insert(self.name.clone(), entry);
        let replicas = Replicas {
            groups: Arc::clone(&groups),
            shards: Arc::clone(&shards),
            sources,
            fetch: link,
            pace: self.pace,
        };
        let ear = Arc::new(Ear::default());
        let target: Arc<dyn InternalTarget> = Arc::<Ear>::clone(&ear);
        let heard = broker.global().subscribe("inbox.>", None, target, 0);
        self.running = Some(Running {
            broker,
            engine,
            shards,
            groups,
            runtime,
            replicas,
            replica: None,
            plain: None,
            ear,
            _ears: vec![heard.expect("a subject")],
        });
        opened
    }

    /// Finds the stream in the store, or makes it.
    fn recover(
        &self,
        opened: Opened<FileStore>,
        broker: &Arc<Broker>,
        begin: Begin,
        founding: Option<Checkpoint>,
    ) -> (ReplicaSetup, GroupSpec) {
        let Opened {
            engine,
            mut streams,
            damage,
            ..
        } = opened;
        streams.retain(|found| found.name == "S");
        let Some(found) = streams.pop() else {
            return self.make(engine, broker, node_of(self.at), begin, founding);
        };
        let found = recover(found, &damage, "").expect("nothing is lost");
        let (position, node) = (Some(found.position), found.replica.node);
        let known = (found.id, found.core, found.image, position, node);
        self.set_up(engine, broker, begin, known)
    }

    fn make(
        &self,
        engine: Arc<FileEngine>,
        broker: &Arc<Broker>,
        node: u64,
        begin: Begin,
        founding: Option<Checkpoint>,
    ) -> (ReplicaSetup, GroupSpec) {
        let group = GROUP.0;
        let form = Form::Replicated(Replica { group, node });
        let made = engine.create_as("$G", "S", StoreOptions::default(), form);
        let (id, store) = made.expect("creates");
        let store: Box<dyn Store> = match self.config.storage {
            Storage::Memory => Box::new(MemStore::new(Limits::default())),
            Storage::File => Box::new(store),
        };
        let core = StreamCore::create(self.config.clone(), "", 1_000, store);
        let core = core.expect("creates");
        let known = (id, core, LogImage::default(), founding, node);
        self.set_up(engine, broker, begin, known)
    }

    fn set_up(
        &self,
        engine: Arc<FileEngine>,
        broker: &Arc<Broker>,
        begin: Begin,
        known: (StreamId, StreamCore, LogImage, Option<Checkpoint>, u64),
    ) -> (ReplicaSetup, GroupSpec) {
        let (id, core, image, checkpoint, node) = known;
        let in_memory = self.config.storage == Storage::Memory;
        let log: Arc<dyn Log> = Arc::new(EngineLog(engine));
        let setup = ReplicaSetup {
            core,
            account: Arc::clone(broker.global()),
            storage_log: log,
            storage: if in_memory { 0 } else { id.0 },
            owner: id.0,
            meter: Meter::default(),
            position: checkpoint.clone().unwrap_or_default(),
            keeps_nothing: false,
            rests: false,
        };
        let spec = GroupSpec {
            number: GROUP,
            owner: id.owner(),
            node,
            begin,
            image,
            checkpoint,
        };
        (setup, spec)
    }

    /// Ends as a process that is killed: nothing more of it is heard, and what is not durable is lost.
    pub(super) fn kill(&mut self) {
        self.network.isolate(&self.name);
        self.network.servers.lock().remove(&self.name);
        let running = self.running.take().expect("the server runs");
        running.runtime.block_on(running.groups.close());
        running.engine.set_checkpoint_listener(|_, _| {});
        running.engine.close();
        let Running {
            shards,
            runtime,
            replica,
            replicas,
            ..
        } = running;
        drop(replicas);
        runtime.shutdown_background();
        drop(replica);
        // The store must be closed before another process opens it.
        shards.stop();
    }

    /// Ends in order.
    pub(super) fn stop(&mut self) {
        let running = self.running.take().expect("the server runs");
        let runtime = &running.runtime;
        if let Some(replica) = running.replica {
            runtime.block_on(replica.stop(Retirement::Shutdown));
        }
        runtime.block_on(running.groups.close());
        self.network.servers.lock().remove(&self.name);
        running.shards.stop();
        running.engine.close();
        running.runtime.shutdown_background();
    }

    /// Publishes and says to which subject the ack goes.
    pub(super) fn publish(&self, subject: &str, reply: &str, headers: &str, payload: &str) {
        let running = self.running.as_ref().expect("the server runs");
        let message = Outgoing {
            to: Bytes::from(subject.to_owned()),
            subject: Bytes::from(subject.to_owned()),
            reply: Bytes::from(reply.to_owned()),
            headers: Bytes::from(headers.to_owned()),
            payload: Bytes::from(payload.to_owned()),
        };
        let account = running.broker.global();
        running
            .broker
            .publish(account, &[message], &mut PublishCache::new());
    }

    /// What came to a subject.
    pub(super) fn heard(&self, subject: &str) -> Vec<Inbound> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let mut heard = running.ear.0.lock();
        let (matching, rest) = std::mem::take(&mut *heard)
            .into_iter()
            .partition(|one| one.subject == subject || one.subject.starts_with(b"s."));
        *heard = rest;
        matching
    }

    /// The acks that have come: where they were sent, and the sequence that they name.
    pub(super) fn acks(&self) -> Vec<(String, u64)> {
        let running = self.running.as_ref().expect("the server runs");
        let heard = std::mem::take(&mut *running.ear.0.lock());
        let ack = |one: &Inbound| {
            let text = String::from_utf8_lossy(&one.payload).into_owned();
            let rest = text.strip_prefix("{\"stream\":\"S\",\"seq\":")?;
            let sequence = rest.split([',', '}']).next()?.parse().ok()?;
            Some((String::from_utf8_lossy(&one.subject).into_owned(), sequence))
        };
        heard.iter().filter_map(ack).collect()
    }

    pub(super) fn request(&self, request: StreamRequest) -> StreamReply {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let answer = Box::new(move |reply| {
            let _ = sender.try_send(reply);
        });
        self.replica().port.port.request(request, answer);
        receiver.recv_timeout(PATIENCE).expect("an answer")
    }

    /// Whether anybody listens for publishes here.
    pub(super) fn listens(&self, subject: &str) -> bool {
        let running = self.running.as_ref().expect("the server runs");
        running.broker.global().has_interest(subject)
    }

    /// What the replica holds as it is now.
    fn content(&self) -> Content {
        let port = self.replica().port.clone();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        port.look(move |core| {
            // What a group keeps with the state is not the same everywhere.
            core.set_group(Bytes::new());
            let (store, everything) = (core.store(), Filter::everything());
            let mut records = Vec::new();
            let mut next = 0;
            while let Ok(Some(message)) = store.next(next, &everything) {
                next = message.sequence + 1;
                records.push(message);
            }
            let _ = sender.try_send(Content {
                index: core.applied_index(),
                records,
                core: core.snapshot(),
                digest: core.digest().digest,
            });
        });
        receiver.recv_timeout(PATIENCE).expect("the shard answers")
    }

    /// Makes a checkpoint durable, and waits until the group has let its entries go.
    pub(super) fn checkpoint(&self) {
        let at = self.applied();
        self.replica().port.checkpoint();
        let group = &self.replica().group;
        until("the log is purged", || group.status().purged_index >= at);
    }

    /// Says what the journal says when the stream's entries are all that holds it back.
    pub(super) fn ask_for_room(&self) {
        let running = self.running.as_ref().expect("the server runs");
        running.shards.checkpoint(stored(&running.engine).0);
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.running.as_ref().expect("the server runs").runtime
    }
}

/// Where a server stores its replica: the newest one.
fn stored(engine: &FileEngine) -> StreamId {
    let replicated = |id: &StreamId| engine.form(*id).is_some_and(Form::is_replicated);
    let mut ids = (1..100).rev().map(StreamId);
    ids.find(replicated).expect("it has a place in the store")
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// Three servers with a replica each, and perhaps more servers without.
pub(super) struct Cluster {
    pub(super) servers: Vec<Server>,
    pub(super) network: Arc<Network>,
    replies: u64,
}

impl Cluster {
    pub(super) fn new(servers: usize, config: StreamConfig) -> Self {
        let mut cluster = Self::unstarted(servers, config);
        let founding = cluster.founding();
        for server in cluster.servers.iter_mut().take(3) {
            server.start(Begin::Founder, Some(founding.clone()));
        }
        cluster
    }

    /// Servers that are not started.
    pub(super) fn unstarted(servers: usize, config: StreamConfig) -> Self {
        let network = Arc::new(Network::default());
        let servers = (0..servers).map(|at| Server {
            name: format!("s{}", at + 1),
            at,
            directory: tempfile::tempdir().expect("there is room"),
            config: config.clone(),
            network: Arc::clone(&network),
            pace: Pace::default(),
            running: None,
        });
        Self {
            servers: servers.collect(),
            network,
            replies: 0,
        }
    }

    pub(super) fn founding(&self) -> Checkpoint {
        let voters = (0..3).map(|at| (node_of(at), format!("s{}", at + 1)));
        Checkpoint::founding(0, Members::of_voters(voters))
    }

    pub(super) fn again(&mut self, at: usize) {
        self.network.heal();
        let founding = Some(self.founding());
        self.servers[at].start(Begin::Again, founding);
    }

    /// Waits until one leads.
    pub(super) fn leader(&self) -> usize {
        let mut found = None;
        until("somebody leads", || {
            // One that was cut off may not know yet that another one does.
            let terms = self.servers.iter().enumerate();
            let terms = terms.filter_map(|(at, server)| Some((server.term_led()?, at)));
            found = terms.max();
            found.is_some()
        });
        found.expect("somebody leads").1
    }

    /// Publishes until it is acknowledged, on whoever leads; the sequence.
    pub(super) fn publish(&mut self, subject: &str, id: &str, payload: &str) -> u64 {
        let headers = match id {
            "" => String::new(),
            id => format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n"),
        };
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{payload} is not acknowledged");
            self.replies += 1;
            let reply = format!("inbox.{}", self.replies);
            let plain = self.servers.iter().position(Server::is_plain);
            let at = plain.unwrap_or_else(|| self.leader());
            self.let_another_lead(at);
            self.servers[at].publish(subject, &reply, &headers, payload);
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_millis(700) {
                if let Some(ack) = self.servers[at].heard(&reply).first() {
                    let text = String::from_utf8_lossy(&ack.payload).into_owned();
                    let number = text
                        .strip_prefix("{\"stream\":\"S\",\"seq\":")
                        .and_then(|rest| rest.split([',', '}']).next()?.parse().ok());
                    return number.unwrap_or_else(|| panic!("{text}"));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// What a server does when its replica leads and is of no use: it has another one lead.
    fn let_another_lead(&self, at: usize) {
        let running = self.servers[at].running.as_ref();
        let Some(replica) = running.and_then(|running| running.replica.as_ref()) else {
            return;
        };
        if replica.status().spoilt.is_none() {
            return;
        }
        let own = replica.group.myself().node;
        let next = replica.group.members().voters().into_iter();
        let next = next.filter(|node| *node != own);
        for next in next {
            let handed_over = replica.hand_over(next);
            if self.servers[at].runtime().block_on(handed_over).is_ok() {
                return;
            }
        }
    }

    /// Waits until these have applied the same, and compares all of it.
    pub(super) fn equal(&self, which: &[usize]) -> Vec<Message> {
        let mut leader = self.servers[self.leader()].content();
        let mut others = Vec::new();
        // A leader logs a digest now and then, also when nobody asks it for anything.
        until("all have applied the same", || {
            leader = self.servers[self.leader()].content();
            others = which.iter().map(|at| self.servers[*at].content()).collect();
            others.iter().all(|other| other.index == leader.index)
        });
        for (at, other) in which.iter().zip(others) {
            assert_eq!(other, leader, "{}", self.servers[*at].name);
        }
        leader.records
    }
}
