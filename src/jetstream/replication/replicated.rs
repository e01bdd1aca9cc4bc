//! The streams with several replicas that this server has a replica of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{
    Begin, Channel, Checkpoint, GroupNumber, GroupSpec, Members as GroupMembers, Role, Status,
};
use raft::log::LogImage;
use raft::types::NodeId;
use storage::engine::{FileEngine, Form, Recovered, Replica, StreamId};
use storage::journal::Damage;
use storage::store::{FileStore, Limits, MemStore, Store};

use super::super::core::{Retirement, StreamCore};
use super::super::log::{InstantLog, Log};
use super::super::meta::StreamAssignment;
use super::super::shard::{ReplicaSetup, Streams};
use super::super::types::{ApiError, ErrorCode, Storage};
use super::kinds::FETCH;
use super::leaders::Led;
use super::stream::fetch::{Fetch, FetchError, Fetching};
use super::stream::recover::{FoundReplica, recover};
use super::stream::replica::{Replicas, StreamReplica};
use super::view::View;
use crate::cluster::link::Links;

/// How long another replica may take to answer what this one lacks.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks other servers for what a replica lacks, over the bulk link.
pub(super) struct LinkFetch(pub Arc<Links>);

impl Fetch for LinkFetch {
    fn fetch<'a>(&'a self, server: &'a str, request: Bytes) -> Fetching<'a> {
        Box::pin(async move {
            let asked = self
                .0
                .request(server, Channel::Bulk, FETCH, request, FETCH_TIMEOUT);
            asked.await.map_err(|error| FetchError(error.to_string()))
        })
    }
}

/// The replicas of streams on this server.
pub(super) struct Replicated {
    pub streams: Arc<Streams>,
    pub engine: Arc<FileEngine>,
    pub replicas: Replicas,
    pub view: Arc<View>,
    pub runtime: tokio::runtime::Handle,
    pub damage: Vec<Damage>,
    /// What a start found and nobody asked for yet.
    pub found: Mutex<HashMap<(String, String), Recovered<FileStore>>>,
    pub running: Mutex<HashMap<GroupNumber, Running>>,
}

/// A replica that runs.
pub(super) struct Running {
    pub replica: StreamReplica,
    storage: StreamId,
}

fn cannot(reason: impl std::fmt::Display) -> ApiError {
    ErrorCode::StreamOfflineReason.with(reason)
}

