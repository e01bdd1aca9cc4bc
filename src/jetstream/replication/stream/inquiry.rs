//! How a replica that differs from another one finds out whether it is itself the one that is wrong.
//!
//! It tells every voter what it had and asks what they had. Who is asked and had something else asks all the others in turn, so that a leader that is alone with
//! what it has learns of it from any of its followers. Everyone judges itself only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use raft::group::{Group, Members};
use raft::types::NodeId;
use tokio::sync::watch;

use super::fetch::Fetch;
use super::request::{self, Request};
use super::verdict::{Verdict, verdict};
use crate::jetstream::core::{Divergence, Mark, Recollection};
use crate::jetstream::shard::ReplicaPort;

/// How long is waited before those that did not answer are asked again, the first time and later.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A replica that judges itself.
pub(super) struct Inquiry {
    pub port: ReplicaPort,
    pub group: Group,
    pub fetch: Arc<dyn Fetch>,
}

impl Inquiry {
    /// Looks into every difference that is found, until the replica ends or is known to be wrong.
    pub async fn run(self) {
        let mut differences = self.port.differences();
        loop {
            let found = *differences.borrow_and_update();
            match found {
                Some(found) if !self.settles(found, &mut differences).await => return,
                // A newer one may have come meanwhile.
                Some(_) => continue,
                None => {}
            }
            if differences.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks until it is known who is wrong, or there is another difference to look into. Says whether the replica goes on.
    async fn settles(
        &self,
        found: Divergence,
        differences: &mut watch::Receiver<Option<Divergence>>,
    ) -> bool {
        let mut pause = PAUSE;
        loop {
            match self.ask_all(found).await {
                Verdict::Right => {
                    self.port.is_right_upto(found.index);
                    // The difference is taken back by the shard; until then it would be looked into again.
                    let gone = |now: &Option<Divergence>| *now != Some(found);
                    return differences.wait_for(gone).await.is_ok();
                }
                Verdict::Wrong { digest } => {
                    self.port.is_wrong(found, digest);
                    return false;
                }
                Verdict::Open => self.port.is_contested(found),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                changed = differences.changed() => return changed.is_ok(),
            }
        }
    }

    async fn ask_all(&self, found: Divergence) -> Verdict {
        let members = self.group.members();
        let voters = members.voters();
        let own = self.group.myself().node;
        let mark = Mark {
            index: found.index,
            digest: found.ours,
        };
        let others = voters.iter().filter(|node| **node != own);
        let asking = others.map(|node| self.ask(&members, *node, mark));
        let answers = join_all(asking).await.into_iter().flatten();
        let mut said: BTreeMap<NodeId, u64> = answers.collect();
        if voters.contains(&own) {
            said.insert(own, found.ours);
        }
        verdict(found.ours, &said, voters.len())
    }

    async fn ask(&self, members: &Members, node: NodeId, mark: Mark) -> Option<(NodeId, u64)> {
        let server = members.server_of(node)?;
        let request = request::encode(self.group.number(), Request::Mark(mark));
        let answer = self.fetch.fetch(server, request).await.ok()?;
        let answer = request::read_answer(&answer).ok()?;
        match request::read_recollection(&answer) {
            Ok(Recollection::Was(digest)) => Some((node, digest)),
            _ => None,
        }
    }
}
