//! What the broker knows of a client's connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use super::outbox::Outbox;
use super::permissions::ResponsePermits;
use super::subscription::Subscription;
use crate::tls::Encryption;

/// Who a client is, as far as it has said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClientInfo {
    /// The connection's number.
    pub id: u64,
    /// The account it is in.
    pub account: String,
    /// The user it logged in as, empty when nobody asked.
    pub user: String,
    /// What the client calls the connection.
    pub name: String,
    /// The client library's language.
    pub lang: String,
    /// The client library's version.
    pub version: String,
    /// Where it comes from.
    pub address: SocketAddr,
    /// When it connected.
    pub started: SystemTime,
    /// Whether its protocol travels in WebSocket frames.
    #[serde(default)]
    pub websocket: bool,
    /// How long a way to it and back takes.
    #[serde(default)]
    pub round_trip: RoundTrip,
}

/// The last measured round trip of a connection. Clones are of the same connection, and see what is measured later; what was carried elsewhere stays as it was.
#[derive(Debug, Clone, Default)]
pub struct RoundTrip(Arc<AtomicU64>);

impl RoundTrip {
    /// In microseconds, 0 while there is none.
    pub fn microseconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, microseconds: u64) {
        self.0.store(microseconds.max(1), Ordering::Relaxed);
    }
}

impl PartialEq for RoundTrip {
    fn eq(&self, other: &Self) -> bool {
        self.microseconds() == other.microseconds()
    }
}

impl Eq for RoundTrip {}

impl serde::Serialize for RoundTrip {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.microseconds())
    }
}

impl<'de> serde::Deserialize<'de> for RoundTrip {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let microseconds = u64::deserialize(deserializer)?;
        Ok(Self(Arc::new(AtomicU64::new(microseconds))))
    }
}

/// How a connection came, below the protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carrier {
    /// Whether the protocol travels in WebSocket frames.
    pub websocket: bool,
    /// How it is encrypted, when it is.
    pub encryption: Option<Encryption>,
}

/// What a client listens on, by its own names for it.
pub type SubscriptionTable = HashMap<Box<[u8]>, Arc<Subscription>>;

/// Nanoseconds since 1970, a few milliseconds late at most: asked once per batch, it must cost nothing.
pub fn coarse_unix_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A client's connection: its outbox, and what others must know to deliver to it.
#[derive(Debug)]
pub struct Client {
    /// The connection's number, never given out twice in a process.
    pub id: u64,
    /// When it connected.
    pub started: Instant,
    outbox: Outbox,
    /// Whether its protocol is logged.
    is_traced: AtomicBool,
    info: ArcSwap<ClientInfo>,
    headers: AtomicBool,
    /// Whether further `INFO`s may be sent.
    takes_info: AtomicBool,
    /// Which replies the client may publish although its permissions do not name them.
    responses: ArcSwap<Option<ResponsePermits>>,
    /// Whether there are such: what is delivered is noted for few clients.
    has_responses: AtomicBool,
    in_messages: AtomicU64,
    in_bytes: AtomicU64,
    /// How often it was held up for a slow receiver.
    stalls: AtomicU64,
    /// When it last said or heard something that matters, in nanoseconds since 1970; 0 while it has not.
    last_activity_ns: AtomicU64,
    carrier: Carrier,
    subscriptions: Mutex<SubscriptionTable>,
    /// The same as in its description.
    round_trip: RoundTrip,
}

impl Client {
    /// A connection that has not said anything yet.
    pub fn new(info: ClientInfo, outbox: Outbox, is_traced: bool) -> Self {
        Self {
            id: info.id,
            started: Instant::now(),
            outbox,
            round_trip: info.round_trip.clone(),
            is_traced: AtomicBool::new(is_traced),
            info: ArcSwap::from_pointee(info),
            headers: AtomicBool::new(false),
            takes_info: AtomicBool::new(false),
            responses: ArcSwap::from_pointee(None),
            has_responses: AtomicBool::new(false),
            in_messages: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            last_activity_ns: AtomicU64::new(0),
            carrier: Carrier::default(),
            subscriptions: Mutex::default(),
        }
    }

