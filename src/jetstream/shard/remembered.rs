//! What of a memory stream outlives the process: its configuration, and nothing else.
//!
//! In storage it is a stream without messages whose log holds what the stream was born with, anew after every change.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use storage::engine::{CheckpointStart, FileEngine, LogEntry, StreamId};
use storage::journal::{Commit, CommitSink, JournalError};
use storage::store::FileStore;

/// The index of a stream's first entry, which holds what the stream was born with.
pub(super) const BIRTH_INDEX: u64 = 1;

/// The trace of a memory stream in storage.
pub(super) struct Remembered {
    id: StreamId,
    /// Always empty.
    store: FileStore,
    index: u64,
    birth: Bytes,
}

impl Remembered {
    pub(super) fn new(id: StreamId, store: FileStore, index: u64, birth: Bytes) -> Self {
        Self {
            id,
            store,
            index,
            birth,
        }
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    /// Remembers another configuration. Durable when it returns.
    pub(super) fn change(&mut self, engine: &FileEngine, birth: Bytes) -> Result<(), JournalError> {
        append(engine, self.id, self.index + 1, birth.clone())?;
        self.index += 1;
        self.birth = birth;
        Ok(())
    }

    /// What is left when nothing has to be remembered any more: an empty store.
    pub(super) fn into_store(self) -> FileStore {
        self.store
    }

    /// Lets the journal forget the entries.
    pub(super) fn checkpoint(
        &mut self,
        engine: &FileEngine,
    ) -> Result<CheckpointStart, JournalError> {
        engine.checkpoint(self.id, &mut self.store, self.index, self.birth.clone())
    }
}

/// Makes one entry durable before it returns.
pub(super) fn append(
    engine: &FileEngine,
    id: StreamId,
    index: u64,
    payload: Bytes,
) -> Result<(), JournalError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let sink: Arc<dyn CommitSink> = Arc::new(Waiter(sender));
    let entry = LogEntry {
        stream: id,
        index,
        payload: payload.into(),
        token: 0,
    };
    engine.submit([entry], &sink)?;
    drop(sink);
    receiver.recv().unwrap_or(Err(JournalError::Closed))
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
