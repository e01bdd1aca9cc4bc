//! One replica while it runs: what its handle, its peers and the supervisor ask of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::applier::{Applier, Shared};
use super::campaign::Campaign;
use super::hub::Hub;
use super::machine::{Machine, Member};
use super::members::{Members, Position};
use super::options::Channel;
use super::outcome::Outcome;
use super::proposals::{Hear, Next, Proposals, Verdict};
use super::roles::{Roles, Seen};
use super::spec::GroupNumber;
use crate::log::LogView;
use crate::types::{Command, NodeId, Reply, Types};
use crate::wire::{Body, Envelope};

pub(super) type Core = Raft<Types, Applier>;
pub(super) type ServerMetrics = openraft::metrics::RaftServerMetrics<Types>;

/// A proposal that Raft is not ready for is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(1);

pub(super) struct Replica {
    pub number: GroupNumber,
    pub myself: Member,
    pub hub: Arc<Hub>,
    pub machine: Arc<dyn Machine>,
    pub roles: Arc<Roles>,
    pub shared: Arc<Shared>,
    pub log: LogView,
    pub proposals: Proposals,
    /// Set once, before anyone can reach the replica.
    core: OnceLock<Core>,
    /// It does not tick: its leader said that nothing goes on, and lives.
    pub(super) quiet: AtomicBool,
    /// When something last went on.
    pub(super) touched: Mutex<Instant>,
    pub(super) campaign: Mutex<Option<Campaign>>,
    /// The manifest that is being fetched: who offered it, and in which request.
    pub(super) fetching: watch::Sender<Option<(NodeId, u64)>>,
    /// Held by whoever fetches.
    pub(super) installing: tokio::sync::Mutex<()>,
    /// Held while members change.
    pub(super) changing: tokio::sync::Mutex<()>,
    stopped: AtomicBool,
}

impl Replica {
    pub fn new(
        number: GroupNumber,
        node: NodeId,
        hub: Arc<Hub>,
        machine: Arc<dyn Machine>,
        (shared, log): (Arc<Shared>, LogView),
    ) -> Self {
        let timing = hub.options.timing;
        let limits = hub.options.limits;
        let server = hub.options.server.clone();
        Self {
            number,
            myself: Member { node, server },
            roles: Arc::new(Roles::new(Arc::clone(&machine))),
            machine,
            shared,
            log,
            // Half a lease after a quorum answered, the lease is still good for a proposal that waits in a queue.
            proposals: Proposals::new(timing.election_timeout_max / 2, limits.proposals_held_max),
            hub,
            core: OnceLock::new(),
            quiet: AtomicBool::new(false),
            touched: Mutex::new(Instant::now()),
            campaign: Mutex::new(None),
            fetching: watch::Sender::new(None),
            installing: tokio::sync::Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
            stopped: AtomicBool::new(false),
        }
    }

    pub fn node(&self) -> NodeId {
        self.myself.node
    }

    pub fn set_core(&self, core: Core) {
        // Called once, by whoever starts the replica.
        let _ = self.core.set(core);
    }

