//! Before a server goes: others lead what it led.

use std::time::Duration;

use raft::group::{Role, Status};
use raft::types::NodeId;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::steward::most_current;

/// Handing over to servers that do not answer must not hold up who leaves.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// So many groups are handed over at the same time.
const AT_ONCE: usize = 64;

impl Cluster {
    /// Hands over what this server leads: the streams first, then the meta group, which answers for them. Groups that nobody can take over
    /// stay with it until it ends. Waits a short while at most.
    pub fn hand_leads_over(&self) {
        let Some(runtime) = self.raft_runtime() else {
            return;
        };
        runtime.block_on(async {
            let handed_over = tokio::time::timeout(HAND_OVER_MAX, self.hand_streams_over()).await;
            if handed_over.is_err() {
                tracing::warn!("Not all streams found another leader in time");
            }
            let Some(meta) = self.meta_group() else {
                return;
            };
            if let Some(next) = self.next_of(&meta.status()) {
                let transfer = tokio::time::timeout(HAND_OVER_MAX, meta.transfer_leadership(next));
                if !matches!(transfer.await, Ok(Ok(()))) {
                    tracing::warn!("The JetStream meta group found no other leader in time");
                }
            }
        });
    }

    async fn hand_streams_over(&self) {
        let mut under_way = JoinSet::new();
        for replica in self.replicas() {
            let Some(next) = self.next_of(&replica.group.status()) else {
                continue;
            };
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(async move {
                let number = replica.group.number();
                if let Err(error) = replica.hand_over(next).await {
                    tracing::debug!("Group {number:?} is not handed over: {error}");
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Who is to lead a group next; nobody when this server does not lead it or nobody else can.
    fn next_of(&self, status: &Status) -> Option<NodeId> {
        match status.role {
            Role::Leader { .. } => most_current(status, &self.sightings()).ok(),
            _ => None,
        }
    }
}
