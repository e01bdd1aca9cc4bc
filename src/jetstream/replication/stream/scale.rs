//! From one replica to several and back: the same stream, with another form of log in the same journal.
//!
//! A log that is replicated begins where the one before ended, at the index of a checkpoint that covers all of it; and the other way round. The first replica
//! of a new group is alone in it; others join, and are given the state.

use std::any::Any;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use raft::group::{Begin, Checkpoint, GroupNumber, GroupSpec, Members};
use raft::log::LogImage;
use storage::engine::{CheckpointStart, FileEngine, Form, Recovered, Replica, StreamId};
use storage::journal::{Commit, CommitSink, Frame, FrameKind, JournalError};
use storage::store::FileStore;

use crate::jetstream::core::StreamCore;
use crate::jetstream::log::Log;
use crate::jetstream::shard::{ReplicaSetup, Surrendered};

/// How often a checkpoint that could not begin is tried.
const CHECKPOINT_ATTEMPTS: u32 = 500;
/// And how long is waited in between.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(20);

/// Why a stream's log keeps the form that it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream keeps its form: {reason}")]
pub(crate) struct NotReformed {
    reason: String,
}

impl NotReformed {
    fn because(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
        }
    }
}

/// A replica of a stream's group, about to be started.
pub(crate) struct Founding {
    /// What its shard is given.
    pub setup: ReplicaSetup,
    /// What its group is given.
    pub spec: GroupSpec,
}

/// Makes a stream with one replica the only member of a group: its log is the group's from here on. Waits for the disk.
pub(crate) fn to_replicated(
    engine: &FileEngine,
    storage_log: Arc<dyn Log>,
    stream: Surrendered,
    replica: Replica,
    server: &str,
) -> Result<Founding, NotReformed> {
    let Surrendered {
        mut core,
        account,
        storage,
        meter,
    } = stream;
    let id = StreamId(storage);
    let members = Members::of_voters([(replica.node, server.to_owned())]);
    let position = Checkpoint::founding(core.applied_index(), members);
    core.begin_group(position.encode());
    make_durable(engine, id, &mut core)?;
    let form = Form::Replicated(replica);
    engine.reform(id, form).map_err(NotReformed::because)?;
    let spec = founder(id, replica, &position);
    let setup = ReplicaSetup {
        core,
        account,
        storage_log,
        storage,
        owner: storage,
        meter,
        position,
        keeps_nothing: false,
        rests: false,
    };
    Ok(Founding { setup, spec })
}

/// The same for a stream in memory, whose place in storage is `id`: of its messages nothing is there.
pub(crate) fn to_replicated_in_memory(
    engine: &FileEngine,
    id: StreamId,
    log: Arc<dyn Log>,
    mut stream: Surrendered,
    replica: Replica,
    server: &str,
) -> Result<Founding, NotReformed> {
    let members = Members::of_voters([(replica.node, server.to_owned())]);
    let position = Checkpoint::founding(stream.core.applied_index(), members);
    stream.core.begin_group(position.encode());
    let form = Form::Replicated(replica);
    engine.reform(id, form).map_err(NotReformed::because)?;
    let spec = founder(id, replica, &position);
    let setup = ReplicaSetup {
        core: stream.core,
        account: stream.account,
        storage_log: log,
        storage: 0,
        owner: id.0,
        meter: stream.meter,
        position,
        keeps_nothing: false,
        rests: false,
    };
    Ok(Founding { setup, spec })
}

/// What a group is given that begins at that position, with nothing in its log.
fn founder(id: StreamId, replica: Replica, position: &Checkpoint) -> GroupSpec {
    GroupSpec {
        number: GroupNumber(replica.group),
        owner: id.owner(),
        node: replica.node,
        begin: Begin::Founder,
        image: LogImage::default(),
        checkpoint: Some(position.clone()),
    }
}

/// Takes the place of a stream in memory out of its group, which must have ended everywhere.
pub(crate) fn to_plain_in_memory(engine: &FileEngine, id: StreamId) -> Result<(), NotReformed> {
    // The votes and the log go with the form.
    engine
        .reform(id, Form::Plain)
        .map_err(NotReformed::because)?;
    take_back(engine, id, 1)
}

