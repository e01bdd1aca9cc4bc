//! One connection while it lives: what the other server says, and what becomes of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::compression::Level;
use super::gossip;
use super::interest::RemoteInterest;
use super::options::RouteOptions;
use super::shared::{Core, write};
use super::socket::RouteReader;
use super::table::Connection;
use crate::broker::message_trace::{Asked, ConnectionKind, Ingress};
use crate::broker::outbox::FlushBy;
use crate::broker::outbox::chunk::COPIED_BYTES_MAX;
use crate::broker::{
    Account, Broker, CloseReason, Delivery, Message, MessageTrace, Owner, Subscription, Target,
    Traffic, Weight,
};
use crate::config::options::Compression;
use crate::connection::ReadBuffer;
use crate::protocol::route::RouteInfo;
use crate::protocol::route::parser::{
    Interest, ParsedRoute, RouteMessage, RouteOp, RouteRules, parse,
};
use crate::protocol::trace::TraceRequest;

/// How long the last bytes of a connection may take to leave.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(1);
/// How many reads in a row a connection may work through before others have their turn.
const READS_IN_A_ROW_MAX: u32 = 8;

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One connection's state.
pub(super) struct Session {
    core: Arc<Core>,
    connection: Arc<Connection>,
    reader: RouteReader,
    buffer: ReadBuffer,
    work: Work,
}

/// A message that goes no further.
struct Dropped;

/// What the connection has told, apart from its bytes.
pub(super) struct Work {
    pub(super) core: Arc<Core>,
    pub(super) connection: Arc<Connection>,
    /// What held when it was looked at last.
    pub(super) options: Arc<RouteOptions>,
    pub(super) rules: RouteRules,
    delivery: Delivery,
    pub(super) interest: RemoteInterest,
    /// Accounts by name, so that a message does not ask for a lock.
    accounts: HashMap<Box<[u8]>, Arc<Account>>,
    /// The account that the connection is for.
    own_account: Option<Arc<Account>>,
    counted_in: (u64, u64),
    ping_sent: Option<Instant>,
    pings_outstanding: u32,
}

