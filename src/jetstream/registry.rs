//! Which streams there are, by account, and how they are reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::core::{StreamReply, StreamRequest};
use super::limits::{AccountTiers, Tier, reservation};
use super::types::{ApiError, ErrorCode, Storage, StreamConfig, Time};

/// Reaches the shard that owns a stream.
pub(crate) trait StreamPort: Send + Sync {
    /// Hands over a request. `answer` is called once, from any thread; when it is dropped uncalled, the stream is gone.
    fn ask(&self, request: StreamRequest, answer: Box<dyn FnOnce(StreamReply) + Send>);
}

/// An answer that may still be on its way.
pub(crate) struct Pending(mpsc::Receiver<StreamReply>);

impl Pending {
    /// Waits for it.
    pub(crate) fn wait(self) -> StreamReply {
        self.0
            .recv()
            .unwrap_or_else(|_| StreamReply::Refused(ErrorCode::StreamNotFound.into()))
    }

    /// The same, for so long at most.
    pub(crate) fn wait_for(self, patience: Duration) -> Option<StreamReply> {
        match self.0.recv_timeout(patience) {
            Ok(reply) => Some(reply),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Some(StreamReply::Refused(ErrorCode::StreamNotFound.into()))
            }
        }
    }
}

/// A stream as the API knows it.
pub(crate) struct Stream {
    pub name: String,
    /// When it was created, of a stream that is here.
    created: Option<Time>,
    config: RwLock<Arc<StreamConfig>>,
    port: Box<dyn StreamPort>,
    /// Held while a request reads the stream and then changes it on the strength of what it read.
    pub change: Mutex<()>,
}

impl Stream {
    pub(crate) fn new(config: StreamConfig, port: Box<dyn StreamPort>) -> Self {
        Self {
            name: config.name.clone(),
            created: None,
            config: RwLock::new(Arc::new(config)),
            port,
            change: Mutex::new(()),
        }
    }

    /// The same, of a stream that is here since that time.
    pub(crate) fn created_at(mut self, created: Time) -> Self {
        self.created = Some(created);
        self
    }

    /// When it was created, of a stream that is here.
    pub(crate) fn created(&self) -> Option<Time> {
        self.created
    }

    pub(crate) fn config(&self) -> Arc<StreamConfig> {
        Arc::clone(&self.config.read())
    }

    pub(crate) fn set_config(&self, config: StreamConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// Sends a request on its way.
    pub(crate) fn start(&self, request: StreamRequest) -> Pending {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.port.ask(
            request,
            Box::new(move |reply| {
                // Nobody waits any more when the server stops.
                let _ = sender.send(reply);
            }),
        );
        Pending(receiver)
    }

    /// Sends a request; `answer` hears the answer, from any thread.
    pub(crate) fn ask_then(
        &self,
        request: StreamRequest,
        answer: Box<dyn FnOnce(StreamReply) + Send>,
    ) {
        self.port.ask(request, answer);
    }

    /// Sends a request and waits for the answer.
    pub(crate) fn ask(&self, request: StreamRequest) -> StreamReply {
        self.start(request).wait()
    }
}

/// A stream as it was found at the start.
pub(crate) enum Found {
    /// It runs.
    Running(Arc<Stream>),
    /// It cannot be brought back; nothing of it was removed.
    Offline {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// Its consumers that a later version has written, and what this one does not know of them.
        consumers: BTreeMap<String, String>,
    },
}

impl Found {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Running(stream) => &stream.name,
            Self::Offline { name, .. } => name,
        }
    }
}

/// How often the API was used.
#[derive(Debug, Default)]
pub(crate) struct ApiCounters {
    total: AtomicU64,
    errors: AtomicU64,
}

impl ApiCounters {
    pub(crate) fn count(&self, failed: bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> (u64, u64) {
        (
            self.total.load(Ordering::Relaxed),
            self.errors.load(Ordering::Relaxed),
        )
    }
}

/// The streams of one account.
pub(crate) struct AccountStreams {
    pub name: String,
    tiers: RwLock<Arc<AccountTiers>>,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    /// Streams that could not be brought back, and why.
    offline: RwLock<BTreeMap<String, String>>,
    /// Consumers of such streams that a later version has written, and what this one does not know of them.
    unsupported: RwLock<BTreeMap<String, BTreeMap<String, String>>>,
    /// Held while a stream is created, updated or deleted: names, subjects and reservations must not change meanwhile.
    pub change: Mutex<()>,
    pub api: ApiCounters,
}

impl AccountStreams {
    pub(crate) fn new(name: impl Into<String>, limits: AccountTiers) -> Self {
        Self {
            name: name.into(),
            tiers: RwLock::new(Arc::new(limits)),
            streams: RwLock::new(BTreeMap::new()),
            offline: RwLock::new(BTreeMap::new()),
            unsupported: RwLock::new(BTreeMap::new()),
            change: Mutex::new(()),
            api: ApiCounters::default(),
        }
    }

