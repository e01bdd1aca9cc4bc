//! A shard without a thread, that a simulation lets run when it wants to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::inbox::{Inbox, Work};
use super::worker::Worker;
use crate::broker::Broker;

/// The only shard of its kind, driven by whoever holds it.
pub(crate) struct HandShard {
    worker: Worker,
    work: Work,
    inbox: Arc<Inbox>,
    bell: Arc<Notify>,
}

impl HandShard {
    pub(super) fn new(
        broker: &Arc<Broker>,
        clock: Box<dyn Fn() -> i64 + Send>,
    ) -> (Self, Arc<Inbox>) {
        let (inbox, bell) = (Arc::new(Inbox::default()), Arc::new(Notify::new()));
        // The inbox is new: nobody has set it before.
        let _ = inbox.bell.set(Arc::clone(&bell));
        let worker = Worker::new(Arc::clone(&inbox), Arc::clone(broker)).with_clock(clock);
        let shard = Self {
            worker,
            work: Work::default(),
            inbox: Arc::clone(&inbox),
            bell,
        };
        (shard, inbox)
    }

    /// Does all there is to do. How long there is nothing more, unless something comes.
    pub(crate) fn turn(&mut self) -> Option<Duration> {
        self.worker.turn(&mut self.work);
        if !self.inbox.leave() {
            self.bell.notify_one();
        }
        let wakes_ns = self.worker.wakes_ns();
        wakes_ns.map(|at_ns| self.worker.until(at_ns))
    }

    /// Rings when something comes.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }
}
