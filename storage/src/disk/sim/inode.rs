//! The bytes of one simulated file.

use crate::entropy::{Entropy, SeededEntropy};

const SECTOR_BYTES: usize = 512;

/// A file's bytes as programs see them, as the device holds them, and the changes that lie between.
#[derive(Default)]
pub(super) struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// In the order they were made.
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// What becomes of the pending changes of a file when the power goes.
enum Fate {
    NothingHappened,
    AllHappened,
    /// In order up to one that is torn.
    Torn,
    /// Each for itself.
    Reordered,
    /// Each sector for itself.
    Shredded,
}

impl Inode {
    pub fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        overwrite(&mut self.cached, offset, bytes);
        self.pending.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    /// A write that the device swallows.
    pub fn write_lost(&mut self, offset: usize, bytes: &[u8]) {
        overwrite(&mut self.cached, offset, bytes);
        if self.durable.len() < self.cached.len() {
            self.pending.push(Change::Length(self.cached.len()));
        }
    }

    pub fn set_length(&mut self, length: usize) {
        self.cached.resize(length, 0);
        self.pending.push(Change::Length(length));
    }

    pub fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    /// A sync that fails: each pending change reaches the device or is forgotten, while the cache calls it clean.
    pub fn sync_failing(&mut self, entropy: &SeededEntropy) {
        self.settle(entropy);
    }

    /// Drops clean pages from the cache: what shows next is what the device holds.
    pub fn drop_cache(&mut self) {
        if self.pending.is_empty() {
            self.cached.clone_from(&self.durable);
        }
    }

    pub fn crash(&mut self, entropy: &SeededEntropy) {
        self.settle(entropy);
        self.cached.clone_from(&self.durable);
    }

    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        for bytes in [&mut self.cached, &mut self.durable] {
            let byte = usize::try_from(offset)
                .ok()
                .and_then(|at| bytes.get_mut(at));
            if let Some(byte) = byte {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    pub fn replace(&mut self, bytes: &[u8]) {
        self.pending.clear();
        self.cached = bytes.to_vec();
        self.durable = bytes.to_vec();
    }

    fn settle(&mut self, entropy: &SeededEntropy) {
        let pending = std::mem::take(&mut self.pending);
        let fate = match entropy.below(5) {
            0 => Fate::NothingHappened,
            1 => Fate::AllHappened,
            2 => Fate::Torn,
            3 => Fate::Reordered,
            _ => Fate::Shredded,
        };
        let torn_at = entropy.below(pending.len() as u64 + 1) as usize;
        for (number, change) in pending.iter().enumerate() {
            let durable = &mut self.durable;
            match fate {
                Fate::NothingHappened => {}
                Fate::AllHappened => apply(durable, change),
                Fate::Torn if number < torn_at => apply(durable, change),
                Fate::Torn if number == torn_at => {
                    let mut torn = false;
                    apply_sectors(durable, change, || {
                        torn |= entropy.below(4) == 0;
                        !torn
                    });
                }
                Fate::Torn => {}
                Fate::Reordered if entropy.below(2) == 0 => apply(durable, change),
                Fate::Reordered => {}
                Fate::Shredded => apply_sectors(durable, change, || entropy.below(2) == 0),
            }
        }
        // The new length may be kept although the bytes are not.
        if self.durable.len() < self.cached.len() && entropy.below(4) == 0 {
            self.durable.resize(self.cached.len(), 0);
        }
    }
}

fn overwrite(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    if let Some(range) = target.get_mut(offset..end) {
        range.copy_from_slice(bytes);
    }
}

fn apply(target: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => overwrite(target, *offset, bytes),
        Change::Length(length) => target.resize(*length, 0),
    }
}

/// Applies those sectors of a change for which `kept` says so.
fn apply_sectors(target: &mut Vec<u8>, change: &Change, mut kept: impl FnMut() -> bool) {
    match change {
        Change::Length(_) if kept() => apply(target, change),
        Change::Length(_) => {}
        Change::Write { offset, bytes } => {
            let (mut position, mut rest) = (*offset, bytes.as_slice());
            while !rest.is_empty() {
                let room = SECTOR_BYTES - position % SECTOR_BYTES;
                let (sector, later) = rest.split_at(room.min(rest.len()));
                if kept() {
                    overwrite(target, position, sector);
                }
                position += sector.len();
                rest = later;
            }
        }
    }
}
