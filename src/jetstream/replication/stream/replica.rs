//! One replica of a stream from its start to its end: shard, group and what others may ask, together.

use std::sync::Arc;
use std::time::Duration;

use raft::group::{
    Begin, Group, GroupNumber, GroupSpec, Groups, LogReadError, Machine, MachineFailed, StartError,
    TransferError,
};
use raft::types::NodeId;

use super::fetch::{Fetch, Sources};
use super::inquiry::Inquiry;
use super::machine::{Pace, StreamMachine};
use crate::jetstream::core::Retirement;
use crate::jetstream::shard::{Proposer, ReplicaPort, ReplicaSetup, Shards, Surrendered};

/// How long a leader that hands over waits for others to take what it gives back.
const GIVE_BACK: Duration = Duration::from_millis(20);

/// What replicas of one server share.
#[derive(Clone)]
pub(crate) struct Replicas {
    pub groups: Arc<Groups>,
    pub shards: Arc<Shards>,
    /// Whom other servers ask here.
    pub sources: Arc<Sources>,
    /// How other servers are asked.
    pub fetch: Arc<dyn Fetch>,
    pub pace: Pace,
}

/// A replica that runs.
#[derive(Clone)]
pub(crate) struct StreamReplica {
    replicas: Replicas,
    /// The stream on its shard.
    pub port: ReplicaPort,
    /// Its group.
    pub group: Group,
}

impl Replicas {
    /// Starts a replica, the first of its kind with a state that is durable: it follows, applies what is committed after its checkpoint, and leads when its group says so.
    pub(crate) async fn start(
        &self,
        setup: ReplicaSetup,
        spec: GroupSpec,
    ) -> Result<StreamReplica, StartError> {
        let machine = |machine| -> Arc<dyn Machine> { Arc::new(machine) };
        let proposer = |group| -> Arc<dyn Proposer> { Arc::new(group) };
        self.start_wrapped(setup, spec, machine, proposer).await
    }

    /// The same, with the replica's state machine, and the group that it proposes to, inside others.
    pub(super) async fn start_wrapped(
        &self,
        setup: ReplicaSetup,
        spec: GroupSpec,
        wrap_machine: impl FnOnce(StreamMachine) -> Arc<dyn Machine>,
        wrap_group: impl FnOnce(Group) -> Arc<dyn Proposer>,
    ) -> Result<StreamReplica, StartError> {
        let number = spec.number;
        let port = self.shards.adopt_replica(setup);
        if spec.begin == Begin::Founder && port.make_durable().await.is_err() {
            let reason = port.status().offline.unwrap_or_default();
            self.end(number, &port).await;
            let group = number;
            return Err(StartError::Failed { group, reason });
        }
        let machine = StreamMachine::new(number, port.clone(), Arc::clone(&self.fetch), self.pace);
        let group = match self.groups.start(spec, wrap_machine(machine)).await {
            Ok(group) => group,
            Err(error) => {
                self.end(number, &port).await;
                return Err(error);
            }
        };
        port.join(wrap_group(group.clone()));
        self.sources.add(number, port.clone());
        let inquiry = Inquiry {
            port: port.clone(),
            group: group.clone(),
            fetch: Arc::clone(&self.fetch),
        };
        tokio::spawn(inquiry.run());
        Ok(StreamReplica {
            replicas: self.clone(),
            port,
            group,
        })
    }

    async fn end(&self, number: GroupNumber, port: &ReplicaPort) {
        self.sources.remove(number);
        let (done, gone) = tokio::sync::oneshot::channel();
        port.port.remove(Box::new(move || {
            // Whoever waits is there until it has heard.
            let _ = done.send(());
        }));
        // A shard that has ended holds nothing any more.
        let _ = gone.await;
    }
}

impl StreamReplica {
    /// How it stands. What its group knows beyond that says [`Group::status`].
    #[cfg(test)]
    pub(crate) fn status(&self) -> crate::jetstream::shard::ReplicaStatus {
        self.port.status()
    }

    /// Hands its lead over to another voter.
    pub(crate) async fn hand_over(&self, to: NodeId) -> Result<(), TransferError> {
        self.port.give_back();
        tokio::time::sleep(GIVE_BACK).await;
        self.group.transfer_leadership(to).await
    }

    /// Ends it on this server, and tells those who wait why. What storage holds of it stays; nothing of its store is in use any more.
    pub(crate) async fn stop(self, reason: Retirement) {
        let number = self.group.number();
        self.replicas.groups.stop(number).await;
        self.port.retire(reason);
        self.replicas.end(number, &self.port).await;
    }

    /// The same, with the stream handed back: it may live on with one replica. Nothing when it has ended already.
    pub(crate) async fn surrender(self) -> Option<Surrendered> {
        let number = self.group.number();
        self.replicas.groups.stop(number).await;
        self.replicas.sources.remove(number);
        self.port.port.surrender().await
    }

    /// The same, with all applied that its log holds: the last one that has a log goes on alone. What was acknowledged is in there, and nobody is left to say how much of
    /// it was committed. What was not is what somebody asked for and heard nothing of, so that it may be done or not.
    pub(crate) async fn surrender_whole(self) -> Result<Surrendered, NotWhole> {
        let number = self.group.number();
        // From here on nothing is logged any more.
        self.replicas.groups.stop(number).await;
        if let Err(error) = self.apply_what_is_logged().await {
            self.replicas.end(number, &self.port).await;
            return Err(error);
        }
        self.surrender().await.ok_or(NotWhole::Ended)
    }

    async fn apply_what_is_logged(&self) -> Result<(), NotWhole> {
        let position = self.port.position().await.map_err(|_| NotWhole::Ended)?;
        let mut applied = position.ok_or(NotWhole::Receiving)?.at.index;
        loop {
            // What the group was still handing over comes twice, and is passed over.
            let batch = self.group.logged_after(applied).await?;
            let Some(last) = batch.last() else {
                return Ok(());
            };
            applied = last.at.index;
            let taken = self.port.committed(batch).await;
            taken.map_err(|_| NotWhole::Ended)??;
        }
    }
}

/// Why the last replica of a group does not go on alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotWhole {
    /// It was being given a state, and whoever gave it is gone.
    #[error("it has a part of the stream's state only")]
    Receiving,
    /// Its log does not go on where its state ends, or cannot be read.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// The stream does not take what its log holds.
    #[error(transparent)]
    Machine(#[from] MachineFailed),
    /// It is not there any more.
    #[error("it has ended on this server")]
    Ended,
}
