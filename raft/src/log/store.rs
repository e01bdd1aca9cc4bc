//! openraft's log storage over the shared journal.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use parking_lot::Mutex;
use storage::journal::{CommitSink, Frame, FrameKind, Journal, Owner};
use tokio::sync::oneshot;

use super::completion::{Completions, Waiter};
use super::reader::GroupLogReader;
use super::state::LogImage;
use crate::codec::{encode_entry, encode_mark, encode_vote};
use crate::types::{Entry, Group, LogId, Vote};

/// One group's log. What it holds is in memory as well as in the journal, until it is purged.
pub struct GroupLog {
    owner: Owner,
    journal: Arc<Journal>,
    image: Arc<Mutex<LogImage>>,
    completions: Arc<Completions>,
    sink: Arc<dyn CommitSink>,
    /// A committed mark that the next submission takes along: alone it would cost a sync of its own, and an older
    /// mark only means that a restart re-applies from further back.
    mark_to_write: Option<Bytes>,
}

impl GroupLog {
    /// The log of the group that owns `owner`'s frames, as [`recover`](super::recover) found it.
    pub fn new(owner: Owner, journal: Arc<Journal>, image: LogImage) -> Self {
        let completions = Arc::new(Completions::default());
        Self {
            owner,
            journal,
            image: Arc::new(Mutex::new(image)),
            sink: Arc::clone(&completions) as Arc<dyn CommitSink>,
            completions,
            mark_to_write: None,
        }
    }

    /// Writes down the committed mark that still waits for company, and returns when it and all before it are durable.
    pub async fn flush(&mut self) -> Result<(), io::Error> {
        let mark = self.mark_to_write.take();
        let Some(payload) = mark else { return Ok(()) };
        self.submit_and_wait(FrameKind::Committed, 0, payload).await
    }

    fn frame(&self, kind: FrameKind, index: u64, payload: Bytes) -> Frame {
        Frame {
            owner: self.owner,
            index,
            kind,
            payload: payload.into(),
        }
    }

    /// Hands the frames to the journal; `waiter` hears when the last of them, and so all, are durable.
    fn submit(&mut self, frames: Vec<Frame>, waiter: Waiter) -> Result<(), io::Error> {
        let mark = self.mark_to_write.take();
        let mark = mark.map(|payload| self.frame(FrameKind::Committed, 0, payload));
        let token = self.completions.expect(waiter);
        let mut batch: Vec<(Frame, u64)> = Vec::with_capacity(frames.len() + 1);
        batch.extend(mark.into_iter().chain(frames).map(|frame| (frame, 0)));
        if let Some((_, last)) = batch.last_mut() {
            *last = token;
        }
        self.journal
            .submit(batch, &self.sink)
            .map_err(io::Error::other)
    }

    async fn submit_and_wait(
        &mut self,
        kind: FrameKind,
        index: u64,
        payload: Bytes,
    ) -> Result<(), io::Error> {
        let (sender, receiver) = oneshot::channel();
        let frame = self.frame(kind, index, payload);
        self.submit(vec![frame], Waiter::Caller(sender))?;
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))
    }
}

impl RaftLogStorage<Group> for GroupLog {
    type LogReader = GroupLogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, io::Error> {
        let image = self.image.lock();
        Ok(LogState {
            last_purged_log_id: image.purged,
            last_log_id: image.last_log_id(),
        })
    }

    async fn get_log_reader(&mut self) -> GroupLogReader {
        GroupLogReader::new(Arc::clone(&self.image))
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        // The vote is durable before it is visible: a reader that saw it could let a leader act on it.
        self.submit_and_wait(FrameKind::Vote, 0, encode_vote(vote))
            .await?;
        self.image.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.image.lock().committed = committed;
        self.mark_to_write = Some(encode_mark(committed.as_ref()));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.image.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Group>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut frames = Vec::new();
        {
            let mut image = self.image.lock();
            for entry in entries {
                let index = entry.log_id.index;
                frames.push(self.frame(FrameKind::Entry, index, encode_entry(&entry)));
                image.push(entry).map_err(io::Error::other)?;
            }
        }
        if frames.is_empty() {
            callback.io_completed(self.completions.failure().map_or(Ok(()), Err));
            return Ok(());
        }
        self.submit(frames, Waiter::Flushed(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let index = last.map_or(0, |id| id.index + 1);
        // Entries that come later are later in the journal too: nothing has to wait for this to be durable, and should it
        // be lost, the entries that followed it are lost with it.
        let frame = self.frame(FrameKind::Truncate, index, Bytes::new());
        self.image.lock().truncate(index);
        let (sender, _) = oneshot::channel();
        self.submit(vec![frame], Waiter::Caller(sender))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // The mark is durable before the journal may recycle the entries: without it a restart would find a log that
        // begins nowhere.
        self.submit_and_wait(FrameKind::Purged, upto.index, encode_mark(Some(&upto)))
            .await?;
        self.image.lock().purge(upto);
        self.journal.release(self.owner, upto.index);
        Ok(())
    }
}
