//! The task of one connection: it waits for bytes, for time and for the end, and lets the session decide.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::authentication::HashCheck;
use super::buffer::ReadBuffer;
use super::clients::Clients;
use super::closed::{ClosedClient, HeldSubscription};
use super::entrance::Entrance;
use super::session::{Session, Step};
use super::terms::Terms;
use super::transport::{Greeting, Proxies, Reader, Transport};
use super::websocket;
use crate::broker::outbox::Call;
use crate::broker::{
    Carrier, Client, ClientInfo, CloseReason, ConnectionTraffic, Flow, GLOBAL_ACCOUNT, Outbox,
    RoundTrip, Traffic,
};
use crate::protocol::{ConnectRequest, ServerInfo, encode};
use crate::tls::{HandshakeError, PeerIdentity};

/// How long the last bytes of a connection may take to leave.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(1);
/// How many reads in a row a connection may work through before others have their turn.
const READS_IN_A_ROW_MAX: u32 = 8;
/// How long a producer is held up for one slow receiver.
const STALL: Duration = Duration::from_millis(5);
/// How long a producer is held up for all that one read brought.
const STALL_PER_READ_MAX: Duration = Duration::from_millis(10);

/// Serves a connection until it ends.
pub(super) async fn run(clients: Arc<Clients>, stream: TcpStream, address: SocketAddr) {
    // What only the beginning needs is not kept for as long as the connection lives.
    if let Some(connection) = Box::pin(greet(clients, stream, address)).await {
        connection.live().await;
    }
}

/// The same for a connection that speaks WebSocket.
pub(super) async fn run_websocket(clients: Arc<Clients>, stream: TcpStream, address: SocketAddr) {
    if let Some(connection) = Box::pin(greet_websocket(clients, stream, address)).await {
        connection.live().await;
    }
}

