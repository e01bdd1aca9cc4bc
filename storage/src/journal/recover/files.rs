//! The names in a journal's directory.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError, DiskErrorKind, OpenMode};
use crate::journal::format::{HeaderError, PAGE_BYTES, SegmentHeader};
use crate::journal::spares::{Spare, is_spare_length};

/// The files of a journal, by what their names say.
pub(super) struct Files {
    /// Number, path, length; ascending.
    pub segments: Vec<(u64, PathBuf, u64)>,
    pub spares: Vec<Spare>,
    /// A number that no spare's name has reached.
    pub next_name: u64,
}

impl Files {
    /// Lists them. Spares that were not finished are removed: they never held anything.
    pub fn list(disk: &dyn Disk, directory: &Path, segment_bytes: u64) -> Result<Self, DiskError> {
        let mut files = Self {
            segments: Vec::new(),
            spares: Vec::new(),
            next_name: 1,
        };
        for entry in disk.list(directory)? {
            let path = directory.join(&entry.name);
            let Some((stem, extension)) = entry.name.split_once('.') else {
                continue;
            };
            let Ok(number) = u64::from_str_radix(stem, 16) else {
                continue;
            };
            if extension == "free" || extension == "new" {
                files.next_name = files.next_name.max(number.saturating_add(1));
            }
            match extension {
                "seg" => files.segments.push((number, path, entry.length)),
                "free" if is_spare_length(entry.length, segment_bytes) => {
                    let length = entry.length;
                    files.spares.push(Spare { path, length });
                }
                "free" | "new" => disk.remove_file(&path)?,
                _ => {}
            }
        }
        files.segments.sort();
        // New files are first called by the number of the segment they are to become.
        let newest = files.segments.last().map_or(0, |(number, _, _)| *number);
        files.next_name = files.next_name.max(newest.saturating_add(1 << 32));
        Ok(files)
    }
}

pub(super) enum HeaderRead {
    Good(SegmentHeader),
    Damaged,
    LaterVersion(u16),
}

/// Reads the header, or its copy when the first is damaged.
pub(super) fn read_header(disk: &dyn Disk, path: &Path) -> Result<HeaderRead, DiskError> {
    let file = disk.open(path, OpenMode::Read)?;
    let copy_at = file.length()?.saturating_sub(PAGE_BYTES as u64);
    let mut page = vec![0; PAGE_BYTES];
    for at in [0, copy_at] {
        match file.read_exact_at(&mut page, at) {
            Ok(()) => {}
            Err(error) => match error.kind {
                DiskErrorKind::Io(_) | DiskErrorKind::UnexpectedEnd => continue,
                _ => return Err(error),
            },
        }
        match SegmentHeader::decode(&page) {
            Ok(header) => return Ok(HeaderRead::Good(header)),
            Err(HeaderError::LaterVersion(version)) => {
                return Ok(HeaderRead::LaterVersion(version));
            }
            Err(HeaderError::Damaged) => {}
        }
    }
    Ok(HeaderRead::Damaged)
}
