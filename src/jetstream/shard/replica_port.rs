//! How a replica is reached from its group, from other replicas, and from who starts and ends it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Applied, MachineFailed, Role};
use tokio::sync::{oneshot, watch};

use super::inbox::Item;
use super::port::Port;
use super::replica::ReplicaStatus;
use super::replicated_log::Proposer;
use super::slot::Slot;
use crate::broker::Account;
use crate::jetstream::core::{
    Divergence, Manifest, Mark, ReceivingNeeds, Recollection, Retirement, Unsupported,
};

/// A replica on its shard, as others reach it. Clones reach the same one.
#[derive(Clone)]
pub(crate) struct ReplicaPort {
    /// The stream, as clients and the API reach it.
    pub port: Port,
    pub(super) status: Arc<Mutex<ReplicaStatus>>,
    pub(super) differences: watch::Receiver<Option<Divergence>>,
}

/// What a look at a replica came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    /// What it is to its group, when that is not what was seen of it.
    pub role: Option<Role>,
    /// Why what it holds is of no use.
    pub spoilt: Option<String>,
    /// What a later version has written into it, so that it takes nothing any more.
    pub unsupported: Option<Unsupported>,
}

/// The replica is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica has ended")]
pub(crate) struct ReplicaGone;

impl ReplicaPort {
    /// How it stands.
    pub fn status(&self) -> ReplicaStatus {
        self.status.lock().clone()
    }

    /// What there is to see that was not seen yet.
    pub fn glance(&self, seen: Option<&Role>) -> Glance {
        let status = self.status.lock();
        Glance {
            role: (seen != Some(&status.role)).then(|| status.role.clone()),
            spoilt: status.spoilt.clone(),
            unsupported: status.unsupported.clone(),
        }
    }

    /// Where it differs from another replica, while it is not known which of them is wrong.
    pub(crate) fn differences(&self) -> watch::Receiver<Option<Divergence>> {
        self.differences.clone()
    }

    /// Another replica says what its digest was, and asks for the one here.
    pub(crate) async fn contrast(&self, theirs: Mark) -> Result<Recollection, ReplicaGone> {
        self.ask(move |slot, _| slot.core.contrast(theirs)).await
    }

    /// A majority has what it has up to an entry.
    pub(crate) fn is_right_upto(&self, index: u64) {
        self.act(move |slot, _| slot.is_right_upto(index));
    }

    /// A majority has that digest and not the one here.
    pub(crate) fn is_wrong(&self, found: Divergence, digest: u64) {
        self.act(move |slot, _| slot.is_wrong(found, digest));
    }

    /// Nobody else leads; `alone`: nobody else can.
    pub(crate) fn lead_all_the_same(&self, alone: bool) {
        self.act(move |slot, now_ns| slot.lead_all_the_same(alone, now_ns));
    }

    /// Every server of the group has started again, and nobody has what consumers had in memory.
    pub(crate) fn restart_volatile(&self, since_ns: i64) {
        self.act(move |slot, _| {
            slot.core.restart_volatile(since_ns);
            slot.is_busy |= slot.core.is_leading();
        });
    }

    /// It cannot be told who is wrong.
    pub(crate) fn is_contested(&self, found: Divergence) {
        self.act(move |slot, _| slot.is_contested(found));
    }

    /// Its group runs: from now on it can lead.
    pub fn join(&self, group: Arc<dyn Proposer>) {
        self.act(move |slot, _| slot.join(group));
    }

    /// Entries were committed. The answer comes when they are applied.
    pub fn committed(&self, batch: Vec<Applied>) -> oneshot::Receiver<Result<(), MachineFailed>> {
        let (done, taken) = oneshot::channel();
        self.port.inbox.push(Item::Committed {
            slot: self.port.slot,
            batch,
            done,
        });
        taken
    }

    /// It has another role.
    pub fn role(&self, role: Role) {
        self.port.inbox.push(Item::Role {
            slot: self.port.slot,
            role,
        });
    }

    /// It stops to lead, and those who wait hear why.
    pub fn retire(&self, reason: Retirement) {
        self.act(move |slot, _| slot.retire(reason));
    }

