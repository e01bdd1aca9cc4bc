//! Carries frames between servers of one process, except where it is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Channel, Groups, Outbound};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

type Lane = (String, String, Channel);

/// How frames fare that are not cut off. Order is kept per channel.
pub struct Weather {
    random: SmallRng,
    /// Of ten thousand frames so many are lost.
    pub loss: u32,
    /// The longest that a frame takes.
    pub delay_max: Duration,
    lanes: BTreeMap<Lane, (VecDeque<Bytes>, Instant)>,
}

impl Weather {
    pub fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            loss: 0,
            delay_max: Duration::from_millis(2),
            lanes: BTreeMap::new(),
        }
    }

    /// When a frame arrives; never, when it is lost.
    fn arrival(&mut self, lane: &Lane, frame: Bytes) -> Option<Instant> {
        if self.random.random_range(0..10_000) < self.loss {
            return None;
        }
        let longest = self.delay_max.as_micros() as u64;
        let delay = Duration::from_micros(self.random.random_range(50..=longest.max(50)));
        let now = Instant::now();
        let entry = self.lanes.entry(lane.clone());
        let (queue, last) = entry.or_insert_with(|| (VecDeque::new(), now));
        let at = (*last).max(now + delay);
        *last = at;
        queue.push_back(frame);
        Some(at)
    }

    fn next(&mut self, lane: &Lane) -> Option<Bytes> {
        self.lanes.get_mut(lane)?.0.pop_front()
    }
}

#[derive(Default)]
pub struct Network {
    servers: Mutex<BTreeMap<String, Weak<Groups>>>,
    cuts: Mutex<BTreeSet<(String, String)>>,
    /// None: everything arrives at once.
    pub weather: Mutex<Option<Weather>>,
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
}

impl Network {
    pub fn join(&self, name: &str, groups: &Arc<Groups>) {
        self.servers
            .lock()
            .insert(name.to_owned(), Arc::downgrade(groups));
    }

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

    pub fn heal(&self) {
        self.cuts.lock().clear();
    }

    fn carry(self: &Arc<Self>, from: &str, to: &str, channel: Channel, frame: Bytes) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        if self.cuts.lock().contains(&(from.to_owned(), to.to_owned())) {
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
            let arrived = network
                .weather
                .lock()
                .as_mut()
                .and_then(|all| all.next(&lane));
            let (from, to, channel) = lane;
            let cut = network.cuts.lock().contains(&(from.clone(), to.clone()));
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
    pub from: String,
    pub network: Arc<Network>,
}

impl Outbound for Link {
    fn send(&self, to: &str, channel: Channel, frame: Bytes) {
        self.network.carry(&self.from, to, channel, frame);
    }
}
