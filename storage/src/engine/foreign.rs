//! Directories that belong to another program: the reference server keeps `<account>/streams/<stream>/meta.inf` below a directory
//! called `jetstream`. Such data is never touched and never ignored.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError, DiskErrorKind};

const REFERENCE_DIRECTORY: &str = "jetstream";
const REFERENCE_STREAMS: &str = "streams";
const REFERENCE_META: &str = "meta.inf";

/// The first stream of the reference found in a store directory or in its `jetstream` directory.
pub(super) fn find_reference_stream(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Option<PathBuf>, DiskError> {
    for root in [directory.to_owned(), directory.join(REFERENCE_DIRECTORY)] {
        for account in directories(disk, &root)? {
            for stream in directories(disk, &account.join(REFERENCE_STREAMS))? {
                let names = disk.list(&stream)?;
                if names.iter().any(|entry| entry.name == REFERENCE_META) {
                    return Ok(Some(stream));
                }
            }
        }
    }
    Ok(None)
}

fn directories(disk: &dyn Disk, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    match disk.list(path) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => Ok(entries
            .into_iter()
            .filter(|entry| entry.is_directory)
            .map(|entry| path.join(entry.name))
            .collect()),
    }
}
