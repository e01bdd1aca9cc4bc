//! A handle to one replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ServerState};

use super::applier::as_applied;
use super::change;
use super::machine::{Applied, Member};
use super::members::{Checkpoint, Members, Position};
use super::outcome::{ChangeError, LogReadError, Outcome, ReadError, TransferError};
use super::replica::Replica;
use super::spec::GroupNumber;
use super::status::{FollowerStatus, Status};
use crate::types::NodeId;

/// How long a planned transfer waits: for proposals in flight to be committed, and then for the other to lead.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a read waits for a majority to confirm the leader.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// A replica of a group. Cheap to clone; of no use after the group is stopped.
#[derive(Clone)]
pub struct Group {
    replica: Arc<Replica>,
}

impl Group {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica }
    }

    /// The number of the group.
    pub fn number(&self) -> GroupNumber {
        self.replica.number
    }

    /// This replica.
    pub fn myself(&self) -> &Member {
        &self.replica.myself
    }

    /// Proposes a command. `done` hears the outcome exactly once, on any thread, and hands it on: it neither blocks nor works. Proposals of one caller are logged in
    /// the order they were made. Never blocks.
    pub fn propose(
        &self,
        command: Bytes,
        timeout: Duration,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.replica.propose(command, timeout, Box::new(done));
    }

    /// A checkpoint of the state machine is durable: the log up to there is not needed any more, and goes, also when a follower still lacks it.
    pub fn released(&self, checkpoint: Checkpoint) {
        let index = checkpoint.at.index;
        {
            let mut released = self.replica.shared.released.lock();
            let known = released.as_ref();
            if known.is_some_and(|known| known.at > checkpoint.at) {
                return;
            }
            *released = Some(checkpoint);
        }
        let replica = Arc::clone(&self.replica);
        self.replica.spawn(async move {
            if let Some(core) = replica.core() {
                // An error means that the core ended, which is told elsewhere.
                let _ = core.trigger().snapshot().await;
                // Also what a state covers that Raft knew of before: a crash may have come between that and this.
                let _ = core.trigger().purge_log(index).await;
            }
        });
    }

    /// The members, also such as are not committed yet.
    pub fn members(&self) -> Members {
        self.replica.members()
    }

    /// Who leads, if known; this replica included.
    pub fn leader(&self) -> Option<Member> {
        self.replica.leader()
    }

    /// The term that this replica is in; 0 when it has ended.
    pub fn term(&self) -> u64 {
        let core = self.replica.core();
        core.map_or(0, |core| core.metrics().borrow_watched().current_term)
    }

    /// How the replica sees its group.
    pub fn status(&self) -> Status {
        let replica = &self.replica;
        let role = replica.roles.told();
        let mut status = Status {
            node: replica.node(),
            term: 0,
            role,
            leader: replica.leader(),
            members: replica.members(),
            last_log_index: 0,
            committed_index: 0,
            applied_index: 0,
            purged_index: 0,
            log: replica.log.figures(),
            waiting_proposals: replica.proposals.waiting(),
            quiet: replica.is_quiet(),
            followers: Vec::new(),
            heard: BTreeMap::new(),
        };
        let others = status.members.servers().iter();
        let others = others.filter(|(node, _)| **node != status.node);
        status.heard = others
            .filter_map(|(node, server)| Some((*node, replica.hub.last_contact(server)?)))
            .collect();
        let Some(core) = replica.core() else {
            return status;
        };
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        status.term = metrics.current_term;
        status.last_log_index = metrics.last_log_index.unwrap_or(0);
        let index_of = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        status.committed_index = index_of(&metrics.local_committed);
        status.applied_index = index_of(&metrics.last_applied);
        status.purged_index = index_of(&metrics.purged);
        if metrics.state == ServerState::Leader
            && let Some(replication) = &metrics.replication
        {
            let others = status.members.servers().iter();
            let others = others.filter(|(node, _)| **node != status.node);
            status.followers = others
                .map(|(node, server)| FollowerStatus {
                    member: Member {
                        node: *node,
                        server: server.clone(),
                    },
                    voter: status.members.is_voter(*node),
                    matched_index: replication.get(node).map_or(0, index_of),
                    last_contact: replica.hub.last_contact(server),
                })
                .collect();
        }
        status
    }

    /// Hands leadership over to a voter: lets what is in flight be committed, and makes the other call for an election. Returns when it leads.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), TransferError> {
        let replica = Arc::clone(&self.replica);
        let task = async move { transfer(&replica, to).await };
        let done = self.replica.hub.runtime.spawn(task).await;
        done.unwrap_or(Err(TransferError::Stopped))
    }

    /// Takes these in as members without a vote: from then on they are given everything. Returns when the group knows them, before they have caught up.
    pub async fn add_learners(&self, learners: Vec<Member>) -> Result<(), ChangeError> {
        let replica = Arc::clone(&self.replica);
        let task = async move { change::learn(&replica, learners).await };
        let done = self.replica.hub.runtime.spawn(task).await;
        done.unwrap_or(Err(ChangeError::Stopped))
    }

    /// Makes these the voters, and the only members. New ones become learners first, and voters when they have caught up, for which each has `catch_up`. An
    /// earlier change that was interrupted is finished first.
    pub async fn change_members(
        &self,
        voters: BTreeMap<NodeId, String>,
        catch_up: Duration,
    ) -> Result<(), ChangeError> {
        let replica = Arc::clone(&self.replica);
        let task = async move { change::change(&replica, voters, catch_up).await };
        let done = self.replica.hub.runtime.spawn(task).await;
        done.unwrap_or(Err(ChangeError::Stopped))
    }

    /// What this replica has logged after an entry, committed or not: some of it, and nothing when there is no more. For who goes on without the group: the log
    /// stands still only when the group was stopped.
    pub async fn logged_after(&self, index: u64) -> Result<Vec<Applied>, LogReadError> {
        let first = self.replica.log.figures().first_index;
        if first > index.saturating_add(1) {
            return Err(LogReadError::Gone { index, first });
        }
        let replica = Arc::clone(&self.replica);
        let reading = async move { replica.log.after(index).await };
        let read = self.replica.hub.runtime.spawn(reading).await;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let entries = read.map_err(|error| LogReadError::Unreadable(error.to_string()))?;
        Ok(entries.into_iter().map(as_applied).collect())
    }

    /// Where a read stands that must see all that was committed before it: the leader asks a majority whether it still leads, and waits until the state machine
    /// took everything up to the position.
    pub async fn read_index(&self) -> Result<Position, ReadError> {
        let replica = Arc::clone(&self.replica);
        let task = async move { read_index(&replica).await };
        let done = self.replica.hub.runtime.spawn(task).await;
        done.unwrap_or(Err(ReadError::Stopped))
    }
}

