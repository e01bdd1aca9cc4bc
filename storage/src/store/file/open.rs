//! A store from what is on disk: the newest cut, and the blocks it lists.
//!
//! Sealed blocks are not scanned: their footers say which subjects they hold and how often. Only where
//! messages were deleted one by one the posting lists are gone through.
//!
//! # Invariant
//! Nothing that a checkpoint lists is removed because it is damaged, and nothing is removed only because no
//! checkpoint lists it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::aside::Aside;
use super::checkpoint::{self, CheckpointError};
use super::cut::{Cut, ListedBlock, ListedOpen};
use super::files::{Files, Ground, Open, Writer};
use super::job::remove_retired;
use super::name::BlockName;
use super::part::{Content, Part};
use super::work::sealed_part;
use super::{FileOptions, FileStore};
use crate::block::{BlockOpenError, OpenBlock, SealedBlock};
use crate::disk::{Disk, DiskError, DiskErrorKind, OpenMode};
use crate::store::shelf::Shelf;
use crate::store::{Ledger, Limits};

/// A store as it was at its newest durable cut.
pub struct Opened {
    /// The store.
    pub store: FileStore,
    /// The log index of the cut; what the log has after it is to be applied again. 0 when there was no cut yet.
    pub index: u64,
    /// The stream core's own state at the cut.
    pub core: Bytes,
}

/// Why a store could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FileOpenError {
    /// Its checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint that the log carries is damaged.
    #[error("the checkpoint of stream {stream} in the log is damaged")]
    Carried {
        /// The stream's storage id.
        stream: u64,
    },
    /// A block is encrypted under a key that is not there.
    #[error("block {block}: {error}")]
    Key {
        /// Its file name.
        block: String,
        /// What is wrong with the key.
        error: BlockOpenError,
    },
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl FileStore {
    /// Opens a store from its directory and the checkpoint that the log carried for it, if it did. `limits` hold for a store
    /// that never had a checkpoint.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        carried: Option<Bytes>,
        options: FileOptions,
        limits: Limits,
    ) -> Result<Opened, FileOpenError> {
        let ground = Ground::new(disk, directory, options);
        let newest = Newest::read(&ground, carried)?;
        let aside = Aside::collect(&ground, newest.cut.as_ref())?;
        if let Some(cut) = &newest.cut {
            remove_retired(&ground, &cut.retired)?;
        }
        let mut opened = newest.into_store(ground, limits)?;
        opened.store.shelf.aside = aside;
        Ok(opened)
    }

    /// As [`open`](Self::open), for looking only: nothing in the directory changes, now or later, and further changes stay in
    /// memory. Checkpoints are refused.
    pub fn view(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        carried: Option<Bytes>,
        options: FileOptions,
        limits: Limits,
    ) -> Result<Opened, FileOpenError> {
        let ground = Ground::read_only(disk, directory, options);
        Newest::read(&ground, carried)?.into_store(ground, limits)
    }

    fn restore(&mut self, cut: Cut) -> Result<(), FileOpenError> {
        let files = &mut self.shelf;
        files.next_number = cut.next_number;
        files.first = cut.totals.first_sequence;
        files.dead = cut.dead;
        files.dead.remove_range(..files.first);
        for listed in &cut.sealed {
            let part = open_sealed(&files.ground, listed)?;
            files.sealed.push(part);
        }
        if let Some(listed) = &cut.open {
            match open_open(&files.ground, listed)? {
                Ok(open) => files.open = Some(open),
                Err(part) => files.sealed.push(part),
            }
        }
        self.index_blocks();
        for held in &cut.held {
            self.put(&held.as_new());
        }
        for (sequence, expiry) in cut.expiries {
            if self.shelf.is_live(sequence) {
                self.expiry.insert(sequence, expiry);
            }
        }
        self.totals = cut.totals;
        self.forget_first_time();
        self.shelf.first_moved(cut.totals.first_sequence);
        if let Some((first, last)) = self.shelf.lost_ranges().first() {
            self.note_damage(format_args!("sequences {first} to {last} cannot be read"));
        }
        Ok(())
    }

    /// Builds the subject index from the footers.
    fn index_blocks(&mut self) {
        let files = &self.shelf;
        let index = &mut self.index;
        for part in files.parts_from(files.first) {
            let mut add = |subject: &[u8], state: crate::store::SubjectState| {
                let id = index.insert(subject);
                let span = index.value_mut(id);
                if span.messages == 0 {
                    span.first = state.first_sequence;
                }
                span.messages += state.messages;
                span.last = span.last.max(state.last_sequence);
            };
            let whole = part.counts_whole() && part.first >= files.first;
            if whole && files.dead_within(part) == 0 {
                part.all_subjects(files.cache(), &mut add);
            } else {
                let live = |sequence| sequence >= files.first && !files.dead.contains(sequence);
                part.live_subjects(files.cache(), &live, &mut add);
            }
        }
    }
}

/// The newest cut of a stream.
struct Newest {
    /// `None` when there was none yet.
    cut: Option<Cut>,
    /// Whether the directory holds a checkpoint.
    has_checkpoint: bool,
}

