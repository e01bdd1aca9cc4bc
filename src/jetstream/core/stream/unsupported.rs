//! What a later version has written into a stream: such a stream is left as it is.
//!
//! A configuration that names what this version does not know, or says that it needs a higher level of the API, cannot be kept to. It is found before
//! any entry is applied, because what entries mean depends on it: messages could go that were to stay.

use std::collections::BTreeMap;

use bytes::Bytes;
use memchr::memmem;

use super::StreamCore;
use crate::jetstream::core::entry::{EntryReader, Op};
use crate::jetstream::types::{ConsumerConfig, REQUIRED_LEVEL, StreamConfig, unsupported};

/// Why a stream cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unsupported {
    /// What keeps the stream from running.
    pub reason: String,
    /// Its consumers that a later version has written, and what this one does not know of them.
    pub consumers: BTreeMap<String, String>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    stream: Option<String>,
    consumers: BTreeMap<u64, (String, String)>,
}

impl Findings {
    pub(super) fn note_stream(&mut self, json: &[u8]) {
        self.stream = unsupported::<StreamConfig>(json);
    }

    pub(super) fn note_consumer(&mut self, id: u64, name: &str, json: &[u8]) {
        match unsupported::<ConsumerConfig>(json) {
            Some(reason) => {
                self.consumers.insert(id, (name.to_owned(), reason));
            }
            None => {
                self.consumers.remove(&id);
            }
        }
    }

    /// Looks through an entry that was not applied yet. What cannot be read is found when it is.
    fn note_entry(&mut self, core: &StreamCore, names: &mut BTreeMap<u64, String>, entry: &Bytes) {
        // Every configuration says which level it needs; most entries have none.
        if memmem::find(entry, REQUIRED_LEVEL.as_bytes()).is_none() {
            return;
        }
        let Ok(mut reader) = EntryReader::new(entry) else {
            return;
        };
        while let Ok(Some(op)) = reader.next() {
            match op {
                Op::Config { json } => self.note_stream(json),
                Op::ConsumerCreate { id, name, json } => {
                    names.insert(id, name.to_owned());
                    self.note_consumer(id, name, json);
                }
                Op::ConsumerUpdate { id, json } => {
                    let known = core.consumers.get(&id).map(|consumer| &consumer.name);
                    let name = names.get(&id).or(known).cloned().unwrap_or_default();
                    self.note_consumer(id, &name, json);
                }
                _ => {}
            }
        }
    }

    /// Refuses a stream that a later version has written, here or in entries that are to be applied. A consumer counts even when a later entry
    /// removes it: what it did until then may be beyond this version.
    pub(super) fn judge(
        mut self,
        core: &StreamCore,
        entries: &[(u64, Bytes)],
    ) -> Result<(), Unsupported> {
        let mut names = BTreeMap::new();
        for (_, entry) in entries {
            self.note_entry(core, &mut names, entry);
        }
        self.verdict().map_or(Ok(()), Err)
    }

    /// What they come to.
    pub(super) fn verdict(self) -> Option<Unsupported> {
        let first = self.consumers.values().next();
        let stopped = first.map(|(name, _)| format!("stopped - unsupported consumer {name:?}"));
        let reason = self.stream.or(stopped)?;
        Some(Unsupported {
            reason,
            consumers: self.consumers.into_values().collect(),
        })
    }
}

impl StreamCore {
    /// What a later version has written into a replica's state, or into an entry that its group has committed. It has to stop then, as it is.
    pub fn unsupported(&self) -> Option<&Unsupported> {
        self.unsupported.as_ref()
    }

    /// Looks at an operation that a group has committed, before it is applied; whether it is beyond this version. Other than the log of one replica, that of a group
    /// grows while it is applied.
    pub(super) fn is_beyond(&mut self, op: &Op<'_>) -> bool {
        let mut findings = Findings::default();
        match *op {
            Op::Config { json } => findings.note_stream(json),
            Op::ConsumerCreate { id, name, json } => findings.note_consumer(id, name, json),
            Op::ConsumerUpdate { id, json } => {
                if let Some(consumer) = self.consumers.get(&id) {
                    findings.note_consumer(id, &consumer.name, json);
                }
            }
            _ => return false,
        }
        self.unsupported = findings.verdict();
        self.unsupported.is_some()
    }
}
