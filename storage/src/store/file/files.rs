//! The shelf of a file store: sealed blocks, the open block, and the tail in memory, in the order of
//! their sequences.
//!
//! # Invariant
//! `dead` holds exactly the sequences at or above `first` that have a record in a block which no longer
//! counts. Sequences below `first` need no note. What is in the tail is in no block that is asked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::aside::Aside;
use super::checkpoint::CheckpointFile;
use super::job::Slot;
use super::name::BlockName;
use super::part::{Content, Part};
use super::{BLOCK_BYTES_MAX, FileOptions};
use crate::block::{BlockWriter, OpenBlock};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::filter::Filter;
use crate::store::tail::Tail;
use crate::store::{Deletion, Expiry, Limits};

/// After so many removals in blocks it is worth asking whether one is mostly dead.
const REMOVALS_MAX: u32 = 4096;

/// What never changes while a store is open.
pub(super) struct Ground {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub options: FileOptions,
    /// Made once, because it is asked for with every read.
    pub everything: Filter,
    /// Nothing is written to the directory: changes stay in memory.
    pub read_only: bool,
    /// The directory is known to exist.
    prepared: Mutex<bool>,
}

impl Ground {
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf, options: FileOptions) -> Self {
        Self {
            disk,
            directory,
            options,
            everything: Filter::everything(),
            read_only: false,
            prepared: Mutex::new(false),
        }
    }

    /// For looking only.
    pub fn read_only(disk: Arc<dyn Disk>, directory: PathBuf, options: FileOptions) -> Self {
        Self {
            read_only: true,
            ..Self::new(disk, directory, options)
        }
    }

    /// Makes sure that the directory exists.
    pub fn prepare(&self) -> Result<(), DiskError> {
        let mut prepared = self.prepared.lock();
        if let (false, Some(prepare)) = (*prepared, &self.options.prepare) {
            prepare()?;
        }
        *prepared = true;
        Ok(())
    }
}

/// The block that chunks are added to.
pub(super) struct Open {
    pub part: Part,
    pub writer: Writer,
    pub file: Arc<dyn DiskFile>,
    /// Takes no more chunks: it is to be sealed.
    pub closing: bool,
}

/// Where the writer of the open block is.
pub(super) enum Writer {
    /// The block was found at the start; there is none yet.
    None,
    Here(Box<BlockWriter>),
    /// A job has it.
    Out,
}

