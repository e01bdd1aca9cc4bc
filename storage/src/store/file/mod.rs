//! The store that keeps its messages in block files.
//!
//! New messages go to a tail in memory; the log has them already. Behind the acks they are written to
//! the open block in whole chunks, which is sealed when it is full. Nothing here is durable before a
//! checkpoint: one cut through everything at one index of the log, after which the log before it is no
//! longer needed. In reading order:
//!
//! - `name`: the files of a stream's directory.
//! - `cut`: what a checkpoint remembers; `checkpoint`: the file it is in.
//! - `part`: a block, whatever state it is in; `files`: the shelf made of parts and the tail; `answers`: what it tells its ledger.
//! - `job`: work on files, done on a pool; `work`: which job is next and what it brings back; `freeze`: taking a cut.
//! - `open`: a store from what is on disk; `aside`: files that it does not need; `inspect`: the same for tools, which change nothing.
//!
//! # Invariant
//! The owner of a store never waits for the disk when it changes the store, and a job never sees a store
//! that changes: what it needs is handed over, what it did is handed back.

mod answers;
mod aside;
mod checkpoint;
mod cut;
mod files;
mod freeze;
pub(crate) mod fuzz;
pub mod inspect;
mod job;
mod lost;
mod name;
mod open;
mod part;
mod work;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Expiry, Ledger, Limits};
use crate::block::BlockCache;
use crate::codec::Compression;
use crate::disk::{Disk, DiskError};
use crate::entropy::Entropy;
use crate::executor::Executor;
use crate::seal::{Cipher, KeyRing};

pub use checkpoint::CheckpointError;
pub use files::Files;
pub use open::{FileOpenError, Opened};

/// The largest block, which is also the usual one.
pub const BLOCK_BYTES_MAX: u64 = 64 << 20;
/// Messages in memory are written to a block when there are this many bytes of them.
pub const FLUSH_BYTES: usize = 1 << 20;
/// A stream with fewer bytes than this keeps them in its checkpoint and has no block files.
pub const SMALL_STREAM_BYTES: usize = 64 << 10;
/// A store that keeps its messages in block files.
pub type FileStore = Ledger<Files>;

/// How a stream's messages are kept.
#[derive(Clone)]
pub struct FileOptions {
    /// The stream's storage id.
    pub stream: u64,
    /// Size at which blocks are sealed; `None` derives it from the limits.
    pub block_bytes: Option<u64>,
    /// Bytes in memory at which they are written to a block, [`FLUSH_BYTES`] by default.
    pub flush_bytes: usize,
    /// Compression of chunks.
    pub compression: Compression,
    /// Encryption of blocks and checkpoint; needs a ring.
    pub cipher: Option<Cipher>,
    /// The master keys.
    pub ring: Option<Arc<KeyRing>>,
    /// Where keys come from.
    pub entropy: Arc<dyn Entropy>,
    /// Shared by all streams.
    pub cache: Arc<BlockCache>,
    /// Where work on files goes.
    pub background: Arc<dyn Executor>,
    /// Makes the stream's directory, durably; called before the first file is written there. Without it the directory must exist.
    pub prepare: Option<PrepareDirectory>,
}

/// Makes a stream's directory, durably; one that exists is fine.
pub type PrepareDirectory = Arc<dyn Fn() -> Result<(), DiskError> + Send + Sync>;

impl FileOptions {
    /// Plain, with everything as usual.
    pub fn new(
        stream: u64,
        entropy: Arc<dyn Entropy>,
        cache: Arc<BlockCache>,
        background: Arc<dyn Executor>,
    ) -> Self {
        Self {
            stream,
            block_bytes: None,
            flush_bytes: FLUSH_BYTES,
            compression: Compression::None,
            cipher: None,
            ring: None,
            entropy,
            cache,
            background,
            prepare: None,
        }
    }
}

/// A cut that is to be made durable.
pub enum Frozen {
    /// The whole of it, to be kept where the log is.
    Carry(Bytes),
    /// Writes it to the stream's directory; it is durable when this returns `Ok`. After an error the store refuses changes.
    Files(Box<dyn FnOnce() -> Result<(), DiskError> + Send>),
}

impl FileStore {
    /// An empty store in an empty directory. Nothing is written before the first job.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        options: FileOptions,
        limits: Limits,
    ) -> Self {
        let ground = files::Ground::new(disk, directory, options);
        Ledger::over(Files::new(Arc::new(ground)), limits)
    }

    /// The stream's storage id.
    pub fn stream(&self) -> u64 {
        self.shelf.ground.options.stream
    }

    /// When a message dies by itself.
    pub fn expiry(&self, sequence: u64) -> Expiry {
        self.expiry.get(sequence)
    }

    /// Bytes of messages that are in memory only.
    pub fn tail_bytes(&self) -> usize {
        self.shelf.tail_bytes
    }

    /// Bytes that the stream's block files take.
    pub fn file_bytes(&self) -> u64 {
        self.shelf.parts_from(0).map(|part| part.file_length).sum()
    }

    /// Whoever owns the store has applied the log again up to `index`, and the log had lost nothing. Files that the start has
    /// set aside because the checkpoint did not list them are removed with the next checkpoint; without this call they stay.
    pub fn caught_up(&mut self, index: u64) {
        // A damaged block is reason enough to keep whatever may have its messages.
        if self.shelf.lost_ranges().is_empty() {
            let last_sequence = self.totals.last_sequence;
            self.shelf.aside.cover(index, last_sequence);
        }
    }

    /// Sequence ranges of blocks that are known to be unreadable since they were opened, ascending.
    pub fn lost_ranges(&self) -> Vec<(u64, u64)> {
        self.shelf.lost_ranges()
    }
}
