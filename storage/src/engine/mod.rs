//! One engine per server: the lock, the journal, the catalog of streams, their directories, recovery and checkpoints.
//!
//! - `persistent`: what a store must do to live here.
//! - `options`: how an engine is to behave.
//! - `catalog`: which streams there are, as entries and as a carried whole.
//! - `form`: what a stream's log consists of.
//! - `shared`: the journal for groups, which keep logs of their own in it.
//! - `meta`: the file by which a stream's directory says whose it is.
//! - `log`: the journal on its thread, or without one for a simulation.
//! - `open`: from a directory to an engine and its recovered streams.
//! - `streams`: create, update, remove.
//! - `checkpoint`: cuts, written in the background, and what the journal may then forget.
//! - `file_store`: the store in block files as an engine knows it.
//! - `rescue`: entries of failed streams, moved out of the journal's way.
//! - `foreign`: directories that belong to another program.
//! - `inspect`: what a directory holds, for tools.
//!
//! # Invariant
//! The journal is the truth. What a stream's files hold counts only up to the index of its checkpoint, and the journal forgets
//! an entry only when a durable checkpoint covers it.

mod catalog;
mod checkpoint;
mod file_store;
mod foreign;
mod form;
pub(crate) mod fuzz;
mod inspect;
mod log;
mod meta;
mod open;
mod options;
mod persistent;
mod rescue;
mod shared;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Condvar, Mutex};

pub use self::checkpoint::{CheckpointFailed, CheckpointStart};
pub use self::file_store::StoreOptions;
pub use self::form::{Form, Replica};
pub use self::inspect::{StoreOutline, StoredStream};
pub use self::log::LogEntry;
pub use self::meta::{MetaError, StreamMeta, read_meta};
pub use self::open::{OpenError, Opened, Recovered, RecoveredStore};
pub use self::options::{EncryptionOptions, EngineOptions, Threads};
pub use self::persistent::{Frozen, Persistent, Place, RestoreError, Restored};
pub use self::rescue::RescuedEntries;
pub use self::streams::{CreateError, RemoveError};

use crate::block::{BlockCache, CacheFigures};
use crate::disk::{Disk, DiskError, DiskLock, DiskWaits};
use crate::entropy::Entropy;
use crate::executor::Executor;
use crate::journal::{CommitSink, JournalError, JournalFigures, Owner, Pressure, PressureLevel};
use crate::seal::KeyRing;
use catalog::Catalog;
use log::Log;

/// The name of the lock file in a store directory.
pub const LOCK_NAME: &str = "lock";
/// The name of the journal's directory in a store directory.
pub const JOURNAL_NAME: &str = "journal";
/// The name of the directory that holds the streams' directories.
pub const STREAMS_NAME: &str = "streams";

/// Names a stream in storage. Never used twice in a store directory; the journal's owner of the same number is the stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The owner of its frames in the journal.
    pub fn owner(self) -> Owner {
        Owner(self.0)
    }

    /// The name of its directory.
    pub fn directory_name(self) -> String {
        format!("{:016x}", self.0)
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// An engine over the store in block files: what a server uses.
pub type FileEngine = Engine<crate::store::FileStore>;

type FailureListener = Box<dyn Fn(StreamId, &str) + Send + Sync>;
type CheckpointListener = Box<dyn Fn(StreamId, u64) + Send + Sync>;

/// The storage of one server.
pub struct Engine<S: Persistent> {
    /// Itself, for the jobs it hands to the pool.
    this: std::sync::Weak<Self>,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    keys: Option<Arc<KeyRing>>,
    entropy: Arc<dyn Entropy>,
    options: EngineOptions,
    background: Arc<dyn Executor>,
    cache: Arc<BlockCache>,
    log: Log,
    /// Held while a change of it becomes durable: never taken by what the journal's thread calls.
    catalog: Mutex<Catalog<S::Options>>,
    /// The journal would like to have the catalog as a whole.
    carry_wanted: AtomicBool,
    /// Held for moments.
    activities: Mutex<Activities>,
    /// Signalled when a job has ended.
    idle: Condvar,
    failures: Mutex<Option<FailureListener>>,
    checkpoints: Mutex<Option<CheckpointListener>>,
    /// Held as long as the engine lives.
    _lock: Box<dyn DiskLock>,
}

/// What an engine has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFigures {
    /// Its journal's counters.
    pub journal: JournalFigures,
    /// Bytes that wait for the journal.
    pub staged_bytes: usize,
    /// How the cache of decoded chunks is used.
    pub cache: CacheFigures,
    /// Who had to wait for a turn at the disk.
    pub disk_waits: DiskWaits,
}

/// What goes on beside the logs.
#[derive(Default)]
struct Activities {
    streams: HashMap<StreamId, Activity>,
    /// Bytes of all streams' states that the journal carries.
    carried_bytes: u64,
    /// Checkpoints and removals that have not ended.
    running: usize,
}

