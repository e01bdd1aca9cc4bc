//! The streams with several replicas that this server has a replica of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

use super::super::core::{Retirement, StreamCore, Unsupported};
use super::super::meta::StreamAssignment;
use super::super::registry::{AccountStreams, Stream};
use super::super::shard::{GivenUp, Glance, ReplicaSetup, Streams, Surrendered};
use super::super::types::{ApiError, ErrorCode, Storage, StreamConfig};
use super::kinds::FETCH;
use super::leaders::Led;
use super::stream::fetch::{Fetch, FetchError, Fetching};
use super::stream::recover::{FoundReplica, LostReplica, Unfinished, recover};
use super::stream::replica::{Replicas, StreamReplica};
use super::stream::scale::{
    Founding, finish_plain, to_joiner, to_plain, to_plain_in_memory, to_replicated,
    to_replicated_in_memory,
};
use super::view::View;
use crate::broker::Account;
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

/// How long a leader waits for servers of its group that cannot be reached, before it takes what consumers had in memory for lost.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// The replicas of streams on this server.
pub(super) struct Replicated {
    pub streams: Arc<Streams>,
    pub engine: Arc<FileEngine>,
    pub replicas: Replicas,
    pub view: Arc<View>,
    pub runtime: tokio::runtime::Handle,
    pub damage: Vec<Damage>,
    pub running: Mutex<HashMap<GroupNumber, Running>>,
}

/// A replica that runs.
pub(super) struct Running {
    pub replica: StreamReplica,
    storage: StreamId,
    /// Of a stream in memory: its place in storage, where nothing is.
    spare: Option<FileStore>,
    /// What it was when it was last looked at.
    seen: Option<Role>,
    /// Whose stream it is.
    account: Arc<Account>,
    /// Whether that has no JetStream: then it is a stream to nobody.
    rests: bool,
    /// Since when it leads.
    led_since: Option<Instant>,
}

impl Running {
    /// Finds out whether what consumers had in memory is lost: it is when every server of the group has started again. Whether something is known now that was not.
    fn recollect(&mut self, group: GroupNumber, view: &View) -> bool {
        if !view.has_forgotten(group) {
            return false;
        }
        match (&self.seen, self.led_since) {
            (Some(Role::Follower { leader }), _) => {
                view.remembers(&leader.server, group) == Some(true) && view.remember(group)
            }
            (Some(Role::Leader { .. }), Some(since)) => {
                let own = &self.replica.group.myself().server;
                let members = self.replica.group.members();
                let others = members.servers().values().filter(|server| *server != own);
                let said: Vec<_> = others.map(|server| view.remembers(server, group)).collect();
                let is_known = said.contains(&Some(true));
                let is_lost = !said.contains(&None) || since.elapsed() >= MEMORY_PATIENCE;
                if !is_known && is_lost {
                    self.replica.port.restart_volatile(view.started_ns);
                }
                (is_known || is_lost) && view.remember(group)
            }
            _ => false,
        }
    }
}

fn cannot(reason: impl std::fmt::Display) -> ApiError {
    ErrorCode::StreamOfflineReason.with(reason)
}

fn not_here() -> ApiError {
    cannot("its replica does not run here")
}

/// What a look at the groups came to.
#[derive(Default)]
pub(super) struct Looked {
    /// Whether this server leads others than before.
    pub changed: bool,
    /// What it leads since then.
    pub began: Vec<GroupNumber>,
    /// Groups of which no leader is known here.
    pub leaderless: Vec<GroupNumber>,
    /// Groups whose replica here is spoilt, and why.
    pub spoilt: Vec<(GroupNumber, String)>,
    /// Groups into whose stream a later version has written what the replica here cannot keep to.
    pub unsupported: Vec<(GroupNumber, Unsupported)>,
}

/// A replica that cannot go on under its id.
#[derive(Debug)]
pub(super) struct Lost {
    /// What is left of it.
    pub storage: Option<StreamId>,
    /// Whether nothing of a stream is in that.
    pub is_empty: bool,
    /// What there is of its first state, when it was being given that.
    pub unfinished: Option<Unfinished>,
    pub reason: String,
}

