//! Segment files that are ready to be begun: filled with zeros in the background, or recycled.
//!
//! # Invariant
//! A spare is of full length and holds nothing that anyone needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::options::JournalOptions;
use crate::disk::{Advice, Disk, DiskError, DiskErrorKind, OpenMode};

/// More than this many spares are removed.
const SPARES_MAX: usize = 4;
/// How much is zeroed in one write.
const ZERO_BYTES: usize = 1024 * 1024;

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
    paths: Vec<PathBuf>,
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
        found: Vec<PathBuf>,
        next_name: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                disk,
                directory: directory.to_owned(),
                segment_bytes,
                ready: Mutex::new(Ready {
                    paths: found,
                    next_name,
                    filling: false,
                }),
                full: AtomicBool::new(false),
            }),
        }
    }

    pub fn take(&self) -> Option<PathBuf> {
        self.shared.ready.lock().paths.pop()
    }

    /// Whether the next segment can be begun although the device may be full.
    pub fn has_room(&self) -> bool {
        !self.shared.full.load(Ordering::Relaxed) || !self.shared.ready.lock().paths.is_empty()
    }

    /// Takes a segment that nobody needs any more. A failure costs only the file's reuse: below the floor it is a left-over.
    pub fn recycle(&self, path: &Path, length: u64) {
        let disk = &self.shared.disk;
        let mut ready = self.shared.ready.lock();
        if ready.paths.len() >= SPARES_MAX || length != self.shared.segment_bytes {
            let _ = disk.remove_file(path);
            return;
        }
        let spare = self.shared.name(&mut ready, "free");
        if disk.rename(path, &spare).is_ok() {
            ready.paths.push(spare);
            self.shared.full.store(false, Ordering::Relaxed);
        }
    }

    /// Makes sure that one spare is ready or on its way.
    pub fn prepare(&self, options: &JournalOptions) {
        let mut ready = self.shared.ready.lock();
        if ready.filling || !ready.paths.is_empty() {
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
                ready.paths.push(spare);
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