    /// Its account has JetStream no more: it is a stream to nobody.
    pub fn rest(&self) {
        self.act(|slot, _| slot.rest());
    }

    /// Its account has JetStream again.
    pub fn wake(&self, account: Arc<Account>) {
        self.act(move |slot, now_ns| slot.wake(account, now_ns));
    }

    /// A leader that is about to hand over gives back what it need not have reserved.
    pub fn give_back(&self) {
        self.act(|slot, now_ns| slot.give_back(now_ns));
    }

    /// Where its state stands; nothing while it is given another one.
    pub async fn position(&self) -> Result<Option<raft::group::Checkpoint>, ReplicaGone> {
        self.ask(|slot, _| slot.position()).await
    }

    /// Has a checkpoint begun as soon as that can be.
    #[cfg(test)]
    pub fn checkpoint(&self) {
        self.act(|slot, _| slot.want_checkpoint());
    }

    /// Waits until the state as it is outlives the process.
    pub(crate) async fn make_durable(&self) -> Result<(), ReplicaGone> {
        let (done, durable) = oneshot::channel();
        self.act(move |slot, _| slot.make_durable(done));
        durable.await.map_err(|_| ReplicaGone)
    }

    pub(crate) async fn prepare_manifest(
        &self,
        after: u64,
        records_max: usize,
    ) -> Result<Option<(u64, u64)>, ReplicaGone> {
        self.ask(move |slot, _| slot.prepare_manifest(after, records_max))
            .await
    }

    pub(crate) async fn manifest_piece(
        &self,
        number: u64,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, ReplicaGone> {
        self.ask(move |slot, _| slot.manifest_piece(number, offset, bytes_max))
            .await
    }

    pub(crate) async fn records(
        &self,
        from: u64,
        upto: u64,
        bytes_max: usize,
    ) -> Result<Result<Bytes, String>, ReplicaGone> {
        self.ask(move |slot, _| slot.records(from, upto, bytes_max))
            .await
    }

    pub(crate) async fn last_sequence(&self) -> Result<u64, ReplicaGone> {
        self.ask(|slot, _| slot.last_sequence()).await
    }

    pub(crate) async fn begin_receiving(
        &self,
        manifest: Manifest,
    ) -> Result<Result<(), String>, ReplicaGone> {
        self.ask(move |slot, _| slot.begin_receiving(manifest))
            .await
    }

    pub(crate) async fn go_on_receiving(
        &self,
    ) -> Result<Result<ReceivingNeeds, String>, ReplicaGone> {
        self.ask(|slot, _| slot.go_on_receiving()).await
    }

    pub(crate) async fn receive(&self, records: Bytes) -> Result<Result<u64, String>, ReplicaGone> {
        self.ask(move |slot, _| slot.receive(&records)).await
    }

    /// The receiver hears when what was received is durable.
    pub(crate) async fn finish_receiving(
        &self,
    ) -> Result<(Result<bool, String>, oneshot::Receiver<()>), ReplicaGone> {
        let (done, durable) = oneshot::channel();
        let finished = self
            .ask(move |slot, now_ns| slot.finish_receiving(done, now_ns))
            .await?;
        Ok((finished, durable))
    }

    /// Lets a test see, and do, what nobody else may.
    #[cfg(test)]
    pub(crate) fn look(
        &self,
        act: impl FnOnce(&mut crate::jetstream::core::StreamCore) + Send + 'static,
    ) {
        self.act(move |slot, _| act(&mut slot.core));
    }

    fn act(&self, act: impl FnOnce(&mut Slot, i64) + Send + 'static) {
        self.port.inbox.push(Item::Replica {
            slot: self.port.slot,
            act: Box::new(act),
        });
    }

    async fn ask<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Slot, i64) -> R + Send + 'static,
    ) -> Result<R, ReplicaGone> {
        let (answer, answered) = oneshot::channel();
        self.act(move |slot, now_ns| {
            // Whoever asked may have given up.
            let _ = answer.send(act(slot, now_ns));
        });
        answered.await.map_err(|_| ReplicaGone)
    }
}
