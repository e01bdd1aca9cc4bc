//! What a journal held when it was opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::frame::{FrameKind, Location, Owner};

/// Everything that survived, per owner, and what did not.
#[derive(Debug, Default)]
pub struct Replay {
    /// By owner.
    pub owners: BTreeMap<Owner, OwnerReplay>,
    /// What was once durable and can no longer be read, in order. Nothing of it was removed.
    pub damage: Vec<Damage>,
    /// What was written but never synced, and was cut.
    pub torn: Option<TornTail>,
    /// Whether the last run closed the journal in order.
    pub clean: bool,
}

/// What survived of one owner.
#[derive(Debug, Clone, Default)]
pub struct OwnerReplay {
    /// Its entries, ascending, without those that were taken back.
    pub entries: Vec<ReplayedFrame>,
    /// Its newest vote.
    pub vote: Option<ReplayedFrame>,
    /// Its newest commit mark.
    pub committed: Option<ReplayedFrame>,
    /// Its newest purge mark.
    pub purged: Option<ReplayedFrame>,
    /// Its newest carried state.
    pub carry: Option<ReplayedFrame>,
    /// Ranges (first, last) of entries that are lost to damage, ascending.
    pub holes: Vec<(u64, u64)>,
}

impl OwnerReplay {
    pub(super) fn mark_mut(&mut self, kind: FrameKind) -> Option<&mut Option<ReplayedFrame>> {
        match kind {
            FrameKind::Vote => Some(&mut self.vote),
            FrameKind::Committed => Some(&mut self.committed),
            FrameKind::Purged => Some(&mut self.purged),
            FrameKind::Carry => Some(&mut self.carry),
            FrameKind::Entry | FrameKind::Truncate => None,
        }
    }
}

/// A frame read at start. The payload shares memory with all others of its segment: copy what is to live long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedFrame {
    /// Its place in the owner's log.
    pub index: u64,
    /// The commit it was part of.
    pub lsn: u64,
    /// Its content.
    pub payload: Bytes,
    /// Where to read it again.
    pub location: Location,
}

/// Something that was durable and fails its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Where in it the damaged commit begins.
    pub offset: u64,
    /// The commits it concerns, first and last.
    pub lsns: (u64, u64),
    /// What failed.
    pub cause: DamageCause,
    /// The frames that are lost, as far as they can be named.
    pub victims: Vec<Victim>,
    /// Whether `victims` are all.
    pub all_named: bool,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            segment,
            offset,
            lsns: (first, last),
            cause,
            victims,
            all_named,
        } = self;
        write!(
            formatter,
            "journal segment {segment:016x} at {offset}: {cause}, commits {first} to {last}, lost"
        )?;
        for Victim { owner, kind, index } in victims {
            write!(formatter, " {kind:?} {index} of {owner};")?;
        }
        match all_named {
            true => Ok(()),
            false => write!(formatter, " frames that cannot be named"),
        }
    }
}

/// What failed its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageCause {
    /// The segment file is missing.
    #[error("the segment is missing")]
    MissingSegment,
    /// Both copies of the segment's header.
    #[error("both segment headers are damaged")]
    SegmentHeader,
    /// A commit's header.
    #[error("a commit header is damaged or missing")]
    CommitHeader,
    /// The tag of a sealed commit.
    #[error("a sealed commit is damaged")]
    Seal,
    /// A frame's header: what follows in its commit cannot be read.
    #[error("a frame header is damaged")]
    FrameHeader,
    /// A frame's payload.
    #[error("a payload is damaged")]
    Payload,
}

/// A frame that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Whose it was.
    pub owner: Owner,
    /// What it meant.
    pub kind: FrameKind,
    /// Its place in the owner's log.
    pub index: u64,
}

/// Bytes after the last good commit that were never synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: u64,
    /// Where it was cut.
    pub offset: u64,
    /// How many bytes were cut.
    pub length: u64,
    /// The file that keeps them.
    pub kept: PathBuf,
}
