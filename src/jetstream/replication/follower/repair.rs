//! Replicas that are of no use any more: they lead no more if that can be, and others take their places.
//!
//! The state of the meta group decides when: it gives the server another id in the group, and what follows from that is done as with any other change of members
//! (`held`). Here it is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::group::{GroupNumber, Role};
use raft::types::NodeId;

use super::super::super::meta::{Command, Meta, StreamRef, is_online};
use super::super::super::shard::Glance;
use super::super::steward::able_to_lead;
use super::super::stream::replica::StreamReplica;
use super::Follower;

/// How often is looked whether the replica leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long is waited before the state is asked again for another replica, the first time and later.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How long nobody else can be reached before this replica gives up what it cannot read.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// How a replica that leads looks for another one to lead.
#[derive(Default)]
struct HandOver {
    /// How many others did not take over.
    failed: usize,
    /// When the next one is asked.
    next_at: Option<Instant>,
    /// Since when nobody else can be reached.
    alone_since: Option<Instant>,
}

impl Follower {
    /// A replica here was found to be of no use. Returns at once.
    pub fn repair(self: &Arc<Self>, group: GroupNumber, reason: &str) {
        let Some(replica) = self.replicated.replica(group) else {
            return;
        };
        let meta = self.reporter.machine.meta();
        let mut streams = meta.all_streams();
        let Some((of, _)) = streams.find(|(of, _)| of.group == group) else {
            return;
        };
        let node = replica.group.myself().node;
        let stream = format!("{} > {}", of.account, of.stream);
        if self.repairs.begin(group, stream, node, reason) {
            let follower = Arc::clone(self);
            self.runtime.spawn(async move {
                follower.have_replaced(of, node).await;
            });
        }
    }

    async fn have_replaced(&self, of: StreamRef, node: NodeId) {
        let (mut pause, mut asks_at) = (PAUSE, Instant::now());
        let mut looking = HandOver::default();
        loop {
            let replica = self.replicated.replica(of.group);
            let Some(replica) = replica.filter(|one| one.group.myself().node == node) else {
                return;
            };
            self.let_another_lead(&replica, &mut looking).await;
            if asks_at <= Instant::now() && self.can_be_replaced(&of, &replica) {
                asks_at = Instant::now() + pause;
                pause = (pause * 2).min(PAUSE_MAX);
                let of = of.clone();
                let asked = self
                    .reporter
                    .report(&Command::MemberSpoilt { of, node })
                    .await;
                if let Err(reason) = asked {
                    tracing::debug!("The meta group did not take a report: {reason}");
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Has another replica lead. Which of the others are of no use either is not known here: each is asked in turn. Until one takes over this one leads, and keeps back
    /// what comes after a message that it cannot read; it gives that up when it has been alone for a while.
    async fn let_another_lead(&self, replica: &StreamReplica, looking: &mut HandOver) {
        let status = replica.group.status();
        if !matches!(status.role, Role::Leader { .. }) {
            *looking = HandOver::default();
            return;
        }
        let able = able_to_lead(&status, &self.view.sightings());
        let now = Instant::now();
        let Some(next) = able.get(looking.failed % able.len().max(1)) else {
            let since = *looking.alone_since.get_or_insert(now);
            replica
                .port
                .lead_all_the_same(now.duration_since(since) >= ALONE_FOR);
            return;
        };
        looking.alone_since = None;
        if looking.next_at.is_some_and(|next_at| now < next_at) {
            return;
        }
        let Err(error) = replica.hand_over(*next).await else {
            return;
        };
        tracing::info!(
            "Group {} is still led by a damaged replica: {error}",
            replica.group.number()
        );
        replica.port.lead_all_the_same(false);
        let doublings = u32::try_from(looking.failed).unwrap_or(u32::MAX).min(5);
        looking.failed += 1;
        looking.next_at = Some(now + (PAUSE * 2_u32.pow(doublings)).min(PAUSE_MAX));
    }

    /// Whether the others can do without it, as far as is known here: one that still serves is not taken out while another server is away.
    fn can_be_replaced(&self, of: &StreamRef, replica: &StreamReplica) -> bool {
        if self.repairs.is_hopeless(of.group) || !self.streams.engine().has_room() {
            return false;
        }
        if replica.port.status().offline.is_some() {
            return true;
        }
        let meta = self.reporter.machine.meta();
        let sightings = self.view.sightings();
        meta.stream_of(of).is_some_and(|stream| {
            let mut everyone = stream.group.everyone();
            everyone.all(|member| is_online(&sightings, &member.server))
        })
    }

    /// Ends the repairs of replicas whose place another one has taken, or that are not to be here any more.
    pub fn end_repairs(&self, meta: &Meta) {
        for (group, node) in self.repairs.open() {
            let mut streams = meta.all_streams();
            let stream = streams.find(|(of, _)| of.group == group);
            let is_assigned =
                stream.is_some_and(|(_, stream)| stream.group.member_on(&self.own).is_some());
            if is_assigned && !self.is_replaced(group, node) {
                continue;
            }
            if let Some(stream) = self.repairs.end(group) {
                tracing::info!("JetStream stream '{stream}': this server's replica was replaced");
            }
        }
    }

    /// Whether a replica under another id votes here, with all that the stream has.
    fn is_replaced(&self, group: GroupNumber, node: NodeId) -> bool {
        let Some(replica) = self.replicated.replica(group) else {
            return false;
        };
        let now = replica.group.myself().node;
        let Glance { spoilt, .. } = replica.port.glance(None);
        now != node && spoilt.is_none() && replica.group.members().is_voter(now)
    }
}
