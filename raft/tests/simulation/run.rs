//! One seed: servers that crash and are cut off while commands are proposed, and what has to hold all the while.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Begin, Outcome, Role};
use raft::simulation::Weather;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage::journal::Durability;
use tokio::time::Instant;

use crate::cluster::server::{Cluster, Media, node_of, quick};

const GROUP: u64 = 7;
const SERVERS: usize = 3;
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// After the trouble everybody agrees within this time.
const RECOVERY: Duration = Duration::from_secs(30);

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(pub String);

/// Known failures that can be brought back, each of which has to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Museum {
    /// None of them.
    Closed,
    /// Entries are acknowledged before they are synced.
    AckBeforeSync,
    /// A server that lost its disk votes again under the id that it had.
    VoteAfterAmnesia,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub committed: usize,
    pub unknown: usize,
    pub terms: usize,
    pub crashes: usize,
    /// Of everything that happened, in order and with its time.
    pub trace: u64,
}

/// What became of the proposals.
#[derive(Default)]
struct Outcomes {
    /// By index.
    committed: BTreeMap<u64, Bytes>,
    unknown: usize,
    answered: u64,
    /// Two commands were acknowledged at one index.
    twice: Option<String>,
}

struct World {
    cluster: Cluster,
    random: SmallRng,
    museum: Museum,
    outcomes: Arc<Mutex<Outcomes>>,
    proposed: u64,
    /// Who led in which term: the server, and which of its runs it was.
    leaders: BTreeMap<u64, usize>,
    /// Of each server's roles, how many were looked at.
    roles_seen: [usize; SERVERS],
    /// The longest history that any replica has applied.
    history: Vec<Bytes>,
    crashes: usize,
    begun: Instant,
    trace: DefaultHasher,
}

