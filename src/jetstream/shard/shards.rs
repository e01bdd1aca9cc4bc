//! All shards of a server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::faults::Faults;
use super::inbox::{Gauge, Inbox, Item, WaitingMax};
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
        let mut threads = Vec::new();
        for number in 0..count.max(1) {
            let inbox = Arc::new(Inbox::default());
            let worker = Worker::new(Arc::clone(&inbox), Arc::clone(broker));
            let named = thread::Builder::new().name(format!("shard-{number}"));
            threads.push(named.spawn(move || worker.run())?);
            inboxes.push(inbox);
        }
        Ok(Self {
            inboxes,
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
        let port = self.new_port();
        let stream = Slot::new(core, account, log, storage, port.clone(), meter);
        port.inbox.push(Item::Adopt(Box::new(stream)));
        port
    }

    #[allow(dead_code, reason = "the controller of a cluster starts replicas")]
    /// Lets a replica of a stream live on one of the shards. It follows until its group says otherwise.
    pub(crate) fn adopt_replica(&self, setup: ReplicaSetup) -> ReplicaPort {
        let port = self.new_port();
        let log = ReplicatedLog::new(
            Arc::clone(&setup.storage_log),
            Arc::clone(&port.inbox),
            port.slot,
        );
        let (stream, status) = Slot::new_replica(setup, Arc::new(log), port.clone());
        port.inbox.push(Item::Adopt(Box::new(stream)));
        ReplicaPort { port, status }
    }

    fn new_port(&self) -> Port {
        let slot = self.slot_last.fetch_add(1, Ordering::Relaxed) + 1;
        let at = slot as usize % self.inboxes.len();
        let inbox = match self.inboxes.get(at) {
            Some(inbox) => Arc::clone(inbox),
            None => Arc::default(),
        };
        Port {
            inbox,
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
