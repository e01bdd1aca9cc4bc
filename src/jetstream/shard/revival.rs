//! Bringing back at a start what is stored.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use storage::engine::{Recovered, RecoveredStore, StreamId};
use storage::store::{FileStore, Limits, MemStore};

use super::backend::Streams;
use super::remembered::{BIRTH_INDEX, Remembered, append};
use super::worker::now_ns;
use crate::jetstream::core::{RecoverError, StreamCore, VolatileConsumers};
use crate::jetstream::registry::{Found, Stream};
use crate::jetstream::types::Storage;

/// Why a stream cannot run, and those of its consumers that a later version has written.
struct Down {
    reason: String,
    consumers: BTreeMap<String, String>,
}

impl From<String> for Down {
    fn from(reason: String) -> Self {
        Self {
            reason,
            consumers: BTreeMap::new(),
        }
    }
}

impl From<RecoverError> for Down {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Unsupported(unsupported) => Self {
                reason: unsupported.reason,
                consumers: unsupported.consumers,
            },
            error => error.to_string().into(),
        }
    }
}

impl Streams {
    /// Replays a stream and lets it run. One that cannot be brought back is kept as it is and named, and does not stand in the
    /// way of the others. `None` when it had not been born yet, which nobody was told that it was.
    pub(super) fn bring_back(
        &self,
        recovered: Recovered<FileStore>,
        damaged: bool,
        volatile: VolatileConsumers,
    ) -> Option<(String, Found)> {
        let Recovered {
            id, account, name, ..
        } = &recovered;
        let (id, account, name) = (*id, account.clone(), name.clone());
        let found = match self.revive(recovered, damaged, volatile) {
            Ok(found) => Found::Running(found?),
            Err(Down { reason, consumers }) => {
                for (consumer, reason) in &consumers {
                    tracing::warn!(
                        "Detected unsupported consumer '{account} > {name} > {consumer}': {reason}"
                    );
                }
                tracing::error!("JetStream stream '{account} > {name}' is offline: {reason}");
                self.keep_offline(&account, &name, id, reason.clone());
                Found::Offline {
                    name,
                    reason,
                    consumers,
                }
            }
        };
        Some((account, found))
    }

    /// Where the journal is damaged, a stream without any entries may have lost them, and is not removed.
    fn revive(
        &self,
        recovered: Recovered<FileStore>,
        damaged: bool,
        volatile: VolatileConsumers,
    ) -> Result<Option<Arc<Stream>>, Down> {
        let content = recovered.content.map_err(|error| error.to_string())?;
        if let Some((first, last)) = recovered.holes.first() {
            return Err(format!("log entries {first} to {last} are lost to damage").into());
        }
        let id = recovered.id;
        if !damaged && content.core.is_empty() && content.entries.is_empty() {
            self.engine()
                .remove(id)
                .map_err(|error| error.to_string())?;
            return Ok(None);
        }
        let birth = match (content.core.is_empty(), content.entries.first()) {
            (false, _) => content.core.clone(),
            (true, Some((BIRTH_INDEX, birth))) => birth.clone(),
            (true, _) => return Err("its first log entry is missing".to_owned().into()),
        };
        let config = StreamCore::config_of(&birth).map_err(|error| error.to_string())?;
        let account = &recovered.account;
        let stream = if config.storage == Storage::Memory {
            self.remember(account, id, content, birth)?
        } else {
            let mut core = self.replay(content, damaged)?;
            self.lose_volatile(id, &mut core, volatile)?;
            self.run(account, core, id, None)
        };
        Ok(Some(stream))
    }

    /// A memory stream begins anew with the configuration it had last.
    fn remember(
        &self,
        account: &str,
        id: StreamId,
        content: RecoveredStore<FileStore>,
        birth: Bytes,
    ) -> Result<Arc<Stream>, Down> {
        let newest = content.entries.into_iter().last();
        let (index, birth) = newest.unwrap_or((content.index, birth));
        // The log's memory is not to be held on to.
        let birth = Bytes::copy_from_slice(&birth);
        let store = Box::new(MemStore::new(Limits::default()));
        let born = [(BIRTH_INDEX, birth.clone())];
        let core = StreamCore::recover(&[], born, self.domain(), store)?;
        let remembered = Remembered::new(id, content.store, index, birth);
        Ok(self.run(account, core, id, Some(remembered)))
    }

    fn replay(
        &self,
        content: RecoveredStore<FileStore>,
        damaged: bool,
    ) -> Result<StreamCore, Down> {
        let RecoveredStore {
            store,
            core,
            entries,
            ..
        } = content;
        let mut core = StreamCore::recover(&core, entries, self.domain(), Box::new(store))?;
        let index = core.applied_index();
        let store: &mut dyn Any = core.store_mut();
        if let (false, Some(files)) = (damaged, store.downcast_mut::<FileStore>()) {
            files.caught_up(index);
        }
        Ok(core)
    }

    /// Consumers that had their state in memory have none after a start.
    fn lose_volatile(
        &self,
        id: StreamId,
        core: &mut StreamCore,
        volatile: VolatileConsumers,
    ) -> Result<(), Down> {
        let Some((index, entry)) = core.lose_volatile(volatile, now_ns()) else {
            return Ok(());
        };
        if let Err(error) = append(self.engine(), id, index, entry.clone()) {
            // A disk that takes nothing is no reason to have less of the stream.
            let stream = core.name();
            tracing::error!("consumers in memory of stream '{stream}' stay as they were: {error}");
            return Ok(());
        }
        let lost = core.replay(index, &entry);
        lost.map_err(|error| error.to_string().into())
    }
}
