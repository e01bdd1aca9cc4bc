//! Carries frames between servers of one process, except where it is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::group::{Channel, Groups, Outbound};

type Lane = (String, String, Channel);

/// How frames fare that are not cut off. Order is kept per channel, as every link keeps it; frames of different channels and servers overtake each other.
pub struct Weather {
    random: SmallRng,
    /// Of ten thousand frames so many are lost.
    pub loss: u32,
    /// The longest that a frame takes.
    pub delay_max: Duration,
    lanes: BTreeMap<Lane, (VecDeque<Bytes>, Instant)>,
}

impl Weather {
    /// Fair weather, from a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            loss: 0,
            delay_max: Duration::from_millis(2),
            lanes: BTreeMap::new(),
        }
    }

    fn delay(&mut self) -> Duration {
        let longest = self.delay_max.as_micros() as u64;
        Duration::from_micros(self.random.random_range(50..=longest.max(50)))
    }

    fn is_lost(&mut self) -> bool {
        self.random.random_range(0..10_000) < self.loss
    }

    /// When a frame arrives; never, when it is lost.
    fn arrival(&mut self, lane: &Lane, frame: Bytes) -> Option<Instant> {
        if self.is_lost() {
            return None;
        }
        let now = Instant::now();
        let arrives = now + self.delay();
        let entry = self.lanes.entry(lane.clone());
        let (queue, last) = entry.or_insert_with(|| (VecDeque::new(), now));
        let at = (*last).max(arrives);
        *last = at;
        queue.push_back(frame);
        Some(at)
    }

    fn next(&mut self, lane: &Lane) -> Option<Bytes> {
        self.lanes.get_mut(lane)?.0.pop_front()
    }
}

/// The network between the servers of a process.
#[derive(Default)]
pub struct Network {
    servers: Mutex<BTreeMap<String, Weak<Groups>>>,
    cuts: Mutex<BTreeSet<(String, String)>>,
    frozen: Mutex<BTreeSet<String>>,
    thawed: Notify,
    /// None: everything arrives at once.
    pub weather: Mutex<Option<Weather>>,
    /// How many frames were sent.
    pub frames: AtomicU64,
    /// And their bytes.
    pub bytes: AtomicU64,
}

impl Network {
    /// The server of that name is reached from now on.
    pub fn join(&self, name: &str, groups: &Arc<Groups>) {
        self.servers
            .lock()
            .insert(name.to_owned(), Arc::downgrade(groups));
    }

    /// And no longer.
    pub fn leave(&self, name: &str) {
        self.servers.lock().remove(name);
    }

    /// Nothing passes between the two, either way.
    pub fn cut(&self, a: &str, b: &str) {
        let mut cuts = self.cuts.lock();
        cuts.insert((a.to_owned(), b.to_owned()));
        cuts.insert((b.to_owned(), a.to_owned()));
    }

    /// Nothing passes from one to the other; the other way it does.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.cuts.lock().insert((from.to_owned(), to.to_owned()));
    }

    /// Nothing passes to or from the server.
    pub fn isolate(&self, name: &str) {
        let others: Vec<String> = self.servers.lock().keys().cloned().collect();
        for other in others.iter().filter(|other| *other != name) {
            self.cut(name, other);
        }
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.cuts.lock().clear();
    }

    /// Whether nothing passes from one server to the other.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts.lock().contains(&(from.to_owned(), to.to_owned()))
    }

    /// The server stands still: what is sent to it and by it waits.
    pub fn freeze(&self, name: &str) {
        self.frozen.lock().insert(name.to_owned());
    }

    /// It goes on.
    pub fn thaw(&self, name: &str) {
        self.frozen.lock().remove(name);
        self.thawed.notify_waiters();
    }

    /// Whether the server stands still.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.frozen.lock().contains(name)
    }

    /// Waits as long as one of these servers stands still.
    pub async fn while_frozen(&self, names: &[&str]) {
        while names.iter().any(|name| self.is_frozen(name)) {
            self.thawed.notified().await;
        }
    }

    /// Carries something that is no frame from one server to another: ready when it has arrived, `false` when it is lost on the way.
    pub async fn passes(&self, from: &str, to: &str) -> bool {
        let delay = match &mut *self.weather.lock() {
            Some(weather) => (!weather.is_lost()).then(|| weather.delay()),
            None => Some(Duration::ZERO),
        };
        let Some(delay) = delay.filter(|_| !self.is_cut(from, to)) else {
            return false;
        };
        tokio::time::sleep(delay).await;
        self.while_frozen(&[from, to]).await;
        !self.is_cut(from, to)
    }

    fn carry(self: &Arc<Self>, from: &str, to: &str, channel: Channel, frame: Bytes) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if self.is_cut(from, to) {
            return;
        }
        let lane = (from.to_owned(), to.to_owned(), channel);
        let mut weather = self.weather.lock();
        let Some(weather) = &mut *weather else {
            return self.deliver(from, to, channel, frame);
        };
        let Some(at) = weather.arrival(&lane, frame) else {
            return;
        };
        let network = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            network.while_frozen(&[&lane.0, &lane.1]).await;
            let arrived = network
                .weather
                .lock()
                .as_mut()
                .and_then(|all| all.next(&lane));
            let (from, to, channel) = lane;
            let cut = network.is_cut(&from, &to);
            if let Some(frame) = arrived.filter(|_| !cut) {
                network.deliver(&from, &to, channel, frame);
            }
        });
    }

    fn deliver(&self, from: &str, to: &str, channel: Channel, frame: Bytes) {
        let groups = self.servers.lock().get(to).and_then(Weak::upgrade);
        if let Some(groups) = groups {
            groups.received(from, channel, frame);
        }
    }
}

/// The way out of one server.
pub struct Link {
    /// The server.
    pub from: String,
    /// Where its frames go.
    pub network: Arc<Network>,
    is_down: AtomicBool,
}

impl Link {
    /// The way out of the server of that name.
    pub fn new(from: &str, network: &Arc<Network>) -> Self {
        Self {
            from: from.to_owned(),
            network: Arc::clone(network),
            is_down: AtomicBool::new(false),
        }
    }

    /// Nothing leaves any more.
    pub fn shut(&self) {
        self.is_down.store(true, Ordering::Relaxed);
    }

    /// Whether nothing leaves any more.
    pub fn is_shut(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }
}

impl Outbound for Link {
    fn send(&self, to: &str, channel: Channel, frame: Bytes) {
        if !self.is_shut() {
            self.network.carry(&self.from, to, channel, frame);
        }
    }
}
