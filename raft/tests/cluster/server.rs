//! Servers with a journal each, that can be stopped, killed and started again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::{
    Begin, Checkpoint, Group, GroupNumber, GroupSpec, Groups, GroupsOptions, Members, StartError,
    Timing,
};
use raft::log::{InlineJournal, LogJournal, recover};
use raft::simulation::{Link, Network};
use storage::disk::RealDisk;
use storage::disk::sim::SimDisk;
use storage::entropy::{SeededEntropy, SystemEntropy};
use storage::journal::{Durability, Journal, JournalCore, JournalOptions, Owner, Replay};
use tempfile::TempDir;

use super::store::{Durable, Store, Stores};
use super::{PATIENCE, until};

/// Where a server keeps its journal.
pub enum Media {
    Real(TempDir),
    Simulated(SimDisk),
}

/// A journal of either kind.
#[derive(Clone)]
pub enum AnyJournal {
    Threaded(Arc<Journal>),
    Inline(Arc<InlineJournal>),
}

pub struct Server {
    pub name: String,
    pub media: Media,
    options: GroupsOptions,
    network: Arc<Network>,
    stores: Arc<Stores>,
    runtime: tokio::runtime::Handle,
    own_runtime: Option<tokio::runtime::Runtime>,
    running: Mutex<Option<Running>>,
    /// What a checkpoint made durable, per group.
    durable: Durable,
    incarnation: Mutex<u64>,
    pub durability: Mutex<Durability>,
}

struct Running {
    groups: Arc<Groups>,
    journal: AnyJournal,
    replay: Replay,
    stores: BTreeMap<GroupNumber, (Group, Arc<Store>)>,
}

const JOURNAL: &str = "/journal";

fn journal_options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 4 * 1024 * 1024,
        commit_bytes_max: 1024 * 1024,
        ..JournalOptions::default()
    }
}

impl AnyJournal {
    fn open(media: &Media, seed: u64, durability: Durability) -> (Self, Replay) {
        let options = JournalOptions {
            durability,
            ..journal_options()
        };
        match media {
            Media::Real(directory) => {
                let disk = Arc::new(RealDisk);
                let entropy = Arc::new(SystemEntropy);
                let opened = Journal::open(disk, directory.path(), options, entropy);
                let (journal, replay) = opened.expect("a journal opens on a healthy disk");
                (Self::Threaded(Arc::new(journal)), replay)
            }
            Media::Simulated(disk) => {
                let entropy = Arc::new(SeededEntropy::new(seed));
                let disk = Arc::new(disk.clone());
                let path = Path::new(JOURNAL);
                let opened = JournalCore::open(disk, path, options, entropy);
                let (core, replay) = opened.expect("a journal opens on a healthy disk");
                (Self::Inline(Arc::new(InlineJournal::new(core))), replay)
            }
        }
    }

    fn as_log_journal(&self) -> Arc<dyn LogJournal> {
        match self {
            Self::Threaded(journal) => journal.clone(),
            Self::Inline(journal) => journal.clone(),
        }
    }

    fn close(&self) {
        match self {
            Self::Threaded(journal) => journal.close(),
            // A disk that lost its power cannot be closed in order.
            Self::Inline(journal) => drop(journal.close()),
        }
    }
}

impl Server {
    fn with_running<T>(&self, use_it: impl FnOnce(&mut Running) -> T) -> T {
        let mut running = self.running.lock();
        use_it(running.as_mut().expect("the server runs"))
    }

    pub fn is_running(&self) -> bool {
        self.running.lock().is_some()
    }

    pub fn groups(&self) -> Arc<Groups> {
        self.with_running(|running| Arc::clone(&running.groups))
    }

    pub fn group(&self, number: u64) -> Group {
        self.with_running(|running| running.stores[&GroupNumber(number)].0.clone())
    }

    pub fn store(&self, number: u64) -> Arc<Store> {
        self.with_running(|running| Arc::clone(&running.stores[&GroupNumber(number)].1))
    }

    pub fn leads(&self, number: u64) -> bool {
        let running = self.running.lock();
        let found = running
            .as_ref()
            .and_then(|running| running.stores.get(&GroupNumber(number)));
        found.is_some_and(|(_, store)| store.leads())
    }

