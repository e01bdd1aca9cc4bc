//! A disk of which only so much is asked at a time: whoever comes when all turns are taken waits for one.
//!
//! # Invariant
//! A turn is held for one operation and never while waiting for anything else, so that waiting for one always ends.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Advice, DirectoryEntry, Disk, DiskError, DiskFile, DiskLock, OpenMode};

/// How many operations may run at one time, and who had to wait.
#[derive(Debug)]
pub struct DiskTurns {
    free: Mutex<usize>,
    given_back: Condvar,
    /// In nanoseconds.
    clock: fn() -> u64,
    waiters: AtomicU64,
    waits: AtomicU64,
    waited_ns: AtomicU64,
    waited_ns_max: AtomicU64,
}

/// Who had to wait for a turn at the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskWaits {
    /// Those who wait now.
    pub waiters: u64,
    /// How often somebody has waited.
    pub waits: u64,
    /// How long they waited together, in nanoseconds.
    pub waited_ns: u64,
    /// How long the one waited who waited longest, in nanoseconds.
    pub waited_ns_max: u64,
}

impl DiskTurns {
    /// So many turns, at least one. `clock` tells how long somebody waits, in nanoseconds.
    pub fn new(operations_max: usize, clock: fn() -> u64) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(operations_max.max(1)),
            given_back: Condvar::new(),
            clock,
            waiters: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            waited_ns_max: AtomicU64::new(0),
        })
    }

    /// Who had to wait so far.
    pub fn waits(&self) -> DiskWaits {
        DiskWaits {
            waiters: self.waiters.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            waited_ns: self.waited_ns.load(Ordering::Relaxed),
            waited_ns_max: self.waited_ns_max.load(Ordering::Relaxed),
        }
    }

    fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock();
        if *free == 0 {
            self.waiters.fetch_add(1, Ordering::Relaxed);
            let begun_ns = (self.clock)();
            while *free == 0 {
                self.given_back.wait(&mut free);
            }
            let waited_ns = (self.clock)().saturating_sub(begun_ns);
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            self.waits.fetch_add(1, Ordering::Relaxed);
            self.waited_ns.fetch_add(waited_ns, Ordering::Relaxed);
            self.waited_ns_max.fetch_max(waited_ns, Ordering::Relaxed);
        }
        *free -= 1;
        Turn(self)
    }
}

/// Gives itself back when it is dropped.
struct Turn<'a>(&'a DiskTurns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.given_back.notify_one();
    }
}

/// Another disk, of which no more is asked at a time than there are turns.
pub struct BoundedDisk {
    disk: Arc<dyn Disk>,
    turns: Arc<DiskTurns>,
}

impl BoundedDisk {
    /// Takes turns at `disk`.
    pub fn new(disk: Arc<dyn Disk>, turns: Arc<DiskTurns>) -> Self {
        Self { disk, turns }
    }
}

impl Disk for BoundedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let _turn = self.turns.take();
        let file = self.disk.open(path, mode)?;
        let turns = Arc::clone(&self.turns);
        Ok(Arc::new(BoundedFile { file, turns }))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.disk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.disk.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.disk.remove_directory(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        let _turn = self.turns.take();
        self.disk.list(path)
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.disk.sync_directory(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        let _turn = self.turns.take();
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        let _turn = self.turns.take();
        self.disk.free_bytes(path)
    }
}

struct BoundedFile {
    file: Arc<dyn DiskFile>,
    turns: Arc<DiskTurns>,
}

impl DiskFile for BoundedFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn length(&self) -> Result<u64, DiskError> {
        let _turn = self.turns.take();
        self.file.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.file.write_all_at(bytes, offset)
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.file.write_vectored_at(slices, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.file.sync_data()
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        let _turn = self.turns.take();
        self.file.set_length(length)
    }

    fn advise(&self, offset: u64, length: u64, advice: Advice) {
        let _turn = self.turns.take();
        self.file.advise(offset, length, advice);
    }

