//! A stretch of a stream that lies in one block file, whatever state the file is in.

use std::sync::Arc;

use super::name::BlockName;
use crate::block::{BlockCache, BlockReadError, OpenBlock, Record, SealedBlock};
use crate::filter::Filter;
use crate::store::{ReadError, SubjectState};

/// What a part's file holds.
#[derive(Clone)]
pub(super) enum Content {
    Sealed(Arc<SealedBlock>),
    Open(Arc<OpenBlock>),
    /// The file is missing or is not what the checkpoint lists: its messages are lost, and every sequence counts as one.
    Lost(Arc<str>),
}

/// A record that cannot be read, and the range of sequences that is lost with it, where that is known.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub error: ReadError,
    pub sequences: Option<(u64, u64)>,
}

/// A block, and which of its sequences count.
#[derive(Clone)]
pub(super) struct Part {
    pub name: BlockName,
    /// No lower sequence of the block counts.
    pub first: u64,
    /// No higher sequence of the block counts.
    pub last: u64,
    /// Records of the block, those that do not count too.
    pub records: u32,
    /// Length of the file.
    pub file_length: u64,
    pub digest: [u8; 32],
    pub content: Content,
    /// The file has a record for every sequence in its range.
    pub dense: bool,
    /// A message in it was erased: its file must not stay.
    pub erase: bool,
    /// It is damaged: the file is not to be replaced by what is left of it.
    pub keep: bool,
}

macro_rules! ask {
    ($part:expr, $block:ident => $answer:expr, $lost:expr) => {
        match &$part.content {
            Content::Sealed($block) => $answer,
            Content::Open($block) => $answer,
            Content::Lost(_) => $lost,
        }
    };
}

impl Part {
    fn holds(&self, sequence: u64) -> bool {
        (self.first..=self.last).contains(&sequence)
    }

    /// Whether there is no sequence without a record in its range.
    pub fn is_dense(&self) -> bool {
        self.dense && self.last >= self.first
    }

    /// Whether it was written, or read whole at the start, since the store was opened, so that the system most likely has it in memory.
    pub fn is_recent(&self) -> bool {
        matches!(self.content, Content::Open(_))
    }

    /// Whether every record of the file counts, as far as sequences go.
    pub fn counts_whole(&self) -> bool {
        match &self.content {
            Content::Sealed(block) => {
                let summary = block.summary();
                self.first <= summary.first_sequence && self.last >= summary.last_sequence
            }
            Content::Open(block) => block.last_sequence().is_none_or(|last| self.last >= last),
            Content::Lost(_) => true,
        }
    }

    pub fn contains(&self, sequence: u64, everything: &Filter, cache: &BlockCache) -> bool {
        self.holds(sequence)
            && (self.is_dense() || self.next(sequence, everything, cache) == Some(sequence))
    }

    pub fn load(&self, sequence: u64, cache: &BlockCache) -> Result<Option<Record>, Unreadable> {
        if !self.holds(sequence) {
            return Ok(None);
        }
        let read = match &self.content {
            Content::Sealed(block) => block.load(sequence, cache),
            Content::Open(block) => block.load(sequence, cache),
            Content::Lost(reason) => {
                return Err(Unreadable {
                    error: ReadError::Damaged {
                        sequence,
                        reason: reason.to_string(),
                    },
                    sequences: None,
                });
            }
        };
        read.map_err(|error| Unreadable {
            sequences: error.sequences(),
            error: match error {
                BlockReadError::Disk(error) => ReadError::Disk(error),
                damage => ReadError::Damaged {
                    sequence,
                    reason: damage.to_string(),
                },
            },
        })
    }

    pub fn next(&self, from: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        let from = from.max(self.first);
        let found = if from > self.last {
            None
        } else if filter.is_everything() && self.is_dense() {
            Some(from)
        } else {
            ask!(self, block => block.next(from, filter, cache), None)
        };
        found.filter(|&sequence| sequence <= self.last)
    }