    /// Opens the journal and the groups, and starts no replica.
    pub fn boot(&self) {
        let seed = {
            let mut incarnation = self.incarnation.lock();
            *incarnation += 1;
            *incarnation
        };
        let (journal, replay) = AnyJournal::open(&self.media, seed, *self.durability.lock());
        let link = Arc::new(Link::new(&self.name, &self.network));
        let groups = Groups::new(
            self.options.clone(),
            journal.as_log_journal(),
            link,
            self.runtime.clone(),
        );
        let groups = Arc::new(groups.expect("the options make sense"));
        self.network.join(&self.name, &groups);
        *self.running.lock() = Some(Running {
            groups,
            journal,
            replay,
            stores: BTreeMap::new(),
        });
    }

    /// Starts a replica with what is left of it.
    pub async fn start(
        &self,
        number: u64,
        node: u64,
        begin: Begin,
        founding: Option<Checkpoint>,
    ) -> Result<Group, StartError> {
        let group = GroupNumber(number);
        let durable = self.durable.lock().get(&group).cloned();
        let checkpoint = durable
            .as_ref()
            .map(|state| state.checkpoint.clone())
            .or(founding);
        let mut state = durable.unwrap_or_default();
        state.checkpoint = checkpoint.clone().unwrap_or_default();
        let (groups, image) = self.with_running(|running| {
            let image = recover(Owner(number + 1), &mut running.replay);
            (Arc::clone(&running.groups), image)
        });
        let spec = GroupSpec {
            number: group,
            owner: Owner(number + 1),
            node,
            begin,
            image: image.expect("the log is sound"),
            checkpoint: checkpoint.filter(|checkpoint| !checkpoint.members.servers().is_empty()),
        };
        let store = Store::new(&self.name, group, &self.stores, state, &self.durable);
        let machine: Arc<Store> = Arc::clone(&store);
        let started = groups.start(spec, machine).await?;
        self.with_running(|running| running.stores.insert(group, (started.clone(), store)));
        Ok(started)
    }

    /// Makes the state as it is durable, and lets the log go up to there.
    pub fn checkpoint(&self, number: u64) -> u64 {
        let group = GroupNumber(number);
        let (handle, store) = self.with_running(|running| running.stores[&group].clone());
        let state = store.state().kept();
        let (checkpoint, index) = (state.checkpoint.clone(), state.checkpoint.at.index);
        self.durable.lock().insert(group, state);
        handle.released(checkpoint);
        index
    }

    /// Ends in order.
    pub async fn stop(&self) {
        let running = self.running.lock().take().expect("the server runs");
        running.groups.close().await;
        self.network.leave(&self.name);
        running.journal.close();
    }

    /// Ends as a process that is killed does: nobody is told anything, and nothing of it is heard again.
    pub async fn kill(&self) {
        self.network.isolate(&self.name);
        self.network.leave(&self.name);
        let running = self.running.lock().take().expect("the server runs");
        running.groups.close().await;
        running.journal.close();
        if let Media::Simulated(disk) = &self.media {
            disk.crash();
        }
    }

    /// Ends as when the power goes: nothing more reaches the disk, and what was not synced may be lost.
    pub async fn power_off(&self) {
        self.network.leave(&self.name);
        let Media::Simulated(disk) = &self.media else {
            panic!("only a simulated disk loses its power");
        };
        disk.halt_at(disk.changes());
        let running = self.running.lock().take().expect("the server runs");
        running.groups.close().await;
        running.journal.close();
        disk.crash();
    }

    /// The network lets it through again after [`Server::kill`].
    pub fn reconnect(&self) {
        self.network.heal();
    }

    /// Loses all that it had.
    pub fn lose_everything(&mut self) {
        self.media = match &self.media {
            Media::Real(_) => Media::Real(tempfile::tempdir().expect("there is room")),
            Media::Simulated(_) => Media::Simulated(simulated(99)),
        };
        self.durable.lock().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.own_runtime.take() {
            // Tests are dropped inside another runtime, where none may be waited for.
            runtime.shutdown_background();
        }
    }
}

pub fn simulated(seed: u64) -> SimDisk {
    use storage::disk::Disk;
    let disk = SimDisk::new(seed);
    disk.create_directory(Path::new(JOURNAL))
        .expect("an empty disk takes a directory");
    disk.sync_directory(Path::new("/"))
        .expect("a healthy disk syncs");
    disk
}