    /// What is read of the map later is read by the kernel, and takes no turn.
    fn map(&self, length: u64) -> Result<Bytes, DiskError> {
        let _turn = self.turns.take();
        self.file.map(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::engine::{EngineOptions, FileEngine, Threads};
    use crate::entropy::SeededEntropy;

    /// A disk that counts who is at it, and lets operations take a while.
    #[derive(Default)]
    struct Counting {
        present: AtomicUsize,
        present_max: AtomicUsize,
    }

    impl Counting {
        fn visit(&self) {
            let present = self.present.fetch_add(1, Ordering::SeqCst) + 1;
            self.present_max.fetch_max(present, Ordering::SeqCst);
            std::thread::yield_now();
            self.present.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Disk for Counting {
        fn open(&self, _: &Path, _: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
            unreachable!("nothing is opened")
        }
        fn create_directory(&self, _: &Path) -> Result<(), DiskError> {
            self.visit();
            Ok(())
        }
        fn rename(&self, _: &Path, _: &Path) -> Result<(), DiskError> {
            Ok(())
        }
        fn remove_file(&self, _: &Path) -> Result<(), DiskError> {
            Ok(())
        }
        fn remove_directory(&self, _: &Path) -> Result<(), DiskError> {
            Ok(())
        }
        fn list(&self, _: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
            Ok(Vec::new())
        }
        fn sync_directory(&self, _: &Path) -> Result<(), DiskError> {
            Ok(())
        }
        fn lock(&self, _: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
            unreachable!("nothing is locked")
        }
        fn free_bytes(&self, _: &Path) -> Result<u64, DiskError> {
            Ok(0)
        }
    }

    #[test]
    fn no_more_are_at_the_disk_than_there_are_turns() {
        const THREADS: usize = 16;
        let counting = Arc::new(Counting::default());
        let turns = DiskTurns::new(4, || 0);
        let disk = BoundedDisk::new(Arc::<Counting>::clone(&counting), Arc::clone(&turns));
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..500 {
                        disk.create_directory(Path::new("/d")).expect("created");
                    }
                });
            }
        });
        assert!((1..=4).contains(&counting.present_max.load(Ordering::SeqCst)));
        assert_eq!(*turns.free.lock(), 4, "every turn was given back");
    }

    #[test]
    fn who_comes_when_all_turns_are_taken_waits_and_is_counted() {
        static NOW_NS: AtomicU64 = AtomicU64::new(0);
        let turns = DiskTurns::new(1, || NOW_NS.load(Ordering::SeqCst));
        let disk = BoundedDisk::new(Arc::new(Counting::default()), Arc::clone(&turns));
        let held = turns.take();
        assert_eq!(turns.waits(), DiskWaits::default());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| disk.free_bytes(Path::new("/d")).expect("asked"));
            while turns.waits().waiters == 0 {
                std::thread::yield_now();
            }
            // Who waits has read the clock, and lets go of the lock only to wait.
            drop(turns.free.lock());
            NOW_NS.store(7, Ordering::SeqCst);
            assert!(!waiting.is_finished());
            drop(held);
        });
        let waits = DiskWaits {
            waiters: 0,
            waits: 1,
            waited_ns: 7,
            waited_ns_max: 7,
        };
        assert_eq!(turns.waits(), waits);
    }

    #[test]
    fn an_engine_takes_turns() {
        let turns = DiskTurns::new(1, || 0);
        let options = EngineOptions {
            threads: Threads::None,
            disk_turns: Some(Arc::clone(&turns)),
            reserve_bytes: 0,
            ..EngineOptions::new("/store")
        };
        let held = turns.take();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let entropy = Arc::new(SeededEntropy::new(1));
                let disk = Arc::new(SimDisk::new(1));
                let opened = FileEngine::open(disk, options, entropy);
                opened.expect("it opens").engine.figures().disk_waits
            });
            while turns.waits().waiters == 0 {
                assert!(!opening.is_finished(), "it needs no turn");
                std::thread::yield_now();
            }
            drop(held);
            let waits = opening.join().expect("it ends");
            assert_eq!((waits.waiters, waits.waits), (0, 1));
        });
    }
}