/// The beginning of a connection, up to where the client may say something.
async fn greet(
    clients: Arc<Clients>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Box<Connection>> {
    // Batches are made here; the kernel need not wait for more.
    let _ = stream.set_nodelay(true);
    let id = clients.next_id();
    let terms = clients.terms();
    let entrance = terms.entrance.clone();
    let nonce = clients.nonce(&entrance);
    let mut info = clients.info_for(&entrance, id, address, &nonce);
    if terms.options.proxy_protocol {
        // It is not known yet where the client is.
        info.client_ip = String::new();
    }
    match open(&clients, &terms, stream, &info).await {
        Ok(transport) => {
            let address = transport.source.unwrap_or(address);
            let hello = Hello {
                id,
                address,
                entrance,
                nonce,
                preset: ConnectRequest::default(),
                peer: transport.peer.clone(),
            };
            Some(Connection::begin(clients, terms, transport, hello))
        }
        Err(error) => {
            tracing::error!("{address} - cid:{id} - {error}");
            clients.tell_of(&error);
            let reason = match error {
                // A proxy's header that is none.
                HandshakeError::Before(_) => CloseReason::ProtocolViolation,
                HandshakeError::Throttled => CloseReason::MaxConnectionsExceeded,
                _ => CloseReason::TlsHandshakeFailure,
            };
            clients.closed.note(never_begun(id, address, reason));
            None
        }
    }
}

async fn greet_websocket(
    clients: Arc<Clients>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Box<Connection>> {
    let terms = clients.terms();
    let websocket = terms.websocket.as_ref()?;
    let _ = stream.set_nodelay(true);
    let id = clients.next_id();
    let entrance = websocket.entrance.clone();
    let nonce = clients.nonce(&entrance);
    match websocket.open(stream).await {
        Ok((transport, preset)) => {
            let hello = Hello {
                id,
                address,
                entrance,
                nonce,
                preset,
                peer: transport.peer.clone(),
            };
            let terms = Arc::clone(&terms);
            Some(Connection::begin(clients, terms, transport, hello))
        }
        Err(error) => {
            websocket::log_refused(id, address, &error);
            if let websocket::OpenError::Handshake(error) = &error {
                clients.tell_of(error);
                let reason = CloseReason::TlsHandshakeFailure;
                clients.closed.note(never_begun(id, address, reason));
            }
            None
        }
    }
}

/// What is known of a client before it says anything.
pub(super) struct Hello {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) entrance: Entrance,
    pub(super) nonce: String,
    pub(super) preset: ConnectRequest,
    /// Whom its certificate names.
    pub(super) peer: Option<Arc<PeerIdentity>>,
}

/// Who has said nothing yet.
fn stranger(id: u64, address: SocketAddr) -> ClientInfo {
    ClientInfo {
        id,
        account: GLOBAL_ACCOUNT.to_owned(),
        user: String::new(),
        name: String::new(),
        lang: String::new(),
        version: String::new(),
        address,
        started: SystemTime::now(),
        websocket: false,
        round_trip: RoundTrip::default(),
    }
}

/// A connection that ended before the protocol began.
fn never_begun(id: u64, address: SocketAddr, reason: CloseReason) -> ClosedClient {
    let info = stranger(id, address);
    ClosedClient {
        carrier: Carrier::default(),
        traffic: ConnectionTraffic::default(),
        stalls: 0,
        round_trip_us: 0,
        last_activity: info.started,
        stopped: SystemTime::now(),
        reason,
        subscription_count: 0,
        subscriptions: Vec::new(),
        info: Arc::new(info),
    }
}

/// A connection that has ended for this reason, and what it listened on.
fn gone(client: &Client, reason: CloseReason, held: Vec<HeldSubscription>) -> ClosedClient {
    ClosedClient {
        info: client.info(),
        carrier: client.carrier().clone(),
        traffic: ConnectionTraffic::of(client),
        stalls: client.stalls(),
        round_trip_us: client.round_trip_us(),
        last_activity: client.last_activity(),
        stopped: SystemTime::now(),
        reason,
        subscription_count: held.len() as u64,
        subscriptions: held,
    }
}

/// Encrypts the connection where that is to be.
async fn open(
    clients: &Clients,
    terms: &Terms,
    stream: TcpStream,
    info: &ServerInfo,
) -> Result<Transport, HandshakeError> {
    let proxies = match terms.options.proxy_protocol {
        true => Proxies::Heard,
        false => Proxies::Ignored,
    };
    let mut line = Vec::new();
    if proxies == Proxies::Heard || terms.tls.is_some() {
        encode::info(&mut line, info);
    }
    match &terms.tls {
        None if proxies == Proxies::Heard => Transport::proxied(stream, &line).await,
        None => Ok(Transport::plain(stream, Greeting::Due)),
        Some(terms) => Transport::open(stream, terms, &clients.handshakes, proxies, &line).await,
    }
}

struct Connection {
    clients: Arc<Clients>,
    address: SocketAddr,
    reader: Reader,
    session: Session,
    buffer: ReadBuffer,
}

impl Connection {
    /// A connection that has said hello. On the heap, where it stays as it is: what a task holds while it waits would otherwise be held in each of the
    /// places that it was moved through.
    fn begin(
        clients: Arc<Clients>,
        terms: Arc<Terms>,
        transport: Transport,
        hello: Hello,
    ) -> Box<Self> {
        let (id, address) = (hello.id, hello.address);
        let Transport {
            reader,
            wire,
            greeting,
            carrier,
            ..
        } = transport;
        let outbox = Outbox::new(wire, terms.options.outbox_limits());
        let info = ClientInfo {
            websocket: carrier.websocket,
            ..stranger(id, address)
        };
        let client = Client::new(info, outbox, terms.options.trace).over(carrier);
        let client = Arc::new(client);
        tracing::debug!("{address} - cid:{id} - Client connection created");
        let mut session = Session::new(Arc::clone(&clients), terms, client, hello);
        if greeting == Greeting::Due {
            session.greet();
        }
        Box::new(Self {
            clients,
            address,
            reader,
            session,
            buffer: ReadBuffer::new(),
        })
    }

    /// Serves it to its end. What it rarely waits for has a place of its own, so that the task is no larger than what it waits for mostly.
    async fn live(mut self: Box<Self>) {
        let client = Arc::clone(self.session.client());
        let (reason, held) = match self.clients.enter(&client) {
            true => self.serve(&client).await,
            false => (self.session.refuse_for_lack_of_room(), Vec::new()),
        };
        Box::pin(client.outbox().finish(LAST_FLUSH_MAX)).await;
        // Who no longer finds it among the open ones finds it here.
        self.clients.closed.note(gone(&client, reason, held));
        self.clients.leave(&client);
        let (address, id) = (self.address, client.id);
        if reason.is_slow_consumer() {
            Traffic::count(&self.clients.broker.traffic().slow_consumers);
            tracing::info!("{address} - cid:{id} - Slow Consumer Detected: {reason}");
        }
        tracing::debug!("{address} - cid:{id} - Client connection closed: {reason}");
    }

    /// Works until the connection is to end, and leaves its outbox closed.
    async fn serve(&mut self, client: &Arc<Client>) -> (CloseReason, Vec<HeldSubscription>) {
        let reason = self.work(client).await;
        let held = HeldSubscription::all_of(client);
        self.session.end();
        // Whoever closed the outbox before has said why.
        client.outbox().close(reason);
        let reason = client.outbox().closed().unwrap_or(reason);
        self.session.leave_account(reason);
        (reason, held)
    }

    async fn work(&mut self, client: &Arc<Client>) -> CloseReason {
        // New terms may have come before it was among those who are told of them.
        if let Err(reason) = Box::pin(self.review()).await {
            return reason;
        }
        let timer = tokio::time::sleep_until(self.session.next_deadline());
        tokio::pin!(timer);
        let mut bytes_in_all = 0;
        let mut reads = 0;
        loop {
            let room = self.buffer.for_reading(bytes_in_all);
            let read = tokio::select! {
                biased;
                call = client.outbox().wait_for_call() => {
                    match call {
                        Call::Close(reason) => return reason,
                        Call::Review => {
                            if let Err(reason) = Box::pin(self.review()).await {
                                return reason;
                            }
                        }
                    }
                    timer.as_mut().reset(self.session.next_deadline());
                    continue;
                }
                read = self.reader.read_buf(room) => read,
                () = &mut timer => {
                    if let Err(reason) = self.session.on_timer(Instant::now()) {
                        return reason;
                    }
                    if self.session.rest_if_quiet(Instant::now()) {
                        self.buffer.rest();
                    }
                    timer.as_mut().reset(self.session.next_deadline());
                    continue;
                }
            };
            match read {
                Ok(0) => return CloseReason::ClientClosed,
                Ok(bytes) => {
                    self.buffer.note_read(bytes);
                    self.session.heard(Instant::now());
                    reads += 1;
                }
                Err(error) => return closed_by(&error),
            }
            match self.take_batch().await {
                Ok(needed) => bytes_in_all = needed,
                Err(reason) => return reason,
            }
            if reads >= READS_IN_A_ROW_MAX {
                reads = 0;
                tokio::task::yield_now().await;
            }
            if self.session.take_deadline_changed() {
                timer.as_mut().reset(self.session.next_deadline());
            }
        }
    }

    /// Has a hash computed where it holds nobody up.
    async fn hash(&mut self, check: HashCheck) -> Result<(), CloseReason> {
        let login = tokio::task::spawn_blocking(move || check.run()).await;
        self.session.hashed(login.ok().flatten())
    }

    /// Looks at what has changed around the connection.
    async fn review(&mut self) -> Result<(), CloseReason> {
        let result = match self.session.review() {
            Ok(None) => Ok(()),
            Ok(Some(check)) => self.hash(check).await,
            Err(reason) => Err(reason),
        };
        self.session.hand_over();
        result
    }

    /// Works through everything that was read; how many bytes the unfinished rest needs in all.
    async fn take_batch(&mut self) -> Result<usize, CloseReason> {
        let mut stall_left = STALL_PER_READ_MAX;
        loop {
            let step = self.session.process(&mut self.buffer);
            let flow = match step {
                Step::Read { .. } => {
                    let (flow, offer) = self.session.hand_over_offered();
                    if let Some(offer) = offer {
                        offer.take();
                    }
                    flow
                }
                _ => self.session.hand_over(),
            };
            if let Flow::Stall(receiver) = flow
                && !stall_left.is_zero()
            {
                let stall = self.session.stall(&receiver, STALL.min(stall_left));
                stall_left -= Box::pin(stall).await;
            }
            match step {
                Step::Read { bytes_in_all } => return Ok(bytes_in_all),
                Step::HandOver => {}
                Step::Hash(check) => Box::pin(self.hash(*check)).await?,
                Step::Close(reason) => return Err(reason),
            }
        }
    }
}

fn closed_by(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CloseReason::ClientClosed,
        _ => websocket::close_reason_of(error).unwrap_or(CloseReason::ReadError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How large what a function returns is.
    fn returned_bytes<F>(_: impl Fn(Arc<Clients>, TcpStream, SocketAddr) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_takes_little() {
        let (task, connection) = (returned_bytes(run), size_of::<Connection>());
        assert!(task <= 704, "the task has {task} bytes");
        assert!(connection <= 1168, "what it serves has {connection} bytes");
    }
}
