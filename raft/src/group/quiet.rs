//! Groups that fall quiet, and wake.
//!
//! A leader with nothing to do says so to its followers when all of them have everything, and from then on nobody in the group ticks. A quiet group costs
//! nothing; that its leader lives is known from the one exchange between their servers. It wakes when something is proposed or asked, when any message
//! of Raft comes, and when the leader's server is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::machine::Role;
use super::replica::Replica;
use crate::types::NodeId;
use crate::wire::Body;

impl Replica {
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    /// Something goes on: the replica ticks again, and one that leads says so to its followers, which wakes them.
    pub fn wake(self: &Arc<Self>) {
        if !self.quiet.swap(false, Ordering::AcqRel) {
            return;
        }
        *self.touched.lock() = Instant::now();
        let Some(core) = self.core() else {
            return;
        };
        core.runtime_config().tick(true);
        if self.is_leading() {
            let replica = Arc::clone(self);
            self.spawn(async move {
                if let Some(core) = replica.core() {
                    let _ = core.trigger().heartbeat().await;
                }
            });
        }
    }

    /// What the supervisor does for a replica every time.
    pub fn look_after(self: &Arc<Self>, now: Instant) {
        let next = self.proposals.expire(now);
        self.go_on(next);
        if self.is_quiet() {
            return;
        }
        self.campaign_if_due(now);
        self.finish_change_if_left();
        if !self.proposals.is_idle() {
            *self.touched.lock() = now;
        } else if now.saturating_duration_since(*self.touched.lock())
            >= self.hub.options.timing.quiet_after
        {
            self.rest_if_all_is_done();
        }
    }

    /// As a leader: falls quiet, with all followers, when there is nothing left to do for any of them.
    fn rest_if_all_is_done(self: &Arc<Self>) {
        let Some(core) = self.core() else {
            return;
        };
        let Some((term, index)) = self.settled() else {
            return;
        };
        for (node, server) in self.members().servers() {
            if *node != self.node() {
                self.tell(*node, server, &Body::Quiet { term, index });
            }
        }
        self.quiet.store(true, Ordering::Release);
        core.runtime_config().tick(false);
        // What came in between saw a replica that was awake.
        if !self.proposals.is_idle() {
            self.wake();
        }
    }

    /// The term and the last index, when this replica leads and every member that is heard of has all that there is.
    fn settled(&self) -> Option<(u64, u64)> {
        let core = self.core()?;
        let metrics = core.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.current_term;
        let announced = self.roles.told() == Role::Leader { term };
        if metrics.state != ServerState::Leader || !announced {
            return None;
        }
        let last = metrics.last_log_index?;
        let committed = metrics.local_committed.as_ref()?.index;
        let applied = metrics.last_applied.as_ref()?.index;
        let membership = &metrics.membership_config;
        let changing = membership.get_joint_config().len() > 1
            || metrics.committed_membership_config.log_id() != membership.log_id();
        if committed != last || applied != last || changing {
            return None;
        }
        let replication = metrics.replication.as_ref()?;
        let mut members = membership.nodes();
        let all = members.all(|(node, peer)| {
            let matched = replication.get(node).copied().flatten();
            *node == self.node()
                || matched.is_some_and(|matched| matched.index == last)
                || self.hub.is_lost(&peer.server)
        });
        all.then_some((term, last))
    }

    /// As a follower: the leader says that nothing goes on. It is believed when this replica has all that there is.
    pub(super) fn told_to_rest(self: &Arc<Self>, leader: NodeId, term: u64, index: u64) {
        let Some(core) = self.core() else {
            return;
        };
        let agreed = {
            let metrics = core.metrics();
            let metrics = metrics.borrow_watched();
            metrics.current_leader == Some(leader)
                && metrics.state != ServerState::Leader
                && metrics.current_term == term
                && metrics.last_log_index == Some(index)
                && metrics.local_committed.as_ref().map(|id| id.index) == Some(index)
        };
        if agreed && self.campaign.lock().is_none() {
            self.quiet.store(true, Ordering::Release);
            core.runtime_config().tick(false);
        }
    }
}
