//! Where a stream's entries become durable.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use storage::journal::{Commit, CommitSink, FrameKind, Location, Owner};
use storage::store::Store;
use thiserror::Error;

/// An entry on its way to the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The stream's number in storage.
    pub stream: u64,
    /// Its place in the stream's log.
    pub index: u64,
    /// Its content.
    pub payload: Bytes,
    /// Comes back with its completion.
    pub token: u64,
}

/// The log takes nothing any more.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// What became of a request for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// It is being written.
    Begun,
    /// Another one is; ask again later.
    Busy,
    /// There is nothing to write: these streams end with the process.
    Pointless,
}

/// Whether submitters of new data should wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// No.
    None,
    /// Until checkpoints have caught up; one of the stream helps.
    Checkpoints,
    /// Until what is on its way has arrived.
    Wait,
}

/// Makes entries durable, in order, and says so to the sink they came with.
pub trait Log: Send + Sync {
    /// Takes entries. Waits for nobody; where they need not be synced it may write them before it returns.
    fn submit(&self, entries: Vec<Entry>, sink: &Arc<dyn CommitSink>) -> Result<(), LogError>;
    /// Takes a cut of a stream up to an entry, and begins to make it durable.
    fn checkpoint(
        &self,
        stream: u64,
        store: &mut dyn Any,
        index: u64,
        core: Bytes,
    ) -> Result<Checkpoint, LogError>;
    /// Whether submitters of new data should wait.
    fn pressure(&self) -> Pressure;
    /// Whether there is room for new data.
    fn has_room(&self) -> bool;
    /// Waits until every checkpoint that was begun has ended.
    fn wait_until_idle(&self);
}

/// Calls everything durable at once: for streams in memory, which end with the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct InstantLog;

impl Log for InstantLog {
    fn submit(&self, entries: Vec<Entry>, sink: &Arc<dyn CommitSink>) -> Result<(), LogError> {
        let commits: Vec<Commit> = entries
            .iter()
            .map(|entry| Commit {
                owner: Owner(entry.stream),
                index: entry.index,
                kind: FrameKind::Entry,
                token: entry.token,
                location: Location {
                    segment: 0,
                    commit_at: 0,
                    frame_at: 0,
                },
            })
            .collect();
        sink.committed(&commits);
        Ok(())
    }

    fn checkpoint(
        &self,
        _stream: u64,
        _store: &mut dyn Any,
        _index: u64,
        _core: Bytes,
    ) -> Result<Checkpoint, LogError> {
        Ok(Checkpoint::Pointless)
    }

    fn pressure(&self) -> Pressure {
        Pressure::None
    }

    fn has_room(&self) -> bool {
        true
    }

    fn wait_until_idle(&self) {}
}

/// A stream's store, its number in storage, and where its entries go.
pub struct Home {
    /// The stream's number in storage.
    pub id: u64,
    /// Its messages.
    pub store: Box<dyn Store>,
    /// Its log.
    pub log: Arc<dyn Log>,
}