impl Lost {
    /// Of a replica of which it is not known any more which one it was.
    pub fn damaged(storage: StreamId) -> Self {
        Self {
            storage: Some(storage),
            is_empty: false,
            unfinished: None,
            reason: "the list of streams was damaged".to_owned(),
        }
    }
}

impl Replicated {
    /// Lets a replica go on that a start found. Waits for disks.
    pub fn start_again(&self, account: &str, found: Recovered<FileStore>) -> Result<Stream, Lost> {
        let id = found.id;
        let lost = |reason: String| Lost {
            storage: Some(id),
            is_empty: false,
            unfinished: None,
            reason,
        };
        let found = recover(found, &self.damage, self.streams.domain()).map_err(|error| {
            let lost = lost(error.to_string());
            match error {
                // One that joined and was given nothing yet, or of a stream in memory.
                LostReplica::Stateless => Lost {
                    is_empty: true,
                    ..lost
                },
                LostReplica::Receiving(unfinished) => Lost {
                    unfinished: Some(unfinished),
                    ..lost
                },
                _ => lost,
            }
        })?;
        let (setup, spec) = self.again(account, found);
        let started = self.run(spec.number, id, Founding { setup, spec }, None);
        started.map_err(|error| lost(error.description.to_string()))
    }

    /// Starts a replica that was never here. Waits for disks.
    pub fn start_new(
        &self,
        account: &str,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<Stream, ApiError> {
        self.view.remember(assignment.group.number);
        let (founding, id, spare) = self.begin(account, assignment, node)?;
        self.run(assignment.group.number, id, founding, spare)
    }

    fn run(
        &self,
        number: GroupNumber,
        storage: StreamId,
        founding: Founding,
        spare: Option<FileStore>,
    ) -> Result<Stream, ApiError> {
        let Founding { mut setup, spec } = founding;
        let account = Arc::clone(&setup.account);
        setup.rests = !self.view.has_jetstream(account.name());
        let rests = setup.rests;
        if rests {
            self.view.set_resting(account.name(), true);
        }
        let config = StreamConfig::clone(setup.core.config());
        let started = self.runtime.block_on(self.replicas.start(setup, spec));
        let replica = started.map_err(cannot)?;
        let port = replica.port.port.clone();
        let running = Running {
            replica,
            storage,
            spare,
            seen: None,
            account,
            rests,
            led_since: None,
        };
        self.running.lock().insert(number, running);
        Ok(Stream::new(config, Box::new(port)))
    }

    /// Makes a stream with one replica that is here the first member of its group. Waits for disks.
    pub fn found_with(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<Stream, ApiError> {
        let number = assignment.group.number;
        let given = self
            .runtime
            .block_on(self.streams.surrender(account, stream));
        let GivenUp { stream, id, spare } = given.ok_or_else(|| cannot("it does not run here"))?;
        let founding = self.founding(stream, id, spare.is_some(), assignment, node)?;
        self.run(number, id, founding, spare)
    }

    fn founding(
        &self,
        stream: Surrendered,
        id: StreamId,
        in_memory: bool,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<Founding, ApiError> {
        let replica = Replica {
            group: assignment.group.number.0,
            node,
        };
        let mut everyone = assignment.group.everyone();
        let member = everyone.find(|member| member.node == node);
        let server = member.map_or("", |member| member.server.as_str());
        let founding = match in_memory {
            true => {
                let log = self.streams.files_log();
                to_replicated_in_memory(&self.engine, id, log, stream, replica, server)
            }
            false => {
                let log = self.streams.files_log();
                to_replicated(&self.engine, log, stream, replica, server)
            }
        };
        founding.map_err(cannot)
    }

    /// Whether a group has no other member than the one here, which leads it and has applied what was committed before.
    pub fn is_alone_and_current(&self, number: GroupNumber) -> bool {
        self.group_status(number).is_some_and(|status| {
            let servers = status.members.servers();
            let alone = servers.len() == 1 && status.members.is_voter(status.node);
            alone && matches!(status.role, Role::Leader { .. })
        })
    }

    /// Gives the last replica of a stream a log of its own again. Waits for disks.
    pub fn to_plain(
        &self,
        account: &AccountStreams,
        number: GroupNumber,
    ) -> Result<Arc<Stream>, ApiError> {
        let (stream, id, spare) = self.surrender(number)?;
        match spare {
            Some(store) => {
                to_plain_in_memory(&self.engine, id).map_err(cannot)?;
                let adopted = self
                    .streams
                    .adopt_in_memory(&account.name, stream, id, store);
                adopted.map_err(cannot)
            }
            None => {
                let stream = to_plain(&self.engine, stream).map_err(cannot)?;
                Ok(self.streams.adopt(&account.name, stream))
            }
        }
    }

    /// Brings a conversion to its end that an earlier run began: the stream has one replica, and its messages are all there. Waits for disks.
    pub fn finish_plain(
        &self,
        account: &AccountStreams,
        found: Recovered<FileStore>,
    ) -> Result<Arc<Stream>, ApiError> {
        let id = found.id;
        let core = finish_plain(&self.engine, found, self.streams.domain()).map_err(cannot)?;
        let stream = Surrendered {
            account: self.streams.account(&account.name),
            meter: self.streams.meter(&account.name, core.config()),
            core,
            storage: id.0,
        };
        Ok(self.streams.adopt(&account.name, stream))
    }

    /// Lets a replica that has a part of its first state go on with that under another id. Waits for disks.
    pub fn join_on(
        &self,
        account: &str,
        (id, unfinished): (StreamId, Unfinished),
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<Stream, ApiError> {
        let number = assignment.group.number;
        let group = number.0;
        let spec = to_joiner(&self.engine, id, Replica { group, node }).map_err(cannot)?;
        let setup = self.setup(account, *unfinished.0, id, Checkpoint::default());
        self.run(number, id, Founding { setup, spec }, None)
    }

    /// Lets a replica found its group anew under another id, with all that it has, applied or not: the others' logs are lost. Waits for disks.
    pub fn found_anew(
        &self,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<Stream, ApiError> {
        let number = assignment.group.number;
        let (replica, id, spare) = self.take_out(number)?;
        let stream = self.runtime.block_on(replica.surrender_whole());
        let stream = stream.map_err(cannot)?;
        let stream = match &spare {
            Some(_) => {
                to_plain_in_memory(&self.engine, id).map_err(cannot)?;
                stream
            }
            None => to_plain(&self.engine, stream).map_err(cannot)?,
        };
        let founding = self.founding(stream, id, spare.is_some(), assignment, node)?;
        self.run(number, id, founding, spare)
    }

    fn surrender(
        &self,
        number: GroupNumber,
    ) -> Result<(Surrendered, StreamId, Option<FileStore>), ApiError> {
        let (replica, storage, spare) = self.take_out(number)?;
        let stream = self.runtime.block_on(replica.surrender());
        Ok((stream.ok_or_else(not_here)?, storage, spare))
    }

    fn take_out(
        &self,
        number: GroupNumber,
    ) -> Result<(StreamReplica, StreamId, Option<FileStore>), ApiError> {
        let running = self.running.lock().remove(&number).ok_or_else(not_here)?;
        self.view.leaders.forget(number);
        Ok((running.replica, running.storage, running.spare))
    }

    /// Ends a replica, tells those who wait why, and says where what it holds is.
    pub fn let_go(&self, number: GroupNumber, reason: Retirement) -> Option<StreamId> {
        let running = self.running.lock().remove(&number)?;
        self.runtime.block_on(running.replica.stop(reason));
        self.view.leaders.forget(number);
        Some(running.storage)
    }

    /// Removes what is left of a replica that does not run.
    pub fn remove_stored(&self, id: StreamId) -> Result<(), ApiError> {
        let removed = self.engine.remove(id);
        removed.map_err(|error| ErrorCode::StreamDelete.with(error))
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
        // In memory too: the entries of the group are in the journal.
        let storage_log = self.streams.files_log();
        ReplicaSetup {
            account: self.streams.account(account),
            meter: self.streams.meter(account, core.config()),
            core,
            storage_log,
            storage: if in_memory { 0 } else { id.0 },
            owner: id.0,
            position,
            keeps_nothing: false,
            rests: false,
        }
    }

    fn begin(
        &self,
        account: &str,
        assignment: &StreamAssignment,
        node: NodeId,
    ) -> Result<(Founding, StreamId, Option<FileStore>), ApiError> {
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
        let (store, spare): (Box<dyn Store>, _) = match config.storage {
            Storage::Memory => (Box::new(MemStore::new(Limits::default())), Some(store)),
            Storage::File => (Box::new(store), None),
        };
        let created_ns = assignment.created.nanoseconds();
        let core = StreamCore::create(config.clone(), self.streams.domain(), created_ns, store)
            .map_err(cannot)?;
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
        let setup = self.setup(account, core, id, checkpoint.unwrap_or_default());
        Ok((Founding { setup, spec }, id, spare))
    }

    /// An account has no JetStream any more: its replicas here rest.
    pub fn rest(&self, account: &str) {
        let mut running = self.running.lock();
        for one in running.values_mut() {
            if one.account.name() == account {
                one.rests = true;
                self.view.set_resting(account, true);
                one.replica.port.rest();
            }
        }
    }

    /// An account has JetStream again.
    pub fn wake(&self, name: &str) {
        let account = self.streams.account(name);
        self.view.set_resting(name, false);
        let mut running = self.running.lock();
        for one in running.values_mut() {
            if one.account.name() == name {
                one.rests = false;
                one.account = Arc::clone(&account);
                one.replica.port.wake(Arc::clone(&account));
            }
        }
    }

    /// The replicas here that rest, and whose streams they are.
    pub fn resting(&self) -> Vec<(StreamReplica, Arc<Account>)> {
        let running = self.running.lock();
        let resting = running.values().filter(|running| running.rests);
        resting
            .map(|running| (running.replica.clone(), Arc::clone(&running.account)))
            .collect()
    }

    /// How many replicas run here.
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// This server's replica in a group.
    pub fn replica(&self, number: GroupNumber) -> Option<StreamReplica> {
        let running = self.running.lock();
        running.get(&number).map(|running| running.replica.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<StreamReplica> {
        let running = self.running.lock();
        let running = running.values();
        running.map(|running| running.replica.clone()).collect()
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

    /// Looks who leads the groups of this server's replicas.
    pub fn look(&self, own: &Arc<str>) -> Looked {
        let leaders = &self.view.leaders;
        let mut looked = Looked::default();
        for (number, running) in &mut *self.running.lock() {
            let group = *number;
            let Glance {
                role,
                spoilt,
                unsupported,
            } = running.replica.port.glance(running.seen.as_ref());
            let unsupported = unsupported.map(|unsupported| (group, unsupported));
            looked.unsupported.extend(unsupported);
            looked.spoilt.extend(spoilt.map(|reason| (group, reason)));
            if let Some(role) = role {
                let led = matches!(running.seen, Some(Role::Leader { .. }));
                looked.changed |= led || matches!(role, Role::Leader { .. });
                running.led_since = None;
                match &role {
                    Role::Leader { term } => {
                        running.led_since = Some(Instant::now());
                        looked.began.push(group);
                        leaders.leads(own, Led { group, term: *term });
                    }
                    Role::Follower { leader } => {
                        leaders.leads_no_more(own, group);
                        let term = running.replica.group.term();
                        leaders.leads(&Arc::from(leader.server.as_str()), Led { group, term });
                    }
                    Role::Leaderless | Role::Stopped { .. } => leaders.leads_no_more(own, group),
                }
                running.seen = Some(role);
            }
            looked.changed |= running.recollect(group, &self.view);
            if running.seen == Some(Role::Leaderless) {
                looked.leaderless.push(group);
            }
        }
        let stopped = looked.unsupported.iter().map(|(group, _)| *group);
        looked.changed |= self.view.set_stopped(stopped.collect());
        looked
    }
}
