//! The frames of one call, encoded before anybody is held up by them.

use std::cell::Cell;

use super::buffer::CommitBuffer;
use super::frame::{Commit, Frame, JournalError, Location};

/// A draft that has grown beyond this is not kept for the thread's next call.
const KEPT_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Each thread's draft, so that its memory is allocated once.
    static KEPT: Cell<Option<Draft>> = const { Cell::new(None) };
}

/// Encoded frames, and what their completions will say.
pub(super) struct Draft {
    /// Have grown to the limit of a commit, in order; they come before `open`.
    pub full: Vec<(CommitBuffer, Vec<Commit>)>,
    pub open: CommitBuffer,
    /// Of the frames in `open`.
    pub commits: Vec<Commit>,
}

impl Draft {
    /// The calling thread's, empty.
    pub fn take() -> Self {
        KEPT.take().unwrap_or_else(|| Self {
            full: Vec::new(),
            open: CommitBuffer::new(),
            commits: Vec::new(),
        })
    }

    /// Keeps its memory for the calling thread's next call.
    pub fn put_back(mut self) {
        if self.open.length() > KEPT_BYTES_MAX {
            return;
        }
        self.full.clear();
        self.open.reset(KEPT_BYTES_MAX);
        self.commits.clear();
        KEPT.set(Some(self));
    }

    /// Encodes frames up to the first that is too large.
    pub fn encode(
        &mut self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        seed: u32,
        commit_bytes_max: usize,
    ) -> Result<(), JournalError> {
        for (frame, token) in frames {
            let location = Location {
                segment: 0,
                commit_at: 0,
                frame_at: self.open.length() as u32,
            };
            self.open.push(&frame, seed, None)?;
            self.commits.push(Commit {
                owner: frame.owner,
                index: frame.index,
                kind: frame.kind,
                token,
                location,
            });
            if self.open.length() >= commit_bytes_max {
                let full = std::mem::replace(&mut self.open, CommitBuffer::new());
                self.full.push((full, std::mem::take(&mut self.commits)));
            }
        }
        Ok(())
    }
}