impl Replicated {
    /// Starts this server's replica of a stream: the one that was found, or a new one. Waits for disks.
    pub fn start(
        &self,
        account: &str,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<super::super::registry::Stream, ApiError> {
        let config = assignment.config();
        let key = (account.to_owned(), config.name.clone());
        let number = assignment.group.number;
        let found = self.found.lock().remove(&key);
        let (setup, spec) = match found {
            Some(found) => {
                let replica = found.form.replica();
                if replica.is_none_or(|had| had.group != number.0 || had.node != node) {
                    self.found.lock().insert(key, found);
                    return Err(cannot("another replica of a stream of that name is here"));
                }
                let found = recover(found, &self.damage, "").map_err(cannot)?;
                self.again(account, found)
            }
            None => self.begin(account, assignment, node)?,
        };
        let storage = StreamId(spec.owner.0);
        let started = self.runtime.block_on(self.replicas.start(setup, spec));
        let replica = started.map_err(cannot)?;
        let port = replica.port.port.clone();
        self.running
            .lock()
            .insert(number, Running { replica, storage });
        Ok(super::super::registry::Stream::new(
            config.clone(),
            Box::new(port),
        ))
    }

    fn again(&self, account: &str, found: FoundReplica) -> (ReplicaSetup, GroupSpec) {
        let FoundReplica {
            core,
            id,
            replica,
            image,
            position,
        } = found;
        let spec = GroupSpec {
            number: GroupNumber(replica.group),
            owner: id.owner(),
            node: replica.node,
            begin: Begin::Again,
            image,
            checkpoint: Some(position.clone()),
        };
        (self.setup(account, core, id, position), spec)
    }

    fn setup(
        &self,
        account: &str,
        core: StreamCore,
        id: StreamId,
        position: Checkpoint,
    ) -> ReplicaSetup {
        let in_memory = core.config().storage == Storage::Memory;
        let storage_log: Arc<dyn Log> = match in_memory {
            true => Arc::new(InstantLog),
            false => self.streams.files_log(),
        };
        ReplicaSetup {
            account: self.streams.account(account),
            meter: self.streams.meter(account, core.config().storage),
            core,
            storage_log,
            storage: if in_memory { 0 } else { id.0 },
            position,
            keeps_nothing: false,
        }
    }

    fn begin(
        &self,
        account: &str,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<(ReplicaSetup, GroupSpec), ApiError> {
        let (config, group) = (assignment.config(), &assignment.group);
        let form = Form::Replicated(Replica {
            group: group.number.0,
            node,
        });
        let options = Streams::store_options(config);
        let (id, store) = self
            .engine
            .create_as(account, &config.name, options, form)
            .map_err(cannot)?;
        let store: Box<dyn Store> = match config.storage {
            Storage::Memory => Box::new(MemStore::new(Limits::default())),
            Storage::File => Box::new(store),
        };
        let created_ns = assignment.created.nanoseconds();
        let core = StreamCore::create(config.clone(), "", created_ns, store).map_err(cannot)?;
        let founds = group.founders.iter().any(|founder| founder.node == node);
        let founders = group.founders.iter();
        let founders = founders.map(|founder| (founder.node, founder.server.clone()));
        let checkpoint = founds.then(|| Checkpoint::founding(0, GroupMembers::of_voters(founders)));
        let spec = GroupSpec {
            number: group.number,
            owner: id.owner(),
            node,
            begin: match founds {
                true => Begin::Founder,
                false => Begin::Joiner,
            },
            image: LogImage::default(),
            checkpoint: checkpoint.clone(),
        };
        let position = checkpoint.unwrap_or_default();
        Ok((self.setup(account, core, id, position), spec))
    }

    /// This server's replica in a group.
    pub fn replica(&self, number: GroupNumber) -> Option<StreamReplica> {
        let running = self.running.lock();
        running.get(&number).map(|running| running.replica.clone())
    }

    /// Ends a replica and removes all that it holds.
    pub fn remove(&self, number: GroupNumber) -> Result<(), ApiError> {
        let Some(running) = self.running.lock().remove(&number) else {
            return Ok(());
        };
        self.runtime
            .block_on(running.replica.stop(Retirement::Removed));
        self.view.leaders.forget(number);
        let removed = self.engine.remove(running.storage);
        removed.map_err(|error| ErrorCode::StreamDelete.with(error))
    }

    /// How the group of a replica here stands.
    pub fn group_status(&self, number: GroupNumber) -> Option<Status> {
        let running = self.running.lock();
        let group = running.get(&number)?.replica.group.clone();
        drop(running);
        Some(group.status())
    }

    /// Ends all replicas; what they hold stays.
    pub async fn stop_all(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for running in running.into_values() {
            running.replica.stop(Retirement::Shutdown).await;
        }
    }

    /// Looks who leads the groups of this server's replicas. True when this server leads others than before.
    pub fn look(&self, own: &Arc<str>) -> bool {
        let leaders = &self.view.leaders;
        let before = leaders.led_by(own);
        for (number, running) in &*self.running.lock() {
            let (group, status) = (*number, running.replica.status());
            match status.role {
                Role::Leader { term } => leaders.leads(own, Led { group, term }),
                Role::Follower { leader } => {
                    leaders.leads_no_more(own, group);
                    let term = running.replica.group.status().term;
                    leaders.leads(&Arc::from(leader.server), Led { group, term });
                }
                Role::Leaderless | Role::Stopped { .. } => leaders.leads_no_more(own, group),
            }
        }
        let mut now = leaders.led_by(own);
        let mut before = before;
        before.sort_unstable_by_key(|led| led.group);
        now.sort_unstable_by_key(|led| led.group);
        before != now
    }
}
