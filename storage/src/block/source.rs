//! Where the bytes of a block come from.

use std::sync::Arc;

use bytes::Bytes;

use super::error::Damage;
use crate::disk::{DiskError, DiskErrorKind, DiskFile};

/// A sealed block is mapped; the written part of an open one is read as it is needed.
#[derive(Clone)]
pub(super) enum Source {
    Mapped(Bytes),
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
    fn from(_: SourceError) -> Self {
        Self::Truncated
    }
}

impl Source {
    pub fn read(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        match self {
            Self::Mapped(bytes) => {
                let start = usize::try_from(offset).map_err(|_| SourceError::Truncated)?;
                let end = start.checked_add(length).ok_or(SourceError::Truncated)?;
                if end > bytes.len() {
                    return Err(SourceError::Truncated);
                }
                Ok(bytes.slice(start..end))
            }
            Self::File(file) => {
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
        }
    }
}
