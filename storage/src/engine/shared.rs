//! The journal for those who keep logs of their own in it: the groups of replicated streams, and of the server itself.

use std::sync::Arc;

use bytes::Bytes;

use super::log::Letter;
use super::{Engine, Persistent};
use crate::journal::{CommitSink, Frame, FrameKind, JournalError, Location, Owner};

impl<S: Persistent> Engine<S> {
    /// Appends frames, each with a token that its completion carries; they stand directly one after another. Owners are those of replicated streams, and
    /// those below 16 that are not the catalog's. Never waits for the disk.
    pub fn submit_frames(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        self.log.submit(frames, sink)
    }

    /// The owner no longer needs its entries up to `upto`: something that is durable covers them.
    pub fn release_frames(&self, owner: Owner, upto: u64) {
        self.log.post(Letter::Release(owner, upto));
    }

    /// The owner is gone, durably, and nothing of it is needed any more.
    pub fn forget_owner(&self, owner: Owner) {
        self.log.post(Letter::Forget(owner));
    }

    /// Reads a committed frame's payload again. May wait for the disk.
    pub fn read_frame(&self, location: Location) -> Result<Bytes, JournalError> {
        self.log.read(location)
    }

    /// Keeps the whole state of an owner below 16 at that index in the journal, in place of the one before. Its completion says that it is durable; what it
    /// covers may be released then.
    pub fn carry_state(
        &self,
        owner: Owner,
        index: u64,
        state: Bytes,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        let frame = Frame {
            owner,
            index,
            kind: FrameKind::Carry,
            payload: state.into(),
        };
        self.log.submit([(frame, 0)], sink)
    }
}
