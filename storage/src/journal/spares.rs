//! Segment files that are ready to be begun: filled with zeros in the background, or recycled.
//!
//! While the journal is open a spare is as long as any segment. An end in order leaves one, and that a short one: as much as a start needs that finds the device
//! full, and does not have to ask it for anything.
//!
//! # Invariant
//! A spare holds nothing that anyone needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::format::PAGE_BYTES;
use super::options::JournalOptions;
use crate::disk::{Advice, Disk, DiskError, DiskErrorKind, OpenMode};

/// More than this many spares are removed.
const SPARES_MAX: usize = 4;
/// How much is zeroed in one write.
const ZERO_BYTES: usize = 1024 * 1024;
/// The spare that an end in order leaves is this part of a segment, and no shorter than so many pages: both headers, and commits between them.
const SHORT_PART: u64 = 8;
const SHORT_PAGES_MIN: u64 = 4;

/// A file that can become a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spare {
    pub path: PathBuf,
    pub length: u64,
}

/// Length of the spare that an end in order leaves.
pub(super) fn short_bytes(segment_bytes: u64) -> u64 {
    let page = PAGE_BYTES as u64;
    let part = segment_bytes / SHORT_PART / page * page;
    part.max(SHORT_PAGES_MIN * page).min(segment_bytes)
}

/// Whether a spare may have that length.
pub(super) fn is_spare_length(length: u64, segment_bytes: u64) -> bool {
    length == segment_bytes || length == short_bytes(segment_bytes)
}

#[derive(Clone)]
pub(super) struct Spares {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    ready: Mutex<Ready>,
    /// The last attempt to make a spare found the device full.
    full: AtomicBool,
}

struct Ready {
    spares: Vec<Spare>,
    /// Names are never reused within one run.
    next_name: u64,
    filling: bool,
}

impl Spares {
    /// Takes over the spares found at start.
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        segment_bytes: u64,
        found: Vec<Spare>,
        next_name: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                disk,
                directory: directory.to_owned(),
                segment_bytes,
                ready: Mutex::new(Ready {
                    spares: found,
                    next_name,
                    filling: false,
                }),
                full: AtomicBool::new(false),
            }),
        }
    }

    /// The longest one, if it has room for so many bytes.
    pub fn take(&self, needed: u64) -> Option<Spare> {
        let mut ready = self.shared.ready.lock();
        let longest = (0..)
            .zip(&ready.spares)
            .max_by_key(|(_, spare)| spare.length);
        let (at, _) = longest.filter(|(_, spare)| spare.length >= needed)?;
        Some(ready.spares.swap_remove(at))
    }

    /// Gives back to the device what the next start does not need: all but one, and of that all but its beginning. Whether there is one.
    ///
    /// Nothing has to be on disk before anything else: a spare is one at either length.
    pub fn keep_one_short(&self) -> Result<bool, DiskError> {
        let disk = &self.shared.disk;
        let short = short_bytes(self.shared.segment_bytes);
        let mut ready = self.shared.ready.lock();
        ready.spares.sort_unstable_by_key(|spare| spare.length);
        while ready.spares.len() > 1 {
            if let Some(spare) = ready.spares.pop() {
                disk.remove_file(&spare.path)?;
            }
        }
        let Some(kept) = ready.spares.first_mut() else {
            return Ok(false);
        };
        if kept.length > short {
            disk.open(&kept.path, OpenMode::Write)?.set_length(short)?;
            kept.length = short;
        }
        Ok(true)
    }

    /// Whether the next segment can be begun although the device may be full.
    pub fn has_room(&self) -> bool {
        !self.shared.full.load(Ordering::Relaxed) || !self.shared.ready.lock().spares.is_empty()
    }

    /// Takes a segment that nobody needs any more. A failure costs only the file's reuse: below the floor it is a left-over.
    pub fn recycle(&self, path: &Path, length: u64) {
        let disk = &self.shared.disk;
        let mut ready = self.shared.ready.lock();
        let is_wanted = is_spare_length(length, self.shared.segment_bytes);
        if ready.spares.len() >= SPARES_MAX || !is_wanted {
            let _ = disk.remove_file(path);
            return;
        }
        let spare = self.shared.name(&mut ready, "free");
        if disk.rename(path, &spare).is_ok() {
            let path = spare;
            ready.spares.push(Spare { path, length });
            self.shared.full.store(false, Ordering::Relaxed);
        }
    }

    /// Makes sure that one spare of full length is ready or on its way.
    pub fn prepare(&self, options: &JournalOptions) {
        let mut ready = self.shared.ready.lock();
        let full = self.shared.segment_bytes;
        if ready.filling || ready.spares.iter().any(|spare| spare.length == full) {
            return;
        }
        ready.filling = true;
        drop(ready);
        let shared = Arc::clone(&self.shared);
        options.background.spawn(Box::new(move || shared.fill()));
    }
}

impl Shared {
    fn name(&self, ready: &mut Ready, extension: &str) -> PathBuf {
        let name = format!("{:016x}.{extension}", ready.next_name);
        ready.next_name += 1;
        self.directory.join(name)
    }

    fn fill(&self) {
        let (new, spare) = {
            let mut ready = self.ready.lock();
            let new = self.name(&mut ready, "new");
            (new.clone(), new.with_extension("free"))
        };
        let filled = self.fill_file(&new, &spare);
        let mut ready = self.ready.lock();
        ready.filling = false;
        match filled {
            Ok(()) => {
                let length = self.segment_bytes;
                ready.spares.push(Spare {
                    path: spare,
                    length,
                });
                self.full.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "no spare journal segment could be prepared");
                if error.kind == DiskErrorKind::Full {
                    self.full.store(true, Ordering::Relaxed);
                }
                let _ = self.disk.remove_file(&new);
            }
        }
    }

    fn fill_file(&self, new: &Path, spare: &Path) -> Result<(), DiskError> {
        let file = self.disk.open(new, OpenMode::CreateNew)?;
        let zeros = vec![0; ZERO_BYTES.min(self.segment_bytes as usize)];
        let mut at = 0;
        while at < self.segment_bytes {
            let now = (self.segment_bytes - at).min(zeros.len() as u64);
            file.write_all_at(zeros.get(..now as usize).unwrap_or(&zeros), at)?;
            // Early write-back keeps the final sync, and the commits that share the device with it, short.
            file.advise(at, now, Advice::StartWriteback);
            at += now;
        }
        file.sync_data()?;
        self.disk.rename(new, spare)
    }
}
