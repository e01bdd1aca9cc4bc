//! All groups of a server.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::handle::Group;
use super::hub::Hub;
use super::inbound;
use super::machine::Machine;
use super::options::{BadTiming, Channel, GroupsOptions, Outbound};
use super::post::Post;
use super::spec::{GroupNumber, GroupSpec, StartError};
use super::start;
use crate::log::LogJournal;

/// The groups of a server: starts and stops them, and carries what they say to each other. One per server.
pub struct Groups {
    hub: Arc<Hub>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Why there are no groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// Times contradict each other.
    #[error(transparent)]
    Timing(#[from] BadTiming),
    /// Raft does not take the options.
    #[error("raft: {0}")]
    Config(String),
}

impl Groups {
    /// Groups over that journal, which say what they have to say through `outbound`, and run on `runtime` (see [`start`](crate::runtime::start)).
    pub fn new(
        options: GroupsOptions,
        journal: Arc<dyn LogJournal>,
        outbound: Arc<dyn Outbound>,
        runtime: Handle,
    ) -> Result<Self, GroupsError> {
        options.timing.check()?;
        let config =
            start::config(&options).map_err(|error| GroupsError::Config(error.to_string()))?;
        let post = Arc::new(Post::new(outbound, options.limits.frame_bytes_max));
        let hub = Hub::new(options, config, journal, Arc::clone(&post), runtime.clone());
        let hub = Arc::new(hub);
        let tasks = vec![
            runtime.spawn(post.run()),
            runtime.spawn(Arc::clone(&hub).supervise()),
        ];
        Ok(Self {
            hub,
            tasks: Mutex::new(tasks),
        })
    }

    /// Starts a replica. Committed entries after its checkpoint were given to `machine` again when it returns, as far as they are known to be committed.
    pub async fn start(
        &self,
        spec: GroupSpec,
        machine: Arc<dyn Machine>,
    ) -> Result<Group, StartError> {
        if self.tasks.lock().is_empty() {
            return Err(StartError::Closed);
        }
        let group = spec.number;
        // On the runtime of the groups, whoever calls: openraft puts its tasks where it is called.
        let starting = start::start(Arc::clone(&self.hub), spec, machine);
        let started = self.hub.runtime.spawn(starting).await;
        match started {
            Ok(started) => started.map(Group::new),
            Err(error) => Err(StartError::Failed {
                group,
                reason: error.to_string(),
            }),
        }
    }

    /// Stops a replica; its log stays. Open proposals are answered. A leader should hand over first.
    pub async fn stop(&self, number: GroupNumber) {
        let Some(replica) = self.hub.remove(number) else {
            return;
        };
        replica.leave();
        let stopping = async move { replica.shut_down().await };
        // A task that panicked has ended too.
        let _ = self.hub.runtime.spawn(stopping).await;
    }

    /// The replica of that group, if it runs here.
    pub fn group(&self, number: GroupNumber) -> Option<Group> {
        self.hub.replica(number).map(Group::new)
    }

    /// A frame came from the server of that name. Does not wait.
    pub fn received(&self, from: &str, _channel: Channel, frame: Bytes) {
        let (hub, from) = (Arc::clone(&self.hub), Arc::<str>::from(from));
        self.hub
            .runtime
            .spawn(async move { inbound::take(&hub, &from, frame) });
    }

    /// The connection to that server broke: what was sent to it may be lost, and is not waited for.
    pub fn disconnected(&self, server: &str) {
        self.hub.calls.fail(server);
    }

    /// Stops all replicas. Nothing is started any more.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for replica in self.hub.replicas() {
            self.stop(replica.number).await;
        }
        for task in tasks {
            task.abort();
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        for replica in self.hub.replicas() {
            self.hub.remove(replica.number);
            replica.leave();
        }
    }
}