impl Session {
    pub(super) fn new(
        core: &Arc<Core>,
        connection: Arc<Connection>,
        reader: RouteReader,
        buffer: ReadBuffer,
    ) -> Self {
        let options = core.options.load_full();
        let mut work = Work {
            rules: rules(&options, &connection),
            options,
            core: Arc::clone(core),
            connection: Arc::clone(&connection),
            delivery: Delivery::default(),
            interest: RemoteInterest::default(),
            accounts: HashMap::new(),
            own_account: None,
            counted_in: (0, 0),
            ping_sent: Some(Instant::now()),
            pings_outstanding: 1,
        };
        work.find_own_account();
        Self {
            core: Arc::clone(core),
            connection,
            reader,
            buffer,
            work,
        }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Works until the connection ends.
    pub(super) async fn run(mut self) {
        let client = Arc::clone(self.connection.client());
        let (address, cid) = (self.connection.address, client.id);
        tracing::info!("{address} - rid:{cid} - Route connection created");
        let reason = self.serve().await;
        self.work.hand_over();
        client.outbox().close(reason);
        let reason = client.outbox().closed().unwrap_or(reason);
        self.leave();
        client.outbox().finish(LAST_FLUSH_MAX).await;
        if reason == CloseReason::SlowConsumerPendingBytes
            && let Some(broker) = self.core.broker.get()
        {
            Traffic::count(&broker.traffic().slow_consumers);
            tracing::info!("{address} - rid:{cid} - Slow Consumer Detected: {reason}");
        }
        tracing::info!(
            "{address} - rid:{cid} - Router connection closed: {reason} - Remote: {}",
            self.connection.remote.server_name
        );
        let (core, connection) = (Arc::clone(&self.core), Arc::clone(&self.connection));
        // With its socket.
        drop(self);
        connection.ended.send_replace(true);
        core.changes.send_modify(|count| *count += 1);
    }

    /// Gives the place back, and forgets what the other server listened to.
    fn leave(&mut self) {
        let is_gone = {
            let mut table = self.core.table.lock();
            let is_gone = table.remove(&self.connection);
            self.core.sinks.store(Arc::new(table.sinks()));
            is_gone
        };
        let mut all: Vec<_> = self.work.interest.drain().collect();
        all.sort_by(|(one, _), (other, _)| one.name().cmp(other.name()));
        for of_account in all.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)) {
            if let Some((account, _)) = of_account.first() {
                let gone: Vec<_> = of_account
                    .iter()
                    .map(|(_, gone)| Arc::clone(gone))
                    .collect();
                account.remove_all(&gone);
            }
        }
        if is_gone {
            gossip::server_went(&self.core, &self.connection.remote);
        }
        self.core.changes.send_modify(|count| *count += 1);
    }

    async fn serve(&mut self) -> CloseReason {
        let client = Arc::clone(self.connection.client());
        let mut reviews = self.core.reviews.subscribe();
        // What has changed since it came is not told again.
        self.work.review();
        let mut interval = self.work.options.ping_interval;
        let mut timer = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut bytes_in_all;
        let mut reads = 0;
        loop {
            // What came with the introduction is there before the first read.
            match self.work.process(&mut self.buffer) {
                Ok(needed) => bytes_in_all = needed,
                Err(reason) => return reason,
            }
            self.work.hand_over();
            if reads >= READS_IN_A_ROW_MAX {
                reads = 0;
                tokio::task::yield_now().await;
            }
            let room = self.buffer.for_reading(bytes_in_all);
            let read = tokio::select! {
                biased;
                reason = client.outbox().wait_for_close() => return reason,
                read = self.reader.read_buf(room) => read,
                _ = timer.tick() => {
                    if let Err(reason) = self.work.ping() {
                        return reason;
                    }
                    continue;
                }
                Ok(()) = reviews.changed() => {
                    self.work.review();
                    if interval != self.work.options.ping_interval {
                        interval = self.work.options.ping_interval;
                        timer = tokio::time::interval_at(Instant::now() + interval, interval);
                    }
                    continue;
                }
            };
            match read {
                Ok(0) => return CloseReason::ClientClosed,
                Ok(bytes) => {
                    self.buffer.note_read(bytes);
                    self.connection.heard_ms.store(now_ms(), Ordering::Relaxed);
                    reads += 1;
                }
                Err(error) => return closed_by(&error),
            }
        }
    }
}

fn closed_by(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CloseReason::ClientClosed,
        _ => CloseReason::ReadError,
    }
}

pub(super) fn rules(options: &RouteOptions, connection: &Connection) -> RouteRules {
    RouteRules {
        line_bytes_max: options.line_bytes_max,
        payload_bytes_max: options.payload_bytes_max,
        names_account: connection.account.is_none(),
    }
}

impl Work {
    /// Works through the buffer; how many bytes the unfinished rest needs in all, 0 for unknown.
    fn process(&mut self, buffer: &mut ReadBuffer) -> Result<usize, CloseReason> {
        loop {
            let (op, consumed) = match parse(buffer.unread(), &self.rules) {
                Ok(ParsedRoute::Complete { op, consumed }) => (op, consumed),
                Ok(ParsedRoute::Incomplete { bytes_in_all }) => return Ok(bytes_in_all),
                Err(violation) => {
                    let client = self.connection.client();
                    let address = self.connection.address;
                    tracing::error!("{address} - rid:{} - {violation}", client.id);
                    self.say(format!("-ERR '{violation}'\r\n").as_bytes());
                    return Err(CloseReason::ProtocolViolation);
                }
            };
            match op {
                RouteOp::Message(_) if consumed > COPIED_BYTES_MAX => {
                    self.take_frame(buffer, consumed);
                    if self.delivery.is_full() {
                        self.hand_over();
                    }
                    continue;
                }
                RouteOp::Message(message) => self.message(&message, Owner::Buffer),
                RouteOp::Subscribe(interest) => self.subscribe(&interest),
                RouteOp::Unsubscribe(interest) => self.unsubscribe(&interest),
                RouteOp::Ping => self.say(b"PONG\r\n"),
                RouteOp::Pong => self.pong(),
                RouteOp::Info(json) => match serde_json::from_slice::<RouteInfo>(json) {
                    Ok(info) => self.info(info),
                    Err(_) => return Err(CloseReason::ProtocolViolation),
                },
                RouteOp::Error(text) => {
                    let text = String::from_utf8_lossy(text);
                    let client = self.connection.client();
                    let address = self.connection.address;
                    tracing::error!("{address} - rid:{} - Route Error {text}", client.id);
                    return Err(CloseReason::ClientClosed);
                }
                // Leaf nodes are not built: nobody here could tell their clusters apart. Accounts without interest matter to gateways only.
                RouteOp::OriginInterest | RouteOp::AccountInterest | RouteOp::Ok => {}
                RouteOp::Connect(_) => {}
                RouteOp::Link(_) => return Err(CloseReason::ProtocolViolation),
            }
            buffer.advance(consumed);
            if self.delivery.is_full() {
                self.hand_over();
            }
        }
    }

