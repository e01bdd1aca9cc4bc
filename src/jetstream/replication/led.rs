//! The groups that this server leads, and what is known of the cluster, for those who look after members.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::group::{GroupNumber, Member};
use raft::types::NodeId;
use tokio::sync::watch;

use super::super::meta::{Command, Sightings, View as Sight};
use super::assembly::Attempt;
use super::members::{Led, Replicas, Surroundings};
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::reports::Reporter;
use super::stream::replica::StreamReplica;
use super::view::View;

/// The replicas of this server.
pub(super) struct Own {
    pub machine: Arc<MetaMachine>,
    pub replicated: Arc<Replicated>,
}

impl Replicas for Own {
    fn replica(&self, group: GroupNumber) -> Option<Arc<dyn Led>> {
        if group == GroupNumber::META {
            return Some(Arc::new(self.machine.group()?));
        }
        let replica = self.replicated.replica(group)?;
        Some(Arc::new(OfStream(replica)))
    }
}

/// A stream's replica: it hands over with all that it need not keep.
struct OfStream(StreamReplica);

impl Led for OfStream {
    fn view(&self) -> Option<Sight> {
        self.0.group.view()
    }

    fn learn(&self, members: Vec<Member>) -> Attempt<'_, ()> {
        self.0.group.learn(members)
    }

    fn vote(&self, voters: BTreeMap<NodeId, String>) -> Attempt<'_, ()> {
        self.0.group.vote(voters)
    }

    fn transfer(&self, to: NodeId) -> Attempt<'_, ()> {
        Box::pin(async move {
            let handed_over = self.0.hand_over(to).await;
            handed_over.map_err(|error| error.to_string())
        })
    }
}

/// The cluster around.
pub(super) struct Around {
    pub view: Arc<View>,
    pub unique_tag: String,
    pub reporter: Arc<Reporter>,
}

impl Surroundings for Around {
    fn sightings(&self) -> Sightings {
        self.view.sightings()
    }

    fn reached(&self) -> watch::Receiver<u64> {
        self.view.links.changes()
    }

    fn unique_tag(&self) -> &str {
        &self.unique_tag
    }

    fn report(&self, command: Command) -> Attempt<'_, ()> {
        Box::pin(async move { self.reporter.report(&command).await })
    }
}
