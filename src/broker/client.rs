//! What the broker knows of a client's connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use super::outbox::Outbox;
use super::permissions::ResponsePermits;

/// Who a client is, as far as it has said.
#[derive(Debug, Clone)]
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
}

/// A client's connection: its outbox, and what others must know to deliver to it.
#[derive(Debug)]
pub struct Client {
    /// The connection's number, never given out twice in a process.
    pub id: u64,
    /// When it connected.
    pub started: Instant,
    outbox: Outbox,
    /// How log lines of its protocol begin, when it is logged.
    traced_as: Option<Box<str>>,
    info: ArcSwap<ClientInfo>,
    headers: AtomicBool,
    /// Whether further `INFO`s may be sent.
    takes_info: AtomicBool,
    /// Which replies the client may publish although its permissions do not name them.
    responses: ArcSwap<Option<ResponsePermits>>,
    in_messages: AtomicU64,
    in_bytes: AtomicU64,
    subscriptions: AtomicU64,
    /// The last measured round trip in microseconds, 0 while there is none.
    round_trip_us: AtomicU64,
}

impl Client {
    /// A connection that has not said anything yet.
    pub fn new(info: ClientInfo, outbox: Outbox, is_traced: bool) -> Self {
        let traced_as = is_traced.then(|| format!("{} - cid:{}", info.address, info.id).into());
        Self {
            id: info.id,
            started: Instant::now(),
            outbox,
            traced_as,
            info: ArcSwap::from_pointee(info),
            headers: AtomicBool::new(false),
            takes_info: AtomicBool::new(false),
            responses: ArcSwap::from_pointee(None),
            in_messages: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
        }
    }

    /// Where bytes for the client wait.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// How log lines of its protocol begin, when it is logged.
    pub fn traced_as(&self) -> Option<&str> {
        self.traced_as.as_deref()
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

    /// Lets the client answer what it is asked.
    pub fn set_responses(&self, permits: Option<ResponsePermits>) {
        self.responses.store(Arc::new(permits));
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

    /// How many subscriptions the client holds.
    pub fn subscription_count(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Notes how many subscriptions the client holds.
    pub fn set_subscription_count(&self, count: u64) {
        self.subscriptions.store(count, Ordering::Relaxed);
    }

    /// The last measured round trip in microseconds, 0 while there is none.
    pub fn round_trip_us(&self) -> u64 {
        self.round_trip_us.load(Ordering::Relaxed)
    }

    /// Notes a measured round trip.
    pub fn set_round_trip_us(&self, microseconds: u64) {
        self.round_trip_us
            .store(microseconds.max(1), Ordering::Relaxed);
    }
}