    /// What its streams may use from now on; those that use more already keep it.
    pub(crate) fn set_limits(&self, limits: AccountTiers) {
        *self.tiers.write() = Arc::new(limits);
    }

    /// What its streams may use.
    pub(crate) fn tiers(&self) -> Arc<AccountTiers> {
        Arc::clone(&self.tiers.read())
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.read().get(name).cloned()
    }

    /// The stream, or the error that says that there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        self.get(name).ok_or_else(|| match self.offline(name) {
            Some(reason) => ErrorCode::StreamOfflineReason.with(reason),
            None => ErrorCode::StreamNotFound.into(),
        })
    }

    /// Why this stream could not be brought back, if that is so.
    pub(crate) fn offline(&self, name: &str) -> Option<String> {
        self.offline.read().get(name).cloned()
    }

    /// The consumers of a stream that could not be brought back which a later version has written, and what this one does not know of them. `None` for
    /// any other stream.
    pub(crate) fn unsupported_consumers(&self, stream: &str) -> Option<BTreeMap<String, String>> {
        self.unsupported.read().get(stream).cloned()
    }

    /// All streams that could not be brought back, and why.
    pub(crate) fn all_offline(&self) -> BTreeMap<String, String> {
        self.offline.read().clone()
    }

    /// Takes up what was found at the start.
    pub(crate) fn found(&self, found: Found) {
        match found {
            Found::Running(stream) => self.insert(stream),
            Found::Offline {
                name,
                reason,
                consumers,
            } => self.set_unsupported(&name, reason, consumers),
        }
    }

    pub(crate) fn insert(&self, stream: Arc<Stream>) {
        self.set_online(&stream.name);
        self.streams.write().insert(stream.name.clone(), stream);
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Stream>> {
        self.set_online(name);
        self.streams.write().remove(name)
    }

    /// Forgets exactly this stream: not another one that has its name by now.
    pub(crate) fn remove_exactly(&self, stream: &Arc<Stream>) {
        let mut streams = self.streams.write();
        let there = streams.get(&stream.name);
        if there.is_some_and(|there| Arc::ptr_eq(there, stream)) {
            streams.remove(&stream.name);
        }
    }

    /// A stream is to be here and cannot run.
    pub(crate) fn set_offline(&self, name: &str, reason: String) {
        self.streams.write().remove(name);
        self.offline.write().insert(name.to_owned(), reason);
    }

    /// The same because of what a later version has written, also into those of its consumers.
    pub(crate) fn set_unsupported(
        &self,
        name: &str,
        reason: String,
        consumers: BTreeMap<String, String>,
    ) {
        self.set_offline(name, reason);
        if !consumers.is_empty() {
            self.unsupported.write().insert(name.to_owned(), consumers);
        }
    }

    /// A stream that could not run is gone, or can.
    pub(crate) fn set_online(&self, name: &str) {
        self.unsupported.write().remove(name);
        self.offline.write().remove(name);
    }

    /// All streams in name order.
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        self.streams.read().values().cloned().collect()
    }

    /// How many streams of a tier there are but for one.
    pub(crate) fn others(&self, tier: Tier, except: &str) -> usize {
        let streams = self.streams.read();
        let others = streams.values().filter(|stream| stream.name != except);
        others.filter(|it| tier.holds(&it.config())).count()
    }

    /// Bytes that the streams of a tier and this storage, but for `except`, may hold together.
    pub(crate) fn reserved(&self, tier: Tier, storage: Storage, except: Option<&str>) -> u64 {
        self.streams
            .read()
            .values()
            .filter(|stream| Some(stream.name.as_str()) != except)
            .map(|stream| stream.config())
            .filter(|config| config.storage == storage && tier.holds(config))
            .fold(0, |sum, config| sum.saturating_add(reservation(&config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl StreamPort for Gone {
        fn ask(&self, _request: StreamRequest, _answer: Box<dyn FnOnce(StreamReply) + Send>) {}
    }

    #[test]
    fn a_stream_that_does_not_answer_any_more_is_not_found() {
        let stream = Stream::new(StreamConfig::default(), Box::new(Gone));
        match stream.ask(StreamRequest::ConsumerNames) {
            StreamReply::Refused(error) => assert!(error.is(ErrorCode::StreamNotFound)),
            other => panic!("{other:?}"),
        }
    }
}