    /// Raft, until the replica is stopped.
    pub fn core(&self) -> Option<&Core> {
        self.core
            .get()
            .filter(|_| !self.stopped.load(Ordering::Acquire))
    }

    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.hub.runtime.spawn(work);
    }

    /// What Raft says it is, at this moment.
    pub fn server(&self) -> Option<ServerMetrics> {
        self.core()
            .map(|core| core.server_metrics().borrow_watched().clone())
    }

    pub fn is_leading(&self) -> bool {
        self.core()
            .is_some_and(|core| core.server_metrics().borrow_watched().state == ServerState::Leader)
    }

    /// Who leads, if known; this replica included.
    pub fn leader(&self) -> Option<Member> {
        self.server().as_ref().and_then(leader_of)
    }

    /// The members, also such as are not committed yet.
    pub fn members(&self) -> Members {
        self.server().map_or_else(Members::default, |server| {
            Members::from_membership(server.membership_config.membership())
        })
    }

    /// Says something to another replica that is not answered.
    pub fn tell(&self, to: NodeId, server: &str, body: &Body) {
        let envelope = Envelope {
            group: self.number,
            from: self.node(),
            to,
            request: 0,
        };
        self.hub
            .post
            .send(server, Channel::Control, &envelope, body);
    }

    /// Takes a proposal; it is answered in any case.
    pub fn propose(self: &Arc<Self>, command: Bytes, timeout: Duration, hear: Hear) {
        if self.core().is_none() {
            hear(Outcome::Refused { leader: None });
            return;
        }
        self.wake();
        let deadline = Instant::now() + timeout;
        let next = self.proposals.add(command, deadline, hear);
        self.go_on(next);
        if self.core().is_none() {
            // Stopped meanwhile: whoever stopped it may have looked before this one was added.
            self.proposals.end();
        }
    }

    /// Does what the proposals ask for.
    pub fn go_on(self: &Arc<Self>, next: Next) {
        let replica = Arc::clone(self);
        match next {
            Next::Nothing => {}
            Next::Pump => self.spawn(replica.pump()),
            Next::PumpLater => self.spawn(async move {
                tokio::time::sleep(RETRY_AFTER).await;
                if let Some(core) = replica.core() {
                    // What the leader waits for is an answer of a majority.
                    let _ = core.trigger().heartbeat().await;
                }
                let next = replica.proposals.resume();
                if next == Next::Pump {
                    replica.pump().await;
                }
            }),
        }
    }

    /// Hands proposals to Raft, as long as there are any that may be.
    async fn pump(self: Arc<Self>) {
        while let Some((ticket, command)) = self.proposals.next(Instant::now()) {
            let replica = Arc::clone(&self);
            let reply = Reply::new(move |result| replica.replied(ticket, result));
            let Some(core) = self.core() else {
                self.proposals.end();
                return;
            };
            if core
                .client_write_ff(Command(command), Some(reply))
                .await
                .is_err()
            {
                // The core ended; whoever watches it says why.
                self.proposals.end();
                return;
            }
        }
    }

    fn replied(self: &Arc<Self>, ticket: u64, result: ClientWriteResult<Types>) {
        let verdict = match result {
            Ok(done) => Verdict::Done(Outcome::Committed(Position::of(&done.log_id))),
            Err(ClientWriteError::ForwardToLeader(forward)) => refusal(forward),
            // Never logged either: these are about members only, or about conditions that are not set.
            Err(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => Verdict::Done(Outcome::Refused { leader: None }),
            Err(ClientWriteError::LogEntryDiscarded(_)) => Verdict::Done(Outcome::Unknown),
        };
        let next = self.proposals.verdict(ticket, verdict, &self.myself);
        self.go_on(next);
    }

    /// Follows what Raft says, and passes it on, until it ends.
    pub async fn watch(self: Arc<Self>) {
        let Some(core) = self.core().cloned() else {
            return;
        };
        let mut metrics = core.server_metrics();
        loop {
            let server = metrics.borrow_and_update().clone();
            self.saw(&server);
            if metrics.changed().await.is_err() {
                break;
            }
        }
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        let running = core.metrics().borrow_watched().running_state.clone();
        let reason = running.err().map_or_else(
            || "the core of the replica ended".to_owned(),
            |fatal| fatal.to_string(),
        );
        self.failed(reason);
    }

    /// A leader that has not heard of a majority for long does not say that it leads any more: there may be another one by now.
    pub fn check_majority(&self) {
        if !self.is_leading() {
            return;
        }
        let heard = self
            .members()
            .have_majority(|node, server| node == self.node() || !self.hub.is_silent(server));
        self.roles.is_cut_off(!heard);
    }

    fn saw(self: &Arc<Self>, server: &ServerMetrics) {
        *self.touched.lock() = Instant::now();
        let members = server.membership_config.membership();
        let servers: BTreeSet<String> = members
            .nodes()
            .map(|(_, peer)| peer.server.clone())
            .collect();
        if self.core().is_some() {
            self.hub.want(self.number, servers);
        }
        let seen = match server.state {
            ServerState::Leader => Seen::Leading {
                term: server.vote.leader_id.term,
            },
            _ => Seen::Following(leader_of(server).filter(|leader| *leader != self.myself)),
        };
        if self.roles.saw(seen) {
            let next = self.proposals.lost();
            self.go_on(next);
        }
        self.end_campaign_if_won(server);
    }

    /// The replica cannot go on.
    fn failed(self: &Arc<Self>, reason: String) {
        tracing::error!(group = %self.number, reason, "a replica failed and takes no part any more");
        self.leave();
        self.roles.saw(Seen::Stopped(reason));
    }

    /// Takes no part any more: tells the others, and answers what is open.
    pub fn leave(&self) {
        let members = self.members();
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        for (node, server) in members.servers() {
            if *node != self.node() {
                self.tell(*node, server, &Body::Gone);
            }
        }
        self.proposals.end();
        self.hub.want(self.number, BTreeSet::new());
    }

    /// Ends Raft, after [`Replica::leave`].
    pub async fn shut_down(&self) {
        if let Some(core) = self.core.get()
            && let Err(error) = core.shutdown().await
        {
            tracing::warn!(group = %self.number, %error, "a replica did not end in order");
        }
    }
}

/// Who leads in the term that the replica is in.
pub(super) fn leader_of(server: &ServerMetrics) -> Option<Member> {
    let node = server.current_leader?;
    let peer = server.membership_config.membership().get_node(&node)?;
    Some(Member {
        node,
        server: peer.server.clone(),
    })
}

fn refusal(forward: ForwardToLeader<Types>) -> Verdict {
    if forward.reason == ForwardReason::LeaseExpired {
        return Verdict::NotYet;
    }
    let leader = forward.leader_id.zip(forward.leader_node);
    let leader = leader.map(|(node, peer)| Member {
        node,
        server: peer.server,
    });
    Verdict::Done(Outcome::Refused { leader })
}
