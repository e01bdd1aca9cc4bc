//! One seed: servers to which everything happens while clients work, and what has to hold all the while. What has to hold afterwards is in `ending`.

mod ending;

use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::group::{GroupNumber, Role};
use raft::simulation::Weather;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage::journal::Durability;
use tokio::time::Instant;

use super::clients::{Clients, stream};
use super::desk::Desk;
use super::disks::Hurt;
use super::server::{Server, Surroundings};
use crate::jetstream::core::museum::{self, Piece};
use crate::jetstream::types::{Retention, Storage};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(30);

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found(pub(super) String);

impl From<String> for Found {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Known failures that can be brought back, each of which has to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Museum {
    /// None of them.
    Closed,
    /// Entries are acknowledged before they are synced.
    AckBeforeSync,
    /// A server that lost its disk votes again under the id that it had.
    VoteAfterAmnesia,
    /// A server that lost its disk joins again under the id that it had.
    ReusedNodeId,
    /// Replicas apply an entry wherever in its chain it stands.
    AnyOrdinal,
    /// Replicas apply entries that were decided on a state that is over.
    AnyBase,
    /// Whoever begins to lead has forgotten the ids of messages.
    ForgottenIds,
    /// Something always has more to do, and lets nobody else do anything.
    StandsStill,
}

impl Museum {
    const ALL: [Self; 8] = [
        Self::Closed,
        Self::AckBeforeSync,
        Self::VoteAfterAmnesia,
        Self::ReusedNodeId,
        Self::AnyOrdinal,
        Self::AnyBase,
        Self::ForgottenIds,
        Self::StandsStill,
    ];

    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) servers: usize,
    pub(super) acknowledged: usize,
    pub(super) delivered: u64,
    pub(super) crashes: usize,
    pub(super) hurts: usize,
    pub(super) wiped: usize,
    pub(super) moved: usize,
    pub(super) terms: u64,
    /// Of everything that happened, in order and with its time.
    pub(super) trace: u64,
}

pub(super) struct World {
    museum: Museum,
    pub(super) random: SmallRng,
    surroundings: Arc<Surroundings>,
    pub(super) servers: Vec<Server>,
    desks: Vec<Desk>,
    pub(super) clients: Vec<Clients>,
    /// When frozen servers go on.
    thaws: Vec<(Instant, usize)>,
    /// The disk that is wrong, if any is.
    pub(super) hurt: Option<Hurt>,
    pub(super) hurts: usize,
    crashes: usize,
    wiped: usize,
    moved: usize,
    begun: Instant,
    trace: DefaultHasher,
}

pub(super) async fn run(seed: u64, museum: Museum) -> Result<Run, Found> {
    match museum {
        Museum::AnyOrdinal => museum::open(Piece::AnyOrdinal),
        Museum::AnyBase => museum::open(Piece::AnyBase),
        Museum::ForgottenIds => museum::open(Piece::ForgottenIds),
        Museum::StandsStill => loop {
            tokio::task::yield_now().await;
        },
        _ => {}
    }
    let mut world = World::new(seed, museum);
    if let Err(found) = world.live().await {
        world.say(|| world.describe());
        return Err(found);
    }
    world.end().await
}

