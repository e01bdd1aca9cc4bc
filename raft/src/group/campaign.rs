//! Elections that liveness calls for: a server that is lost led some groups, and one of their voters each has to take over.
//!
//! Voters take their turns by rank, so that two do not split the votes. A call is tentative first: as long as voters hear of the leader, or hold its
//! lease, it comes to nothing, and is repeated.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::replica::{Replica, ServerMetrics, leader_of};
use crate::types::NodeId;

/// After its first call for the first election a founder waits so long, and twice as long after each further one.
const FIRST_CALL_PAUSE: Duration = Duration::from_millis(20);

/// A replica's attempts to follow a leader that is lost.
pub(super) struct Campaign {
    lost_leader: NodeId,
    lost_server: String,
    next: Instant,
    every: Duration,
}

impl Replica {
    /// That server is gone, or was started anew: what it led needs another leader.
    pub fn leader_is_lost(self: &Arc<Self>, server: &str) {
        let Some(metrics) = self.server() else {
            return;
        };
        let Some(leader) = leader_of(&metrics).filter(|leader| leader.server == server) else {
            return;
        };
        if leader.node == self.node() {
            return;
        }
        self.wake();
        let members = metrics.membership_config.membership();
        if !members.voter_ids().any(|voter| voter == self.node()) {
            return;
        }
        let mut before = 0;
        for (node, peer) in members.nodes() {
            let votes = *node < self.node() && *node != leader.node;
            if votes && members.voter_ids().any(|id| id == *node) && !self.hub.is_lost(&peer.server)
            {
                before += 1;
            }
        }
        let timing = &self.hub.options.timing;
        let wait = timing.campaign_stagger * before;
        *self.campaign.lock() = Some(Campaign {
            lost_leader: leader.node,
            lost_server: server.to_owned(),
            next: Instant::now() + wait,
            every: timing.liveness_interval + wait * 2,
        });
    }

    /// That server is heard of again.
    pub fn peer_is_back(self: &Arc<Self>, server: &str) {
        let mut campaign = self.campaign.lock();
        if campaign
            .as_ref()
            .is_some_and(|campaign| campaign.lost_server == server)
            && !self.is_quiet()
        {
            // A leader that is back, and leads on, says so by itself. One that was started anew does not, and the call for an election stays.
            let restarted = self.server().is_none_or(|metrics| {
                leader_of(&metrics).is_none_or(|leader| leader.server == server)
            });
            if !restarted {
                *campaign = None;
            }
        }
        drop(campaign);
        if !self.is_leading() {
            return;
        }
        // While one that lost its log is replaced, there are two on its server.
        let members = self.members();
        let on_it = members.servers().iter().filter(|(_, on)| *on == server);
        let nodes: Vec<NodeId> = on_it.map(|(node, _)| *node).collect();
        if nodes.is_empty() {
            return;
        }
        self.wake();
        let replica = Arc::clone(self);
        self.spawn(async move {
            if let Some(core) = replica.core() {
                // It may lack entries, and need not wait for the end of a pause that was made for its absence.
                let _ = core.trigger().reset_backoff(nodes).await;
            }
        });
    }

    /// Calls for the first election of a new group: its members need not miss a leader first that there never was. The founders take their turns, and
    /// which of them is first goes by the group's number, so that leaders are spread over the servers. A call that others answer with no, since they
    /// have not begun yet, costs nothing and is repeated; when all are in vain, the usual timeout decides.
    pub(super) async fn call_first_election(self: Arc<Self>, founders: BTreeSet<NodeId>) {
        let Some(rank) = self.first_rank(&founders) else {
            return;
        };
        let timing = &self.hub.options.timing;
        tokio::time::sleep(timing.campaign_stagger * rank).await;
        let mut pause = FIRST_CALL_PAUSE;
        let mut waited = Duration::ZERO;
        while waited < timing.election_timeout_min {
            let leads = self
                .server()
                .is_none_or(|seen| seen.current_leader.is_some());
            let Some(core) = self.core().filter(|_| !leads) else {
                return;
            };
            if core.trigger().elect(true).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause *= 2;
        }
    }

    fn first_rank(&self, voters: &BTreeSet<NodeId>) -> Option<u32> {
        let own = voters.iter().position(|voter| *voter == self.node())?;
        let first = usize::try_from(self.number.0).unwrap_or_default() % voters.len();
        let rank = (own + voters.len() - first) % voters.len();
        u32::try_from(rank).ok()
    }

    /// Calls for an election when it is this replica's turn.
    pub(super) fn campaign_if_due(self: &Arc<Self>, now: Instant) {
        {
            let mut campaign = self.campaign.lock();
            match &mut *campaign {
                Some(campaign) if campaign.next <= now => campaign.next = now + campaign.every,
                _ => return,
            }
        }
        let replica = Arc::clone(self);
        self.spawn(async move {
            if let Some(core) = replica.core() {
                let _ = core.trigger().elect(true).await;
            }
        });
    }

    /// Ends the campaign when somebody leads who is not the lost one.
    pub(super) fn end_campaign_if_won(&self, metrics: &ServerMetrics) {
        let mut campaign = self.campaign.lock();
        let lost = campaign.as_ref().map(|campaign| campaign.lost_leader);
        if lost.is_some() && metrics.current_leader.is_some() && metrics.current_leader != lost {
            *campaign = None;
        }
    }

    /// Whether the leader that this replica knows of is on a server that is heard of.
    pub(super) fn leader_lives(&self) -> bool {
        let leader = self.leader();
        leader.is_some_and(|leader| leader == self.myself || !self.hub.is_lost(&leader.server))
    }
}
