//! Taking up a stream from what storage has of it: its state at a cut, and the log entries after it.

use bytes::Bytes;
use storage::store::{Limits, MemStore, Store};
use thiserror::Error;

use super::unsupported::{Findings, Unsupported};
use super::{ApplyError, BeginError, StreamCore};
use crate::jetstream::core::entry::EntryReader;
use crate::jetstream::types::{Storage, StreamConfig};

/// A stream that could not be taken up.
#[derive(Debug, Clone, Error)]
pub enum RecoverError {
    /// Its state cannot be read.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// An entry cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A later version has written it. Nothing was applied.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// What can still be had of a stream, however damaged its log is.
pub struct Salvaged {
    /// The stream. Where [`Salvaged::is_based`] is not, it has only what the entries brought, without limits and consumers.
    pub core: StreamCore,
    /// Whether it stands on its state at the cut.
    pub is_based: bool,
    /// What could not be read or applied.
    pub problems: Vec<String>,
}

impl StreamCore {
    /// Takes up a stream where `snapshot` left it and applies the entries after it. An empty snapshot is that of a stream whose
    /// first entry says what it was born with.
    pub fn recover(
        snapshot: &[u8],
        entries: impl IntoIterator<Item = (u64, Bytes)>,
        domain: &str,
        store: Box<dyn Store>,
    ) -> Result<Self, RecoverError> {
        let mut entries = entries.into_iter();
        let mut findings = Findings::default();
        let mut core = if snapshot.is_empty() {
            let (_, birth) = entries.next().unwrap_or_default();
            Self::begin_noting(&birth, domain, store, &mut findings)?
        } else {
            Self::restore_noting(snapshot, domain, store, &mut findings)?
        };
        let entries: Vec<(u64, Bytes)> = entries.collect();
        findings.judge(&core, &entries)?;
        for (index, entry) in entries {
            core.replay(index, &entry)?;
        }
        Ok(core)
    }

    /// As [`recover`](Self::recover), for looking only: what is missing or unreadable is passed over, and the rest is applied. A
    /// stream that keeps its messages in memory has none.
    pub fn salvage(
        snapshot: &[u8],
        entries: Vec<(u64, Bytes)>,
        store: Box<dyn Store>,
    ) -> Result<Salvaged, RecoverError> {
        let born = match entries.first() {
            Some((1, birth)) if snapshot.is_empty() => Some(birth),
            _ => None,
        };
        let state = born.map_or(snapshot, |birth| birth);
        let mut problems = Vec::new();
        let mut is_based = false;
        let mut core = Self::unbased()?;
        match Self::config_of(state) {
            Ok(config) if config.storage == Storage::Memory => {
                return Ok(Salvaged {
                    core,
                    is_based: true,
                    problems,
                });
            }
            // Without a snapshot and entries the stream had not been born.
            Err(_) if state.is_empty() && entries.is_empty() => is_based = true,
            Err(_) if state.is_empty() => {
                problems.push("what the stream was before its log entries is lost".to_owned());
            }
            _ => {
                let based = match born {
                    Some(_) => Self::begin(state, "", store),
                    None => Self::restore(state, "", store),
                };
                match based {
                    Ok(based) => (core, is_based) = (based, true),
                    Err(error) => problems.push(error.to_string()),
                }
            }
        }
        // The birth is no entry to apply.
        let mut is_gap = !is_based;
        for (index, entry) in entries.iter().skip(usize::from(born.is_some())) {
            is_gap |= *index > core.applied_index.saturating_add(1);
            let replayed = match is_gap {
                true => core.replay_past_gap(*index, entry),
                false => core.replay(*index, entry),
            };
            is_gap = replayed.is_err();
            problems.extend(replayed.err().map(|error| error.to_string()));
        }
        Ok(Salvaged {
            core,
            is_based,
            problems,
        })
    }

    /// A stream that nothing is known of.
    fn unbased() -> Result<Self, RecoverError> {
        let store = Box::new(MemStore::new(Limits::default()));
        Self::create(StreamConfig::default(), "", 0, store)
            .map_err(|error| BeginError::Store(error).into())
    }

    /// Applies an entry behind others that are lost; the sequences that those used are skipped.
    fn replay_past_gap(&mut self, index: u64, entry: &Bytes) -> Result<(), ApplyError> {
        let header = EntryReader::new(entry)
            .map_err(|source| ApplyError::Decode { index, source })?
            .header();
        self.chain.skip_to(&header);
        if header.base_sequence > self.store.state().last_sequence {
            self.store
                .skip(header.base_sequence, header.time_ns)
                .map_err(|source| ApplyError::Store { index, source })?;
        }
        self.replay(index, entry)
    }
}