async fn read_index(replica: &Arc<Replica>) -> Result<Position, ReadError> {
    let core = replica.core().ok_or(ReadError::Stopped)?;
    replica.wake();
    let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(READ_TIMEOUT);
    let linearizer = match core.get_read_linearizer(option).await {
        Ok(linearizer) => linearizer,
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
            let leader = replica.leader();
            return Err(ReadError::NotLeader { leader });
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            return Err(ReadError::TimedOut);
        }
        Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
    };
    match linearizer.try_await_ready(core, Some(READ_TIMEOUT)).await {
        Ok(Ok(ready)) => Ok(Position::of(ready.read_log_id().log_id())),
        Ok(Err(_)) => Err(ReadError::TimedOut),
        Err(_) => Err(ReadError::Stopped),
    }
}

async fn transfer(replica: &Arc<Replica>, to: NodeId) -> Result<(), TransferError> {
    let core = replica.core().ok_or(TransferError::Stopped)?;
    if !replica.is_leading() {
        return Err(TransferError::NotLeader);
    }
    if to == replica.node() {
        return Ok(());
    }
    if !replica.members().is_voter(to) {
        return Err(TransferError::NotVoter(to));
    }
    replica.wake();
    replica.proposals.hold();
    let handed_over = tokio::time::timeout(TRANSFER_TIMEOUT, async {
        let mut progress = core.data_metrics();
        loop {
            let caught_up = {
                let metrics = progress.borrow_and_update();
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&to));
                matched.copied().flatten() == metrics.last_log
            };
            if caught_up && replica.proposals.is_drained() {
                break;
            }
            progress
                .changed()
                .await
                .map_err(|_| TransferError::Stopped)?;
        }
        let stopped = |_| TransferError::Stopped;
        core.trigger().transfer_leader(to).await.map_err(stopped)?;
        let mut metrics = core.server_metrics();
        let led = metrics.wait_until(|metrics| metrics.current_leader == Some(to));
        led.await.map(drop).map_err(|_| TransferError::Stopped)
    });
    let handed_over = handed_over.await;
    let next = replica.proposals.let_go();
    replica.go_on(next);
    handed_over.unwrap_or(Err(TransferError::TimedOut(to)))
}
