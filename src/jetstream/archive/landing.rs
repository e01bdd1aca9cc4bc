//! A stream on its way into an engine: nothing of it is there until all of it is.

use std::any::Any;
use std::sync::Arc;

use storage::codec::Compression;
use storage::engine::{
    CheckpointFailed, CreateError, FileEngine, Recovered, StoreOptions, StreamId,
};
use storage::store::FileStore;

use super::builder::{BuildError, OnDamage, StreamBuilder};
use super::meta::StreamMeta;
use crate::jetstream::core::{StreamCore, limits};
use crate::jetstream::types::{StoreCompression, StreamConfig};

/// The entry that a stream begins with.
const FIRST_INDEX: u64 = 1;

/// Why a stream did not get into an engine.
#[derive(Debug, thiserror::Error)]
pub enum LandingError {
    /// The engine does not make it.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// It cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It does not become durable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointFailed),
}

/// The place of a stream that is being built. When it is dropped before the end, or the process ends, nothing of the stream is left: without a
/// first checkpoint it was never born.
pub struct Landing {
    engine: Arc<FileEngine>,
    id: StreamId,
    landed: bool,
}

impl Landing {
    /// Makes a place in an engine, and a builder that fills it.
    pub fn begin(
        engine: &Arc<FileEngine>,
        account: &str,
        meta: StreamMeta,
        file_name: &str,
        on_damage: OnDamage,
    ) -> Result<(Self, StreamBuilder), LandingError> {
        let options = store_options(&meta.config);
        let (id, store) = engine.create(account, &meta.config.name, options)?;
        let landing = Self {
            engine: Arc::clone(engine),
            id,
            landed: false,
        };
        let builder = StreamBuilder::new(meta, file_name, Box::new(store), on_damage)?;
        Ok((landing, builder))
    }

    /// Makes the stream durable. It is there when this returns.
    pub fn finish(mut self, core: &mut StreamCore) -> Result<StreamId, LandingError> {
        let state = core.arrived(FIRST_INDEX);
        let store: &mut dyn Any = core.store_mut();
        if let Some(files) = store.downcast_mut::<FileStore>() {
            self.engine
                .checkpoint_now(self.id, files, FIRST_INDEX, state)?;
        }
        self.landed = true;
        Ok(self.id)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.landed
            && let Err(error) = self.engine.remove(self.id)
        {
            // What is left of it is removed at the next start in any case.
            tracing::warn!("what was begun of a stream is left for the next start: {error}");
        }
    }
}

/// How a stream of that configuration is stored.
pub fn store_options(config: &StreamConfig) -> StoreOptions {
    StoreOptions {
        limits: limits(config),
        compression: match config.compression {
            StoreCompression::None => Compression::None,
            StoreCompression::S2 => Compression::S2,
        },
        block_bytes: None,
    }
}

/// Whether a stream that an engine has found was never born: nobody was told that it was there.
pub fn is_unborn(recovered: &Recovered<FileStore>) -> bool {
    let is_empty = |content: &storage::engine::RecoveredStore<FileStore>| {
        content.core.is_empty() && content.entries.is_empty()
    };
    recovered.holes.is_empty()
        && !recovered.form.is_replicated()
        && recovered.content.as_ref().is_ok_and(is_empty)
}