/// What goes on around a stream beside its log.
#[derive(Default)]
struct Activity {
    /// A checkpoint is being written.
    checkpointing: bool,
    /// Bytes of its state in the journal, 0 when there is none.
    carried_bytes: u64,
    /// What its log consists of.
    form: Form,
    /// It could not be restored, or its checkpoint could not be written: it takes no more checkpoints.
    failed: bool,
    /// Its entries are being moved out of the journal.
    rescuing: bool,
    /// Files in its directory hold entries up to this one; 0 when there are none.
    rescued_upto: u64,
    /// Where it lives.
    place: Option<Place>,
    /// To be deleted as soon as the checkpoint has ended.
    removed: Arc<AtomicBool>,
}

impl<S: Persistent> Engine<S> {
    /// Appends entries to the log. Each entry's completion carries its token; all entries of one call stand directly one after another. Where commits
    /// are not synced one by one the sink mostly hears of them on this thread, before this returns ([`crate::journal::Journal::submit_here`]).
    pub fn submit(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        self.log
            .submit_here(entries.into_iter().map(LogEntry::into_frame), sink)
    }

    /// Bytes that were submitted and are not yet committed. Submitters that can wait should, when this is many megabytes.
    pub fn staged_bytes(&self) -> usize {
        self.log.staged_bytes()
    }

    /// How full the journal is. At [`PressureLevel::Hard`] submitters should wait until checkpoints have caught up.
    pub fn pressure_level(&self) -> PressureLevel {
        self.log.pressure_level()
    }

    /// Whether more data may be added. When not, the device is full, and what room is left is for changes that free space.
    pub fn has_room(&self) -> bool {
        self.log.has_room()
            && self
                .disk
                .free_bytes(&self.directory)
                .is_ok_and(|free| free >= self.options.reserve_bytes)
    }

    /// Whom to tell when checkpoints are wanted, and of which owners. Called by who commits: it hands on and does not wait.
    /// What the engine itself holds back it sees to by itself.
    pub fn set_pressure_listener(&self, listener: impl Fn(&Pressure) + Send + Sync + 'static) {
        let engine = self.this.clone();
        self.log.set_pressure_listener(move |pressure| {
            if let Some(engine) = engine.upgrade() {
                for &owner in &pressure.owners {
                    match owner {
                        Owner::CATALOG => engine.carry_catalog_in_background(),
                        owner => engine.rescue_in_background(StreamId(owner.0)),
                    }
                }
            }
            listener(pressure);
        });
    }

    /// Whom to tell when the checkpoint of a stream could not be written. The stream's store refuses changes from then on.
    pub fn set_failure_listener(&self, listener: impl Fn(StreamId, &str) + Send + Sync + 'static) {
        *self.failures.lock() = Some(Box::new(listener));
    }

    /// Whom to tell when the checkpoint of a replicated stream is durable, and at which index of its log. The engine leaves that log as it is: whoever
    /// replicates says what the journal may forget. Called on a thread that must not be held up.
    pub fn set_checkpoint_listener(
        &self,
        listener: impl Fn(StreamId, u64) + Send + Sync + 'static,
    ) {
        *self.checkpoints.lock() = Some(Box::new(listener));
    }

    /// What it has done so far.
    pub fn figures(&self) -> EngineFigures {
        EngineFigures {
            journal: self.options.journal.meter.figures(),
            staged_bytes: self.log.staged_bytes(),
            cache: self.cache.figures(),
            disk_waits: self
                .options
                .disk_turns
                .as_ref()
                .map_or_else(DiskWaits::default, |turns| turns.waits()),
        }
    }

    /// The store directory.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Where jobs go that nobody waits for.
    pub fn background(&self) -> &Arc<dyn Executor> {
        &self.background
    }

    /// Waits until every checkpoint and removal that was begun has ended.
    pub fn wait_until_idle(&self) {
        let mut activities = self.activities.lock();
        while activities.running > 0 {
            self.idle.wait(&mut activities);
        }
    }

    /// Ends the engine in order: what was submitted is committed, what was begun is finished, and the journal says that it was closed. Nothing is
    /// taken any more. Checkpoints of all streams before make the next start a short one.
    pub fn close(&self) {
        self.wait_until_idle();
        self.log.close();
    }

    fn streams_directory(&self) -> PathBuf {
        self.directory.join(STREAMS_NAME)
    }

    fn place_of(&self, meta: StreamMeta, removed: &Arc<AtomicBool>) -> Place {
        Place {
            disk: Arc::clone(&self.disk),
            directory: self.streams_directory().join(meta.id.directory_name()),
            id: meta.id,
            keys: self.keys.clone(),
            entropy: Arc::clone(&self.entropy),
            background: Arc::clone(&self.background),
            cache: Arc::clone(&self.cache),
            meta,
            removed: Arc::clone(removed),
        }
    }

    fn end_job(&self) {
        self.activities.lock().running -= 1;
        self.idle.notify_all();
    }
}

/// Removes a directory with all that is in it. What is gone already is fine.
fn remove_tree(disk: &dyn Disk, directory: &std::path::Path) -> Result<(), DiskError> {
    use crate::disk::DiskErrorKind::NotFound;
    let entries = match disk.list(directory) {
        Err(error) if error.kind == NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = directory.join(&entry.name);
        match entry.is_directory {
            true => remove_tree(disk, &path)?,
            false => disk.remove_file(&path)?,
        }
    }
    disk.remove_directory(directory)
}
