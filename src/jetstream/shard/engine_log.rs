//! The storage engine as the log of file streams.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use storage::engine::{CheckpointStart, FileEngine, LogEntry, StreamId};
use storage::journal::{CommitSink, JournalError, PressureLevel};
use storage::store::FileStore;

use crate::jetstream::log::{Checkpoint, Entry, Log, LogError, Pressure};

/// Streams whose entries go to the journal and whose messages go to block files.
pub(crate) struct EngineLog(pub(crate) Arc<FileEngine>);

fn log_error(error: JournalError) -> LogError {
    LogError(error.to_string())
}

impl Log for EngineLog {
    fn submit(&self, entries: Vec<Entry>, sink: &Arc<dyn CommitSink>) -> Result<(), LogError> {
        let entries = entries.into_iter().map(|entry| LogEntry {
            stream: StreamId(entry.stream),
            index: entry.index,
            payload: entry.payload.into(),
            token: entry.token,
        });
        self.0.submit(entries, sink).map_err(log_error)
    }

    fn checkpoint(
        &self,
        stream: u64,
        store: &mut dyn Any,
        index: u64,
        core: Bytes,
    ) -> Result<Checkpoint, LogError> {
        let Some(store) = store.downcast_mut::<FileStore>() else {
            return Ok(Checkpoint::Pointless);
        };
        let begun = self
            .0
            .checkpoint(StreamId(stream), store, index, core)
            .map_err(log_error)?;
        Ok(match begun {
            CheckpointStart::Begun => Checkpoint::Begun,
            CheckpointStart::Busy => Checkpoint::Busy,
        })
    }

    fn pressure(&self) -> Pressure {
        match self.0.pressure_level() {
            PressureLevel::Hard => Pressure::Checkpoints,
            _ => Pressure::None,
        }
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn wait_until_idle(&self) {
        self.0.wait_until_idle();
    }
}
