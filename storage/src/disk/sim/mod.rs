//! A disk in memory that behaves as badly as a real one may, all from a seed.
//!
//! What was not synced when the power goes ([`SimDisk::crash`]) is lost, kept, torn between sectors or
//! kept out of order; names that were not synced stay or go. Reads, writes and syncs can be made to
//! fail, writes to vanish, the device to fill up, bits to flip. Changes are counted, so that a test can
//! cut the power at each of them in turn ([`SimDisk::halt_at`]).
//!
//! - `inode`: the bytes of one file: as programs see them, as the device holds them, and what lies between.
//! - `tree`: names, and what of them is durable.
//! - `fault`: what is to go wrong, and when.
//! - `handle`: the [`Disk`](super::Disk) and [`DiskFile`](super::DiskFile) traits over all that.

mod fault;
mod handle;
mod inode;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use fault::Fault;

use crate::entropy::SeededEntropy;
use fault::Faults;
use tree::Tree;

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    tree: Tree,
    faults: Faults,
    entropy: SeededEntropy,
    /// Goes up with every crash; a handle of an earlier boot is dead.
    boot: u64,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: Option<u64>,
}

impl SimDisk {
    /// An empty disk with a root directory, whose every accident follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                tree: Tree::new(),
                faults: Faults::default(),
                entropy: SeededEntropy::new(seed),
                boot: 0,
                locks: BTreeSet::new(),
                capacity_bytes: None,
            })),
        }
    }

    /// How many changes (writes, cuts, syncs, new, renamed and removed names) were asked for so far.
    pub fn changes(&self) -> u64 {
        self.shared.lock().faults.changes
    }

    /// How many reads were asked for so far.
    pub fn reads(&self) -> u64 {
        self.shared.lock().faults.reads
    }

    /// Stops the machine in the middle of that change (0 is the first): it may happen or not, and
    /// everything after it fails until [`SimDisk::crash`].
    pub fn halt_at(&self, change: u64) {
        self.shared.lock().faults.halt_at = Some(change);
    }

    /// Whether the machine has stopped at the change given to [`SimDisk::halt_at`].
    pub fn is_halted(&self) -> bool {
        self.shared.lock().faults.halted
    }

    /// Lets one change go wrong (0 is the first). A fault that does not fit the kind of change at that number is an error.
    pub fn fail_change(&self, change: u64, fault: Fault) {
        self.shared.lock().faults.at_change.insert(change, fault);
    }

    /// Lets one read fail (0 is the first).
    pub fn fail_read(&self, read: u64) {
        self.shared.lock().faults.at_read.insert(read);
    }

    /// Lets every read of a range that touches this byte of a file fail, as a bad sector does.
    pub fn fail_reads_of(&self, path: &Path, offset: u64) {
        let mut shared = self.shared.lock();
        shared.faults.bad.insert((path.to_owned(), offset));
    }

    /// Bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().tree.used_bytes()
    }

    /// Lets the device be full when files hold this many bytes in total.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().capacity_bytes = bytes;
    }

    /// Cuts the power and turns it on again: all handles are dead, locks are gone, all faults are forgotten,
    /// and what was not synced is as lost as the seed says.
    pub fn crash(&self) {
        let mut shared = self.shared.lock();
        let Shared { tree, entropy, .. } = &mut *shared;
        tree.crash(entropy);
        shared.reboot();
    }

    /// Kills the process and starts it again: handles are dead and locks gone, but the page cache
    /// keeps what was written.
    pub fn kill(&self) {
        self.shared.lock().reboot();
    }

    /// Flips one bit of a file, on the device and in the cache.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut shared = self.shared.lock();
        if let Some(inode) = shared.tree.file_mut(path) {
            inode.flip_bit(offset, bit);
        }
    }

    /// The bytes of a file as programs see them, whatever faults are set.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut shared = self.shared.lock();
        let inode = shared.tree.file_mut(path)?;
        Some(inode.bytes().to_vec())
    }

    /// Replaces the bytes of an existing file, on the device and in the cache.
    pub fn set_content(&self, path: &Path, bytes: &[u8]) {
        let mut shared = self.shared.lock();
        if let Some(inode) = shared.tree.file_mut(path) {
            inode.replace(bytes);
        }
    }
}

impl Shared {
    fn reboot(&mut self) {
        self.boot += 1;
        self.locks.clear();
        let faults = std::mem::take(&mut self.faults);
        // Counting goes on, so that a test can aim at a change after the restart.
        self.faults.changes = faults.changes;
        self.faults.reads = faults.reads;
    }
}
