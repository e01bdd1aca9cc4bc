//! The names of the files in a stream's directory.

/// The checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// A checkpoint that is being written, before it takes the place of the old one.
pub(super) const CHECKPOINT_NEW: &str = "checkpoint.new";
/// Where block files go that no checkpoint lists.
pub(super) const SET_ASIDE: &str = "set-aside";

const BLOCK_SUFFIX: &str = ".block";

/// Which block a file holds: its place among the stream's blocks, and how often that was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockName {
    pub number: u64,
    pub generation: u32,
}

impl BlockName {
    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{:08}-{:04}{BLOCK_SUFFIX}", self.number, self.generation)
    }

    /// Whether a file name is one of a block.
    pub fn is_block(file_name: &str) -> bool {
        file_name.ends_with(BLOCK_SUFFIX)
    }

    /// Whether a file name is one of a block that was set aside.
    pub fn is_set_aside(file_name: &str) -> bool {
        file_name
            .rsplit_once('.')
            .is_some_and(|(block, _)| Self::is_block(block))
    }
}
