//! Where the bytes of a block come from.
//!
//! # Invariant
//! Memory that is mapped from a file is touched only after the same range was read from the file once: a sector that the device
//! cannot read is then an error with a name, and not a signal that ends the process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::error::Damage;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode};

/// A sealed block is mapped; the written part of an open one is read as it is needed.
pub(super) enum Source {
    Mapped(Mapped),
    File(Arc<dyn DiskFile>),
}

/// Why a range could not be read.
#[derive(Debug, Clone)]
pub(super) enum SourceError {
    Truncated,
    Disk(DiskError),
}

impl From<DiskError> for SourceError {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::UnexpectedEnd => Self::Truncated,
            _ => Self::Disk(error),
        }
    }
}

impl From<SourceError> for Damage {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Truncated => Self::Truncated,
            SourceError::Disk(_) => Self::Unreadable,
        }
    }
}

impl Source {
    pub fn read(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        match self {
            Self::Mapped(mapped) => mapped.read(offset, length),
            Self::File(file) => read_file(&**file, offset, length),
        }
    }
}

/// A file in memory, and where to read it from before that memory is touched.
pub(super) struct Mapped {
    pub bytes: Bytes,
    medium: Option<Medium>,
    /// Which chunks were read from the medium.
    touched: OnceLock<Box<[AtomicU64]>>,
}

/// A file that is opened for each of the few reads it sees: blocks are many, and descriptors are not.
struct Medium {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Mapped {
    /// Bytes that cannot fail.
    pub fn memory(bytes: Bytes) -> Self {
        Self {
            bytes,
            medium: None,
            touched: OnceLock::new(),
        }
    }

    /// The first `length` bytes of a file.
    pub fn file(disk: Arc<dyn Disk>, path: PathBuf, length: u64) -> Result<Self, DiskError> {
        let file = disk.open(&path, OpenMode::Read)?;
        let bytes = match file.map(length) {
            // A disk whose maps are copies notices a bad sector here already.
            Err(error) if matches!(error.kind, DiskErrorKind::Io(_)) => {
                read_what_can_be_read(&*file, length)?
            }
            mapped => mapped?,
        };
        Ok(Self {
            bytes,
            medium: Some(Medium { disk, path }),
            touched: OnceLock::new(),
        })
    }

    /// The part of the memory, whether or not it may be touched.
    pub fn slice(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let start = usize::try_from(offset).map_err(|_| SourceError::Truncated)?;
        let end = start.checked_add(length).ok_or(SourceError::Truncated)?;
        if end > self.bytes.len() {
            return Err(SourceError::Truncated);
        }
        Ok(self.bytes.slice(start..end))
    }

    /// A range, read from the medium where there is one.
    pub fn read(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let mapped = self.slice(offset, length)?;
        match self.open()? {
            Some(file) => read_file(&*file, offset, length),
            None => Ok(mapped),
        }
    }

    /// Everything; what the medium cannot read is zero.
    pub fn read_all(&self) -> Result<Bytes, DiskError> {
        match self.open()? {
            Some(file) => read_what_can_be_read(&*file, self.bytes.len() as u64),
            None => Ok(self.bytes.clone()),
        }
    }

    /// Makes sure that a chunk was read from the medium once. `numbers` says, the first time, what is above every chunk's number.
    #[inline]
    pub fn touch(
        &self,
        number: u32,
        numbers: impl FnOnce() -> u32,
        offset: u64,
        length: usize,
    ) -> Result<(), SourceError> {
        if self.medium.is_none() {
            return Ok(());
        }
        let touched = self.touched.get_or_init(|| {
            let words = (numbers() as usize).div_ceil(64);
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let bit = 1 << (number % 64);
        let word = touched.get(number as usize / 64);
        if word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
            return Ok(());
        }
        self.read(offset, length)?;
        if let Some(word) = word {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The file; `None` when there is none, or when its name is gone, as a replaced block's is while it is still read.
    fn open(&self) -> Result<Option<Arc<dyn DiskFile>>, DiskError> {
        let Some(medium) = &self.medium else {
            return Ok(None);
        };
        match medium.disk.open(&medium.path, OpenMode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_file(file: &dyn DiskFile, offset: u64, length: usize) -> Result<Bytes, SourceError> {
    let end = offset
        .checked_add(length as u64)
        .ok_or(SourceError::Truncated)?;
    if end > file.length()? {
        return Err(SourceError::Truncated);
    }
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}

const WINDOW_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// The first `length` bytes of a file (fewer when it is shorter). Pages that the device cannot read are zero, and fail their
/// checks later.
pub(super) fn read_what_can_be_read(file: &dyn DiskFile, length: u64) -> Result<Bytes, DiskError> {
    let length = length.min(file.length()?);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let is_medium = |error: &DiskError| matches!(error.kind, DiskErrorKind::Io(_));
    for (number, window) in bytes.chunks_mut(WINDOW_BYTES).enumerate() {
        let at = (number * WINDOW_BYTES) as u64;
        match file.read_exact_at(window, at) {
            Err(error) if is_medium(&error) => {}
            result => {
                result?;
                continue;
            }
        }
        for (number, page) in window.chunks_mut(PAGE_BYTES).enumerate() {
            let page_at = at + (number * PAGE_BYTES) as u64;
            match file.read_exact_at(page, page_at) {
                Err(error) if is_medium(&error) => {
                    tracing::error!(%error, offset = page_at, "a page of a block cannot be read");
                    page.fill(0);
                }
                result => result?,
            }
        }
    }
    Ok(bytes.into())
}
