//! A state machine that remembers only what it applied: enough to test a log store with.

use std::io;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{
    EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::{OptionalSend, StoredMembership};
use raft::types::{CommittedLeaderId, Done, LogId, NodeId, Payload, Peer, Types};

type Meta = SnapshotMeta<CommittedLeaderId, NodeId, Peer>;
type TestSnapshot = Snapshot<CommittedLeaderId, NodeId, Peer, ()>;

/// The last entry applied, and the membership as of it.
#[derive(Debug, Clone, Default)]
pub struct TestMachine {
    applied: Option<LogId>,
    membership: StoredMembership<CommittedLeaderId, NodeId, Peer>,
    snapshot: Option<Meta>,
}

impl TestMachine {
    fn meta(&self) -> Meta {
        Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }
}

impl RaftSnapshotBuilder<Types> for TestMachine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<TestSnapshot, io::Error> {
        Ok(Snapshot {
            meta: self.meta(),
            snapshot: (),
        })
    }
}

impl RaftStateMachine<Types> for TestMachine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<
        (
            Option<LogId>,
            StoredMembership<CommittedLeaderId, NodeId, Peer>,
        ),
        io::Error,
    > {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> Result<(), io::Error>
    where
        Entries: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let Payload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Done);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.snapshot = Some(self.meta());
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, (): ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<TestSnapshot>, io::Error> {
        let meta = self.snapshot.clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: () }))
    }
}