impl Writer {
    pub fn take(&mut self) -> Option<Box<BlockWriter>> {
        match std::mem::replace(self, Self::Out) {
            Self::Here(writer) => Some(writer),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Open {
    pub fn block(&self) -> Option<&Arc<OpenBlock>> {
        match &self.part.content {
            Content::Open(block) => Some(block),
            _ => None,
        }
    }
}

/// What the next checkpoint has to say.
#[derive(Default)]
pub(super) struct Unsaved {
    /// A cut that only says what changed would not do.
    pub whole: bool,
    pub dead: RoaringTreemap,
    pub expiries: Vec<(u64, Expiry)>,
    /// Files with bytes that were not synced yet.
    pub files: Vec<Arc<dyn DiskFile>>,
    /// Names were added to the directory.
    pub names: bool,
    /// Files that are no longer needed.
    pub retired: Vec<BlockName>,
}

/// The shelf of a [`super::FileStore`].
pub struct Files {
    pub(super) ground: Arc<Ground>,
    pub(super) sealed: Vec<Part>,
    pub(super) open: Option<Open>,
    pub(super) tail: Tail,
    /// What bodies are cut from.
    pub(super) arena: BytesMut,
    pub(super) tail_bytes: usize,
    pub(super) dead: RoaringTreemap,
    pub(super) first: u64,
    pub(super) next_number: u64,
    pub(super) unsaved: Unsaved,
    /// The job that is out.
    pub(super) job: Arc<Slot>,
    pub(super) job_out: bool,
    /// The checkpoint that is out.
    pub(super) save: Arc<Slot>,
    pub(super) save_out: bool,
    /// Messages of the tail are being written.
    pub(super) flushing: bool,
    /// Something has happened that may make a job due.
    pub(super) attention: bool,
    /// Removals in blocks since that was last looked at.
    pub(super) removals: u32,
    /// Goes up when everything is cleared, so that what a job brings back from before is recognized.
    pub(super) epoch: u64,
    /// The lowest sequence that was truncated to while a job ran.
    pub(super) truncated: Option<u64>,
    /// A message in the tail was erased while a job ran that may write it.
    pub(super) erased: BTreeSet<u64>,
    pub(super) checkpoint: Option<CheckpointFile>,
    /// Whether the directory holds a checkpoint file.
    pub(super) has_checkpoint: bool,
    /// Files that the start did not need.
    pub(super) aside: Aside,
    pub(super) failed: Option<String>,
    /// How often the subject, the size or the time of a message was guessed for a change, because it could not be read.
    pub(super) guesses: Cell<u64>,
    /// Records that somebody came upon and that cannot be read, although their block is what the checkpoint lists.
    pub(super) unreadable: RefCell<RoaringTreemap>,
}

impl Files {
    pub(super) fn new(ground: Arc<Ground>) -> Self {
        Self {
            ground,
            sealed: Vec::new(),
            open: None,
            tail: Tail::default(),
            arena: BytesMut::new(),
            tail_bytes: 0,
            dead: RoaringTreemap::new(),
            first: 0,
            next_number: 1,
            unsaved: Unsaved {
                whole: true,
                ..Unsaved::default()
            },
            job: Arc::default(),
            job_out: false,
            save: Arc::default(),
            save_out: false,
            flushing: false,
            attention: true,
            removals: 0,
            epoch: 0,
            truncated: None,
            erased: BTreeSet::new(),
            checkpoint: None,
            has_checkpoint: false,
            aside: Aside::default(),
            failed: None,
            guesses: Cell::new(0),
            unreadable: RefCell::default(),
        }
    }

    /// How large blocks become under these limits: small streams get small blocks, so that limits free space.
    pub(super) fn block_bytes(&self, limits: &Limits) -> u64 {
        if let Some(bytes) = self.ground.options.block_bytes {
            return bytes;
        }
        match limits.bytes_max {
            Some(bytes_max) => (bytes_max / 4).clamp(256 << 10, BLOCK_BYTES_MAX),
            None => BLOCK_BYTES_MAX,
        }
    }

    /// Whether something is out that may bring back parts or take along messages.
    pub(super) fn is_busy(&self) -> bool {
        self.job_out || self.save_out
    }

    pub(super) fn everything(&self) -> &Filter {
        &self.ground.everything
    }

    pub(super) fn cache(&self) -> &crate::block::BlockCache {
        &self.ground.options.cache
    }

    /// All blocks from the one that may hold `from` on.
    pub(super) fn parts_from(&self, from: u64) -> impl Iterator<Item = &Part> {
        let start = self.sealed.partition_point(|part| part.last < from);
        let open = self.open.iter().map(|open| &open.part);
        self.sealed
            .get(start..)
            .unwrap_or_default()
            .iter()
            .chain(open.filter(move |part| part.last >= from))
    }

    /// All blocks up to the one that may hold `upto`, the last one first.
    pub(super) fn parts_upto(&self, upto: u64) -> impl Iterator<Item = &Part> {
        let end = self.sealed.partition_point(|part| part.first <= upto);
        let open = self.open.iter().map(|open| &open.part);
        open.filter(move |part| part.first <= upto && part.last >= part.first)
            .chain(self.sealed.get(..end).unwrap_or_default().iter().rev())
    }

    pub(super) fn part_of(&self, sequence: u64) -> Option<&Part> {
        let at = self.sealed.partition_point(|part| part.last < sequence);
        let open = || self.open.as_ref().map(|open| &open.part);
        let part = self.sealed.get(at).or_else(open)?;
        (part.first <= sequence && sequence <= part.last).then_some(part)
    }

    /// Whether a sequence, if it is held at all, is held in memory.
    pub(super) fn in_tail(&self, sequence: u64) -> bool {
        self.tail
            .first_sequence()
            .is_some_and(|first| sequence >= first)
    }

    pub(super) fn is_dead(&self, sequence: u64) -> bool {
        self.dead.contains(sequence)
    }

    pub(super) fn dead_within(&self, part: &Part) -> u64 {
        let first = part.first.max(self.first);
        if self.dead.is_empty() || part.last < first {
            return 0;
        }
        self.dead.range_cardinality(first..=part.last)
    }

    pub(super) fn next_in_blocks(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        for part in self.parts_from(from) {
            if part.first > upto {
                return None;
            }
            let mut at = from;
            let mut tries = 0;
            while let Some(sequence) = part.next(at, filter, self.cache()) {
                if sequence > upto {
                    return None;
                }
                if !self.is_dead(sequence) {
                    return Some(sequence);
                }
                tries += 1;
                if tries == 8 {
                    // A long stretch of dead ones: walk the list instead of searching it again and again.
                    let mut found = None;
                    part.sequences(sequence, filter, self.cache(), &mut |sequence| {
                        if self.is_dead(sequence) {
                            return true;
                        }
                        found = Some(sequence);
                        false
                    });
                    if found.is_some() {
                        return found.filter(|&found| found <= upto);
                    }
                    break;
                }
                at = sequence + 1;
            }
        }
        None
    }

    pub(super) fn previous_in_blocks(&self, from: u64, upto: u64, filter: &Filter) -> Option<u64> {
        for part in self.parts_upto(upto) {
            if part.last < from {
                return None;
            }
            let mut at = upto;
            while let Some(sequence) = part.previous(at, filter, self.cache()) {
                if sequence < from {
                    return None;
                }
                if !self.is_dead(sequence) {
                    return Some(sequence);
                }
                at = sequence.checked_sub(1)?;
            }
        }
        None
    }

    pub(super) fn count_in_blocks(&self, from: u64, filter: &Filter) -> u64 {
        let mut count = 0;
        for part in self.parts_from(from) {
            if self.dead_within(part) == 0 {
                count += part.count(from, u64::MAX, filter, self.cache());
            } else {
                part.sequences(from, filter, self.cache(), &mut |sequence| {
                    count += u64::from(!self.is_dead(sequence));
                    true
                });
            }
        }
        count
    }

    /// When a live message was stored, and whether that is a guess.
    pub(super) fn time_or_guess(&self, sequence: u64) -> Option<(i64, bool)> {
        if self.in_tail(sequence) {
            return Some((self.tail.time_ns(sequence)?, false));
        }
        if self.is_dead(sequence) {
            return None;
        }
        let part = self.part_of(sequence)?;
        match self.read(part, sequence) {
            Ok(record) => Some((record?.message.time_ns, false)),
            // Unreadable messages age too: with the last of their block.
            Err(_) => Some((part.last_time_ns()?, true)),
        }
    }

    /// Lets nothing above `last` count in any block.
    pub(super) fn truncate_blocks(&mut self, last: u64) {
        for part in &mut self.sealed {
            part.last = part.last.min(last);
            part.first = part.first.min(part.last + 1);
        }
        if let Some(open) = &mut self.open
            && (open.part.last > last || open.part.records > 0)
        {
            open.part.last = open.part.last.min(last);
            open.part.first = open.part.first.min(open.part.last + 1);
            open.closing = true;
            self.attention = true;
        }
        if !self.is_busy() {
            let emptied = self.sealed.partition_point(|part| part.first <= part.last);
            for part in self.sealed.split_off(emptied) {
                self.retire(&part);
            }
        }
    }

    /// Takes a block out of use; its file goes with the next checkpoint.
    pub(super) fn retire(&mut self, part: &Part) {
        if part.first <= part.last {
            self.dead.remove_range(part.first..=part.last);
            let unreadable = self.unreadable.get_mut();
            unreadable.remove_range(part.first..=part.last);
        }
        // A block that is lost has perhaps a file that somebody wants to look at.
        if !matches!(part.content, Content::Lost(_)) {
            self.unsaved.retired.push(part.name);
        }
    }

    pub(super) fn forget_in_block(&mut self, sequence: u64, deletion: Deletion) {
        self.dead.insert(sequence);
        self.unsaved.dead.insert(sequence);
        let at = self.sealed.partition_point(|part| part.last < sequence);
        let Some(part) = self.sealed.get_mut(at) else {
            if let Some(open) = &mut self.open
                && deletion == Deletion::Erase
            {
                open.part.erase = true;
                open.closing = true;
                self.attention = true;
            }
            return;
        };
        part.erase |= deletion == Deletion::Erase;
        self.removals += 1;
        if deletion == Deletion::Erase || self.removals >= REMOVALS_MAX {
            self.attention = true;
        }
        // No block is kept for nothing; one that a job may be reading goes when the job is done.
        let first = part.first;
        if sequence == part.last || sequence == first || sequence.is_multiple_of(64) {
            self.drop_if_empty(at);
        }
    }

    pub(super) fn drop_if_empty(&mut self, at: usize) {
        let Some(part) = self.sealed.get(at) else {
            return;
        };
        if !self.is_busy() && self.is_empty_part(part) {
            let part = self.sealed.remove(at);
            self.retire(&part);
            self.unsaved.whole = true;
        }
    }
}
