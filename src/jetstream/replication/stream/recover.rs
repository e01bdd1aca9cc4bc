//! A replica as a start finds it in storage.

use bytes::Bytes;
use raft::group::Checkpoint;
use raft::log::{LogImage, OpenGroupError, recover_after};
use storage::engine::{Recovered, Replica, RestoreError, StreamId};
use storage::journal::Damage;
use storage::store::FileStore;

use crate::jetstream::core::{BeginError, StreamCore};
use crate::jetstream::shard::RECEIVING;

/// A replica with its log and where its state stands.
pub(crate) struct FoundReplica {
    /// The stream as of its checkpoint.
    pub core: StreamCore,
    /// Its number in storage.
    pub id: StreamId,
    /// Which replica of which group it is.
    pub replica: Replica,
    /// The log of its group.
    pub image: LogImage,
    /// Where the group stands with the checkpoint.
    pub position: Checkpoint,
}

/// A stream that was being given a state: another attempt goes on with the messages that are there.
pub(crate) struct Unfinished(pub Box<StreamCore>);

impl std::fmt::Debug for Unfinished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Unfinished").finish_non_exhaustive()
    }
}

/// Why a replica cannot go on with what is there. It has to come back under a new id, and be given the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LostReplica {
    /// Its store cannot be restored.
    #[error(transparent)]
    Store(#[from] RestoreError),
    /// Its log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenGroupError),
    /// Its state cannot be taken up.
    #[error(transparent)]
    Core(#[from] BeginError),
    /// It ended before it had a state.
    #[error("it has no state yet")]
    Stateless,
    /// The same, and some of the messages of the state are there.
    #[error("it has a part of its state")]
    Receiving(Unfinished),
    /// It was to have a log of its own again, and ended in between. Its messages are there.
    #[error("its state does not say where its group stands")]
    Groupless,
    /// It is not replicated.
    #[error("it has one replica")]
    Plain,
}

/// Takes up what storage has of a replica.
pub(crate) fn recover(
    found: Recovered<FileStore>,
    damage: &[Damage],
    domain: &str,
) -> Result<FoundReplica, LostReplica> {
    let (Some(replica), Some(mut log)) = (found.form.replica(), found.group_log) else {
        return Err(LostReplica::Plain);
    };
    let content = found.content?;
    if content.core.is_empty() {
        return Err(LostReplica::Stateless);
    }
    if log.purged.is_none() {
        // A group that has just begun: what the checkpoint covers are entries of a log that was not replicated then.
        log.entries.retain(|frame| frame.index > content.index);
    }
    log.holes.retain(|(_, last)| *last > content.index);
    let mut core = StreamCore::restore(&content.core, domain, Box::new(content.store))?;
    if core.group() == RECEIVING {
        core.set_group(Bytes::new());
        return Err(LostReplica::Receiving(Unfinished(Box::new(core))));
    }
    let position = Checkpoint::decode(core.group()).map_err(|_| LostReplica::Groupless)?;
    core.set_group(Bytes::new());
    let image = recover_after(found.id.owner(), log, damage, Some(position.at))?;
    Ok(FoundReplica {
        core,
        id: found.id,
        replica,
        image,
        position,
    })
}