pub async fn run(seed: u64, museum: Museum) -> Result<Run, Found> {
    let cluster = Cluster::simulated(SERVERS, quick(), seed);
    *cluster.network.weather.lock() = Some(Weather::new(seed));
    let mut world = World {
        cluster,
        random: SmallRng::seed_from_u64(seed),
        museum,
        outcomes: Arc::default(),
        proposed: 0,
        leaders: BTreeMap::new(),
        roles_seen: [0; SERVERS],
        history: Vec::new(),
        crashes: 0,
        begun: Instant::now(),
        trace: DefaultHasher::new(),
    };
    if museum == Museum::AckBeforeSync {
        for server in &world.cluster.servers {
            *server.durability.lock() = Durability::Interval(Duration::from_secs(3600));
        }
        for at in 0..SERVERS {
            world.cluster.servers[at].power_off().await;
            world.cluster.servers[at].boot();
        }
    }
    world.cluster.found(GROUP).await;
    while world.begun.elapsed() < TROUBLE {
        let pause = world.random.random_range(1..400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.disturb().await;
        world.propose();
        world.check()?;
    }
    world.heal().await;
    world.recover().await?;
    let outcomes = world.outcomes.lock();
    Ok(Run {
        committed: outcomes.committed.len(),
        unknown: outcomes.unknown,
        terms: world.leaders.len(),
        crashes: world.crashes,
        trace: world.trace.finish(),
    })
}

impl World {
    fn note(&mut self, what: impl Hash) {
        let at = self.begun.elapsed().as_micros();
        (at, what).hash(&mut self.trace);
    }

    fn running(&self) -> Vec<usize> {
        let servers = self.cluster.servers.iter().enumerate();
        let running = servers.filter(|(_, server)| server.is_running());
        running.map(|(at, _)| at).collect()
    }

    /// Something goes wrong, or is mended.
    async fn disturb(&mut self) {
        let what = self.random.random_range(0..20);
        let at = self.random.random_range(0..SERVERS);
        let other = (at + self.random.random_range(1..SERVERS)) % SERVERS;
        self.note((what, at, other));
        let name = |at: usize| self.cluster.servers[at].name.clone();
        match what {
            0 | 1 => self.crash(at, None).await,
            2 => {
                let changes = self.random.random_range(0..20);
                self.crash(at, Some(changes)).await;
            }
            3..=5 => self.start(at).await,
            6 => self.cluster.network.isolate(&name(at)),
            7 => self.cluster.network.cut(&name(at), &name(other)),
            8 => self.cluster.network.cut_one_way(&name(at), &name(other)),
            9..=11 => self.cluster.network.heal(),
            12 => {
                let (loss, delay_ms) = match self.random.random_range(0..4) {
                    0 => (500, 20),
                    1 => (0, 300),
                    _ => (0, 2),
                };
                if let Some(weather) = &mut *self.cluster.network.weather.lock() {
                    weather.loss = loss;
                    weather.delay_max = Duration::from_millis(delay_ms);
                }
            }
            13 | 14 if self.cluster.servers[at].is_running() => {
                self.cluster.servers[at].checkpoint(GROUP);
            }
            15 if self.cluster.servers[at].leads(GROUP) => {
                let group = self.cluster.servers[at].group(GROUP);
                let to = node_of(other, 1);
                tokio::spawn(async move {
                    let _ = group.transfer_leadership(to).await;
                });
            }
            _ => {}
        }
    }

    async fn crash(&mut self, at: usize, in_the_middle: Option<u64>) {
        let server = &self.cluster.servers[at];
        if !server.is_running() {
            return;
        }
        if let (Some(changes), Media::Simulated(disk)) = (in_the_middle, &server.media) {
            disk.halt_at(disk.changes() + changes);
            let patience = Instant::now() + Duration::from_millis(500);
            while !disk.is_halted() && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        server.power_off().await;
        self.crashes += 1;
        self.roles_seen[at] = 0;
        if self.museum == Museum::VoteAfterAmnesia {
            self.cluster.servers[at].lose_everything();
        }
    }

    async fn start(&mut self, at: usize) {
        let server = &self.cluster.servers[at];
        if server.is_running() {
            return;
        }
        server.boot();
        let begin = match self.museum {
            Museum::VoteAfterAmnesia => Begin::Founder,
            _ => Begin::Again,
        };
        let founding = Some(self.cluster.founding());
        let started = server.start(GROUP, node_of(at, 1), begin, founding);
        started.await.expect("what it voted on is in its log");
    }

    /// Whoever believes to lead is asked to log something.
    fn propose(&mut self) {
        for at in self.running() {
            if !self.cluster.servers[at].leads(GROUP) {
                continue;
            }
            let group = self.cluster.servers[at].group(GROUP);
            for _ in 0..self.random.random_range(1..8) {
                self.proposed += 1;
                let command = Bytes::from(format!("{} by {at}", self.proposed));
                let outcomes = Arc::clone(&self.outcomes);
                let said = command.clone();
                group.propose(command, Duration::from_secs(2), move |outcome| {
                    outcomes.lock().take(said, &outcome);
                });
            }
        }
    }

    /// What has to hold at every moment.
    fn check(&mut self) -> Result<(), Found> {
        if let Some(twice) = self.outcomes.lock().twice.take() {
            return Err(Found(twice));
        }
        for at in self.running() {
            let state = self.cluster.servers[at].store(GROUP).state();
            for role in state.roles.iter().skip(self.roles_seen[at]) {
                if let Role::Stopped { reason } = role {
                    return Err(Found(format!("{at} stopped: {reason}")));
                }
                if let Role::Leader { term } = role {
                    let known = *self.leaders.entry(*term).or_insert(at);
                    if known != at {
                        let found = format!("{known} and {at} both lead in term {term}");
                        return Err(Found(found));
                    }
                }
            }
            self.roles_seen[at] = state.roles.len();
            let shared = state.commands.len().min(self.history.len());
            if state.commands[..shared] != self.history[..shared] {
                return Err(Found(format!(
                    "{at} applied something else than the others"
                )));
            }
            if state.commands.len() > self.history.len() {
                self.history = state.commands;
            }
        }
        let (applied, answered) = (self.history.len(), self.outcomes.lock().answered);
        self.note((applied, answered));
        Ok(())
    }

    /// Everything is well again.
    async fn heal(&mut self) {
        self.cluster.network.heal();
        if let Some(weather) = &mut *self.cluster.network.weather.lock() {
            weather.loss = 0;
            weather.delay_max = Duration::from_millis(2);
        }
        for at in 0..SERVERS {
            self.start(at).await;
        }
    }

    /// All agree within a time, and nothing that was acknowledged is missing.
    async fn recover(&mut self) -> Result<(), Found> {
        let healed = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.check()?;
            if healed.elapsed() < Duration::from_secs(5) {
                self.propose();
                continue;
            }
            let proposed_all = self.outcomes.lock().answered == self.proposed;
            let commands: Vec<Vec<Bytes>> = (0..SERVERS)
                .map(|at| self.cluster.servers[at].store(GROUP).commands())
                .collect();
            if proposed_all && commands.iter().all(|each| *each == commands[0]) {
                break;
            }
            if healed.elapsed() > RECOVERY {
                let counts: Vec<usize> = commands.iter().map(Vec::len).collect();
                return Err(Found(format!("no agreement after the trouble: {counts:?}")));
            }
        }
        let outcomes = self.outcomes.lock();
        let mut applied = self.history.iter();
        for (index, command) in &outcomes.committed {
            // In the order of their indexes, and each once.
            if !applied.any(|applied| applied == command) {
                let command = String::from_utf8_lossy(command).into_owned();
                return Err(Found(format!(
                    "{command:?}, acknowledged at {index}, is lost"
                )));
            }
        }
        Ok(())
    }
}

impl Outcomes {
    fn take(&mut self, command: Bytes, outcome: &Outcome) {
        self.answered += 1;
        match outcome {
            Outcome::Committed(at) => {
                if let Some(before) = self.committed.insert(at.index, command.clone()) {
                    self.twice = Some(format!(
                        "{before:?} and {command:?} were both acknowledged at {}",
                        at.index
                    ));
                }
            }
            Outcome::Unknown => self.unknown += 1,
            Outcome::Refused { .. } => {}
        }
    }
}
