//! All shards of a server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::bench::Bench;
use super::faults::Faults;
use super::inbox::{Gauge, Inbox, Item, WaitingMax};
use super::light::Light;
use super::port::Port;
use super::replica::ReplicaSetup;
use super::replica_port::ReplicaPort;
use super::replicated_log::ReplicatedLog;
use super::slot::Slot;
use super::worker::Worker;
use crate::broker::{Account, Broker};
use crate::jetstream::core::StreamCore;
use crate::jetstream::log::Log;
use crate::jetstream::usage::Meter;

/// The threads on which streams live.
pub(crate) struct Shards {
    inboxes: Vec<Arc<Inbox>>,
    benches: Vec<Arc<Bench>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    slot_last: AtomicU64,
    waiting: WaitingMax,
    faults: Arc<Faults>,
}

impl Shards {
    /// Starts this many threads. Each stream lets so much wait.
    pub(crate) fn start(
        count: usize,
        broker: &Arc<Broker>,
        waiting: WaitingMax,
    ) -> io::Result<Self> {
        let mut inboxes = Vec::new();
        let mut benches = Vec::new();
        let mut threads = Vec::new();
        for number in 0..count.max(1) {
            let inbox = Arc::new(Inbox::default());
            let worker = Worker::new(Arc::clone(&inbox), Arc::clone(broker));
            let bench = Arc::new(Bench::new(worker, Arc::clone(&inbox)));
            let named = thread::Builder::new().name(format!("shard-{number}"));
            threads.push(named.spawn({
                let bench = Arc::clone(&bench);
                move || bench.run()
            })?);
            inboxes.push(inbox);
            benches.push(bench);
        }
        Ok(Self {
            inboxes,
            benches,
            threads: Mutex::new(threads),
            slot_last: AtomicU64::new(0),
            waiting,
            faults: Arc::default(),
        })
    }

    /// One shard without a thread, and what drives it.
    #[cfg(test)]
    pub(crate) fn by_hand(
        broker: &Arc<Broker>,
        waiting: WaitingMax,
        clock: Box<dyn Fn() -> i64 + Send>,
    ) -> (Self, super::HandShard) {
        let (shard, inbox) = super::HandShard::new(broker, clock);
        let shards = Self {
            inboxes: vec![inbox],
            benches: Vec::new(),
            threads: Mutex::default(),
            slot_last: AtomicU64::new(0),
            waiting,
            faults: Arc::default(),
        };
        (shards, shard)
    }

    /// Lets a stream live on one of the shards, counted nowhere.
    #[cfg(test)]
    pub(crate) fn adopt(
        &self,
        core: StreamCore,
        account: Arc<Account>,
        log: Arc<dyn Log>,
        storage: u64,
    ) -> Port {
        self.adopt_counted(core, account, log, storage, Meter::default())
    }

    /// Lets a stream live on one of the shards.
    pub(crate) fn adopt_counted(
        &self,
        core: StreamCore,
        account: Arc<Account>,
        log: Arc<dyn Log>,
        storage: u64,
        meter: Meter,
    ) -> Port {
        let port = self.new_port(core.name(), Light::Everything);
        let stream = Slot::new(core, account, log, storage, port.clone(), meter);
        port.inbox.push(Item::Adopt(Box::new(stream)));
        port
    }

    /// Lets a replica of a stream live on one of the shards. It follows until its group says otherwise.
    pub(crate) fn adopt_replica(&self, setup: ReplicaSetup) -> ReplicaPort {
        // What is published to it goes to the group, which has threads of its own.
        let port = self.new_port(setup.core.name(), Light::Reads);
        let log = ReplicatedLog::new(
            Arc::clone(&setup.storage_log),
            Arc::clone(&port.inbox),
            port.slot,
        );
        let (stream, replica) = Slot::new_replica(setup, Arc::new(log), port.clone());
        port.inbox.push(Item::Adopt(Box::new(stream)));
        replica
    }

    /// How much waits for each.
    pub(crate) fn waiting(&self) -> Vec<usize> {
        self.inboxes.iter().map(|inbox| inbox.len()).collect()
    }

    fn new_port(&self, stream: &str, light: Light) -> Port {
        let slot = self.slot_last.fetch_add(1, Ordering::Relaxed) + 1;
        let at = slot as usize % self.inboxes.len();
        let inbox = match self.inboxes.get(at) {
            Some(inbox) => Arc::clone(inbox),
            None => Arc::default(),
        };
        let offers = self.benches.get(at).cloned();
        Port {
            stream: stream.into(),
            inbox,
            offers: offers.map(|bench| (bench, light)),
            slot,
            gauge: Arc::new(Gauge::new(self.waiting)),
            faults: Arc::clone(&self.faults),
        }
    }

    /// The streams that are offline.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Has a checkpoint of a stream written, by its number in storage.
    pub(crate) fn checkpoint(&self, stream: u64) {
        for inbox in &self.inboxes {
            inbox.push(Item::Checkpoint { stream });
        }
    }

    /// The checkpoint of a stream is durable, by its number in storage.
    pub(crate) fn checkpointed(&self, stream: u64, index: u64) {
        for inbox in &self.inboxes {
            inbox.push(Item::Checkpointed { stream, index });
        }
    }

    /// A stream's store takes no changes any more.
    pub(crate) fn fail(&self, stream: u64, reason: &str) {
        for inbox in &self.inboxes {
            inbox.push(Item::Fail {
                stream,
                reason: reason.to_owned(),
            });
        }
    }

    /// No stream takes anything any more.
    pub(crate) fn fail_all(&self, reason: &str) {
        for inbox in &self.inboxes {
            inbox.push(Item::FailAll {
                reason: reason.to_owned(),
            });
        }
    }

    /// Brings all streams to an end: what was decided is durable, and checkpoints are begun, when this returns.
    pub(crate) fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        for inbox in &self.inboxes {
            let sender = sender.clone();
            let done = Box::new(move || {
                // Whoever waited may be gone.
                let _ = sender.send(());
            });
            inbox.push(Item::Stop { done });
        }
        drop(sender);
        while receiver.recv().is_ok() {}
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a JetStream shard has panicked");
            }
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}
