//! Streams with one replica that become a group's first, and those that are alone again.

use std::sync::Arc;
use std::time::Duration;

use storage::engine::{CheckpointStart, StreamId};
use storage::journal::JournalError;
use storage::store::{FileStore, Limits, MemStore};

use super::Streams;
use super::remembered::{BIRTH_INDEX, Remembered, append};
use super::slot::Surrendered;
use crate::jetstream::core::StreamCore;
use crate::jetstream::registry::{AccountStreams, Stream};
use crate::jetstream::types::StreamConfig;

/// How often a checkpoint that could not begin is tried, and how long is waited in between.
const CHECKPOINT_ATTEMPTS: u32 = 200;
const CHECKPOINT_RETRY: Duration = Duration::from_millis(20);

/// A stream with one replica that has left its shard.
pub(crate) struct GivenUp {
    /// The stream.
    pub stream: Surrendered,
    /// Its place in storage.
    pub id: StreamId,
    /// Of a stream in memory: the store at that place, where nothing is.
    pub spare: Option<FileStore>,
}

impl Streams {
    /// Takes a stream with one replica off its shard; it listens to nobody any more. Nothing when it is not here, or offline, when it stays as it is.
    pub(crate) async fn surrender(
        &self,
        account: &AccountStreams,
        stream: &Stream,
    ) -> Option<GivenUp> {
        let mut held = self.unhold(&account.name, &stream.name)?;
        held.subscriptions.clear();
        let Some(surrendered) = held.port.surrender().await else {
            held.subscriptions = self.subscribe(&account.name, &stream.config(), &held.port);
            let key = (account.name.clone(), stream.name.clone());
            self.held.lock().insert(key, held);
            return None;
        };
        let spare = held.remembered.map(|remembered| {
            let mut remembered = remembered;
            // What cannot be forgotten now is forgotten later.
            if let Err(error) = self.keep_in_checkpoint(&mut remembered) {
                tracing::error!("a memory stream's configuration could not be kept: {error}");
            }
            remembered.into_store()
        });
        Some(GivenUp {
            stream: surrendered,
            id: held.storage,
            spare,
        })
    }

    /// Lets a stream that was in a group live on with one replica.
    pub(crate) fn adopt(&self, account: &str, stream: Surrendered) -> Arc<Stream> {
        let id = StreamId(stream.storage);
        self.run(account, stream.core, id, None)
    }

    /// The same for a stream in memory, whose place in storage is `id`: there stands what it is configured to do from now on.
    pub(crate) fn adopt_in_memory(
        &self,
        account: &str,
        stream: Surrendered,
        id: StreamId,
        store: FileStore,
    ) -> Result<Arc<Stream>, String> {
        let core = stream.core;
        let config = StreamConfig::clone(core.config());
        let empty = Box::new(MemStore::new(Limits::default()));
        let born = StreamCore::create(config, "", core.created_ns(), empty);
        let birth = born.map_err(|error| error.to_string())?.birth(BIRTH_INDEX);
        let index = core.applied_index() + 1;
        let kept = append(self.engine(), id, index, birth.clone());
        kept.map_err(|error| error.to_string())?;
        let mut remembered = Remembered::new(id, store, index, birth);
        let kept = self.keep_in_checkpoint(&mut remembered);
        kept.map_err(|error| error.to_string())?;
        Ok(self.run(account, core, id, Some(remembered)))
    }

    fn keep_in_checkpoint(&self, remembered: &mut Remembered) -> Result<(), JournalError> {
        for _ in 0..CHECKPOINT_ATTEMPTS {
            match remembered.checkpoint(self.engine())? {
                CheckpointStart::Begun => {
                    self.engine().wait_until_idle();
                    return Ok(());
                }
                CheckpointStart::Busy => std::thread::sleep(CHECKPOINT_RETRY),
            }
        }
        Ok(())
    }
}