impl World {
    fn new(seed: u64, museum: Museum) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let surroundings = Surroundings::new();
        *surroundings.network.weather.lock() = Some(Weather::new(seed));
        let count = 3 + seed as usize % 3;
        let mut servers = Vec::new();
        for at in 0..count {
            let name = format!("s{}", at + 1);
            let mut server = Server::new(name, seed * 16 + at as u64, &surroundings);
            if museum == Museum::AckBeforeSync {
                server.durability = Durability::Interval(Duration::from_secs(3600));
            }
            servers.push(server);
        }
        let mut streams = vec![
            (GroupNumber(1), stream("S", Retention::Limits)),
            (GroupNumber(2), stream("W", Retention::Workqueue)),
        ];
        if seed.is_multiple_of(4) {
            // What is in memory is gone with its server: fewer of them can be down at a time.
            let mut in_memory = stream("M", Retention::Limits);
            in_memory.storage = Storage::Memory;
            streams.push((GroupNumber(3), in_memory));
        }
        let mut desks = Vec::new();
        let mut clients = Vec::new();
        for (group, config) in streams {
            let first = random.random_range(0..count);
            let members = (first..first + 3).map(|at| at % count);
            desks.push(Desk::new(group, config.clone(), members));
            clients.push(Clients::new(group, config, &surroundings.committed));
        }
        Self {
            museum,
            random,
            surroundings,
            servers,
            desks,
            clients,
            thaws: Vec::new(),
            hurt: None,
            hurts: 0,
            crashes: 0,
            wiped: 0,
            moved: 0,
            begun: Instant::now(),
            trace: DefaultHasher::new(),
        }
    }

    /// Says what happens, when one seed is looked at.
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if super::number("CLUSTER_SEED").is_some() {
            println!("{:>9} ms: {}", self.begun.elapsed().as_millis(), what());
        }
    }

    /// How every replica stands.
    fn describe(&self) -> String {
        let mut text = String::new();
        for desk in &self.desks {
            let (members, leaving) = (&desk.members, &desk.leaving);
            text += &format!("group {}: {members:?} after {leaving:?}\n", desk.group);
            for server in &self.servers {
                let Some(replica) = server.replica(desk.group) else {
                    continue;
                };
                let (status, group) = (replica.status(), replica.group.status());
                text += &format!("{}: {status:?}\n  {group:?}\n", server.name);
            }
        }
        text
    }

    pub(super) fn note(&mut self, what: impl Hash) {
        let at = self.begun.elapsed().as_micros();
        (at, what).hash(&mut self.trace);
    }

    async fn live(&mut self) -> Result<(), Found> {
        self.found().await?;
        while self.begun.elapsed() < TROUBLE {
            let pause = self.random.random_range(1..250);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.disturb().await?;
            self.look().await?;
            self.work();
            self.check()?;
        }
        self.heal().await?;
        self.recover().await
    }

    async fn found(&mut self) -> Result<(), Found> {
        for at in 0..self.servers.len() {
            self.start(at).await?;
        }
        Ok(())
    }

    /// Starts a server with what it has, and what it is to have.
    async fn start(&mut self, at: usize) -> Result<(), Found> {
        if self.servers[at].is_running() {
            return Ok(());
        }
        let started = self.start_with_what_is_there(at).await;
        match started {
            Err(why) if self.is_hurt(at) => {
                self.say(|| format!("s{} does not start: {}", at + 1, why.0));
                self.servers[at].power_off().await;
                Ok(())
            }
            started => started,
        }
    }

    async fn start_with_what_is_there(&mut self, at: usize) -> Result<(), Found> {
        let (found, damage) = self.servers[at].boot()?;
        let mut lost = Vec::new();
        for one in found {
            let (id, replica) = (one.id, one.form.replica().ok_or("a plain log".to_owned())?);
            let desk = self.desks.iter().find(|desk| desk.group.0 == replica.group);
            if desk.and_then(|desk| desk.node_on(at)) != Some(replica.node) {
                self.servers[at].remove_stored(id)?;
                continue;
            }
            if let Some(why) = self.servers[at].go_on(one, &damage).await? {
                self.say(|| format!("{} of s{} is lost: {why}", replica.group, at + 1));
                self.servers[at].remove_stored(id)?;
                lost.push(replica.group);
            }
        }
        for number in 0..self.desks.len() {
            let desk = &mut self.desks[number];
            let (group, config) = (desk.group, desk.config.clone());
            let Some(mut node) = desk.node_on(at) else {
                continue;
            };
            if self.servers[at].replica(group).is_some() {
                continue;
            }
            if lost.contains(&group.0) {
                // It had been here, and ended before it had anything.
                node = desk.replace(at, at);
            }
            let may_found = desk.is_founder(node);
            let founding = may_found.then(|| self.desks[number].founding(&self.servers));
            let founding =
                founding.filter(|_| self.museum != Museum::ReusedNodeId || self.wiped == 0);
            let begun = self.servers[at].begin(group, node, config, founding);
            begun.await?;
        }
        Ok(())
    }

    /// Something goes wrong, or is mended.
    async fn disturb(&mut self) -> Result<(), Found> {
        self.thaw().await;
        let count = self.servers.len();
        let what = self.random.random_range(0..40);
        let at = self.random.random_range(0..count);
        let other = (at + self.random.random_range(1..count)) % count;
        self.note((what, at, other));
        self.say(|| format!("{what} at s{} and s{}", at + 1, other + 1));
        let network = Arc::clone(&self.surroundings.network);
        let (name, other_name) = (&self.servers[at].name, &self.servers[other].name);
        match what {
            0 | 1 => self.crash(at, None).await,
            2 => {
                let changes = self.random.random_range(0..20);
                self.crash(at, Some(changes)).await;
            }
            3..=7 => self.start(at).await?,
            8 => network.isolate(name),
            9 => network.cut(name, other_name),
            10 => network.cut_one_way(name, other_name),
            11..=15 => network.heal(),
            16 | 17 => {
                let (loss, delay_ms) = match self.random.random_range(0..4) {
                    0 => (500, 20),
                    1 => (0, 300),
                    _ => (0, 2),
                };
                self.weather(loss, delay_ms);
            }
            18 | 19 => {
                for group in self.servers[at].groups() {
                    if let Some(replica) = self.servers[at].replica(group) {
                        replica.port.checkpoint();
                    }
                }
            }
            20 => self.step_down(at, other),
            21 if self.servers[at].is_running() => {
                network.freeze(name);
                let pause = Duration::from_millis(self.random.random_range(50..5000));
                self.thaws.push((Instant::now() + pause, at));
            }
            22 => {
                let skew = self.random.random_range(-20_000..20_000);
                let skew_ns = skew * 1_000_000;
                self.servers[at].skew_ns.store(skew_ns, Ordering::Relaxed);
            }
            23 => self.wipe(at).await?,
            24 => self.move_replica(at, other).await?,
            25 | 26 => self.hurt_disk(at),
            _ => {}
        }
        Ok(())
    }

    fn weather(&self, loss: u32, delay_ms: u64) {
        if let Some(weather) = &mut *self.surroundings.network.weather.lock() {
            weather.loss = loss;
            weather.delay_max = Duration::from_millis(delay_ms);
        }
    }

    async fn thaw(&mut self) {
        let now = Instant::now();
        for (_, at) in self.thaws.extract_if(.., |(when, _)| *when <= now) {
            self.surroundings.network.thaw(&self.servers[at].name);
        }
    }

    pub(super) async fn crash(&mut self, at: usize, in_the_middle: Option<u64>) {
        if !self.servers[at].is_running() || self.would_forget(at) {
            return;
        }
        if let Some(changes) = in_the_middle {
            let disk = self.servers[at].disk.clone();
            disk.halt_at(disk.changes() + changes);
            let patience = Instant::now() + Duration::from_millis(500);
            while !disk.is_halted() && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.servers[at].power_off().await;
        self.crashes += 1;
    }

    /// Whether more than a minority of a stream in memory would be forgotten if that server ended now.
    pub(super) fn would_forget(&self, at: usize) -> bool {
        let mut in_memory = self.desks.iter().filter(|desk| {
            let is_here = desk.node_on(at).is_some();
            is_here && desk.config.storage == Storage::Memory
        });
        in_memory.any(|desk| {
            let mut others = desk.members.values().filter(|on| **on != at);
            let is_down = |on: &usize| {
                let replica = self.servers[*on].status(desk.group);
                self.is_hurt(*on)
                    || replica.is_none_or(|status| {
                        let is_over = matches!(status.role, Role::Stopped { .. });
                        is_over || status.catchup.is_some() || status.offline.is_some()
                    })
            };
            !desk.is_settled() || others.any(is_down)
        })
    }

    fn step_down(&self, at: usize, other: usize) {
        for desk in &self.desks {
            let leads = self.servers[at].term_led(desk.group).is_some();
            let replica = self.servers[at].replica(desk.group);
            if let (Some(replica), Some(to)) = (replica.filter(|_| leads), desk.node_on(other)) {
                let replica = replica.clone();
                tokio::spawn(async move {
                    // It may not want to, or not be able to.
                    let _ = replica.hand_over(to).await;
                });
            }
        }
    }

    /// A server loses its disk. It comes back under other node ids, unless that is what is to go wrong.
    pub(super) async fn wipe(&mut self, at: usize) -> Result<(), Found> {
        let concerned = |desk: &&mut Desk| desk.node_on(at).is_some();
        if !self.are_settled() || self.hurt.is_some() || self.would_forget(at) {
            return Ok(());
        }
        self.crash(at, None).await;
        self.servers[at].lose_everything();
        self.wiped += 1;
        let reuses = matches!(self.museum, Museum::ReusedNodeId | Museum::VoteAfterAmnesia);
        if !reuses {
            for desk in self.desks.iter_mut().filter(concerned) {
                desk.replace(at, at);
            }
        }
        self.start(at).await
    }

    /// Whether all groups have the members that they are to have.
    pub(super) fn are_settled(&self) -> bool {
        self.desks.iter().all(Desk::is_settled)
    }

    /// A replica moves to a server that has none of the stream.
    async fn move_replica(&mut self, from: usize, to: usize) -> Result<(), Found> {
        let movable = |desk: &&mut Desk| {
            desk.is_settled() && desk.node_on(from).is_some() && desk.node_on(to).is_none()
        };
        if !self.servers[to].is_running() || self.hurt.is_some() {
            return Ok(());
        }
        let Some(desk) = self.desks.iter_mut().find(movable) else {
            return Ok(());
        };
        // Whoever begins a replica waits for it.
        self.surroundings.network.thaw(&self.servers[to].name);
        let node = desk.replace(from, to);
        let (group, config) = (desk.group, desk.config.clone());
        self.moved += 1;
        let begun = self.servers[to].begin(group, node, config, None);
        Ok(begun.await?)
    }

    /// What a meta layer sees to; and a server that a replica has stopped on is started again.
    async fn look(&mut self) -> Result<(), Found> {
        self.see_to_the_hurt(false).await?;
        for number in 0..self.desks.len() {
            let group = self.desks[number].group;
            for (_, at) in self.desks[number].look(&self.servers) {
                let stays = self.desks[number].members.values().any(|on| *on == at);
                if self.servers[at].is_running() && !stays {
                    self.surroundings.network.thaw(&self.servers[at].name);
                    let removed = self.servers[at].remove(group).await;
                    if !self.is_hurt(at) {
                        removed?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Who leads, or believes to.
    fn leaders(&self, group: GroupNumber) -> Vec<usize> {
        let servers = self.servers.iter().enumerate();
        let mut leaders: Vec<(u64, usize)> = servers
            .filter_map(|(at, server)| Some((server.term_led(group)?, at)))
            .collect();
        leaders.sort_unstable();
        leaders.into_iter().map(|(_, at)| at).collect()
    }

    /// Clients do something, over whoever leads, or believes to.
    fn work(&mut self) {
        for clients in &mut self.clients {
            let servers = self.servers.iter().enumerate();
            let mut leaders: Vec<(u64, usize)> = servers
                .filter_map(|(at, server)| Some((server.term_led(clients.group)?, at)))
                .collect();
            leaders.sort_unstable();
            for _ in 0..self.random.random_range(1..10) {
                let newest = leaders.last();
                let any = leaders.get(self.random.random_range(0..leaders.len().max(1)));
                let chosen = match self.random.random_range(0..3) {
                    0 => any,
                    _ => newest,
                };
                if let Some((_, at)) = chosen {
                    clients.act(&self.servers[*at], &mut self.random);
                }
            }
            if let Some((_, at)) = leaders.last()
                && self.random.random_range(0..20) == 0
            {
                clients.make_consumers(&self.servers[*at]);
            }
        }
    }

    fn hear(&mut self) -> Result<(), Found> {
        let heard = std::mem::take(&mut *self.surroundings.heard.lock());
        self.note(heard.len());
        for one in heard {
            let subject = match one.message.reply.is_empty() {
                true => one.message.subject.clone(),
                false => one.message.reply.clone(),
            };
            subject.hash(&mut self.trace);
            let text = String::from_utf8_lossy(&subject).into_owned();
            let skip = if text.starts_with("$JS.ACK") { 2 } else { 1 };
            let stream = text.split('.').nth(skip).unwrap_or_default().to_owned();
            let clients = self.clients.iter_mut();
            let mut of = clients.filter(|clients| clients.config.name == stream);
            if let Some(clients) = of.next() {
                clients.hear(&one)?;
            }
        }
        Ok(())
    }

    /// What has to hold at every moment.
    fn check(&mut self) -> Result<(), Found> {
        self.hear()?;
        self.surroundings.committed.check()?;
        for clients in &mut self.clients {
            clients.take_answers()?;
            clients.oracle.advance()?;
            let group = clients.group;
            for (at, server) in self.servers.iter().enumerate() {
                let Some(status) = server.status(group) else {
                    continue;
                };
                if self.hurt.as_ref().is_some_and(|hurt| hurt.at == at) {
                    // It may stop, or differ until that is seen.
                    continue;
                }
                if let Some(reason) = status.offline {
                    return Err(Found(format!("{} is offline: {reason}", server.name)));
                }
                if let Role::Stopped { reason } = status.role {
                    return Err(Found(format!("{} has stopped: {reason}", server.name)));
                }
                let digest = clients.oracle.digest_at(status.digest.index);
                if status.catchup.is_none() && digest.is_some_and(|it| it != status.digest.digest) {
                    let (name, index) = (&server.name, status.digest.index);
                    return Err(Found(format!("{name} differs at entry {index} of {group}")));
                }
            }
        }
        let progress: Vec<u64> = self
            .clients
            .iter()
            .flat_map(|clients| {
                [
                    clients.oracle.core.applied_index(),
                    clients.answered_count(),
                ]
            })
            .collect();
        self.note(progress);
        Ok(())
    }
}