impl Newest {
    fn read(ground: &Ground, carried: Option<Bytes>) -> Result<Self, FileOpenError> {
        let (stream, ring) = (ground.options.stream, ground.options.ring.as_deref());
        let saved = checkpoint::load(&*ground.disk, &ground.directory, stream, ring)?;
        let has_checkpoint = saved.is_some();
        let carried = carried
            .map(|bytes| Cut::decode(bytes).map_err(|_| FileOpenError::Carried { stream }))
            .transpose()?;
        let cut = match (saved, carried) {
            (Some(saved), Some(carried)) if carried.index > saved.index => Some(carried),
            (Some(saved), _) => Some(saved),
            (None, carried) => carried,
        };
        Ok(Self {
            cut,
            has_checkpoint,
        })
    }

    fn into_store(self, ground: Ground, limits: Limits) -> Result<Opened, FileOpenError> {
        let files = Files::new(Arc::new(ground));
        let Some(cut) = self.cut else {
            return Ok(Opened {
                store: Ledger::over(files, limits),
                index: 0,
                core: Bytes::new(),
            });
        };
        let (index, core) = (cut.index, cut.core.clone());
        let mut store = Ledger::over(files, cut.limits);
        store.shelf.has_checkpoint = self.has_checkpoint;
        store.restore(cut)?;
        Ok(Opened { store, index, core })
    }
}

fn lost(name: BlockName, first: u64, last: u64, file_length: u64, reason: String) -> Part {
    tracing::error!(block = %name.file_name(), first, last, reason, "a block is lost");
    Part {
        name,
        first,
        last,
        records: u32::try_from((last + 1).saturating_sub(first)).unwrap_or(u32::MAX),
        file_length,
        digest: [0; 32],
        content: Content::Lost(format!("block {}: {reason}", name.file_name()).into()),
        dense: true,
        erase: false,
        keep: true,
    }
}

/// A damaged block is a part that is lost; a missing key or a disk that does not answer is an error.
fn open_sealed(ground: &Ground, listed: &ListedBlock) -> Result<Part, FileOpenError> {
    let gone = |reason: String| Part {
        records: listed.records,
        digest: listed.digest,
        ..lost(
            listed.name,
            listed.first,
            listed.last,
            listed.file_length,
            reason,
        )
    };
    let path = ground.directory.join(listed.name.file_name());
    let file = match ground.disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            return Ok(gone("the file is missing".into()));
        }
        Err(error) => return Err(error.into()),
    };
    let (disk, ring) = (ground.disk.clone(), ground.options.ring.as_deref());
    let block = match SealedBlock::open_file(disk, path, file.length()?, ring) {
        Ok(block) => block,
        Err(error) => return key_error(listed.name, error).map(gone),
    };
    let identity = block.identity();
    if identity.stream != ground.options.stream
        || identity.number != listed.name.number
        || identity.generation != listed.name.generation
    {
        return Ok(gone("the file holds another block".into()));
    }
    if block.footer_damage().is_none() && block.summary().digest != listed.digest {
        return Ok(gone(
            "the file has another content than the checkpoint lists".into(),
        ));
    }
    let keep = block.footer_damage().is_some();
    Ok(Part {
        first: listed.first,
        last: listed.last,
        digest: listed.digest,
        records: listed.records,
        keep,
        ..sealed_part(listed.name, block)
    })
}

fn key_error(name: BlockName, error: BlockOpenError) -> Result<String, FileOpenError> {
    match error {
        BlockOpenError::KeyMissing | BlockOpenError::Key(_) => Err(FileOpenError::Key {
            block: name.file_name(),
            error,
        }),
        BlockOpenError::Disk(error) => Err(error.into()),
        damage => Ok(damage.to_string()),
    }
}

fn open_open(ground: &Ground, listed: &ListedOpen) -> Result<Result<Open, Part>, FileOpenError> {
    let gone = |reason| {
        Err(lost(
            listed.name,
            listed.first,
            listed.last,
            listed.written,
            reason,
        ))
    };
    let path = ground.directory.join(listed.name.file_name());
    let mode = match ground.read_only {
        true => OpenMode::Read,
        false => OpenMode::Write,
    };
    let file = match ground.disk.open(&path, mode) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            return Ok(gone("the file is missing".into()));
        }
        Err(error) => return Err(error.into()),
    };
    let block = match OpenBlock::open(file.clone(), listed.written, ground.options.ring.as_deref())
    {
        Ok(block) => block,
        Err(error) => return key_error(listed.name, error).map(gone),
    };
    // One that was cut back has sequences that come again, and one that has lost something takes no more.
    let cut_back = block.last_sequence().is_some_and(|last| last > listed.last);
    let closing = cut_back || !block.lost().is_empty();
    Ok(Ok(Open {
        part: Part {
            name: listed.name,
            first: listed.first,
            last: listed.last,
            records: block.records(),
            file_length: listed.written,
            digest: [0; 32],
            content: Content::Open(Arc::new(block)),
            dense: false,
            erase: false,
            keep: false,
        },
        writer: Writer::None,
        file,
        closing,
    }))
}
