//! The journal as the engine uses it: on its thread, or without one for a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::StreamId;
use crate::journal::{
    Commit, CommitSink, Frame, FrameKind, Journal, JournalCore, JournalError, Location, Owner,
    Payload, Pressure, PressureLevel,
};

/// One entry of a stream's log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The stream.
    pub stream: StreamId,
    /// Its place in the stream's log.
    pub index: u64,
    /// Its content, opaque here.
    pub payload: Payload,
    /// Comes back with its completion.
    pub token: u64,
}

impl LogEntry {
    pub(super) fn into_frame(self) -> (Frame, u64) {
        let frame = Frame {
            owner: self.stream.owner(),
            index: self.index,
            kind: FrameKind::Entry,
            payload: self.payload,
        };
        (frame, self.token)
    }
}

pub(super) enum Log {
    Threaded(Journal),
    Inline(Box<Inline>),
}

type Listener = Box<dyn Fn(&Pressure) + Send + Sync>;

/// Commits on the caller's thread. What completions ask of the journal waits until the commit has returned.
pub(super) struct Inline {
    core: Mutex<Option<JournalCore>>,
    letters: Mutex<Vec<Letter>>,
    listener: Mutex<Option<Listener>>,
    pressed: AtomicBool,
}

pub(super) enum Letter {
    Release(Owner, u64),
    Forget(Owner),
    DropMark(Owner, FrameKind),
}

impl Log {
    pub fn inline(core: JournalCore) -> Self {
        Self::Inline(Box::new(Inline {
            core: Mutex::new(Some(core)),
            letters: Mutex::default(),
            listener: Mutex::default(),
            pressed: AtomicBool::new(false),
        }))
    }

    pub fn submit(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        match self {
            Self::Threaded(journal) => journal.submit(frames, sink),
            Self::Inline(inline) => inline.submit(frames, sink),
        }
    }

    /// The same, on this thread where that is only writing.
    pub fn submit_here(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        match self {
            Self::Threaded(journal) => journal.submit_here(frames, sink),
            Self::Inline(inline) => inline.submit(frames, sink),
        }
    }

    /// Appends one frame and waits until it is committed.
    pub fn append(&self, frame: Frame) -> Result<(), JournalError> {
        let waiter = Arc::new(Waiter::default());
        let sink: Arc<dyn CommitSink> = waiter.clone();
        self.submit([(frame, 0)], &sink)?;
        waiter.wait()
    }

    pub fn post(&self, letter: Letter) {
        match self {
            Self::Inline(inline) => inline.letters.lock().push(letter),
            Self::Threaded(journal) => match letter {
                Letter::Release(owner, upto) => journal.release(owner, upto),
                Letter::Forget(owner) => journal.forget(owner),
                Letter::DropMark(owner, kind) => journal.drop_mark(owner, kind),
            },
        }
    }

    pub fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        match self {
            Self::Threaded(journal) => journal.read(location),
            Self::Inline(inline) => match &*inline.core.lock() {
                Some(core) => core.read(location),
                None => Err(JournalError::Closed),
            },
        }
    }

    pub fn staged_bytes(&self) -> usize {
        match self {
            Self::Threaded(journal) => journal.staged_bytes(),
            Self::Inline(_) => 0,
        }
    }

    pub fn pressure_level(&self) -> PressureLevel {
        match self {
            Self::Threaded(journal) => journal.pressure_level(),
            Self::Inline(inline) => inline.with(|core| core.pressure().level),
        }
    }

    pub fn has_room(&self) -> bool {
        match self {
            Self::Threaded(journal) => journal.has_room(),
            Self::Inline(inline) => inline.with(|core| core.has_room()),
        }
    }

    pub fn set_pressure_listener(&self, listener: impl Fn(&Pressure) + Send + Sync + 'static) {
        match self {
            Self::Threaded(journal) => journal.set_pressure_listener(listener),
            Self::Inline(inline) => *inline.listener.lock() = Some(Box::new(listener)),
        }
    }

    pub fn close(&self) {
        match self {
            Self::Threaded(journal) => journal.close(),
            Self::Inline(inline) => {
                inline.deliver_letters();
                let core = inline.core.lock().take();
                if let Some(Err(error)) = core.map(JournalCore::close) {
                    tracing::warn!(%error, "the journal could not be closed in order");
                }
            }
        }
    }
}

impl Inline {
    fn submit(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        self.deliver_letters();
        {
            let mut core = self.core.lock();
            let core = core.as_mut().ok_or(JournalError::Closed)?;
            for (frame, token) in frames {
                core.stage(&frame, token, sink)?;
            }
            // Sinks hear of a failure; this call only hands over.
            let _ = core.commit();
        }
        self.deliver_letters();
        self.report();
        Ok(())
    }

    fn deliver_letters(&self) {
        let letters = std::mem::take(&mut *self.letters.lock());
        let mut core = self.core.lock();
        let Some(core) = core.as_mut() else {
            return;
        };
        for letter in letters {
            match letter {
                Letter::Release(owner, upto) => core.release(owner, upto),
                Letter::Forget(owner) => core.forget(owner),
                Letter::DropMark(owner, kind) => core.drop_mark(owner, kind),
            }
        }
    }

    /// Tells the listener, unless this submit came from it.
    fn report(&self) {
        let pressure = self.with(JournalCore::pressure);
        if pressure.level == PressureLevel::None || self.pressed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(listener) = &*self.listener.lock() {
            listener(&pressure);
        }
        self.pressed.store(false, Ordering::Relaxed);
    }

    fn with<T: Default>(&self, ask: impl FnOnce(&JournalCore) -> T) -> T {
        self.core.lock().as_ref().map(ask).unwrap_or_default()
    }
}

/// Waits for one frame.
#[derive(Default)]
struct Waiter {
    outcome: Mutex<Option<Result<(), JournalError>>>,
    told: Condvar,
}

impl Waiter {
    fn wait(&self) -> Result<(), JournalError> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => self.told.wait(&mut outcome),
            }
        }
    }

    fn tell(&self, result: Result<(), JournalError>) {
        *self.outcome.lock() = Some(result);
        self.told.notify_one();
    }
}

impl CommitSink for Waiter {
    fn committed(&self, _commits: &[Commit]) {
        self.tell(Ok(()));
    }

    fn failed(&self, error: &JournalError) {
        self.tell(Err(error.clone()));
    }
}
