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
use super::shared::{Core, write};
use super::socket::RouteReader;
use super::table::Connection;
use crate::broker::outbox::FlushBy;
use crate::broker::outbox::chunk::COPIED_BYTES_MAX;
use crate::broker::{
    Account, CloseReason, Delivery, Message, Owner, Subscription, Target, Traffic, Weight,
};
use crate::config::options::Compression;
use crate::connection::ReadBuffer;
use crate::protocol::route::parser::{
    Interest, ParsedRoute, RouteMessage, RouteOp, RouteRules, parse,
};
use crate::protocol::route::{RouteInfo, encode};

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

/// A subscription of the other server, and the account that it is in.
type Held = (Arc<Account>, Arc<Subscription>);

/// What the connection has told, apart from its bytes.
struct Work {
    core: Arc<Core>,
    connection: Arc<Connection>,
    rules: RouteRules,
    delivery: Delivery,
    /// Interest by account, subject and queue group, as one text.
    interest: HashMap<Box<[u8]>, Held>,
    key: Vec<u8>,
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
        let broker = core.broker.get();
        let own_account = connection
            .account
            .as_deref()
            .and_then(|account| broker.and_then(|broker| broker.account(account)));
        let work = Work {
            rules: RouteRules {
                line_bytes_max: core.options.line_bytes_max,
                payload_bytes_max: core.options.payload_bytes_max,
                names_account: connection.account.is_none(),
            },
            core: Arc::clone(core),
            connection: Arc::clone(&connection),
            delivery: Delivery::default(),
            interest: HashMap::new(),
            key: Vec::new(),
            accounts: HashMap::new(),
            own_account,
            counted_in: (0, 0),
            ping_sent: Some(Instant::now()),
            pings_outstanding: 1,
        };
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
    }

    /// Gives the place back, and forgets what the other server listened to.
    fn leave(&mut self) {
        let is_gone = {
            let mut table = self.core.table.lock();
            let is_gone = table.remove(&self.connection);
            self.core.sinks.store(Arc::new(table.sinks()));
            is_gone
        };
        for (_, (account, subscription)) in self.work.interest.drain() {
            account.remove(&subscription);
        }
        if is_gone {
            gossip::server_went(&self.core, &self.connection.remote);
        }
        self.core.changes.send_modify(|count| *count += 1);
    }

    async fn serve(&mut self) -> CloseReason {
        let client = Arc::clone(self.connection.client());
        let interval = self.core.options.ping_interval;
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
        if !self.core.options.lets_in(message.subject) {
            return;
        }
        let Some(account) = self.account(message.account) else {
            return;
        };
        let Some(broker) = self.core.broker.get() else {
            return;
        };
        let delivered = Message {
            subject: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: message.payload,
            owner,
        };
        self.delivery
            .publish_routed(&account, &delivered, message.queues, broker.traffic());
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

    fn key_of(&mut self, interest: &Interest<'_>) {
        self.key.clear();
        for part in [interest.account, interest.subject] {
            self.key.extend_from_slice(part);
            self.key.push(b' ');
        }
        if let Some(queue) = interest.queue {
            self.key.extend_from_slice(queue);
        }
    }

    fn subscribe(&mut self, interest: &Interest<'_>) {
        self.key_of(interest);
        if let Some((account, known)) = self.interest.get(&*self.key) {
            account.set_weight(known, interest.weight);
            return;
        }
        let permissions = self.core.options.permissions.as_ref();
        if permissions
            .is_some_and(|permissions| !permissions.may_subscribe(interest.subject, interest.queue))
        {
            let subject = String::from_utf8_lossy(interest.subject);
            tracing::debug!("Can not export {subject:?}, ignoring remote subscription request");
            return;
        }
        let deny = permissions
            .and_then(|permissions| permissions.filter_for(interest.subject, interest.queue));
        let Some(account) = self.account(interest.account) else {
            return;
        };
        let subscription = Arc::new(Subscription::new(
            Bytes::copy_from_slice(interest.subject),
            interest.queue.map(Bytes::copy_from_slice),
            Target::Route {
                sink: Arc::clone(&self.connection.sink),
                weight: Weight::new(interest.weight),
            },
            deny,
        ));
        if account.insert(&subscription).is_ok() {
            let key = self.key.as_slice().into();
            self.interest.insert(key, (account, subscription));
            self.note_interest();
        }
    }

    fn unsubscribe(&mut self, interest: &Interest<'_>) {
        self.key_of(interest);
        if let Some((account, subscription)) = self.interest.remove(&*self.key) {
            account.remove(&subscription);
            self.note_interest();
        }
    }

    fn note_interest(&self) {
        let count = self.interest.len() as u64;
        self.connection
            .subscriptions
            .store(count, Ordering::Relaxed);
    }

    fn info(&mut self, info: RouteInfo) {
        if !info.route_acc_add_reqid.is_empty() {
            // Nothing has to be moved for an account that gets its own route: interest follows the connections that there are.
            if !info.route_account.is_empty() {
                let answer = RouteInfo {
                    route_account: String::new(),
                    ..info
                };
                let mut text = Vec::new();
                encode::json(&mut text, "INFO", &answer);
                self.say(&text);
            }
            return;
        }
        if !info.gateway.is_empty() {
            tracing::error!(
                "Received information about gateway {:?} from {}, but gateways are not built",
                info.gateway,
                self.connection.remote.server_id
            );
            return;
        }
        if info.server_id != self.connection.remote.server_id {
            gossip::heard_of(&self.core, &info, &self.connection);
            return;
        }
        if info.ldm {
            for connection in self.core.table.lock().connections() {
                if connection.remote.server_id == info.server_id {
                    connection.leaving.store(true, Ordering::Relaxed);
                }
            }
            gossip::update_clients(&self.core);
        }
    }

    /// Time for a ping, whatever else came.
    fn ping(&mut self) -> Result<(), CloseReason> {
        if self.pings_outstanding + 1 > self.core.options.pings_outstanding_max {
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
        if let (Some(level), Compression::Auto(thresholds)) = (
            &self.connection.level,
            &self.core.options.cluster.compression,
        ) {
            level.set(Level::for_round_trip(round_trip, thresholds));
        }
    }

    fn say(&mut self, text: &[u8]) {
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
