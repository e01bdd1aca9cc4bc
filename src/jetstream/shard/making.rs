//! Making, changing and removing streams with one replica, as the API asks for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::engine::StreamId;
use storage::store::{FileStore, Limits, MemStore, Store};

use super::backend::{Held, Streams};
use super::remembered::{BIRTH_INDEX, Remembered, append};
use crate::broker::InternalTarget;
use crate::jetstream::advisory::StreamAction;
use crate::jetstream::api::handler::{StreamMaker, unexpected};
use crate::jetstream::archive::{Landing, OnDamage, StreamBuilder, StreamMeta};
use crate::jetstream::core::{StreamCore, StreamReply, StreamRequest};
use crate::jetstream::intake;
use crate::jetstream::limits::reservation;
use crate::jetstream::registry::{AccountStreams, Stream};
use crate::jetstream::types::{ApiError, ErrorCode, Storage, StreamConfig, StreamInfo, Time};

impl Streams {
    /// Makes a stream in storage, and durable what it is born with.
    fn make(
        &self,
        account: &str,
        config: &StreamConfig,
        created_ns: i64,
    ) -> Result<(StreamCore, StreamId, Option<Remembered>), String> {
        let (id, store) = self
            .engine()
            .create(account, &config.name, Self::store_options(config))
            .map_err(|error| error.to_string())?;
        let made = self.bear(id, store, config, created_ns);
        if made.is_err() {
            // What is left of it is removed at the next start in any case.
            let _ = self.engine().remove(id);
        }
        made.map(|(core, remembered)| (core, id, remembered))
    }

    fn bear(
        &self,
        id: StreamId,
        store: FileStore,
        config: &StreamConfig,
        created_ns: i64,
    ) -> Result<(StreamCore, Option<Remembered>), String> {
        let in_memory = config.storage == Storage::Memory;
        let (store, spare): (Box<dyn Store>, _) = if in_memory {
            (Box::new(MemStore::new(Limits::default())), Some(store))
        } else {
            (Box::new(store), None)
        };
        let mut core = StreamCore::create(config.clone(), self.domain(), created_ns, store)
            .map_err(|error| error.to_string())?;
        let birth = core.birth(BIRTH_INDEX);
        append(self.engine(), id, BIRTH_INDEX, birth.clone()).map_err(|error| error.to_string())?;
        let remembered = spare.map(|store| Remembered::new(id, store, BIRTH_INDEX, birth));
        Ok((core, remembered))
    }

    /// A stream has taken another configuration: its subscriptions and what is set aside for it follow.
    fn follow(&self, account: &AccountStreams, stream: &Stream) {
        let config = stream.config();
        let key = (account.name.clone(), stream.name.clone());
        let mut held = self.held.lock();
        let Some(held) = held.get_mut(&key) else {
            return;
        };
        let names = self.ack_names(&account.name, &stream.name);
        let wanted = intake::patterns(&config, &names);
        let before = std::mem::take(&mut held.subscriptions);
        // What stays is not heard twice and not missed: only what is new is subscribed, only what is gone is dropped.
        let (kept, _gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|subscription| {
            wanted
                .iter()
                .any(|(pattern, _)| pattern.as_bytes() == subscription.subject().as_ref())
        });
        let in_broker = self.broker.ensure_account(&account.name);
        let new = wanted.into_iter().filter_map(|(pattern, purpose)| {
            let is_kept = kept
                .iter()
                .any(|one| one.subject().as_ref() == pattern.as_bytes());
            if is_kept {
                return None;
            }
            let target: Arc<dyn InternalTarget> = Arc::new(held.port.clone());
            in_broker
                .subscribe(&pattern, purpose.queue(), target, purpose as u64)
                .ok()
        });
        let new: Vec<_> = new.collect();
        held.subscriptions = kept;
        held.subscriptions.extend(new);
        held.reserved = (config.storage, reservation(&config));
        self.remember_change(held, &config);
        self.advise(&account.name, &stream.name, StreamAction::Updated);
    }

    fn remember_change(&self, held: &mut Held, config: &StreamConfig) {
        let Some(remembered) = &mut held.remembered else {
            return;
        };
        let store = Box::new(MemStore::new(Limits::default()));
        let core = StreamCore::create(config.clone(), self.domain(), held.created_ns, store);
        let Ok(mut core) = core else {
            return;
        };
        if let Err(error) = remembered.change(self.engine(), core.birth(BIRTH_INDEX)) {
            tracing::error!("a memory stream's configuration could not be kept: {error}");
        }
    }
}

impl StreamMaker for Streams {
    fn create(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<Arc<Stream>, ApiError> {
        let made = self.make(&account.name, &config, created.nanoseconds());
        let (core, id, remembered) = made.map_err(|error| ErrorCode::StreamCreate.with(error))?;
        let stream = self.run(&account.name, core, id, remembered);
        self.advise(&account.name, &stream.name, StreamAction::Created);
        Ok(stream)
    }

    fn update(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        config: StreamConfig,
    ) -> Result<StreamInfo, ApiError> {
        let info = match stream.ask(StreamRequest::Update(Box::new(config.clone()))) {
            StreamReply::Info { info, .. } => *info,
            other => return Err(unexpected(other)),
        };
        stream.set_config(config);
        self.follow(account, stream);
        Ok(info)
    }

    fn remove(&self, account: &AccountStreams, stream: &Stream) -> Result<(), ApiError> {
        let Some(storage) = self.let_go(account, stream) else {
            return Ok(());
        };
        match self.engine().remove(storage) {
            Err(error) => Err(ErrorCode::StreamDelete.with(error)),
            Ok(()) => {
                self.advise(&account.name, &stream.name, StreamAction::Deleted);
                Ok(())
            }
        }
    }

    fn remove_offline(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        let key = (account.name.clone(), name.to_owned());
        let Some((id, _)) = self.offline.lock().remove(&key) else {
            return Ok(());
        };
        let removed = self.engine().remove(id);
        removed.map_err(|error| ErrorCode::StreamDelete.with(error))?;
        self.advise(&account.name, name, StreamAction::Deleted);
        Ok(())
    }

    fn unreserved(&self, storage: Storage) -> u64 {
        let max = match storage {
            Storage::Memory => self.bytes_max[0].load(Ordering::Relaxed),
            Storage::File => self.bytes_max[1].load(Ordering::Relaxed),
        };
        let held = self.held.lock();
        let reserved = held.values().filter(|held| held.reserved.0 == storage);
        max.saturating_sub(reserved.map(|held| held.reserved.1).sum())
    }

    fn has_interest(&self, account: &AccountStreams, subject: &str) -> bool {
        self.broker
            .account(&account.name)
            .is_some_and(|account| account.has_interest(subject))
    }

    fn land(
        &self,
        account: &AccountStreams,
        meta: StreamMeta,
    ) -> Result<(Landing, StreamBuilder), ApiError> {
        let name = meta.config.name.clone();
        Landing::begin(self.engine(), &account.name, meta, &name, OnDamage::Fail)
            .map_err(|error| ErrorCode::StreamRestore.with(error))
    }

    fn take_up(
        &self,
        account: &AccountStreams,
        landing: Landing,
        mut core: StreamCore,
    ) -> Result<Arc<Stream>, ApiError> {
        let id = landing
            .finish(&mut core)
            .map_err(|error| ErrorCode::StreamRestore.with(error))?;
        Ok(self.run_landed(&account.name, core, id))
    }
}