    pub fn previous(&self, upto: u64, filter: &Filter, cache: &BlockCache) -> Option<u64> {
        let upto = upto.min(self.last);
        let found = if upto < self.first {
            None
        } else if filter.is_everything() && self.is_dense() {
            Some(upto)
        } else {
            ask!(self, block => block.previous(upto, filter, cache), None)
        };
        found.filter(|&sequence| sequence >= self.first)
    }

    /// Records in `from..below` that match, dead or not.
    pub fn count(&self, from: u64, below: u64, filter: &Filter, cache: &BlockCache) -> u64 {
        let from = from.max(self.first);
        let below = below.min(self.last.saturating_add(1));
        if from >= below {
            return 0;
        }
        if filter.is_everything() && self.is_dense() {
            return below - from;
        }
        let at_or_after = |from: u64| ask!(self, block => block.count(from, filter, cache), 0);
        at_or_after(from).saturating_sub(at_or_after(below))
    }

    /// Calls `visit` with every sequence from `from` on that matches, dead or not, until it returns `false`.
    pub fn sequences(
        &self,
        from: u64,
        filter: &Filter,
        cache: &BlockCache,
        visit: &mut dyn FnMut(u64) -> bool,
    ) {
        let from = from.max(self.first);
        if filter.is_everything() && self.is_dense() {
            let _ = (from..=self.last).all(visit);
            return;
        }
        let mut within = |sequence: u64| sequence <= self.last && visit(sequence);
        ask!(self, block => block.sequences(from, filter, cache, &mut within), ());
    }

    /// Calls `visit` with every subject and its messages among those for which `live` holds.
    pub fn live_subjects(
        &self,
        cache: &BlockCache,
        live: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(&[u8], SubjectState),
    ) {
        let counts = |sequence: u64| self.holds(sequence) && live(sequence);
        ask!(self, block => block.live_subjects(cache, &counts, visit), ());
    }

    /// Calls `visit` with every subject and its messages, all of which count.
    pub fn all_subjects(&self, cache: &BlockCache, visit: &mut dyn FnMut(&[u8], SubjectState)) {
        let mut visit = |subject: &[u8], state| {
            visit(subject, state);
            true
        };
        let filter = Filter::everything();
        ask!(self, block => block.subjects(&filter, cache, &mut visit), ());
    }

    /// The subject of a record that cannot be read, from the index.
    pub fn subject_of(&self, wanted: u64, cache: &BlockCache) -> Option<Vec<u8>> {
        let mut found = None;
        self.live_subjects(cache, &|sequence| sequence == wanted, &mut |subject, _| {
            found = Some(subject.to_vec());
        });
        found
    }

    /// What an average record counts for.
    pub fn accounted_bytes_mean(&self) -> u64 {
        let bytes = match &self.content {
            Content::Sealed(block) => block.summary().accounted_bytes,
            Content::Open(block) => block.accounted_bytes(),
            Content::Lost(_) => self.file_length,
        };
        bytes / u64::from(self.records.max(1))
    }

    /// The first record at or after `from` whose time is at or after `time_ns`, dead or not.
    pub fn sequence_at(&self, time_ns: i64, from: u64, cache: &BlockCache) -> Option<u64> {
        let from = from.max(self.first);
        if from > self.last {
            return None;
        }
        let found = ask!(self, block => block.sequence_at(time_ns, from, cache), Ok(None));
        // Where a chunk cannot be read its messages count as late enough, so that none that is readable is missed.
        found
            .unwrap_or(Some(from))
            .filter(|&sequence| sequence <= self.last)
    }

    /// The latest time of any record.
    pub fn last_time_ns(&self) -> Option<i64> {
        match &self.content {
            Content::Sealed(block) => Some(block.summary().last_time_ns),
            Content::Open(block) => block.last_time_ns(),
            Content::Lost(_) => None,
        }
    }
}