    /// Where bytes for the client wait.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// How log lines of its protocol begin, when it is logged.
    pub fn traced_as(&self) -> Option<String> {
        self.is_traced.load(Ordering::Relaxed).then(|| {
            let info = self.info();
            format!("{} - cid:{}", info.address, info.id)
        })
    }

    /// Has its protocol logged from now on, or not.
    pub fn set_traced(&self, is_traced: bool) {
        self.is_traced.store(is_traced, Ordering::Relaxed);
    }

    /// Who the client is.
    pub fn info(&self) -> Arc<ClientInfo> {
        self.info.load_full()
    }

    /// Replaces what is known of the client.
    pub fn set_info(&self, info: ClientInfo) {
        self.info.store(Arc::new(info));
    }

    /// Whether the client understands headers.
    pub fn has_headers(&self) -> bool {
        self.headers.load(Ordering::Acquire)
    }

    /// Notes whether the client understands headers.
    pub fn set_headers(&self, headers: bool) {
        self.headers.store(headers, Ordering::Release);
    }

    /// Whether the client takes further `INFO`s.
    pub fn takes_info(&self) -> bool {
        self.takes_info.load(Ordering::Acquire)
    }

    /// Notes whether the client takes further `INFO`s.
    pub fn set_takes_info(&self, takes: bool) {
        self.takes_info.store(takes, Ordering::Release);
    }

    /// The replies it may publish once it was asked.
    pub fn responses(&self) -> arc_swap::Guard<Arc<Option<ResponsePermits>>> {
        self.responses.load()
    }

    /// Notes that the client is asked for an answer there.
    pub fn note_response(&self, reply: &[u8]) {
        if self.has_responses.load(Ordering::Acquire)
            && let Some(responses) = &**self.responses.load()
        {
            responses.note(reply);
        }
    }

    /// Lets the client answer what it is asked.
    pub fn set_responses(&self, permits: Option<ResponsePermits>) {
        let has_responses = permits.is_some();
        self.responses.store(Arc::new(permits));
        self.has_responses.store(has_responses, Ordering::Release);
    }

    /// Counts what one read of the socket brought.
    pub fn count_in(&self, messages: u64, bytes: u64) {
        self.in_messages.fetch_add(messages, Ordering::Relaxed);
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages and bytes the client has published.
    pub fn counted_in(&self) -> (u64, u64) {
        (
            self.in_messages.load(Ordering::Relaxed),
            self.in_bytes.load(Ordering::Relaxed),
        )
    }

    /// As it is, having come this way.
    #[must_use]
    pub fn over(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// How it came.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// What it listens on. The lock is taken once per `SUB` and `UNSUB`, and by whoever looks; never per message.
    pub fn subscriptions(&self) -> MutexGuard<'_, SubscriptionTable> {
        self.subscriptions.lock()
    }

    /// How many subscriptions the client holds that have not ended.
    pub fn subscription_count(&self) -> u64 {
        let subscriptions = self.subscriptions.lock();
        let held = subscriptions.values();
        held.filter(|subscription| !subscription.is_closed())
            .count() as u64
    }

    /// Counts that it was held up for a slow receiver.
    pub fn count_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was held up for a slow receiver.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Notes that it said or heard something now.
    pub fn note_activity(&self, unix_ns: u64) {
        self.last_activity_ns.store(unix_ns, Ordering::Relaxed);
    }

    /// When it last said or heard something; when it came, if it has not yet.
    pub fn last_activity(&self) -> SystemTime {
        let noted = Duration::from_nanos(self.last_activity_ns.load(Ordering::Relaxed));
        // The coarse clock may lie before the moment it came.
        (SystemTime::UNIX_EPOCH + noted).max(self.info.load().started)
    }

    /// The last measured round trip in microseconds, 0 while there is none.
    pub fn round_trip_us(&self) -> u64 {
        self.round_trip.microseconds()
    }

    /// Notes a measured round trip.
    pub fn set_round_trip_us(&self, microseconds: u64) {
        self.round_trip.set(microseconds);
    }
}
