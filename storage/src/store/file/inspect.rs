//! A stream's directory as it lies there, for tools: reads everything, changes nothing, and goes on where it is damaged.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::checkpoint::{self, CheckpointError};
use super::cut::Cut;
use super::name::{BlockName, CHECKPOINT, SET_ASIDE};
use crate::block::Record;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::seal::KeyRing;
use crate::store::{Expiry, Limits, Message, State};

/// What a stream's directory holds.
#[derive(Debug)]
pub struct StreamOutline {
    /// The stream's storage id, when the checkpoint's header is readable.
    pub stream: Option<u64>,
    /// What the checkpoint says; `Ok(None)` when there is none.
    pub checkpoint: Result<Option<CheckpointOutline>, CheckpointError>,
    /// The block files that are there or should be, by name.
    pub blocks: Vec<BlockFile>,
}

/// What a stream's newest checkpoint says.
#[derive(Debug)]
pub struct CheckpointOutline {
    /// The index in the log that it is a cut at.
    pub index: u64,
    /// The totals of the stream.
    pub state: State,
    /// The limits in force.
    pub limits: Limits,
    /// Messages that are in no block.
    pub held: Vec<Record>,
    /// Bytes of the stream core's own state.
    pub core_bytes: u64,
    cut: Cut,
}

/// A block file of a stream.
#[derive(Debug, Clone)]
pub struct BlockFile {
    /// Where it is or should be.
    pub path: PathBuf,
    /// Its length, `None` when it is not there.
    pub length: Option<u64>,
    /// What the checkpoint says of it.
    pub role: BlockRole,
}

/// What a checkpoint says of a block file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockRole {
    /// A sealed block, of which the sequences from `first` to `last` count.
    Sealed {
        /// No lower sequence counts.
        first: u64,
        /// No higher sequence counts.
        last: u64,
        /// Length the file must have.
        file_length: u64,
        /// Digest its footer must state.
        digest: [u8; 32],
    },
    /// The block that is still written.
    Open {
        /// Bytes of the file that count.
        written: u64,
        /// No lower sequence counts.
        first: u64,
        /// No higher sequence counts.
        last: u64,
    },
    /// No longer needed; it goes at the next start.
    Retired,
    /// Not listed: written after the checkpoint, or the checkpoint cannot be read.
    Unlisted,
    /// Set aside because no checkpoint listed it.
    SetAside,
}

impl StreamOutline {
    /// Reads the checkpoint and the names of the block files. `carried` is the checkpoint that the log carries for the stream, if it
    /// does; it counts when it is newer than the one in the directory, which need not exist.
    pub fn read(
        disk: &dyn Disk,
        directory: &Path,
        carried: Option<Bytes>,
        ring: Option<&KeyRing>,
    ) -> Result<Self, DiskError> {
        let mut files = or_missing(block_files(disk, directory, BlockRole::Unlisted))?;
        let stream = checkpoint::stream_of(disk, directory)?;
        let saved = match stream {
            Some(stream) => checkpoint::load(disk, directory, stream, ring),
            None if is_there(disk, directory)? => {
                Err(CheckpointError::Damaged(directory.join(CHECKPOINT)))
            }
            None => Ok(None),
        };
        let carried = carried.and_then(|bytes| Cut::decode(bytes).ok());
        let cut = match (saved, carried) {
            (Ok(Some(saved)), Some(carried)) if carried.index > saved.index => Ok(Some(carried)),
            (Ok(None), carried) => Ok(carried),
            (saved, _) => saved,
        };
        if let Ok(Some(cut)) = &cut {
            assign_roles(directory, cut, &mut files);
        }
        let aside = directory.join(SET_ASIDE);
        files.extend(or_missing(block_files(disk, &aside, BlockRole::SetAside))?);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            stream,
            checkpoint: cut.map(|cut| cut.map(CheckpointOutline::new)),
            blocks: files,
        })
    }

    /// Whether the sequence of a record in a listed block still counts. Without a checkpoint every record does, but for those
    /// that an earlier start has set aside.
    pub fn is_live(&self, role: BlockRole, sequence: u64) -> bool {
        let Ok(Some(checkpoint)) = &self.checkpoint else {
            return role != BlockRole::SetAside;
        };
        let listed = match role {
            BlockRole::Sealed { first, last, .. } => (first..=last).contains(&sequence),
            BlockRole::Open { first, last, .. } => (first..=last).contains(&sequence),
            BlockRole::Retired | BlockRole::Unlisted | BlockRole::SetAside => false,
        };
        listed
            && sequence >= checkpoint.cut.totals.first_sequence
            && !checkpoint.cut.dead.contains(sequence)
    }
}

