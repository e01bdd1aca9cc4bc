//! What a store must do to live in an engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::StreamId;
use super::meta::{MetaError, StreamMeta};
use crate::block::BlockCache;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::entropy::Entropy;
use crate::executor::Executor;
use crate::seal::KeyRing;

/// A store whose content outlives the process: by a checkpoint, and by the log entries after it, which whoever owns
/// the store applies again.
pub trait Persistent: Send + Sized + 'static {
    /// What is settled when it is created. Kept in the catalog.
    type Options: Clone + Send + Sync + 'static;

    /// The options as they stand in the catalog.
    fn encode_options(options: &Self::Options) -> Bytes;
    /// The options from the catalog; `None` when the bytes are not options that this program knows.
    fn decode_options(bytes: &[u8]) -> Option<Self::Options>;

    /// An empty store. Touches no file: most stores stay so small that they never have one.
    fn create(place: Place, options: Self::Options) -> Self;

    /// The store as its last checkpoint describes it: the one in its directory or the `carried` one (its log index and its
    /// bytes), whichever has the higher index; an empty one at index 0 when there is neither. A directory that does not exist is an empty one.
    fn restore(
        place: Place,
        options: Self::Options,
        carried: Option<(u64, Bytes)>,
    ) -> Result<Restored<Self>, RestoreError>;

    /// Takes a cut at a log index, together with the state of whoever owns the store. Quick: all that takes long is left to the job.
    /// A cut that encodes to at most `carry_bytes_max` may be handed out as bytes, unless the store has files.
    fn freeze(&mut self, index: u64, core: Bytes, carry_bytes_max: usize) -> Frozen;
}

/// A cut that is to be made durable.
pub enum Frozen {
    /// The whole of it, to be carried in the journal.
    Carry(Bytes),
    /// Writes it to the stream's directory. When it returns `Ok` the checkpoint is durable and everything older may be forgotten. Only
    /// one of a stream runs at a time. After an error the store must refuse changes: it is the job's part to tell it.
    Files(Box<dyn FnOnce() -> Result<(), DiskError> + Send>),
}

/// A store that was restored.
pub struct Restored<S> {
    /// The store.
    pub store: S,
    /// The log index of its cut.
    pub index: u64,
    /// What [`Persistent::freeze`] was given along.
    pub core: Bytes,
}

/// Why a store could not be restored. Nothing of it is removed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RestoreError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its checkpoint, or what the checkpoint lists, is damaged or missing.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It is encrypted and the key is missing or wrong.
    #[error("{0}")]
    Key(String),
    /// Written by a later version of this program.
    #[error("{0}")]
    LaterVersion(String),
}

/// Where a store lives, and what it may use there.
#[derive(Clone)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Its directory. Does not exist before [`Place::create_directory`].
    pub directory: PathBuf,
    /// Its id.
    pub id: StreamId,
    /// The master keys, when the server encrypts.
    pub keys: Option<Arc<KeyRing>>,
    /// For keys and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// Where work goes that nobody waits for.
    pub background: Arc<dyn Executor>,
    /// Decoded chunks, shared by all streams.
    pub cache: Arc<BlockCache>,
    pub(super) meta: StreamMeta,
    /// Set when the stream is removed: its directory is not to come back.
    pub(super) removed: Arc<AtomicBool>,
}

impl Place {
    /// Makes sure that the directory exists and says whose it is. Durable when it returns.
    pub fn create_directory(&self) -> Result<(), DiskError> {
        if self.removed.load(Ordering::SeqCst) {
            return Err(DiskError {
                operation: "create the directory of a removed stream",
                path: self.directory.clone(),
                kind: DiskErrorKind::NotFound,
            });
        }
        let disk = self.disk.as_ref();
        match super::meta::read_meta(disk, &self.directory) {
            Ok(meta) if meta.id == self.id => return Ok(()),
            Err(MetaError::Disk(error)) if error.kind != DiskErrorKind::NotFound => {
                return Err(error);
            }
            _ => {}
        }
        disk.create_directory(&self.directory)?;
        self.meta.write(disk, &self.directory)?;
        match self.directory.parent() {
            Some(parent) => disk.sync_directory(parent),
            None => Ok(()),
        }
    }
}
