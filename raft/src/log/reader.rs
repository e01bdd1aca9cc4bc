//! What replication and the state machine read a group's log through.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::{Mutex, MutexGuard};

use super::journal::LogJournal;
use super::state::{Held, LogImage};
use crate::codec::decode_entry;
use crate::types::{Entry, Types, Vote};

/// Reads a group's log beside its writer. An entry is here from the moment its append was taken.
#[derive(Clone)]
pub struct GroupLogReader {
    image: Arc<Mutex<LogImage>>,
    journal: Arc<dyn LogJournal>,
    append_bytes_max: usize,
}

impl GroupLogReader {
    pub(super) fn new(
        image: Arc<Mutex<LogImage>>,
        journal: Arc<dyn LogJournal>,
        append_bytes_max: usize,
    ) -> Self {
        Self {
            image,
            journal,
            append_bytes_max,
        }
    }

    pub(super) fn image(&self) -> MutexGuard<'_, LogImage> {
        self.image.lock()
    }

    /// The entries after an index, as many as one message holds.
    pub(super) async fn some_after(&self, index: u64) -> Result<Vec<Entry>, io::Error> {
        let after = index.saturating_add(1)..;
        self.entries(after, self.append_bytes_max).await
    }

    async fn entries(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, io::Error> {
        let held = self.image.lock().range(range, bytes_max);
        let in_memory = held.iter().all(|held| matches!(held, Held::Entry(_)));
        if in_memory || !self.journal.read_waits() {
            return load(held, self.journal.as_ref(), bytes_max);
        }
        let journal = Arc::clone(&self.journal);
        let load = move || load(held, journal.as_ref(), bytes_max);
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl GroupLogReader {
    /// The entries from `begin` up to before `end`, never more of them in memory than one message holds.
    fn slices(self, begin: u64, end: u64) -> impl Stream<Item = Result<Entry, io::Error>> {
        let start = (self, begin, Vec::new().into_iter());
        stream::try_unfold(start, move |(reader, mut next, mut slice)| async move {
            if slice.len() == 0 && next < end {
                let entries = reader.entries(next..end, reader.append_bytes_max).await?;
                slice = entries.into_iter();
            }
            let Some(entry): Option<Entry> = slice.next() else {
                return Ok(None);
            };
            next = entry.log_id.index + 1;
            Ok(Some((entry, (reader, next, slice))))
        })
    }
}

/// Reads from the journal what is not in memory, up to the limit and one entry at least.
fn load(
    held: Vec<Held>,
    journal: &dyn LogJournal,
    bytes_max: usize,
) -> Result<Vec<Entry>, io::Error> {
    let mut entries = Vec::with_capacity(held.len());
    let mut bytes = 0;
    for held in held {
        match held {
            Held::Entry(entry) => entries.push(entry),
            Held::Stored { id, location } => {
                let payload = journal.read(location).map_err(io::Error::other)?;
                bytes += payload.len();
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                let entry = decode_entry(id.index, &payload).map_err(io::Error::other)?;
                if entry.log_id != id {
                    let found = entry.log_id;
                    return Err(io::Error::other(format!(
                        "{id} is to be read, and {found} is there"
                    )));
                }
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

impl RaftLogReader<Types> for GroupLogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.entries(range, usize::MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let begin = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => self.image.lock().next_index(),
        };
        Box::pin(self.clone().slices(begin, end))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries(start..end, self.append_bytes_max).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.image.lock().vote)
    }
}