    /// A large message is taken out of the buffer, so that its receivers can share it.
    fn take_frame(&mut self, buffer: &mut ReadBuffer, bytes: usize) {
        let frame = buffer.take_frame(bytes);
        // The same bytes parse the same way again.
        if let Ok(ParsedRoute::Complete {
            op: RouteOp::Message(message),
            ..
        }) = parse(&frame, &self.rules)
        {
            self.message(&message, Owner::Frame(&frame));
        }
    }

    fn message(&mut self, message: &RouteMessage<'_>, owner: Owner<'_>) {
        self.counted_in.0 += 1;
        self.counted_in.1 += (message.headers.len() + message.payload.len()) as u64;
        if !self.options.lets_in(message.subject) {
            return;
        }
        let Some(account) = self.account(message.account) else {
            return;
        };
        let Some(broker) = self.core.broker.get() else {
            return;
        };
        let asks = match message.headers {
            [] => None,
            headers => TraceRequest::find(headers),
        };
        let trace = match asks {
            None => None,
            Some(request) => match self.begin_trace(request, message, &account, broker) {
                Ok(trace) => trace,
                Err(Dropped) => return,
            },
        };
        let delivered = Message {
            subject: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: message.payload,
            owner,
            trace: trace.as_ref(),
        };
        self.delivery
            .publish_routed(&account, &delivered, message.queues, broker.traffic());
    }

    /// A message asks for reports of its way.
    #[cold]
    fn begin_trace(
        &self,
        request: TraceRequest,
        message: &RouteMessage<'_>,
        account: &Arc<Account>,
        broker: &Broker,
    ) -> Result<Option<Arc<MessageTrace>>, Dropped> {
        let ingress = Ingress {
            kind: ConnectionKind::Route,
            client: self.connection.client(),
            name: &self.connection.remote.server_name,
            account,
            subject: message.subject,
            message_bytes: message.headers.len() + message.payload.len(),
        };
        let may_report = |subject: &str| self.options.lets_in(subject.as_bytes());
        // Only the first server draws.
        let asked = MessageTrace::begin(
            request,
            ingress,
            broker.trace_sink(),
            may_report,
            || 0,
            None,
        );
        match asked {
            // It makes no further hop that would have to be told.
            Asked::Untraced | Asked::Disabled => Ok(None),
            Asked::Traced(trace) => Ok(Some(trace)),
            Asked::Dropped => Err(Dropped),
            Asked::Denied(destination) => {
                tracing::error!("Publish Violation - Subject {destination:?}");
                Err(Dropped)
            }
        }
    }

    /// The account that a line names, or that the connection is for. Nothing is done for accounts that are not here.
    fn account(&mut self, name: &[u8]) -> Option<Arc<Account>> {
        if !self.rules.names_account {
            return self.own_account.clone();
        }
        if let Some(account) = self.accounts.get(name) {
            return Some(Arc::clone(account));
        }
        let text = std::str::from_utf8(name).ok()?;
        let Some(account) = self.core.broker.get()?.account(text) else {
            tracing::debug!("Unknown account {text:?} on a route");
            return None;
        };
        self.accounts.insert(name.into(), Arc::clone(&account));
        Some(account)
    }

