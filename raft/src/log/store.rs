//! openraft's log storage over the shared journal.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use parking_lot::Mutex;
use storage::journal::{CommitSink, Frame, FrameKind, Owner, Payload};
use tokio::sync::oneshot;

use super::completion::{Completions, Waiter};
use super::journal::LogJournal;
use super::reader::GroupLogReader;
use super::state::LogImage;
use crate::codec::{encode_mark, encode_vote, entry_parts, log_id};
use crate::types::{Entry, LeaderId, LogId, NodeId, Types, Vote};

/// How many bytes of entries a message to a follower takes, unless it is said otherwise.
const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// One group's log. Its newest entries are in memory as well as in the journal, older ones are read back from there.
pub struct GroupLog {
    owner: Owner,
    journal: Arc<dyn LogJournal>,
    image: Arc<Mutex<LogImage>>,
    completions: Arc<Completions>,
    sink: Arc<dyn CommitSink>,
    append_bytes_max: usize,
    last_token: u64,
    /// A committed mark that the next submission takes along: alone it would cost a sync of its own, and an older
    /// mark only means that a restart re-applies from further back.
    mark_to_write: Option<Bytes>,
}

/// Sees a group's log from outside.
#[derive(Clone)]
pub struct LogView(GroupLogReader);

/// How a group's log stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// How many entries it has.
    pub entries: u64,
    /// The index of the first, or of the next one when it has none.
    pub first_index: u64,
    /// The index of the last entry; of the last that was purged when it has none.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// Bytes that the entries are in the journal.
    pub bytes: u64,
    /// The id that was last voted for.
    pub voted_for: Option<NodeId>,
}

impl LogView {
    /// How it stands now.
    pub fn figures(&self) -> LogFigures {
        let image = self.0.image();
        let last = image.last_log_id();
        let vote = image.vote.map(|vote| vote.leader_id);
        LogFigures {
            entries: image.next_index() - image.first_index(),
            first_index: image.first_index(),
            last_index: last.map_or(0, |last| last.index),
            last_term: last.map_or(0, |last| last.leader_id.term),
            bytes: image.logged_bytes(),
            // In no term it only says that the replica was here.
            voted_for: vote
                .filter(|voted| voted.term > 0)
                .map(|voted| voted.voted_for),
        }
    }

    /// The entries after an index, committed or not: as many as one message holds, and one at least as long as there are any.
    pub(crate) async fn after(&self, index: u64) -> Result<Vec<Entry>, io::Error> {
        self.0.some_after(index).await
    }
}

impl GroupLog {
    /// The log of the group that owns `owner`'s frames, as [`recover`](super::recover) found it.
    pub fn new(owner: Owner, journal: Arc<dyn LogJournal>, image: LogImage) -> Self {
        // What was purged is known by its mark, and that the journal need not keep it was known to the process that is gone.
        if let Some(purged) = image.purged {
            journal.release(owner, purged.index);
        }
        let image = Arc::new(Mutex::new(image));
        let completions = Arc::new(Completions::new(Arc::clone(&image)));
        Self {
            owner,
            journal,
            image,
            sink: Arc::clone(&completions) as Arc<dyn CommitSink>,
            completions,
            append_bytes_max: APPEND_BYTES_MAX,
            last_token: 0,
            mark_to_write: None,
        }
    }

    /// Bounds what is kept in memory, and what one message to a follower holds.
    pub fn with_limits(mut self, tail_bytes_max: usize, append_bytes_max: usize) -> Self {
        self.image.lock().set_tail_bytes_max(tail_bytes_max);
        self.append_bytes_max = append_bytes_max;
        self
    }

    /// Writes down, durably, that this node id was here: a vote in no term, which grants nothing to anybody.
    pub async fn begin(&mut self, node: NodeId) -> Result<(), io::Error> {
        let (term, voted_for) = (0, node);
        let leader_id = LeaderId { term, voted_for };
        let committed = false;
        let here = Vote {
            leader_id,
            committed,
        };
        self.save_vote(&here).await
    }

    /// The state machine stands at `at`, durably: the log goes on after it. What it holds up to there is purged, durably too, or a later start would find entries that
    /// do not follow each other; and should it hold another entry there, what comes after is not of the group's history either.
    pub async fn begin_after(&mut self, at: LogId) -> Result<(), io::Error> {
        let conflicts = {
            let mut image = self.image.lock();
            image.begin_after(at);
            if image.purged.is_some_and(|purged| purged.index >= at.index) {
                return Ok(());
            }
            let held = image.term_of(at.index);
            held.is_some_and(|term| term != at.leader_id.term)
        };
        if conflicts {
            let before = at.index.checked_sub(1).map(|index| log_id(0, index));
            self.truncate_after(before).await?;
        }
        self.purge(at).await
    }

