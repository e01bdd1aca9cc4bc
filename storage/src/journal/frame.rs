//! What is appended to the journal, and who hears of it.

use bytes::Bytes;

use crate::disk::DiskError;

/// Whose frame it is: the storage id of a stream or raft group. Never used twice; 0 is the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

impl Owner {
    /// The list of streams.
    pub const CATALOG: Self = Self(0);
}

impl std::fmt::Display for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// What a frame means to the journal. The discriminant is its number on disk.
///
/// *Entries* are kept until they are released or truncated. *Marks* are kept until the same owner appends another
/// of the same kind; the journal itself carries them out of old segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A log entry at `index`.
    Entry = 1,
    /// Takes back the owner's entries from `index` on.
    Truncate = 2,
    /// Mark: a vote. Synced before it is acknowledged, whatever the durability.
    Vote = 3,
    /// Mark: how far the log is known to be committed.
    Committed = 4,
    /// Mark: how far the log was purged.
    Purged = 5,
    /// Mark: the owner's whole state at `index`, in place of a checkpoint file.
    Carry = 6,
}

impl FrameKind {
    /// Its number on disk.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Truncate,
            3 => Self::Vote,
            4 => Self::Committed,
            5 => Self::Purged,
            6 => Self::Carry,
            _ => return None,
        })
    }

    /// Whether the newest of its owner replaces all earlier ones.
    pub fn is_mark(self) -> bool {
        matches!(
            self,
            Self::Vote | Self::Committed | Self::Purged | Self::Carry
        )
    }
}

/// The content of a frame, in one piece or in several that are to stand one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One piece.
    Whole(Bytes),
    /// Pieces, in order.
    Parts(Vec<Bytes>),
}

impl Payload {
    /// The pieces in order.
    pub fn parts(&self) -> &[Bytes] {
        match self {
            Self::Whole(bytes) => std::slice::from_ref(bytes),
            Self::Parts(parts) => parts,
        }
    }

    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::Parts(parts)
    }
}

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whose it is.
    pub owner: Owner,
    /// Its place in the owner's log.
    pub index: u64,
    /// What it means to the journal.
    pub kind: FrameKind,
    /// Its content, opaque here.
    pub payload: Payload,
}

/// Where a committed frame stands. Good until the segment is recycled; a read after that fails its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Number of the segment.
    pub segment: u64,
    /// Where its commit begins.
    pub commit_at: u32,
    /// Where the frame begins, counted from the commit.
    pub frame_at: u32,
}

/// A frame that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Whose it is.
    pub owner: Owner,
    /// Its place in the owner's log.
    pub index: u64,
    /// Its kind.
    pub kind: FrameKind,
    /// What the submitter gave along.
    pub token: u64,
    /// Where to read it again.
    pub location: Location,
}

/// Hears of commits. Called by who commits, which is mostly the journal's thread: it hands on, and neither works nor waits nor submits.
pub trait CommitSink: Send + Sync {
    /// These frames are committed, in the order they were submitted. Called once per sink and commit.
    fn committed(&self, commits: &[Commit]);
    /// The journal failed: nothing that was submitted and not yet reported as committed will ever be.
    fn failed(&self, error: &JournalError);
}

/// Why the journal takes nothing more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A write or a sync failed. It is never tried again.
    #[error("the journal failed: {0}")]
    Failed(#[from] DiskError),
    /// A frame is larger than a frame can be.
    #[error("a frame of {length} bytes is more than the {limit} that the journal takes")]
    TooLarge {
        /// Its length.
        length: usize,
        /// What is possible.
        limit: usize,
    },
    /// Encryption of a commit failed.
    #[error("sealing a commit failed: {0}")]
    Seal(#[from] crate::seal::SealError),
    /// A frame that was asked for is no longer there, or its bytes changed.
    #[error("the frame at {0:?} is gone or damaged")]
    Unreadable(Location),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
