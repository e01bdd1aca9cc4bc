//! Changes of the members of a group: learners first, then both sets of voters together, then the new one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use super::machine::{Member, Role};
use super::members::Members;
use super::outcome::ChangeError;
use super::replica::{Core, Replica};
use crate::types::{NodeId, Peer, Types};

type Refusal = RaftError<Types, ClientWriteError<Types>>;

/// A learner that is no further behind than this counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// Makes these the voters, and the only members.
pub(super) async fn change(
    replica: &Arc<Replica>,
    voters: BTreeMap<NodeId, String>,
    catch_up: Duration,
) -> Result<(), ChangeError> {
    if voters.is_empty() {
        return Err(ChangeError::Impossible("no voter would be left".to_owned()));
    }
    let Ok(_changing) = replica.changing.try_lock() else {
        return Err(ChangeError::InProgress);
    };
    let core = leading(replica)?;
    replica.wake();
    let refused = |refusal| refused(replica, refusal);
    if replica.members().is_changing() {
        finish(core).await.map_err(refused)?;
    }
    let known = replica.members();
    for (node, server) in &voters {
        add(replica, core, &known, *node, server).await?;
    }
    for node in voters.keys().filter(|node| !known.is_voter(**node)) {
        caught_up(core, *node, catch_up).await?;
    }
    let ids: BTreeSet<NodeId> = voters.keys().copied().collect();
    if replica.members().voters() != ids {
        let replace = ChangeMembers::ReplaceAllVoters(ids);
        core.change_membership(replace, false)
            .await
            .map_err(refused)?;
    }
    let learners = replica.members().learners();
    let left_over: BTreeSet<NodeId> = learners
        .into_iter()
        .filter(|node| !voters.contains_key(node))
        .collect();
    if !left_over.is_empty() && leading(replica).is_ok() {
        let remove = ChangeMembers::RemoveNodes(left_over);
        core.change_membership(remove, false)
            .await
            .map_err(refused)?;
    }
    Ok(())
}

/// Takes members in without a vote.
pub(super) async fn learn(
    replica: &Arc<Replica>,
    learners: Vec<Member>,
) -> Result<(), ChangeError> {
    let Ok(_changing) = replica.changing.try_lock() else {
        return Err(ChangeError::InProgress);
    };
    let core = leading(replica)?;
    replica.wake();
    let known = replica.members();
    for learner in &learners {
        add(replica, core, &known, learner.node, &learner.server).await?;
    }
    Ok(())
}

/// Adds a learner, unless it is a member already.
async fn add(
    replica: &Replica,
    core: &Core,
    known: &Members,
    node: NodeId,
    server: &str,
) -> Result<(), ChangeError> {
    match known.server_of(node) {
        None => {
            let server = server.to_owned();
            let added = core.add_learner(node, Peer { server }, false).await;
            added.map(drop).map_err(|refusal| refused(replica, refusal))
        }
        Some(there) if there == server => Ok(()),
        Some(there) => {
            let reason = format!("node {node:x} is on {there}, not on {server}");
            Err(ChangeError::Impossible(reason))
        }
    }
}

/// Ends a change that an earlier leader did not: the new set of voters alone.
pub(super) async fn finish(core: &Core) -> Result<(), Refusal> {
    let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
    core.change_membership(nothing, false).await.map(drop)
}

impl Replica {
    /// As a leader: finishes a change that an earlier leader left half done.
    pub(super) fn finish_change_if_left(self: &Arc<Self>) {
        let announced = matches!(self.roles.told(), Role::Leader { .. });
        if !announced || !self.members().is_changing() || self.changing.try_lock().is_err() {
            return;
        }
        let replica = Arc::clone(self);
        self.spawn(async move {
            let Ok(_changing) = replica.changing.try_lock() else {
                return;
            };
            if let Some(core) = replica.core()
                && let Err(error) = finish(core).await
            {
                tracing::info!(group = %replica.number, %error, "a change of members is not finished yet");
            }
        });
    }
}

fn leading(replica: &Replica) -> Result<&Core, ChangeError> {
    let core = replica.core().ok_or(ChangeError::Stopped)?;
    if !replica.is_leading() {
        let leader = replica.leader();
        return Err(ChangeError::NotLeader { leader });
    }
    Ok(core)
}

/// Waits until a learner has nearly all that there is.
async fn caught_up(core: &Core, node: NodeId, within: Duration) -> Result<(), ChangeError> {
    let mut progress = core.data_metrics();
    let waiting = progress.wait_until(|metrics| {
        let last = metrics.last_log.as_ref().map_or(0, |id| id.index);
        let Some(replication) = &metrics.replication else {
            // Leads no more: the next step says so.
            return true;
        };
        let matched = replication.get(&node).copied().flatten();
        matched.is_some_and(|matched| matched.index + CAUGHT_UP_ENTRIES >= last)
    });
    match tokio::time::timeout(within, waiting).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(ChangeError::Stopped),
        Err(_) => Err(ChangeError::Lagging {
            node,
            waited: within,
        }),
    }
}

fn refused(replica: &Replica, refusal: Refusal) -> ChangeError {
    match refusal {
        RaftError::Fatal(_) => ChangeError::Stopped,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => ChangeError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Impossible(error.to_string())
        }
        RaftError::APIError(_) => ChangeError::NotLeader {
            leader: replica.leader(),
        },
    }
}
