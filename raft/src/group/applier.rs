//! The state machine as openraft sees it: entries go to the [`Machine`] in batches, and checkpoints of it are what openraft calls snapshots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;

use super::machine::{Applied, Content, Machine, Manifest};
use super::members::{Checkpoint, Members, Position};
use super::roles::Roles;
use crate::types::{
    CommittedLeaderId, Done, Entry, LogId, NodeId, Payload, Peer, SnapshotMeta, StoredMembership,
    Types,
};

/// What stands for a state: its description where it is to be sent, nothing where it stays. In a box, since openraft sets room aside in each group for thousands of
/// commands, the largest of which are those that carry it.
pub(super) type Described = Option<Box<Manifest>>;
pub(super) type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, Peer, Described>;

/// What an applier shares with its replica.
pub(super) struct Shared {
    /// The last checkpoint known to be durable. `None` for a replica that was given no state yet.
    pub released: Mutex<Option<Checkpoint>>,
    /// The same, as far as openraft may be told: a state that was fetched can be ahead of the entries that openraft has handed over, and openraft takes no
    /// snapshot for possible that it has not reached. What is held back is told with the next one.
    pub reached: Mutex<Option<Checkpoint>>,
    /// Set when the replica runs: before, a snapshot is only asked for to learn where it stands.
    pub running: AtomicBool,
}

pub(super) struct Applier {
    machine: Arc<dyn Machine>,
    roles: Arc<Roles>,
    shared: Arc<Shared>,
    applied: Option<LogId>,
    membership: StoredMembership,
    batch_bytes_max: usize,
}

/// Entries on their way to the machine, and who waits for them.
#[derive(Default)]
struct Batch {
    applied: Vec<Applied>,
    replies: Vec<ApplyResponder<Types>>,
    bytes: usize,
}

/// An entry as the machine takes it.
pub(super) fn as_applied(entry: Entry) -> Applied {
    let content = match entry.payload {
        Payload::Blank => Content::Blank,
        Payload::Normal(command) => Content::Command(command.0),
        Payload::Membership(membership) => Content::Members(Members::from_membership(&membership)),
    };
    Applied {
        at: Position::of(&entry.log_id),
        content,
    }
}

impl Applier {
    pub fn new(
        machine: Arc<dyn Machine>,
        roles: Arc<Roles>,
        shared: Arc<Shared>,
        batch_bytes_max: usize,
    ) -> Result<Self, io::Error> {
        let begun = shared.released.lock().clone();
        let membership = match &begun {
            Some(begun) => begun.stored_membership().map_err(io::Error::other)?,
            None => StoredMembership::default(),
        };
        Ok(Self {
            machine,
            roles,
            shared,
            applied: begun.map(|begun| begun.at.log_id()),
            membership,
            batch_bytes_max,
        })
    }

    fn take(&mut self, entry: Entry, batch: &mut Batch) {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            Payload::Blank => {}
            Payload::Normal(command) => batch.bytes += command.0.len(),
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        batch.applied.push(as_applied(entry));
    }

    async fn hand_over(&self, batch: &mut Batch) -> Result<(), io::Error> {
        let Some(last) = batch.applied.last().map(|applied| applied.at) else {
            return Ok(());
        };
        let applied = std::mem::take(&mut batch.applied);
        self.machine
            .apply(applied)
            .await
            .map_err(io::Error::other)?;
        self.roles.applied(last.term);
        for reply in batch.replies.drain(..) {
            reply.send(Done);
        }
        batch.bytes = 0;
        Ok(())
    }

    fn meta_of(checkpoint: &Checkpoint) -> Result<SnapshotMeta, io::Error> {
        checkpoint.to_meta().map_err(io::Error::other)
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Described;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> Result<(), io::Error>
    where
        Entries: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        while let Some((entry, reply)) = entries.try_next().await? {
            self.take(entry, &mut batch);
            batch.replies.extend(reply);
            if batch.bytes >= self.batch_bytes_max {
                self.hand_over(&mut batch).await?;
            }
        }
        self.hand_over(&mut batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let released = self.shared.released.lock();
        let applied = self.applied.as_ref().map(Position::of);
        if released.as_ref().map(|released| released.at) <= applied {
            self.shared.reached.lock().clone_from(&released);
        }
        drop(released);
        Builder(Arc::clone(&self.shared))
    }

    /// The state is there already: the machine made it so before openraft was told.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        _described: Described,
    ) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let checkpoint = Checkpoint::from_meta(meta);
        self.roles.applied(checkpoint.at.term);
        let mut released = self.shared.released.lock();
        let known = released.as_ref().map(|known| known.at);
        if known.is_none_or(|known| known < checkpoint.at) {
            *released = Some(checkpoint.clone());
        }
        *self.shared.reached.lock() = Some(checkpoint);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.shared.running.load(Ordering::Acquire) {
            let released = self.shared.released.lock().clone();
            let meta = released.as_ref().map(Self::meta_of).transpose()?;
            return Ok(meta.map(|meta| Snapshot {
                meta,
                snapshot: None,
            }));
        }
        let manifest = self.machine.manifest().await.map_err(io::Error::other)?;
        Ok(Some(Snapshot {
            meta: Self::meta_of(&manifest.checkpoint)?,
            snapshot: Some(Box::new(manifest)),
        }))
    }
}

/// Tells openraft of the last durable checkpoint, so that it purges what that covers.
pub(super) struct Builder(Arc<Shared>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Described;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let reached = self.0.reached.lock().clone();
        let meta = match &reached {
            Some(reached) => Applier::meta_of(reached)?,
            None => SnapshotMeta::default(),
        };
        Ok(Snapshot {
            meta,
            snapshot: None,
        })
    }
}
