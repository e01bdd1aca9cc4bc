//! What a group's log needs of the journal that it shares.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::engine::{Engine, Persistent};
use storage::journal::{CommitSink, Frame, Journal, JournalCore, JournalError, Location, Owner};

/// A journal, as far as groups are concerned.
pub trait LogJournal: Send + Sync + 'static {
    /// Appends frames, each with a token that its completion carries; they stand directly one after another. Never waits for the disk. After
    /// an error nothing of them is completed.
    fn submit(
        &self,
        frames: Vec<(Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError>;

    /// The owner no longer needs its entries up to `upto`. Called when the mark that says so is durable.
    fn release(&self, owner: Owner, upto: u64);

    /// The owner is gone, durably, and nothing of it is needed any more.
    fn forget(&self, owner: Owner);

    /// Reads a committed frame's payload again. May wait for the disk.
    fn read(&self, location: Location) -> Result<Bytes, JournalError>;

    /// Whether [`LogJournal::read`] may wait for a disk, and so has no place on the threads of the groups.
    fn read_waits(&self) -> bool {
        true
    }
}

impl LogJournal for Journal {
    fn submit(
        &self,
        frames: Vec<(Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        Self::submit(self, frames, sink)
    }

    fn release(&self, owner: Owner, upto: u64) {
        Self::release(self, owner, upto);
    }

    fn forget(&self, owner: Owner) {
        Self::forget(self, owner);
    }

    fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        Self::read(self, location)
    }
}

impl<S: Persistent> LogJournal for Engine<S> {
    fn submit(
        &self,
        frames: Vec<(Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        self.submit_frames(frames, sink)
    }

    fn release(&self, owner: Owner, upto: u64) {
        self.release_frames(owner, upto);
    }

    fn forget(&self, owner: Owner) {
        self.forget_owner(owner);
    }

    fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        self.read_frame(location)
    }
}

/// A journal without a thread: every submission is committed, and its sink told, before it returns. For simulations.
pub struct InlineJournal {
    core: Mutex<Option<JournalCore>>,
}

impl InlineJournal {
    /// Wraps the journal.
    pub fn new(core: JournalCore) -> Self {
        Self {
            core: Mutex::new(Some(core)),
        }
    }

    /// Ends the journal in order. Nothing is taken any more.
    pub fn close(&self) -> Result<(), JournalError> {
        match self.core.lock().take() {
            Some(core) => core.close(),
            None => Ok(()),
        }
    }
}

impl LogJournal for InlineJournal {
    fn submit(
        &self,
        frames: Vec<(Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        let mut core = self.core.lock();
        let core = core.as_mut().ok_or(JournalError::Closed)?;
        for (frame, token) in frames {
            core.stage(&frame, token, sink)?;
        }
        // The sinks hear of a failure; this call only hands over.
        let _ = core.commit();
        Ok(())
    }

    fn release(&self, owner: Owner, upto: u64) {
        if let Some(core) = &mut *self.core.lock() {
            core.release(owner, upto);
        }
    }

    fn forget(&self, owner: Owner) {
        if let Some(core) = &mut *self.core.lock() {
            core.forget(owner);
        }
    }

    fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        match &*self.core.lock() {
            Some(core) => core.read(location),
            None => Err(JournalError::Closed),
        }
    }

    fn read_waits(&self) -> bool {
        false
    }
}
