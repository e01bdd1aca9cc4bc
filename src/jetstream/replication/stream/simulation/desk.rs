//! What a meta layer does for the streams of a simulation: says who their members are to be, under which ids, and sees to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft::group::{Checkpoint, GroupNumber, Members};

use super::server::Server;
use crate::jetstream::types::StreamConfig;

/// How long learners may take.
const CATCH_UP: Duration = Duration::from_secs(10);

/// The members of one stream.
pub(super) struct Desk {
    pub(super) group: GroupNumber,
    pub(super) config: StreamConfig,
    /// Those it is to have: where each node is.
    pub(super) members: BTreeMap<u64, usize>,
    /// Those that serve until then.
    pub(super) leaving: BTreeMap<u64, usize>,
    founders: BTreeMap<u64, usize>,
    node_last: u64,
    changing: Arc<AtomicBool>,
}

impl Desk {
    pub(super) fn new(
        group: GroupNumber,
        config: StreamConfig,
        servers: impl Iterator<Item = usize>,
    ) -> Self {
        let mut desk = Self {
            group,
            config,
            members: BTreeMap::new(),
            leaving: BTreeMap::new(),
            founders: BTreeMap::new(),
            node_last: 0,
            changing: Arc::default(),
        };
        for at in servers {
            let node = desk.new_node();
            desk.members.insert(node, at);
        }
        desk.founders = desk.members.clone();
        desk
    }

    fn new_node(&mut self) -> u64 {
        self.node_last += 1;
        self.node_last
    }

    pub(super) fn is_settled(&self) -> bool {
        self.leaving.is_empty()
    }

    pub(super) fn founding(&self, servers: &[Server]) -> Checkpoint {
        Checkpoint::founding(0, Members::of_voters(names(&self.founders, servers)))
    }

    /// The node of that server, if it has one.
    pub(super) fn node_on(&self, at: usize) -> Option<u64> {
        let all = self.members.iter().chain(&self.leaving);
        let mut on = all.filter(|(_, on)| **on == at).map(|(node, _)| *node);
        on.next()
    }

    pub(super) fn is_founder(&self, node: u64) -> bool {
        self.founders.contains_key(&node)
    }

    /// One server takes the place of another; the same one, when it lost what it had.
    pub(super) fn replace(&mut self, from: usize, to: usize) -> u64 {
        let (members, leaving) = (&mut self.members, &mut self.leaving);
        let gone = members.extract_if(.., |_, on| *on == from);
        leaving.extend(gone);
        let node = self.new_node();
        self.members.insert(node, to);
        node
    }

    /// Has the group's leader do what is next. Says which nodes have left for good.
    pub(super) fn look(&mut self, servers: &[Server]) -> Vec<(u64, usize)> {
        if self.is_settled() || self.changing.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let leads = |server: &&Server| server.term_led(self.group).is_some();
        let Some(leader) = servers
            .iter()
            .filter(leads)
            .max_by_key(|server| server.term_led(self.group))
        else {
            return Vec::new();
        };
        let Some(replica) = leader.replica(self.group).cloned() else {
            return Vec::new();
        };
        let wanted = names(&self.members, servers);
        let status = replica.status();
        let now = &status.position.members;
        if *now.servers() == wanted && now.learners().is_empty() && !now.is_changing() {
            return std::mem::take(&mut self.leaving).into_iter().collect();
        }
        let own = replica.group.myself().node;
        let successor = wanted.keys().copied().find(|node| now.is_voter(*node));
        let changing = Arc::clone(&self.changing);
        changing.store(true, Ordering::Relaxed);
        tokio::spawn(async move {
            // What does not succeed is tried again.
            let change = async {
                match successor.filter(|_| !wanted.contains_key(&own)) {
                    Some(successor) => drop(replica.hand_over(successor).await),
                    None => drop(replica.group.change_members(wanted, CATCH_UP).await),
                }
            };
            // Somebody else may lead meanwhile, and this one never hear of it.
            let _ = tokio::time::timeout(CATCH_UP * 2, change).await;
            changing.store(false, Ordering::Relaxed);
        });
        Vec::new()
    }
}

fn names(nodes: &BTreeMap<u64, usize>, servers: &[Server]) -> BTreeMap<u64, String> {
    let named = nodes.iter();
    named
        .map(|(node, at)| (*node, servers[*at].name.clone()))
        .collect()
}
