//! From a socket to a connection that has its place: who is on the other side, whether it may be, and how both compress.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::admission::{CameIn, Shown};
use super::admitted_links::{Caller, take_link};
use super::compression::{self, Level, SharedLevel, UnknownMode};
use super::gossip;
use super::options::RouteOptions;
use super::session::{self, Session};
use super::shared::{Core, ROUTE_PROTOCOL, address};
use super::socket::{Said, Talk, TalkError};
use super::table::{Connection, NoPlace, PeerRules};
use crate::broker::outbox::{FlushBy, OutboxLimits};
use crate::broker::{Client, ClientInfo, CloseReason, Outbox, RoundTrip, RouteSink};
use crate::config::options::RouteUrl;
use crate::protocol::ProtocolViolation;
use crate::protocol::route::{RouteConnect, RouteInfo, encode};
use crate::tls::HandshakeError;

/// How long a server may take with each step after it has said who it is.
const STEP_MAX: Duration = Duration::from_secs(10);

/// Why a connection became no route.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouteError {
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error(transparent)]
    Tls(#[from] HandshakeError),
    #[error("Error trying to connect to route: {0}")]
    Dial(std::io::Error),
    #[error("Authentication Timeout")]
    TooSlow,
    #[error("authentication error - user {0:?}")]
    Authorization(String),
    #[error("Attempted to connect to route port")]
    WrongPort,
    #[error("Rejecting connection from gateway {0:?} on the Route port")]
    Gateway(String),
    #[error("Rejecting connection, cluster name {theirs:?} does not match {ours:?}")]
    ClusterName { theirs: String, ours: String },
    #[error("Remote server has a duplicate name: {0:?}")]
    ServerName(String),
    #[error("Detected route to self")]
    OneSelf,
    #[error(transparent)]
    Compression(#[from] UnknownMode),
    #[error("{reason}")]
    NoPlace { reason: NoPlace, server_id: String },
    #[error("refused by the other server: {0}")]
    Refused(String),
    #[error("it said nothing that begins a route")]
    Unexpected,
    #[error("Unable to lookup account {0:?}: account missing")]
    Account(String),
    #[error("Server Shutdown")]
    Leaving,
    #[error("the configuration has changed meanwhile")]
    Changed,
}

impl RouteError {
    /// What the end of a connection that was accepted is called.
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            Self::Talk(TalkError::Protocol(_)) | Self::Compression(_) => {
                CloseReason::ProtocolViolation
            }
            Self::Talk(_) | Self::Dial(_) => CloseReason::ReadError,
            Self::Tls(_) => CloseReason::TlsHandshakeFailure,
            Self::TooSlow => CloseReason::AuthenticationTimeout,
            Self::Authorization(_) => CloseReason::AuthenticationFailure,
            Self::WrongPort | Self::Gateway(_) => CloseReason::WrongPort,
            Self::ClusterName { .. } => CloseReason::ClusterNameConflict,
            Self::ServerName(_) => CloseReason::DuplicateServerName,
            Self::OneSelf | Self::NoPlace { .. } => CloseReason::DuplicateRoute,
            Self::Refused(_) => CloseReason::ParseError,
            Self::Unexpected => CloseReason::ProtocolViolation,
            Self::Account(_) => CloseReason::MissingAccount,
            Self::Leaving => CloseReason::ServerShutdown,
            Self::Changed => CloseReason::RouteRemoved,
        }
    }
}

/// Why we dial.
#[derive(Debug, Clone)]
pub(super) struct Aim {
    pub url: RouteUrl,
    /// Whether the address stands in the configuration.
    pub configured: bool,
    pub account: Option<String>,
    /// How far word of the other server is to be passed on.
    pub gossip_mode: i64,
}

/// What an accepted connection became.
pub(super) enum Accepted {
    Route(Box<Session>),
    Link,
}

async fn within<T>(
    at_most: Duration,
    step: impl Future<Output = Result<T, TalkError>>,
) -> Result<T, RouteError> {
    match timeout(at_most, step).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RouteError::TooSlow),
    }
}