    fn find_own_account(&mut self) {
        let broker = self.core.broker.get();
        let name = self.connection.account.as_deref();
        self.own_account = name.and_then(|name| broker?.account(name));
    }

    /// Accounts have come or gone, or the options have changed: interest in what came counts from now on, and what is not
    /// taken any more is let go.
    fn review(&mut self) {
        self.hand_over();
        self.review_options();
        self.accounts.clear();
        self.find_own_account();
        let Some(broker) = self.core.broker.get() else {
            return;
        };
        let is_here = |account: &Arc<Account>| {
            let known = broker.account(account.name());
            known.is_some_and(|known| Arc::ptr_eq(&known, account))
        };
        for waiting in self.interest.review(is_here) {
            self.subscribe(&waiting.interest());
        }
        self.note_interest();
    }

    fn subscribe(&mut self, interest: &Interest<'_>) {
        if let Some((account, known)) = self.interest.get(interest) {
            account.set_weight(known, interest.weight);
            return;
        }
        if !self.options.takes(interest) {
            let subject = String::from_utf8_lossy(interest.subject);
            tracing::debug!("Can not export {subject:?}, ignoring remote subscription request");
            return;
        }
        let Some(account) = self.account(interest.account) else {
            return self.interest.wait(interest);
        };
        let subscription = self.subscription(interest);
        if account.insert(&subscription).is_ok() {
            self.interest.put(interest, account, subscription);
            self.note_interest();
        }
    }

    pub(super) fn subscription(&self, interest: &Interest<'_>) -> Arc<Subscription> {
        let permissions = self.options.permissions.as_ref();
        Arc::new(Subscription::new(
            Bytes::copy_from_slice(interest.subject),
            interest.queue.map(Bytes::copy_from_slice),
            Target::Route {
                sink: Arc::clone(&self.connection.sink),
                weight: Weight::new(interest.weight),
            },
            permissions
                .and_then(|permissions| permissions.filter_for(interest.subject, interest.queue)),
        ))
    }

    fn unsubscribe(&mut self, interest: &Interest<'_>) {
        if let Some((account, subscription)) = self.interest.remove(interest) {
            account.remove(&subscription);
            self.note_interest();
        }
    }

    pub(super) fn note_interest(&self) {
        let count = self.interest.len() as u64;
        self.connection
            .subscriptions
            .store(count, Ordering::Relaxed);
    }

    /// Time for a ping, whatever else came.
    fn ping(&mut self) -> Result<(), CloseReason> {
        if self.pings_outstanding + 1 > self.options.pings_outstanding_max {
            if let Some(broker) = self.core.broker.get() {
                Traffic::count(&broker.traffic().stale_connections);
            }
            self.say(b"-ERR 'Stale Connection'\r\n");
            self.hand_over();
            return Err(CloseReason::StaleConnection);
        }
        self.pings_outstanding += 1;
        self.ping_sent = Some(Instant::now());
        self.say(b"PING\r\n");
        self.hand_over();
        Ok(())
    }

    fn pong(&mut self) {
        self.pings_outstanding = 0;
        self.connection.prove();
        let Some(sent) = self.ping_sent.take() else {
            return;
        };
        let round_trip = sent.elapsed();
        let microseconds = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.connection.client().set_round_trip_us(microseconds);
        if let (Some(level), Compression::Auto(thresholds)) =
            (&self.connection.level, &self.options.cluster.compression)
        {
            level.set(Level::for_round_trip(round_trip, thresholds));
        }
    }

    pub(super) fn say(&self, text: &[u8]) {
        // In order with what is staged for the connection: nothing is, since nothing that came from it goes back.
        write(&self.connection, text, FlushBy::Caller);
    }

    fn hand_over(&mut self) {
        let Some(broker) = self.core.broker.get() else {
            return;
        };
        let traffic = broker.traffic();
        let (messages, bytes) = std::mem::take(&mut self.counted_in);
        if messages > 0 {
            self.connection.client().count_in(messages, bytes);
            traffic.in_messages.fetch_add(messages, Ordering::Relaxed);
            traffic.in_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        // A receiver that does not keep up must not hold up the whole server behind this route.
        let _ = self.delivery.hand_over(traffic);
    }
}
