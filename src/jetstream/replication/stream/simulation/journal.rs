//! A journal that takes its time: what is submitted is written a little later, and is lost when the power goes before.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::log::LogJournal;
use raft::simulation::Network;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage::engine::FileEngine;
use storage::journal::{CommitSink, Frame, JournalError, Location, Owner};

type Submission = (Vec<(Frame, u64)>, Arc<dyn CommitSink>);

/// The engine's journal, for groups.
pub(super) struct SlowJournal {
    this: Weak<Self>,
    server: String,
    engine: Arc<FileEngine>,
    network: Arc<Network>,
    queue: Mutex<Queue>,
}

struct Queue {
    random: SmallRng,
    waiting: VecDeque<Submission>,
    is_busy: bool,
}

impl SlowJournal {
    pub(super) fn new(
        server: &str,
        engine: &Arc<FileEngine>,
        network: &Arc<Network>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            server: server.to_owned(),
            engine: Arc::clone(engine),
            network: Arc::clone(network),
            queue: Mutex::new(Queue {
                random: SmallRng::seed_from_u64(seed),
                waiting: VecDeque::new(),
                is_busy: false,
            }),
        })
    }

    /// Writes what waits.
    pub(super) fn flush(&self) {
        loop {
            let next = self.queue.lock().waiting.pop_front();
            let Some((frames, sink)) = next else {
                return;
            };
            if let Err(error) = self.engine.submit_frames(frames, &sink) {
                sink.failed(&error);
            }
        }
    }

    async fn write(self: Arc<Self>) {
        loop {
            let delay = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.is_busy = false;
                    return;
                }
                // Now and then a disk takes long.
                match queue.random.random_range(0..50) {
                    0 => queue.random.random_range(20..200),
                    _ => queue.random.random_range(0..4),
                }
            };
            tokio::time::sleep(Duration::from_millis(delay)).await;
            self.network.while_frozen(&[&self.server]).await;
            self.flush();
        }
    }
}

impl LogJournal for SlowJournal {
    fn submit(
        &self,
        frames: Vec<(Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        queue.waiting.push_back((frames, Arc::clone(sink)));
        let was_busy = std::mem::replace(&mut queue.is_busy, true);
        if let Some(this) = self.this.upgrade().filter(|_| !was_busy) {
            tokio::spawn(this.write());
        }
        Ok(())
    }

    fn release(&self, owner: Owner, upto: u64) {
        self.engine.release_frames(owner, upto);
    }

    fn forget(&self, owner: Owner) {
        self.engine.forget_owner(owner);
    }

    fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        self.engine.read_frame(location)
    }

    fn read_waits(&self) -> bool {
        false
    }
}
