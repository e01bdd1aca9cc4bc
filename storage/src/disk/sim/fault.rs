//! What is to go wrong on a simulated disk, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::DiskErrorKind;
use crate::entropy::{Entropy, SeededEntropy};

/// How one change goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an input/output error. A write may have happened in part; after a failed sync some
    /// of what was to be synced is lost for good, as if it had been clean.
    Error,
    /// A write reports success and never reaches the device: once dropped from the cache, the old
    /// content shows.
    LostWrite,
}

#[derive(Default)]
pub(super) struct Faults {
    pub changes: u64,
    pub reads: u64,
    pub halt_at: Option<u64>,
    pub halted: bool,
    pub at_change: BTreeMap<u64, Fault>,
    pub at_read: BTreeSet<u64>,
    pub bad: BTreeSet<(PathBuf, u64)>,
}

/// How much of a change is to happen, and what its caller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Happens,
    /// An error, with the change undone.
    FailsBefore,
    /// An error, with the change done (for a write: in part).
    FailsAfter,
    LostWrite,
}

impl Faults {
    /// Counts a change and decides its fate.
    pub fn change(&mut self, entropy: &SeededEntropy) -> Result<Verdict, DiskErrorKind> {
        if self.halted {
            return Err(power_is_off());
        }
        let number = self.changes;
        self.changes += 1;
        let fails = || match entropy.below(2) {
            0 => Verdict::FailsBefore,
            _ => Verdict::FailsAfter,
        };
        if self.halt_at.is_some_and(|halt| halt <= number) {
            self.halted = true;
            return Ok(fails());
        }
        Ok(match self.at_change.remove(&number) {
            None => Verdict::Happens,
            Some(Fault::LostWrite) => Verdict::LostWrite,
            Some(Fault::Error) => fails(),
        })
    }

    /// Counts a read and decides its fate.
    pub fn read(&mut self, path: &Path, offset: u64, length: u64) -> Result<(), DiskErrorKind> {
        if self.halted {
            return Err(power_is_off());
        }
        let number = self.reads;
        self.reads += 1;
        let touched = offset..offset.saturating_add(length);
        let bad = |(file, at): &(PathBuf, u64)| file == path && touched.contains(at);
        if self.at_read.remove(&number) || self.bad.iter().any(bad) {
            return Err(failure());
        }
        Ok(())
    }

    /// Fails once the machine has stopped.
    pub fn alive(&self) -> Result<(), DiskErrorKind> {
        if self.halted {
            return Err(power_is_off());
        }
        Ok(())
    }
}

pub(super) fn failure() -> DiskErrorKind {
    DiskErrorKind::Io("input/output error (simulated)".to_owned())
}

pub(super) fn power_is_off() -> DiskErrorKind {
    DiskErrorKind::Io("the power is off (simulated)".to_owned())
}
