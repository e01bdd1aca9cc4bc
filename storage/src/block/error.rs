//! What can be wrong with a block, and how much of it that costs.

use crate::block::format::HeaderError;
use crate::codec::DecompressError;
use crate::disk::DiskError;
use crate::seal::UnwrapError;

/// Why a part of a block could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends before the part does.
    #[error("the file ends too early")]
    Truncated,
    /// The device does not give the bytes back.
    #[error("the device cannot read it")]
    Unreadable,
    /// The header of the part is not one.
    #[error("its header is damaged")]
    Header,
    /// The bytes are not those that were written.
    #[error("its checksum does not match")]
    Checksum,
    /// The bytes are not those that were sealed under this key.
    #[error("its authentication failed")]
    Authentication,
    /// The bytes cannot be unpacked.
    #[error(transparent)]
    Compression(#[from] DecompressError),
    /// The checksums hold and the content still makes no sense.
    #[error("its content is malformed")]
    Malformed,
}

/// A block that cannot be used at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlockOpenError {
    /// Its header is not readable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It is another block than the one asked for.
    #[error("the file holds another block than its name says")]
    Misplaced,
    /// It is encrypted and no key was given.
    #[error("the block is encrypted and no key was given")]
    KeyMissing,
    /// Its key slots are both unreadable.
    #[error("both key slots of the block are damaged")]
    KeySlots,
    /// A data key could not be unwrapped.
    #[error(transparent)]
    Key(#[from] UnwrapError),
    /// The block has been continued as often as its key slots allow.
    #[error("the block has no room for another data key")]
    KeysFull,
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A read from a block that could not be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlockReadError {
    /// One chunk is unreadable; its sequences are lost, those of all other chunks are not.
    #[error("sequences {first_sequence} to {last_sequence}: chunk at byte {offset}: {damage}")]
    Chunk {
        /// The first sequence the chunk holds.
        first_sequence: u64,
        /// The last sequence the chunk holds.
        last_sequence: u64,
        /// Where the chunk begins in the file.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// One record is unreadable, those around it are not.
    #[error("sequence {sequence}: record in the chunk at byte {offset}: {damage}")]
    Record {
        /// Its sequence.
        sequence: u64,
        /// Where its chunk begins in the file.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl BlockReadError {
    /// The sequences it costs, where it costs any.
    pub fn sequences(&self) -> Option<(u64, u64)> {
        match self {
            Self::Chunk {
                first_sequence,
                last_sequence,
                ..
            } => Some((*first_sequence, *last_sequence)),
            Self::Record { sequence, .. } => Some((*sequence, *sequence)),
            Self::Disk(_) => None,
        }
    }
}
