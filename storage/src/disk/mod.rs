//! The disk as the storage engine sees it: files addressed by offset, directories that must be synced.
//!
//! Two implementations: the real one and a simulated one, which loses, tears and reorders
//! whatever was not synced. Everything above this module reaches files only through these traits.
//!
//! # Invariant
//! A write is durable only after [`DiskFile::sync_data`] returned `Ok`; a created, renamed or removed
//! name is durable only after [`Disk::sync_directory`] of its directory returned `Ok`. A failed sync is
//! final for that file: the caller never retries it, because the kernel may have marked the pages clean.

mod bounded;
mod real;
pub mod sim;

pub use bounded::{BoundedDisk, DiskTurns, DiskWaits};
pub use real::RealDisk;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// What went wrong in one disk operation, and to which path.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {}: {kind}", path.display())]
pub struct DiskError {
    /// The operation that failed, such as `write` or `sync_dir`.
    pub operation: &'static str,
    /// The file or directory it was asked of.
    pub path: PathBuf,
    /// The class of the failure.
    pub kind: DiskErrorKind,
}

/// The classes of disk failure that callers treat differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskErrorKind {
    /// No such file or directory.
    #[error("not found")]
    NotFound,
    /// The name exists already.
    #[error("already exists")]
    AlreadyExists,
    /// The device has no room left.
    #[error("no space left on device")]
    Full,
    /// The file ended before the requested range did.
    #[error("unexpected end of file")]
    UnexpectedEnd,
    /// Another process holds the lock.
    #[error("locked by another process")]
    Locked,
    /// The caller may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// Anything else the operating system reported.
    #[error("{0}")]
    Io(String),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file; fails with [`DiskErrorKind::AlreadyExists`] when the name is taken.
    CreateNew,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// The last component of its path.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes (0 for a directory).
    pub length: u64,
}

/// How a range of a file is about to be used. Never changes what a read returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Reads will be in order.
    Sequential,
    /// The range will be read soon.
    WillNeed,
    /// Drop clean pages, so that the next read comes from the device.
    DontNeed,
    /// Start writing dirty pages back now, without waiting and without promising anything.
    StartWriteback,
}

/// A tree of files. Cheap to share; every method may be called from any thread.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Creates one directory; an existing one is fine.
    fn create_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// Replaces `to` by `from` in one step.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> Result<(), DiskError>;
    /// Removes an empty directory.
    fn remove_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// Takes an exclusive advisory lock, held until the guard is dropped.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError>;
    /// Bytes that can still be written, as far as the file system tells.
    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError>;
}

/// Keeps a lock taken by [`Disk::lock`] until dropped.
pub trait DiskLock: Send + Sync {}

/// An open file, addressed by offset.
pub trait DiskFile: Send + Sync + 'static {
    /// The path it was opened under.
    fn path(&self) -> &Path;
    /// Its current length in bytes.
    fn length(&self) -> Result<u64, DiskError>;
    /// Fills `buffer` from `offset`; [`DiskErrorKind::UnexpectedEnd`] when the file is shorter.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError>;
    /// Writes all of `bytes` at `offset`, extending the file when needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError>;
    /// Writes the slices one after another at `offset`.
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let mut position = offset;
        for slice in slices {
            self.write_all_at(slice, position)?;
            position += slice.len() as u64;
        }
        Ok(())
    }
    /// Makes all that was written durable (fdatasync).
    fn sync_data(&self) -> Result<(), DiskError>;
    /// Cuts or extends (with zeros) the file.
    fn set_length(&self, length: u64) -> Result<(), DiskError>;
    /// Says how a range will be used.
    fn advise(&self, offset: u64, length: u64, advice: Advice);
    /// The first `length` bytes as shared memory that stays valid after the file is closed or unlinked.
    /// Only for files (or parts of files) that are never written again.
    fn map(&self, length: u64) -> Result<Bytes, DiskError>;
}
