//! Checkpoints: a cut is taken at once and made durable in the background, then the journal may forget what it covers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::log::Letter;
use super::{Activities, Engine, Frozen, Persistent, StreamId, rescue};
use crate::journal::{Commit, CommitSink, Frame, FrameKind, JournalError};

/// What became of a request for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStart {
    /// The cut is taken and on its way.
    Begun,
    /// The one before has not ended. Nothing was done; ask again later.
    Busy,
}

/// Why a checkpoint that was waited for is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint: {0}")]
pub struct CheckpointFailed(String);

impl<S: Persistent> Engine<S> {
    /// Takes a cut of a stream at a log index up to which everything was applied, and begins to make it durable. `core` is the state of
    /// whoever owns the store; it comes back at recovery.
    pub fn checkpoint(
        &self,
        id: StreamId,
        store: &mut S,
        index: u64,
        core: Bytes,
    ) -> Result<CheckpointStart, JournalError> {
        let carry_bytes_max = {
            let mut activities = self.activities.lock();
            let total = activities.carried_bytes;
            let Some(activity) = activities.streams.get_mut(&id) else {
                return Ok(CheckpointStart::Busy);
            };
            if activity.checkpointing || activity.removed.load(Ordering::SeqCst) {
                return Ok(CheckpointStart::Busy);
            }
            activity.checkpointing = true;
            let others = total - activity.carried_bytes;
            activities.running += 1;
            let room = self.options.carried_total_bytes_max.saturating_sub(others);
            self.options.carry_bytes_max.min(room as usize)
        };
        match store.freeze(index, core, carry_bytes_max) {
            Frozen::Carry(bytes) => self.carry_stream(id, index, bytes)?,
            Frozen::Files(job) => {
                let engine = self.this.upgrade();
                self.background.spawn(Box::new(move || {
                    let result = job();
                    if let Some(engine) = engine {
                        let result = result.map_err(|error| error.to_string());
                        engine.end_checkpoint(id, index, result.map(|()| None));
                    }
                }));
            }
        }
        Ok(CheckpointStart::Begun)
    }

    /// The same, and waits until it is durable. For who has nothing else to do meanwhile.
    pub fn checkpoint_now(
        &self,
        id: StreamId,
        store: &mut S,
        index: u64,
        core: Bytes,
    ) -> Result<(), CheckpointFailed> {
        self.wait_for_checkpoint(id)?;
        let begun = self.checkpoint(id, store, index, core);
        match begun.map_err(|error| CheckpointFailed(error.to_string()))? {
            CheckpointStart::Begun => self.wait_for_checkpoint(id),
            CheckpointStart::Busy => Err(CheckpointFailed("the stream is gone".to_owned())),
        }
    }

    fn wait_for_checkpoint(&self, id: StreamId) -> Result<(), CheckpointFailed> {
        let mut activities = self.activities.lock();
        loop {
            match activities.streams.get(&id) {
                Some(activity) if activity.failed => {
                    return Err(CheckpointFailed("it could not be written".to_owned()));
                }
                Some(activity) if activity.checkpointing => self.idle.wait(&mut activities),
                _ => return Ok(()),
            }
        }
    }

    fn carry_stream(&self, id: StreamId, index: u64, bytes: Bytes) -> Result<(), JournalError> {
        let length = bytes.len() as u64;
        let sink: Arc<dyn CommitSink> = Arc::new(CarrySink {
            engine: self.this.clone(),
            id,
            index,
            length,
        });
        let frame = Frame {
            owner: id.owner(),
            index,
            kind: FrameKind::Carry,
            payload: bytes.into(),
        };
        let submitted = self.log.submit([(frame, 0)], &sink);
        if let Err(error) = &submitted {
            self.end_checkpoint(id, index, Err(error.to_string()));
        }
        submitted
    }

    /// `Ok(Some(bytes))` when the journal carries the cut, `Ok(None)` when files hold it.
    fn end_checkpoint(&self, id: StreamId, index: u64, result: Result<Option<u64>, String>) {
        let mut activities = self.activities.lock();
        let Activities {
            streams,
            carried_bytes,
            ..
        } = &mut *activities;
        let Some(activity) = streams.get_mut(&id) else {
            drop(activities);
            return self.end_job();
        };
        activity.checkpointing = false;
        let replicated = activity.form.is_replicated();
        let removed = activity.removed.load(Ordering::SeqCst);
        let before = activity.carried_bytes;
        if let (Ok(carried), false) = (&result, removed) {
            activity.carried_bytes = carried.unwrap_or_default();
            let now = activity.carried_bytes;
            // What was moved out of the journal's way is covered now.
            let rescued = (1..=index).contains(&activity.rescued_upto);
            if rescued {
                activity.rescued_upto = 0;
            }
            let place = activity.place.clone().filter(|_| rescued);
            *carried_bytes = *carried_bytes - before + now;
            if let Some(place) = place {
                self.background.spawn(Box::new(move || {
                    if let Err(error) = rescue::remove(place.disk.as_ref(), &place.directory) {
                        tracing::warn!(stream = %id, %error, "files with old log entries are left");
                    }
                }));
            }
        }
        match result {
            _ if removed => {
                // A frame that was committed after the removal brings the owner back to the journal's books.
                self.log.post(Letter::Forget(id.owner()));
                self.delete_in_background(activities, id);
            }
            Ok(carried) => {
                drop(activities);
                if !replicated {
                    self.log.post(Letter::Release(id.owner(), index));
                } else if let Some(listener) = &*self.checkpoints.lock() {
                    listener(id, index);
                }
                if carried.is_none() {
                    self.log
                        .post(Letter::DropMark(id.owner(), FrameKind::Carry));
                }
            }
            Err(reason) => {
                activity.failed = true;
                drop(activities);
                tracing::error!(stream = %id, reason, "a checkpoint could not be written");
                if let Some(listener) = &*self.failures.lock() {
                    listener(id, &reason);
                }
            }
        }
        self.end_job();
    }
}

struct CarrySink<S: Persistent> {
    engine: std::sync::Weak<Engine<S>>,
    id: StreamId,
    index: u64,
    length: u64,
}

impl<S: Persistent> CarrySink<S> {
    fn end(&self, result: Result<Option<u64>, String>) {
        if let Some(engine) = self.engine.upgrade() {
            engine.end_checkpoint(self.id, self.index, result);
        }
    }
}

impl<S: Persistent> CommitSink for CarrySink<S> {
    fn committed(&self, _commits: &[Commit]) {
        self.end(Ok(Some(self.length)));
    }

    fn failed(&self, error: &JournalError) {
        self.end(Err(error.to_string()));
    }
}