/// Another server dialled us.
pub(super) async fn accept(
    core: &Arc<Core>,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<Accepted, RouteError> {
    let _ = stream.set_nodelay(true);
    let started = Instant::now();
    let options = core.options.load_full();
    let mut key = None;
    let (mut talk, peer) = match &options.tls {
        None => (Talk::tcp(stream), None),
        Some(tls) => {
            let socket = tls.mutual.accept(stream, tls.timeout).await?;
            key = socket.peer_key();
            let peer = socket.peer_identity();
            (Talk::tls(socket), peer)
        }
    };
    let at_most = options.cluster.authorization_timeout;
    let greeting = core.info(None, None, 0, 0);
    within(at_most, async { Ok(talk.say("INFO", &greeting).await?) }).await?;
    let connect = match within(at_most, talk.hear()).await {
        Ok(Said::Connect(connect)) => connect,
        Ok(Said::Link(line)) => {
            let caller = Caller { from, key, peer };
            return take_link(core, &options, talk, line, caller).await;
        }
        Ok(Said::Error(text)) => return Err(RouteError::Refused(text)),
        Ok(Said::Info(_)) => {
            talk.refuse("Authorization Violation").await;
            return Err(RouteError::Authorization("N/A".into()));
        }
        Err(RouteError::Talk(TalkError::Protocol(ProtocolViolation::UnknownOperation))) => {
            talk.refuse("Unknown Protocol Operation").await;
            return Err(RouteError::WrongPort);
        }
        Err(RouteError::TooSlow) => {
            talk.refuse("Authentication Timeout").await;
            return Err(RouteError::TooSlow);
        }
        Err(error) => return Err(error),
    };
    let came = CameIn {
        user: connect.user.clone(),
        password: connect.pass.clone(),
        peer,
    };
    let came = check_connect(core, &options, &mut talk, came, &connect).await?;
    let mut round_trip = started.elapsed();
    let mut info = hear_info(&mut talk).await?;
    check_info(core, &mut talk, &info, false).await?;
    let mut level = None;
    let ours = &options.cluster.compression;
    if compression::is_negotiated(ours) {
        round_trip = round_trip.min(started.elapsed());
        if let Some(agreed) = compression::agree(ours, &info.compression, round_trip)? {
            talk.decompress();
            level = Some(talk.compress(agreed));
            let again = core.info(None, Some(agreed), 0, 0);
            within(STEP_MAX, async { Ok(talk.say("INFO", &again).await?) }).await?;
            info = hear_info(&mut talk).await?;
            check_info(core, &mut talk, &info, false).await?;
        }
    }
    let account = Some(info.route_account.clone()).filter(|account| !account.is_empty());
    if let Some(account) = &account {
        check_account(core, &mut talk, account).await?;
    }
    let newcomer = Newcomer {
        talk,
        info,
        account,
        level,
        from,
        aim: None,
        round_trip,
        options,
        shown: Shown {
            key,
            came: Some(came),
        },
    };
    let session = newcomer.register(core).await?;
    Ok(Accepted::Route(Box::new(session)))
}

/// We dial another server.
pub(super) async fn dial(core: &Arc<Core>, aim: &Aim) -> Result<Session, RouteError> {
    let RouteUrl { host, port, .. } = &aim.url;
    let connecting = timeout(
        Duration::from_secs(1),
        TcpStream::connect((host.as_str(), *port)),
    );
    let stream = match connecting.await {
        Ok(stream) => stream.map_err(RouteError::Dial)?,
        Err(_) => return Err(RouteError::Dial(std::io::ErrorKind::TimedOut.into())),
    };
    let started = Instant::now();
    let options = core.options.load_full();
    // A dial is told to end only after the options have changed.
    if aim.configured && !options.dials(&aim.url, aim.account.as_deref()) {
        return Err(RouteError::Changed);
    }
    let mut key = None;
    let _ = stream.set_nodelay(true);
    let from = stream.peer_addr().map_err(RouteError::Dial)?;
    let mut talk = match &options.tls {
        None => Talk::tcp(stream),
        Some(tls) => {
            let name = tls_name(&options, host);
            let socket = tls.mutual.connect(stream, &name, tls.timeout).await?;
            key = socket.peer_key();
            Talk::tls(socket)
        }
    };
    let name = core.name.load_full();
    let connect = RouteConnect {
        echo: true,
        user: aim.url.user.clone().unwrap_or_default(),
        pass: aim.url.password.clone().unwrap_or_default(),
        tls_required: options.tls.is_some(),
        name: core.identity.server_id.clone(),
        cluster: name.name.clone(),
        dynamic: name.dynamic,
        headers: options.headers,
        lnoc: true,
        ..RouteConnect::default()
    };
    let account = aim.account.as_deref();
    let ours = &options.cluster.compression;
    let negotiates = compression::is_negotiated(ours);
    // With a pool our own INFO names our place in it, which the other side's tells us.
    let waits = negotiates || (account.is_none() && options.cluster.pool_size.is_some());
    within(STEP_MAX, async {
        talk.say("CONNECT", &connect).await?;
        if !waits {
            let info = core.info(account, None, 0, aim.gossip_mode);
            talk.say("INFO", &info).await?;
        }
        Ok(())
    })
    .await?;
    let mut info = hear_info(&mut talk).await?;
    let round_trip = started.elapsed();
    check_info(core, &mut talk, &info, true).await?;
    let mut level = None;
    if negotiates && let Some(agreed) = compression::agree(ours, &info.compression, round_trip)? {
        let said = core.info(account, Some(agreed), 0, 0);
        within(STEP_MAX, async { Ok(talk.say("INFO", &said).await?) }).await?;
        talk.decompress();
        level = Some(talk.compress(agreed));
        info = hear_info(&mut talk).await?;
        check_info(core, &mut talk, &info, true).await?;
    }
    if let Some(account) = account {
        account.clone_into(&mut info.route_account);
    }
    let newcomer = Newcomer {
        talk,
        info,
        account: aim.account.clone(),
        level,
        from,
        aim: Some((aim.clone(), waits)),
        round_trip,
        options,
        shown: Shown { key, came: None },
    };
    newcomer.register(core).await
}

/// A server that was heard of by its address shows a certificate with a name: that of the first configured one.
fn tls_name(options: &RouteOptions, host: &str) -> String {
    if host.parse::<std::net::IpAddr>().is_err() {
        return host.to_owned();
    }
    let is_configured = |route: &&RouteUrl| route.host == host;
    let routes = &options.cluster.routes;
    if routes.iter().any(|route| is_configured(&route)) {
        return host.to_owned();
    }
    let named = routes
        .iter()
        .find(|route| route.host.parse::<std::net::IpAddr>().is_err());
    named.map_or(host, |route| &route.host).to_owned()
}

/// Gives back who came, if that is somebody who may.
pub(super) async fn check_credentials(
    options: &Arc<RouteOptions>,
    talk: &mut Talk,
    came: CameIn,
) -> Result<CameIn, RouteError> {
    let (options, user) = (Arc::clone(options), came.user.clone());
    // A hash takes longer than a task may be busy.
    let checked =
        tokio::task::spawn_blocking(move || options.lets_in_server(&came).then_some(came));
    match checked.await {
        Ok(Some(came)) => Ok(came),
        _ => {
            talk.refuse("Authorization Violation").await;
            Err(RouteError::Authorization(user))
        }
    }
}

async fn check_connect(
    core: &Arc<Core>,
    options: &Arc<RouteOptions>,
    talk: &mut Talk,
    came: CameIn,
    connect: &RouteConnect,
) -> Result<CameIn, RouteError> {
    if !connect.lang.is_empty() {
        talk.refuse("attempted to connect to route port").await;
        return Err(RouteError::WrongPort);
    }
    if !connect.gateway.is_empty() {
        let error = RouteError::Gateway(connect.gateway.clone());
        talk.refuse(&error.to_string()).await;
        return Err(error);
    }
    let came = check_credentials(options, talk, came).await?;
    if !core.is_of_our_cluster(&connect.cluster, connect.dynamic, &connect.name) {
        let error = RouteError::ClusterName {
            theirs: connect.cluster.clone(),
            ours: core.name.load().name.clone(),
        };
        talk.refuse(&error.to_string()).await;
        return Err(error);
    }
    Ok(came)
}

/// Nothing could be told over a route for an account that is not here.
async fn check_account(core: &Core, talk: &mut Talk, account: &str) -> Result<(), RouteError> {
    let broker = core.broker.get();
    if broker.is_some_and(|broker| broker.account(account).is_none()) {
        let error = RouteError::Account(account.to_owned());
        talk.refuse(&error.to_string()).await;
        return Err(error);
    }
    Ok(())
}

async fn hear_info(talk: &mut Talk) -> Result<RouteInfo, RouteError> {
    match within(STEP_MAX, talk.hear()).await? {
        Said::Info(info) => Ok(*info),
        Said::Error(text) => Err(RouteError::Refused(text)),
        Said::Connect(_) | Said::Link(_) => Err(RouteError::Unexpected),
    }
}

async fn check_info(
    core: &Core,
    talk: &mut Talk,
    info: &RouteInfo,
    solicited: bool,
) -> Result<(), RouteError> {
    if info.server_id == core.identity.server_id {
        return Err(RouteError::OneSelf);
    }
    if info.server_id.is_empty() {
        return Err(RouteError::Unexpected);
    }
    let theirs = &info.cluster;
    if !theirs.is_empty() && !core.is_of_our_cluster(theirs, info.cluster_dynamic, &info.server_id)
    {
        return Err(RouteError::ClusterName {
            theirs: theirs.clone(),
            ours: core.name.load().name.clone(),
        });
    }
    if !solicited && info.server_name == core.identity.server_name {
        let error = RouteError::ServerName(info.server_name.clone());
        talk.refuse(&error.to_string()).await;
        return Err(error);
    }
    Ok(())
}

/// A connection whose other side is known.
struct Newcomer {
    talk: Talk,
    info: RouteInfo,
    account: Option<String>,
    level: Option<Arc<SharedLevel>>,
    from: SocketAddr,
    /// Why it was dialled, and whether our own INFO is still to be said.
    aim: Option<(Aim, bool)>,
    round_trip: Duration,
    /// What held when it came.
    options: Arc<RouteOptions>,
    shown: Shown,
}

impl Newcomer {
    /// Gives it its place.
    async fn register(mut self, core: &Arc<Core>) -> Result<Session, RouteError> {
        if *core.stop.borrow() {
            return Err(RouteError::Leaving);
        }
        if self.account.is_some() {
            // The other server still knows of the account's interest from another connection.
            let mut moved = core.moved.subscribe();
            let _ = moved.wait_for(|moved| !moved.is_pending).await;
        }
        if self.info.ip.is_empty() {
            let ip = address(&self.from.ip().to_string(), self.info.port);
            self.info.ip = format!("nats-route://{ip}/");
        }
        self.info.nonce.clear();
        let place = core.table.lock().place(
            &self.options,
            &core.identity.server_id,
            &self.info,
            self.account.as_deref(),
            self.aim.is_some(),
        );
        if let Err(reason) = place {
            if reason != NoPlace::Duplicate {
                self.talk.refuse(&reason.to_string()).await;
            }
            let server_id = self.info.server_id;
            return Err(RouteError::NoPlace { reason, server_id });
        }
        let (reader, wire, buffer) = self.talk.into_route();
        let limits = OutboxLimits {
            pending_bytes_max: self.options.pending_bytes_max,
            write_deadline: self.options.write_deadline,
            write_timeout: self.options.write_timeout,
        };
        let id = core.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let cid = match core.clients.get() {
            Some(clients) => clients.next_id(),
            None => id,
        };
        let client = Client::new(
            ClientInfo {
                id: cid,
                account: self.account.clone().unwrap_or_default(),
                user: String::new(),
                name: self.info.server_name.clone(),
                lang: String::new(),
                version: self.info.version.clone(),
                address: self.from,
                started: SystemTime::now(),
                websocket: false,
                round_trip: RoundTrip::default(),
            },
            Outbox::new(wire, limits),
            false,
        );
        client.set_headers(self.options.headers && self.info.headers);
        client.set_round_trip_us(u64::try_from(self.round_trip.as_micros()).unwrap_or(u64::MAX));
        let client = Arc::new(client);
        let info = Arc::new(self.info);
        let compression = match (&self.level, info.compression.as_str()) {
            (Some(level), _) => level.get().name(),
            (None, "" | "not supported") => "not supported",
            (None, _) => "off",
        };
        let aim = self.aim.as_ref().map(|(aim, _)| aim);
        let placed = {
            // Between finding a place and taking it nobody else may come.
            let mut table = core.table.lock();
            let place = match Arc::ptr_eq(&self.options, &core.options.load()) {
                true => {
                    let (own_id, account) = (&core.identity.server_id, self.account.as_deref());
                    let place = table.place(&self.options, own_id, &info, account, aim.is_some());
                    place.map_err(|reason| RouteError::NoPlace {
                        reason,
                        server_id: info.server_id.clone(),
                    })
                }
                false => Err(RouteError::Changed),
            };
            place.map(|place| {
                let connection = Arc::new(Connection {
                    id: cid,
                    sink: Arc::new(RouteSink {
                        client: Arc::clone(&client),
                        names_account: place.names_account,
                        traces: info.proto >= ROUTE_PROTOCOL,
                    }),
                    remote: Arc::clone(&info),
                    rules: ArcSwap::from_pointee(PeerRules::of(&info)),
                    account: self.account.clone(),
                    index: place.index,
                    solicited: aim.is_some(),
                    configured: AtomicBool::new(aim.is_some_and(|aim| aim.configured)),
                    url: Mutex::new(aim.map(|aim| aim.url.clone())),
                    shown: self.shown,
                    address: self.from,
                    started: SystemTime::now(),
                    level: self.level,
                    compression,
                    proven: watch::Sender::new(false),
                    ended: watch::Sender::new(false),
                    forgotten: Mutex::default(),
                    subscriptions: AtomicU64::new(0),
                    leaving: AtomicBool::new(false),
                    heard_ms: AtomicU64::new(session::now_ms()),
                });
                if let Some(replaced) = &place.replaced {
                    let outbox = replaced.client().outbox();
                    outbox.close(CloseReason::DuplicateRoute);
                    table.remove(replaced);
                }
                // Our own INFO goes first, then a ping that shows whether the other side took us.
                let mut text = Vec::new();
                if let Some((aim, true)) = &self.aim {
                    let level: Option<Level> = connection.level.as_ref().map(|level| level.get());
                    let account = self.account.as_deref();
                    let own = core.info(account, level, place.index, aim.gossip_mode);
                    encode::json(&mut text, "INFO", &own);
                }
                text.extend_from_slice(b"PING\r\n");
                super::shared::write(&connection, &text, FlushBy::Caller);
                let is_first = table.add(&self.options, &connection);
                let sinks = table.sinks();
                let own = sinks
                    .iter()
                    .find(|sinks| sinks.server_id == info.server_id)
                    .cloned();
                core.sinks.store(Arc::new(sinks));
                (connection, own, is_first)
            })
        };
        let (connection, own, is_first) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                client.outbox().close(error.reason());
                client.outbox().finish(Duration::ZERO).await;
                return Err(error);
            }
        };
        if let Some(sinks) = own {
            core.tell_interest(&connection, &sinks, |_| true);
        }
        if is_first || connection.account.is_some() {
            gossip::tell_others(core, &connection, aim);
        }
        if is_first {
            gossip::server_came(core, &info);
        }
        core.changes.send_modify(|count| *count += 1);
        Ok(Session::new(core, connection, reader, buffer))
    }
}
