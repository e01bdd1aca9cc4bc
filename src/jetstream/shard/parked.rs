//! Streams of accounts that have no JetStream: they take nothing in and give nothing out, and what they hold is kept until the account has it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use storage::engine::StreamId;
use storage::store::FileStore;

use super::backend::{Held, Streams};
use super::port::Port;
use super::remembered::Remembered;
use super::slot::Surrendered;
use crate::jetstream::core::StreamCore;
use crate::jetstream::registry::{AccountStreams, Found, Stream};
use crate::jetstream::types::Time;

/// How long the streams of an account may take to write what they have decided.
const SURRENDER_MAX: Duration = Duration::from_secs(10);

/// Why a stream is offline that has not stopped within that time.
const STUCK: &str = "the stream did not stop when its account lost JetStream";
/// The same, when nobody has it any more.
const GONE: &str = "the stream had ended when its account lost JetStream";

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
    /// Takes the streams of an account off their shards. Waits for them. Those that cannot be parked, which are offline from now on.
    pub(crate) fn park_all(&self, account: &AccountStreams) -> Vec<Found> {
        // Nobody makes or changes one meanwhile.
        let _changing = account.change.lock();
        let mut leaving = Vec::new();
        for stream in account.all() {
            leaving.extend(self.leave(&account.name, &stream.name));
            account.remove_exactly(&stream);
        }
        // All of them write what they have decided at the same time.
        let until = Instant::now() + SURRENDER_MAX;
        let (mut parked, mut offline) = (Vec::new(), Vec::new());
        for (name, held, receiver) in leaving {
            match surrendered(&held.port, &receiver, until) {
                Ok(surrendered) => parked.push(ParkedStream {
                    core: surrendered.core,
                    id: held.storage,
                    remembered: held.remembered,
                }),
                Err(reason) => {
                    let of = &account.name;
                    tracing::error!("JetStream stream '{of} > {name}' is offline: {reason}");
                    self.keep_offline(of, &name, held.storage, reason.clone());
                    held.port.remove(Box::new(|| {}));
                    offline.push(Found::Offline {
                        name,
                        reason,
                        consumers: BTreeMap::new(),
                    });
                }
            }
        }
        for stream in &mut parked {
            // Nobody asks its shard for checkpoints any more, and the journal must not be held up by it.
            self.checkpoint(stream);
        }
        if !parked.is_empty() {
            let mut all = self.parked.lock();
            all.0
                .entry(account.name.clone())
                .or_default()
                .extend(parked);
        }
        offline
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

    /// A stream listens to nobody any more, and is handed to who is told so.
    fn leave(&self, account: &str, name: &str) -> Option<(String, Held, Receiver<Surrendered>)> {
        let mut held = self.unhold(account, name)?;
        held.subscriptions.clear();
        let (sender, receiver) = mpsc::sync_channel(1);
        held.port.surrender_to(Box::new(move |surrendered| {
            // Who does not wait any more lets it go.
            let _ = sender.try_send(surrendered);
        }));
        Some((name.to_owned(), held, receiver))
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

/// The stream, or why it is not to be had.
fn surrendered(
    port: &Port,
    receiver: &Receiver<Surrendered>,
    until: Instant,
) -> Result<Surrendered, String> {
    let left = until.saturating_duration_since(Instant::now());
    receiver.recv_timeout(left).map_err(|error| match error {
        RecvTimeoutError::Timeout => STUCK.to_owned(),
        RecvTimeoutError::Disconnected => port.fault().unwrap_or_else(|| GONE.to_owned()),
    })
}