/// Servers `s1`, `s2` … that share groups. In group `n` the server `s<k>` is node `k << 16 | 1`.
pub struct Cluster {
    pub servers: Vec<Server>,
    pub network: Arc<Network>,
    pub stores: Arc<Stores>,
}

pub fn node_of(server: usize, incarnation: u64) -> u64 {
    ((server as u64 + 1) << 16) | incarnation
}

pub fn quick() -> Timing {
    Timing {
        quiet_after: Duration::from_millis(400),
        ..Timing::default()
    }
}

impl Cluster {
    /// With journals on real disks, and a runtime per server.
    pub fn real(servers: usize, timing: Timing) -> Self {
        Self::new(servers, |_| {
            let media = Media::Real(tempfile::tempdir().expect("there is room"));
            let runtime = raft::runtime::start(1).expect("a runtime starts");
            (media, runtime.handle().clone(), Some(runtime), timing)
        })
    }

    /// On simulated disks, all on the runtime of the caller.
    pub fn simulated(servers: usize, timing: Timing, seed: u64) -> Self {
        Self::new(servers, |at| {
            let disk = simulated(seed * 16 + at as u64);
            let runtime = tokio::runtime::Handle::current();
            (Media::Simulated(disk), runtime, None, timing)
        })
    }

    fn new(
        servers: usize,
        make: impl Fn(
            usize,
        ) -> (
            Media,
            tokio::runtime::Handle,
            Option<tokio::runtime::Runtime>,
            Timing,
        ),
    ) -> Self {
        let network = Arc::new(Network::default());
        let stores = Arc::new(Stores::default());
        let server = |at| {
            let (media, runtime, own_runtime, timing) = make(at);
            let name = format!("s{}", at + 1);
            let options = GroupsOptions {
                timing,
                ..GroupsOptions::new(name.clone())
            };
            let server = Server {
                name,
                media,
                options,
                network: Arc::clone(&network),
                stores: Arc::clone(&stores),
                runtime,
                own_runtime,
                running: Mutex::new(None),
                durable: Durable::default(),
                incarnation: Mutex::new(at as u64 * 1000),
                durability: Mutex::new(Durability::Always),
            };
            server.boot();
            server
        };
        Self {
            servers: (0..servers).map(server).collect(),
            network,
            stores,
        }
    }

    /// The first three servers, as voters.
    pub fn founding(&self) -> Checkpoint {
        let voters = (0..3).map(|at| (node_of(at, 1), self.servers[at].name.clone()));
        Checkpoint::founding(0, Members::of_voters(voters))
    }

    /// Starts the group on the first three servers.
    pub async fn found(&self, number: u64) {
        for at in 0..3 {
            let founding = Some(self.founding());
            let started = self.servers[at].start(number, node_of(at, 1), Begin::Founder, founding);
            started.await.expect("a founder starts");
        }
    }

    /// Waits until one of the servers leads, and says which.
    pub async fn leader(&self, number: u64) -> usize {
        self.leader_but(number, usize::MAX).await
    }

    /// The same, not counting one of them.
    pub async fn leader_but(&self, number: u64, but: usize) -> usize {
        let leader = || {
            let mut servers = self.servers.iter().enumerate();
            servers.find(|(at, server)| *at != but && server.leads(number))
        };
        until("somebody leads", || leader().is_some()).await;
        leader().expect("it was there a moment ago").0
    }

    /// Proposes until it is committed, wherever somebody leads.
    pub async fn commit(&self, number: u64, command: &str) {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            let leader = self.leader(number).await;
            let group = self.servers[leader].group(number);
            let outcome = super::propose(&group, command.to_owned(), Duration::from_secs(5)).await;
            if matches!(outcome, raft::group::Outcome::Committed(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{command} was not committed");
    }

    /// Waits until the running servers have the same number of commands.
    pub async fn equal(&self, number: u64, commands: usize, servers: &[usize]) {
        until("all replicas applied the same", || {
            let mut servers = servers.iter();
            servers.all(|at| self.servers[*at].store(number).count() == commands)
        })
        .await;
        let first = self.servers[servers[0]].store(number).commands();
        for at in servers {
            assert_eq!(self.servers[*at].store(number).commands(), first);
        }
    }

    pub async fn stop(&self) {
        for server in &self.servers {
            if server.is_running() {
                server.stop().await;
            }
        }
    }
}