impl CheckpointOutline {
    fn new(cut: Cut) -> Self {
        let totals = &cut.totals;
        let held = cut.held.iter().map(|held| {
            let new = held.as_new();
            Record {
                message: Message {
                    sequence: new.sequence,
                    time_ns: new.time_ns,
                    subject: Bytes::copy_from_slice(new.subject),
                    headers: Bytes::copy_from_slice(new.headers),
                    payload: Bytes::copy_from_slice(new.payload),
                },
                expiry: new.expiry,
            }
        });
        Self {
            index: cut.index,
            state: State {
                messages: totals.messages,
                bytes: totals.bytes,
                first_sequence: totals.first_sequence,
                last_sequence: totals.last_sequence,
                last_time_ns: totals.last_time_ns,
                ..State::default()
            },
            limits: cut.limits,
            held: held.collect(),
            core_bytes: cut.core.len() as u64,
            cut,
        }
    }

    /// How many records between two sequences (both included) no longer count although they lie in a listed block. Sequences
    /// below the stream's first are not among them.
    pub fn dead_between(&self, first: u64, last: u64) -> u64 {
        let dead = &self.cut.dead;
        let below = |sequence: u64| dead.rank(sequence);
        below(last) - first.checked_sub(1).map_or(0, below)
    }

    /// Messages with an expiry of their own.
    pub fn expiries(&self) -> &[(u64, Expiry)] {
        &self.cut.expiries
    }
}

/// What a directory that does not exist holds: nothing.
fn or_missing<T: Default>(listed: Result<T, DiskError>) -> Result<T, DiskError> {
    match listed {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(T::default()),
        listed => listed,
    }
}

fn is_there(disk: &dyn Disk, directory: &Path) -> Result<bool, DiskError> {
    let entries = or_missing(disk.list(directory))?;
    Ok(entries.iter().any(|entry| entry.name == CHECKPOINT))
}

fn block_files(
    disk: &dyn Disk,
    directory: &Path,
    role: BlockRole,
) -> Result<Vec<BlockFile>, DiskError> {
    let entries = disk.list(directory)?.into_iter();
    let is_block = match role {
        BlockRole::SetAside => BlockName::is_set_aside,
        _ => BlockName::is_block,
    };
    let blocks = entries.filter(|entry| !entry.is_directory && is_block(&entry.name));
    let file = |entry: crate::disk::DirectoryEntry| BlockFile {
        path: directory.join(&entry.name),
        length: Some(entry.length),
        role,
    };
    Ok(blocks.map(file).collect())
}

/// Gives every listed file its role, and adds those that are missing.
fn assign_roles(directory: &Path, cut: &Cut, files: &mut Vec<BlockFile>) {
    let sealed = cut.sealed.iter().map(|block| {
        let role = BlockRole::Sealed {
            first: block.first,
            last: block.last,
            file_length: block.file_length,
            digest: block.digest,
        };
        (block.name, role)
    });
    let open = cut.open.iter().map(|open| {
        let role = BlockRole::Open {
            written: open.written,
            first: open.first,
            last: open.last,
        };
        (open.name, role)
    });
    let retired = cut.retired.iter().map(|name| (*name, BlockRole::Retired));
    for (name, role) in sealed.chain(open).chain(retired) {
        let path = directory.join(name.file_name());
        match files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.role = role,
            None if role == BlockRole::Retired => {}
            None => files.push(BlockFile {
                path,
                length: None,
                role,
            }),
        }
    }
}