    /// Sees it while it is in use.
    pub fn view(&self) -> LogView {
        LogView(self.reader())
    }

    fn reader(&self) -> GroupLogReader {
        let image = Arc::clone(&self.image);
        GroupLogReader::new(image, Arc::clone(&self.journal), self.append_bytes_max)
    }

    fn frame(&self, kind: FrameKind, index: u64, payload: impl Into<Payload>) -> Frame {
        Frame {
            owner: self.owner,
            index,
            kind,
            payload: payload.into(),
        }
    }

    fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Hands the frames to the journal; `waiter` hears when the last of them, and so all, are durable. When they are refused it hears nothing: that is
    /// for the caller to pass on.
    fn submit(&mut self, frames: Vec<(Frame, u64)>, waiter: Waiter) -> Result<(), io::Error> {
        let mark = self.mark_to_write.take();
        let mark = mark.map(|payload| (self.frame(FrameKind::Committed, 0, payload), 0));
        let last = frames.last().map_or(0, |(_, token)| *token);
        self.completions.expect(last, waiter);
        let batch = mark.into_iter().chain(frames).collect();
        self.journal.submit(batch, &self.sink).map_err(|error| {
            // What the journal refused is never completed: the waiter would stand before all later ones.
            drop(self.completions.withdraw(last));
            io::Error::other(error)
        })
    }

    async fn submit_and_wait(
        &mut self,
        kind: FrameKind,
        index: u64,
        payload: Bytes,
    ) -> Result<(), io::Error> {
        let (sender, receiver) = oneshot::channel();
        let frame = self.frame(kind, index, payload);
        let token = self.next_token();
        self.submit(vec![(frame, token)], Waiter::Caller(sender))?;
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the journal is closed")))
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = GroupLogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let image = self.image.lock();
        Ok(LogState {
            last_purged_log_id: image.purged,
            last_log_id: image.last_log_id(),
        })
    }

    async fn get_log_reader(&mut self) -> GroupLogReader {
        self.reader()
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

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut frames = Vec::new();
        for entry in entries {
            let index = entry.log_id.index;
            let token = self.next_token();
            let payload = match entry_parts(&entry) {
                (head, None) => Payload::Whole(head),
                (head, Some(body)) => Payload::Parts(vec![head, body]),
            };
            frames.push((self.frame(FrameKind::Entry, index, payload), token));
            let pushed = self.image.lock().push(entry, token);
            pushed.map_err(io::Error::other)?;
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
        let token = self.next_token();
        self.submit(vec![(frame, token)], Waiter::Nobody)
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

#[cfg(test)]
mod tests {
    use openraft::storage::RaftLogStorageExt;
    use storage::journal::{JournalError, Location};

    use super::*;

    /// Refuses everything, and notes what need not be kept.
    #[derive(Default)]
    struct Closed(Mutex<Vec<(Owner, u64)>>);

    impl LogJournal for Closed {
        fn submit(
            &self,
            _frames: Vec<(Frame, u64)>,
            _sink: &Arc<dyn CommitSink>,
        ) -> Result<(), JournalError> {
            Err(JournalError::Closed)
        }

        fn release(&self, owner: Owner, upto: u64) {
            self.0.lock().push((owner, upto));
        }

        fn forget(&self, _owner: Owner) {}

        fn read(&self, location: Location) -> Result<Bytes, JournalError> {
            Err(JournalError::Unreadable(location))
        }
    }

    #[test]
    fn the_journal_need_not_keep_after_a_start_what_was_purged_before() {
        let journal = Arc::<Closed>::default();
        let mut image = LogImage::default();
        image.purged = Some(log_id(1, 7));
        let _log = GroupLog::new(Owner(2), Arc::<Closed>::clone(&journal), image);
        assert_eq!(*journal.0.lock(), [(Owner(2), 7)]);
    }

    #[tokio::test]
    async fn a_refused_append_leaves_nobody_waiting() {
        let mut log = GroupLog::new(Owner(1), Arc::<Closed>::default(), LogImage::default());
        let entry = Entry {
            log_id: log_id(1, 1),
            payload: crate::types::Payload::Blank,
        };
        assert!(log.blocking_append([entry]).await.is_err());
        assert_eq!(log.completions.waiting(), 0);
    }
}
