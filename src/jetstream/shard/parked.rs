//! Streams of accounts that have no JetStream: they take nothing in and give nothing out, and what they hold is kept until the account has it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use storage::engine::StreamId;
use storage::store::FileStore;

use super::backend::Streams;
use super::remembered::Remembered;
use crate::jetstream::core::StreamCore;
use crate::jetstream::registry::{AccountStreams, Stream};
use crate::jetstream::types::Time;

/// How long a stream may take to write what it has decided. One that nothing can be written of any more does not end at all.
const SURRENDER_MAX: Duration = Duration::from_secs(10);

/// All of them, by account.
#[derive(Default)]
pub(super) struct Parked(HashMap<String, Vec<ParkedStream>>);

/// A stream without a shard.
struct ParkedStream {
    core: StreamCore,
    id: StreamId,
    /// Present for a stream in memory.
    remembered: Option<Remembered>,
}

impl Streams {
    /// Takes the streams of an account off their shards. Waits for them.
    pub(crate) fn park_all(&self, account: &AccountStreams) {
        // Nobody makes or changes one meanwhile.
        let _changing = account.change.lock();
        let mut parked = Vec::new();
        for stream in account.all() {
            parked.extend(self.park_one(account, &stream));
            account.remove_exactly(&stream);
        }
        if !parked.is_empty() {
            let mut all = self.parked.lock();
            all.0
                .entry(account.name.clone())
                .or_default()
                .extend(parked);
        }
    }

    /// Keeps a stream that does not run until its account has JetStream.
    pub(crate) fn park_landed(&self, account: &str, core: StreamCore, id: StreamId) {
        let mut parked = ParkedStream {
            core,
            id,
            remembered: None,
        };
        self.checkpoint(&mut parked);
        let mut all = self.parked.lock();
        all.0.entry(account.to_owned()).or_default().push(parked);
    }

    /// All streams that do not run, by account and name.
    pub(crate) fn all_parked(&self) -> Vec<(String, String)> {
        let parked = self.parked.lock();
        let accounts = parked.0.iter();
        let streams = accounts.flat_map(|(account, streams)| {
            let names = streams.iter().map(|stream| stream.core.name().to_owned());
            names.map(|name| (account.clone(), name))
        });
        streams.collect()
    }

    /// When a stream that does not run was created, if it is here.
    pub(crate) fn parked_since(&self, account: &str, name: &str) -> Option<Time> {
        let parked = self.parked.lock();
        let mut streams = parked.0.get(account)?.iter();
        let stream = streams.find(|stream| stream.core.name() == name)?;
        Some(Time::from_nanoseconds(stream.core.created_ns()))
    }

    /// Lets go of a stream that does not run. Says where it is stored, and whether nothing of its messages is there.
    pub(crate) fn forget_parked(&self, account: &str, name: &str) -> Option<(StreamId, bool)> {
        let mut parked = self.parked.lock();
        let streams = parked.0.get_mut(account)?;
        let at = streams
            .iter()
            .position(|stream| stream.core.name() == name)?;
        let stream = streams.swap_remove(at);
        Some((stream.id, stream.remembered.is_some()))
    }

    fn park_one(&self, account: &AccountStreams, stream: &Stream) -> Option<ParkedStream> {
        let held = self.unhold(&account.name, &stream.name)?;
        drop(held.subscriptions);
        let (sender, receiver) = mpsc::sync_channel(1);
        held.port.surrender_to(Box::new(move |surrendered| {
            // Whoever waits is there until it has heard.
            let _ = sender.try_send(surrendered);
        }));
        let surrendered = match receiver.recv_timeout(SURRENDER_MAX) {
            Ok(surrendered) => surrendered,
            Err(RecvTimeoutError::Timeout) => {
                let (account, name) = (&account.name, &stream.name);
                tracing::error!("JetStream stream '{account} > {name}' does not stop");
                return None;
            }
            // A shard that has ended holds nothing any more.
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let mut parked = ParkedStream {
            core: surrendered.core,
            id: held.storage,
            remembered: held.remembered,
        };
        // Nobody asks its shard for checkpoints any more, and the journal must not be held up by it.
        self.checkpoint(&mut parked);
        Some(parked)
    }

    /// Lets the streams of an account run again.
    pub(crate) fn run_parked(&self, account: &str) -> Vec<Arc<Stream>> {
        let parked = self.parked.lock().0.remove(account);
        let parked = parked.into_iter().flatten();
        parked
            .map(|stream| self.run(account, stream.core, stream.id, stream.remembered))
            .collect()
    }

    /// The journal would like to forget what it holds of these streams.
    pub(super) fn checkpoint_parked(&self, wanted: &[StreamId]) {
        let mut parked = self.parked.lock();
        let streams = parked.0.values_mut().flatten();
        for stream in streams.filter(|stream| wanted.contains(&stream.id)) {
            self.checkpoint(stream);
        }
    }

    /// Begins one. It is not waited for: what makes it durable may need the thread that asks for it. One that cannot begin is asked for again.
    fn checkpoint(&self, stream: &mut ParkedStream) {
        let name = stream.core.config().name.clone();
        let begun = match &mut stream.remembered {
            Some(remembered) => remembered.checkpoint(self.engine()),
            None => {
                let (snapshot, index) = (stream.core.snapshot(), stream.core.applied_index());
                let store: &mut dyn Any = stream.core.store_mut();
                let Some(store) = store.downcast_mut::<FileStore>() else {
                    return;
                };
                self.engine().checkpoint(stream.id, store, index, snapshot)
            }
        };
        if let Err(error) = begun {
            tracing::error!("JetStream stream '{name}' could not be checkpointed: {error}");
        }
    }
}