/// Gives the last replica of a stream a log of its own again. Its group must have ended everywhere. Waits for the disk.
pub(crate) fn to_plain(
    engine: &FileEngine,
    mut stream: Surrendered,
) -> Result<Surrendered, NotReformed> {
    let id = StreamId(stream.storage);
    stream.core.set_group(Bytes::new());
    make_durable(engine, id, &mut stream.core)?;
    // What the group has logged and not applied was promised to nobody, and must not be taken for the stream's own.
    take_back(engine, id, stream.core.applied_index() + 1)?;
    engine
        .reform(id, Form::Plain)
        .map_err(NotReformed::because)?;
    engine.release_frames(id.owner(), stream.core.applied_index());
    Ok(stream)
}

/// Whether an earlier run ended while it gave the last replica of a stream a log of its own: its state says nothing of a group any more, and its form does.
pub(crate) fn is_half_plain(found: &Recovered<FileStore>) -> bool {
    let Ok(content) = &found.content else {
        return false;
    };
    let of_group = StreamCore::group_of(&content.core);
    found.form.is_replicated() && of_group.is_ok_and(|group| group.is_empty())
}

/// Brings to its end what [`to_plain`] began in an earlier run. Waits for the disk.
pub(crate) fn finish_plain(
    engine: &FileEngine,
    found: Recovered<FileStore>,
    domain: &str,
) -> Result<StreamCore, NotReformed> {
    let content = found.content.map_err(NotReformed::because)?;
    let core = StreamCore::restore(&content.core, domain, Box::new(content.store));
    let core = core.map_err(NotReformed::because)?;
    let id = found.id;
    take_back(engine, id, core.applied_index() + 1)?;
    engine
        .reform(id, Form::Plain)
        .map_err(NotReformed::because)?;
    engine.release_frames(id.owner(), core.applied_index());
    Ok(core)
}

/// Lets a replica that was not given all of its first state go on under another id. Waits for the disk.
pub(crate) fn to_joiner(
    engine: &FileEngine,
    id: StreamId,
    replica: Replica,
) -> Result<GroupSpec, NotReformed> {
    take_back(engine, id, 1)?;
    // The votes of the earlier id go with its form.
    engine
        .reform(id, Form::Replicated(replica))
        .map_err(NotReformed::because)?;
    Ok(GroupSpec {
        number: GroupNumber(replica.group),
        owner: id.owner(),
        node: replica.node,
        begin: Begin::Joiner,
        image: LogImage::default(),
        checkpoint: None,
    })
}

/// Takes back the entries of a log from an index on, durably.
fn take_back(engine: &FileEngine, id: StreamId, from: u64) -> Result<(), NotReformed> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let sink: Arc<dyn CommitSink> = Arc::new(Waiter(sender));
    let frame = Frame {
        owner: id.owner(),
        index: from,
        kind: FrameKind::Truncate,
        payload: Bytes::new().into(),
    };
    let submitted = engine.submit_frames([(frame, 0)], &sink);
    submitted.map_err(NotReformed::because)?;
    drop(sink);
    let committed = receiver.recv().unwrap_or(Err(JournalError::Closed));
    committed.map_err(NotReformed::because)
}

/// Waits for one commit.
struct Waiter(mpsc::SyncSender<Result<(), JournalError>>);

impl CommitSink for Waiter {
    fn committed(&self, _commits: &[Commit]) {
        // The one who waits is there until it has heard.
        let _ = self.0.try_send(Ok(()));
    }

    fn failed(&self, error: &JournalError) {
        let _ = self.0.try_send(Err(error.clone()));
    }
}

/// Takes a checkpoint, and waits until it is durable.
fn make_durable(
    engine: &FileEngine,
    id: StreamId,
    core: &mut StreamCore,
) -> Result<(), NotReformed> {
    let (snapshot, index) = (core.snapshot(), core.applied_index());
    for _ in 0..CHECKPOINT_ATTEMPTS {
        let store: &mut dyn Any = core.store_mut();
        let Some(store) = store.downcast_mut::<FileStore>() else {
            return Err(NotReformed::because("its messages are in memory only"));
        };
        let begun = engine.checkpoint(id, store, index, snapshot.clone());
        match begun.map_err(NotReformed::because)? {
            CheckpointStart::Begun => {
                engine.wait_until_idle();
                // After a checkpoint that could not be written a store takes nothing any more.
                let store = core.store_mut();
                let limits = store.limits();
                let taken = store.set_limits(limits, &mut ());
                return taken.map_err(NotReformed::because);
            }
            CheckpointStart::Busy => std::thread::sleep(CHECKPOINT_RETRY),
        }
    }
    Err(NotReformed::because("another checkpoint does not end"))
}
