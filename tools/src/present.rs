//! A stream's messages as a start of the server would find them: its checkpoint, and the log entries after it applied.

use std::any::Any;
use std::sync::Arc;

use nats_server::jetstream::core::{LogPlace, Salvaged, StreamCore};
use raft::log::{StoredEntry, stored_entries};
use storage::block::Record;
use storage::disk::RealDisk;
use storage::engine::{RestoreError, StoredStream};
use storage::filter::Filter;
use storage::seal::KeyRing;
use storage::store::{Expiry, FileStore, Limits, MemStore, ReadError, Store};

/// The name under which messages are shown that only the journal has.
pub const JOURNAL: &str = "journal";

/// A stream brought back in memory.
pub struct Present {
    salvaged: Salvaged,
    /// What its checkpoint knows ends here: messages above are in the journal.
    checkpointed: u64,
    everything: Filter,
    /// What could not be read or applied.
    pub problems: Vec<String>,
    /// What has to be known of it, and is no damage.
    pub notes: Vec<String>,
}

impl Present {
    /// Brings a stream back whose checkpoint ends at the sequence `checkpointed`.
    pub fn of(
        stored: &StoredStream,
        checkpointed: u64,
        ring: Option<Arc<KeyRing>>,
    ) -> anyhow::Result<Self> {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        let (core, entries, store) = match stored.view(Arc::new(RealDisk), ring) {
            Ok(found) => (
                found.core,
                found.entries,
                Box::new(found.store) as Box<dyn Store>,
            ),
            Err(error) => {
                // A checkpoint that cannot be read is named with the checkpoint.
                if !matches!(error, RestoreError::Damaged(_) | RestoreError::Key(_)) {
                    problems.push(error.to_string());
                }
                let store = Box::new(MemStore::new(Limits::default()));
                (bytes::Bytes::new(), stored.entries_after(0), store as _)
            }
        };
        let mut salvaged = StreamCore::salvage(&core, entries, store)?;
        problems.append(&mut salvaged.problems);
        if let Some(log) = &stored.group_log {
            let entries = stored_entries(stored.id.owner(), log);
            problems.extend(replay_group(&mut salvaged.core, &entries).err());
            notes.extend(not_committed(&salvaged.core, &entries));
        }
        Ok(Self {
            checkpointed: if salvaged.is_based { checkpointed } else { 0 },
            salvaged,
            everything: Filter::everything(),
            problems,
            notes,
        })
    }

    /// The stream, when all of it is known.
    pub fn core(&self) -> anyhow::Result<&StreamCore> {
        anyhow::ensure!(
            self.salvaged.is_based,
            "what the stream was before its log entries is lost"
        );
        Ok(&self.salvaged.core)
    }

    /// Whether a record of a block or of the checkpoint is a message that is still there. Where nothing is known of the checkpoint, everything is. What a block holds beyond
    /// the checkpoint a start brings back from the journal, not from there.
    pub fn is_live(&self, sequence: u64) -> bool {
        !self.salvaged.is_based
            || sequence <= self.checkpointed && self.next(sequence) == Some(sequence)
    }

    /// The messages that only the journal has, in order.
    pub fn in_journal(&self) -> impl Iterator<Item = Result<Record, ReadError>> {
        let mut from = self.checkpointed.saturating_add(1);
        std::iter::from_fn(move || {
            let sequence = self.next(from)?;
            from = sequence.saturating_add(1);
            self.load(sequence).transpose()
        })
    }

    fn load(&self, sequence: u64) -> Result<Option<Record>, ReadError> {
        let store = self.salvaged.core.store();
        let files = (store as &dyn Any).downcast_ref::<FileStore>();
        let expiry = files.map_or(Expiry::ByAge, |files| files.expiry(sequence));
        let message = store.load(sequence)?;
        Ok(message.map(|message| Record { message, expiry }))
    }

    fn next(&self, from: u64) -> Option<u64> {
        let store = self.salvaged.core.store();
        store.next_sequence(from, &self.everything)
    }
}

/// Applies what a replica's log alone tells to be committed.
fn replay_group(core: &mut StreamCore, entries: &[StoredEntry]) -> Result<(), String> {
    let after = core.applied_index();
    let committed = entries
        .iter()
        .filter(|entry| entry.index > after && entry.committed);
    for entry in committed {
        if entry.index != core.applied_index() + 1 {
            return Err(format!("log entries up to {} are lost", entry.index - 1));
        }
        let at = LogPlace {
            index: entry.index,
            term: Some(entry.term),
        };
        core.replay_committed(at, entry.command.as_ref())
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether the rest of a replica's log is committed, only the other replicas know.
fn not_committed(core: &StreamCore, entries: &[StoredEntry]) -> Option<String> {
    let mut open = entries
        .iter()
        .filter(|entry| entry.index > core.applied_index() && !entry.committed);
    let first = open.next()?.index;
    let last = open.next_back().map_or(first, |entry| entry.index);
    Some(format!(
        "log entries {first} to {last} are left out: whether they are committed, only the other replicas know"
    ))
}
