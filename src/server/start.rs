//! The order in which everything comes up, and goes down again.
//!
//! Up: log, pid file, monitoring (so that a start that takes long can be watched), streams, and only then the port for
//! clients. Down: no new clients, streams (checkpointed, their last acks handed over), clients (flushed and closed),
//! monitoring.

use super::accept::accept;
use super::files::{Ports, PortsFile, reachable_hosts, write_pid_file};
use super::identity::Identity;
use super::lame_duck;
use super::links;
use super::listen::{ListenError, display_address, listen};
use super::notify::{State, notify};
use super::signals::{Request, Signals, StopSignal};
use super::streams;
use super::version::{API_LEVEL, COMMIT, OWN_VERSION, REFERENCE_VERSION, TOOLCHAIN};
use crate::broker::{Account, Broker, Client, CloseReason};
use crate::cluster::link::Links;
use crate::cluster::routes::{
    self, ClientUrls, RouteOptions, RouteOptionsError, Routes, RoutesView,
};
use crate::config::{ConfigError, Options};
use crate::connection::{Clients, ClosedClient, PlainText, TlsTerms, WebSocketError};
use crate::jetstream::JetStream;
use crate::logging::Logger;
use crate::monitor;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::{Counters, Facts, Observed, ObservedStreams};
use crate::protocol::ServerInfo;
use crate::system::{self, Operator, System};
use crate::tls::TlsError;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long closing clients may take: the whole end must be over within five seconds of a SIGTERM.
const CLIENTS_CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long closing routes may take.
const ROUTES_CLOSE_MAX: Duration = Duration::from_secs(1);
/// How long a request to the monitor may take while the server ends.
const MONITOR_CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Signals cannot be caught.
    #[error("Could not catch signals: {0}")]
    Signals(io::Error),
    /// The pid file cannot be written.
    #[error("Could not write pidfile: {path}: {source}")]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ports file cannot be written.
    #[error("Error writing ports file into {directory}: {source}")]
    PortsFile {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates for clients cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port for monitoring cannot be opened.
    #[error("Can't start monitoring: {0}")]
    Monitor(ListenError),
    /// The port for clients cannot be opened.
    #[error(transparent)]
    Clients(#[from] ListenError),
    /// What is said of those who connect cannot be.
    #[error(transparent)]
    Connections(#[from] WebSocketError),
    /// The port for WebSocket cannot be opened.
    #[error("Unable to listen for websocket connections: {0}")]
    WebSocket(ListenError),
    /// Streams cannot be brought back.
    #[error("Can't start JetStream: {0}")]
    JetStream(#[from] streams::StreamsError),
    /// Routes cannot be set up.
    #[error(transparent)]
    Routes(#[from] RouteOptionsError),
    /// The port for routes cannot be opened.
    #[error("Error listening on router port: {0}")]
    RoutePort(ListenError),
    /// The system account's services do not start.
    #[error(transparent)]
    System(#[from] system::StartError),
    /// A listener cannot be watched.
    #[error("Could not watch a listener: {0}")]
    Listener(io::Error),
}

/// Reads the configuration again, as it was read at the start.
pub type Loader = Box<dyn Fn() -> Result<Options, ConfigError> + Send + Sync>;

/// What a reload needs.
struct Tools {
    load: Loader,
    logger: Logger,
}

/// The options it runs with, and since when.
struct Loaded {
    options: Arc<Options>,
    since: SystemTime,
}

/// A running server.
pub struct Server {
    facts: Facts,
    loaded: ArcSwap<Loaded>,
    /// Reads the configuration again.
    pub(super) load: Loader,
    pub(super) logger: Logger,
    /// Held while a new configuration is taken up.
    pub(super) reloading: Mutex<()>,
    ports_file: Mutex<Option<PortsFile>>,
    /// What messages to this server alone are sealed with.
    curve_public_key: String,
    pub(super) broker: Arc<Broker>,
    client_port: AtomicU16,
    websocket_port: AtomicU16,
    ready: AtomicBool,
    routes: Option<Routes>,
    clients: OnceLock<Arc<Clients>>,
    jetstream: OnceLock<Arc<JetStream>>,
    /// With the servers whose JetStream is one with this one's.
    links: OnceLock<Arc<Links>>,
    system: OnceLock<Arc<System>>,
}

/// What has to be ended, in the order of the fields.
struct Running {
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    websocket: Option<JoinHandle<()>>,
    routing: Option<JoinHandle<()>>,
    monitoring: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs a server until a signal ends it. Must be called within a runtime of `workers` threads.
    /// `load` reads the configuration again when it is asked to.
    pub async fn run(
        options: Options,
        load: Loader,
        logger: &Logger,
        workers: usize,
    ) -> Result<(), StartError> {
        let mut signals = Signals::catch().map_err(StartError::Signals)?;
        // What was being brought back when the operator gives up is as safe as after a power cut.
        let started = tokio::select! {
            started = Self::start(options, load, logger, workers) => started?,
            () = stop_requested(&mut signals) => {
                tracing::info!("Stopped before the server was ready");
                return Ok(());
            }
        };
        let (server, running) = started;
        let mut leaving: Option<JoinHandle<()>> = None;
        loop {
            let left = async {
                match &mut leaving {
                    Some(task) => drop(task.await),
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                request = signals.next() => request,
                () = left => break,
            };
            match request {
                Request::Stop(StopSignal::Terminate) if leaving.is_some() => {}
                Request::Stop(_) => break,
                Request::LameDuck if leaving.is_none() => {
                    let _ = running.stop.send(true);
                    leaving = Some(tokio::spawn(lame_duck::leave(Arc::clone(&server))));
                }
                Request::LameDuck => {}
                Request::ReopenLog => reopen(logger),
                Request::Reload => {
                    let server = Arc::clone(&server);
                    // Files are read and certificates loaded: not here.
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = server.reload() {
                            tracing::error!("Failed to reload server configuration: {error}");
                        }
                    });
                }
            }
        }
        server.shutdown(running).await;
        Ok(())
    }

    async fn start(
        options: Options,
        load: Loader,
        logger: &Logger,
        workers: usize,
    ) -> Result<(Arc<Self>, Running), StartError> {
        let identity = Identity::generate();
        introduce(&options, &identity);
        if let Some(path) = &options.pid_file {
            write_pid_file(path).map_err(|source| StartError::PidFile {
                path: path.clone(),
                source,
            })?;
        }
        let tls = client_tls(&options)?;
        let routes = RouteOptions::new(&options)?;
        let monitor_listener = open_monitor(&options)?;
        let server = Arc::new(Self::new(
            options,
            routes,
            &identity,
            &monitor_listener,
            Tools {
                load,
                logger: logger.clone(),
            },
            workers,
        ));
        let observed: Arc<dyn Observed> = Arc::clone(&server) as Arc<dyn Observed>;
        let monitor = Arc::new(Monitor::new(observed));
        let (stop, stopped) = watch::channel(false);
        let monitoring = match monitor_listener {
            Some((listener, _)) => Some(serve_monitor(&monitor, listener, stop.subscribe())?),
            None => None,
        };
        server.start_jetstream().await?;
        let system = Arc::new(System::start(
            monitor,
            &server.broker,
            Arc::clone(&server) as Arc<dyn Operator>,
        )?);
        let _ = server.system.set(Arc::clone(&system));
        let listener = listen(&server.facts.options.host, server.facts.options.port)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let clients = server.open(&listener, tls)?;
        clients.observe(system);
        server.write_ports_file()?;
        let websocket = match server.open_websocket()? {
            Some(listener) => {
                let (clients, stopped) = (Arc::clone(&clients), stop.subscribe());
                Some(tokio::spawn(accept(
                    listener,
                    stopped,
                    move |stream, address| {
                        clients.admit_websocket(stream, address);
                    },
                )))
            }
            None => None,
        };
        let routing = match server.open_routes(&clients)? {
            Some(listener) => {
                let (server, stopped) = (Arc::clone(&server), stop.subscribe());
                Some(tokio::spawn(accept(
                    listener,
                    stopped,
                    move |stream, address| {
                        if let Some(routes) = &server.routes {
                            routes.admit(stream, address);
                        }
                    },
                )))
            }
            None => None,
        };
        let accepting = tokio::spawn(accept(listener, stopped, move |stream, address| {
            clients.admit(stream, address);
        }));
        server.ready.store(true, Ordering::Release);
        tracing::info!("Server is ready");
        notify(State::Ready);
        let running = Running {
            stop,
            accepting,
            websocket,
            routing,
            monitoring,
        };
        Ok((server, running))
    }

    fn new(
        options: Options,
        routes: Option<RouteOptions>,
        identity: &Identity,
        monitor: &Option<(std::net::TcpListener, String)>,
        tools: Tools,
        workers: usize,
    ) -> Self {
        let port = |listener: &std::net::TcpListener| listener.local_addr().map_or(0, |a| a.port());
        let (monitor_host, monitor_port) = match monitor {
            Some((listener, host)) => (host.clone(), port(listener)),
            None => (String::new(), 0),
        };
        let server_id = identity.id().to_owned();
        let server_name = options
            .server_name
            .clone()
            .unwrap_or_else(|| server_id.clone());
        let routes = routes.map(|route_options| {
            Routes::new(
                route_options,
                routes::Identity {
                    server_id: server_id.clone(),
                    server_name: server_name.clone(),
                    version: REFERENCE_VERSION.to_owned(),
                    built_with: TOOLCHAIN.to_owned(),
                    payload_bytes_max: options.limits.payload_bytes_max,
                    jetstream: options.jetstream().is_some(),
                },
            )
        });
        let broker = match &routes {
            Some(routes) => Broker::telling(routes.interest_sink()),
            None => Broker::new(),
        };
        let broker = broker.with_system_account(options.system_account());
        let loaded = Loaded {
            options: Arc::new(options.clone()),
            since: SystemTime::now(),
        };
        Server {
            loaded: ArcSwap::from_pointee(loaded),
            load: tools.load,
            logger: tools.logger,
            reloading: Mutex::new(()),
            ports_file: Mutex::new(None),
            facts: Facts {
                server_name,
                server_id,
                options,
                monitor_host,
                monitor_port,
                started: SystemTime::now(),
                workers,
            },
            curve_public_key: identity.curve_public_key(),
            broker: Arc::new(broker),
            client_port: AtomicU16::new(0),
            websocket_port: AtomicU16::new(0),
            ready: AtomicBool::new(false),
            routes,
            clients: OnceLock::new(),
            jetstream: OnceLock::new(),
            links: OnceLock::new(),
            system: OnceLock::new(),
        }
    }

    /// Brings the streams back, on a thread where that may take as long as it takes.
    async fn start_jetstream(self: &Arc<Self>) -> Result<(), StartError> {
        let options = &self.facts.options;
        if options.jetstream().is_none() {
            return Ok(());
        }
        let clustered = self
            .routes
            .as_ref()
            .filter(|_| options.cluster.port.is_some());
        let cluster = clustered.map(|routes| {
            let Facts {
                server_name,
                server_id,
                ..
            } = &self.facts;
            links::start(routes, options, server_name, server_id)
        });
        if let Some(cluster) = &cluster {
            let _ = self.links.set(Arc::clone(&cluster.links));
        }
        let server = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || {
            streams::start(
                &server.facts.options,
                &server.facts.server_name,
                &server.broker,
                cluster,
            )
        });
        let jetstream = match started.await {
            Ok(started) => started?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let _ = self.jetstream.set(Arc::new(jetstream));
        Ok(())
    }

    /// Says that clients may come, and prepares for them.
    fn open(
        &self,
        listener: &TcpListener,
        tls: Option<TlsTerms>,
    ) -> Result<Arc<Clients>, StartError> {
        let address = listener.local_addr().map_err(StartError::Listener)?;
        self.client_port.store(address.port(), Ordering::Release);
        let options = &self.facts.options;
        let info = ServerInfo {
            server_id: self.facts.server_id.clone(),
            server_name: self.facts.server_name.clone(),
            version: REFERENCE_VERSION.to_owned(),
            git_commit: COMMIT.to_owned(),
            go: TOOLCHAIN.to_owned(),
            host: options.host.clone(),
            port: address.port(),
            jetstream: self.jetstream.get().is_some(),
            api_lvl: API_LEVEL,
            xkey: self.curve_public_key.clone(),
            cluster: self
                .routes
                .as_ref()
                .map_or(String::new(), Routes::cluster_name),
            ..ServerInfo::default()
        };
        let clients = Clients::new(Arc::clone(&self.broker), options, tls, info)?;
        let _ = self.clients.set(Arc::clone(&clients));
        tracing::info!(
            "Listening for client connections on {}",
            display_address(&options.host, address.port())
        );
        match (&options.tls, options.allow_non_tls) {
            (Some(_), false) => tracing::info!("TLS required for client connections"),
            (Some(_), true) => tracing::info!("TLS available for client connections"),
            (None, _) => {}
        }
        Ok(clients)
    }

    /// Dials the other servers of the cluster, and opens the port where they dial.
    fn open_routes(&self, clients: &Arc<Clients>) -> Result<Option<TcpListener>, StartError> {
        let options = &self.facts.options;
        let (Some(routes), Some(port)) = (&self.routes, options.cluster.port) else {
            return Ok(None);
        };
        let host = &options.cluster.host;
        let listener = listen(host, port).map_err(StartError::RoutePort)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let port = listener.local_addr().map_err(StartError::Listener)?.port();
        tracing::info!("Cluster name is {}", routes.cluster_name());
        if options.cluster.name.is_none() {
            tracing::warn!("Cluster name was dynamically generated, consider setting one");
        }
        tracing::info!(
            "Listening for route connections on {}",
            display_address(host, port)
        );
        let urls = |host: &str, port: u16| -> Vec<String> {
            let hosts = reachable_hosts(host);
            hosts
                .iter()
                .map(|host| display_address(host, port))
                .collect()
        };
        let plain = match &options.client_advertise {
            Some((host, port)) => {
                vec![display_address(host, port.unwrap_or(self.client_port()))]
            }
            None => urls(&options.host, self.client_port()),
        };
        let websocket = match options.websocket.as_ref().filter(|own| own.is_enabled()) {
            None => Vec::new(),
            Some(own) => match &own.advertise {
                Some((host, port)) => {
                    vec![display_address(host, port.unwrap_or(self.websocket_port()))]
                }
                None => urls(
                    own.host.as_deref().unwrap_or(&options.host),
                    self.websocket_port(),
                ),
            },
        };
        let client_urls = ClientUrls { plain, websocket };
        routes.start(&self.broker, clients, port, client_urls);
        Ok(Some(listener))
    }

    /// The port for WebSocket, when there is to be one.
    fn open_websocket(&self) -> Result<Option<TcpListener>, StartError> {
        let options = &self.facts.options;
        let own = options.websocket.as_ref().filter(|own| own.is_enabled());
        let Some(own) = own else {
            return Ok(None);
        };
        let host = own.host.as_deref().unwrap_or(&options.host);
        let listener = listen(host, own.port).map_err(StartError::WebSocket)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let address = listener.local_addr().map_err(StartError::Listener)?;
        self.websocket_port.store(address.port(), Ordering::Release);
        let scheme = if own.tls.is_some() { "wss" } else { "ws" };
        tracing::info!(
            "Listening for websocket clients on {scheme}://{}",
            display_address(host, address.port())
        );
        if own.tls.is_none() {
            tracing::warn!("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!");
        }
        Ok(Some(listener))
    }

    /// Writes the ports file where it is to be, in the place of one that was written before.
    pub(super) fn write_ports_file(&self) -> Result<(), StartError> {
        drop(self.ports_file.lock().take());
        let options = self.options();
        let Some(directory) = &options.ports_file_dir else {
            return Ok(());
        };
        let urls = |scheme: &str, host: &str, port: u16| -> Vec<String> {
            reachable_hosts(host)
                .iter()
                .map(|host| format!("{scheme}://{}", display_address(host, port)))
                .collect()
        };
        let ports = Ports {
            nats: urls("nats", &self.facts.options.host, self.client_port()),
            monitoring: match self.facts.monitor_port {
                0 => Vec::new(),
                port => urls("http", &self.facts.monitor_host, port),
            },
            websocket: match &self.facts.options.websocket {
                Some(own) if own.is_enabled() => {
                    let host = own.host.as_deref().unwrap_or(&self.facts.options.host);
                    let scheme = if own.tls.is_some() { "wss" } else { "ws" };
                    urls(scheme, host, self.websocket_port.load(Ordering::Acquire))
                }
                _ => Vec::new(),
            },
        };
        let written = PortsFile::write(directory, &ports);
        let written = written.map_err(|source| StartError::PortsFile {
            directory: directory.clone(),
            source,
        })?;
        *self.ports_file.lock() = Some(written);
        Ok(())
    }

    /// All client connections; `None` until the port is open.
    pub(super) fn clients(&self) -> Option<&Arc<Clients>> {
        self.clients.get()
    }

    /// Tells others that this server lets its clients go.
    pub(super) fn announce_lame_duck(&self) {
        if let Some(system) = self.system.get() {
            system.enter_lame_duck();
        }
        if let Some(routes) = &self.routes {
            routes.announce_lame_duck();
        }
    }

    /// The options it runs with now.
    pub(super) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.loaded.load().options)
    }

    /// Runs with these from now on.
    pub(super) fn set_options(&self, options: Arc<Options>, since: SystemTime) {
        self.loaded.store(Arc::new(Loaded { options, since }));
    }

    /// JetStream, when it is on.
    pub(super) fn jetstream(&self) -> Option<&Arc<JetStream>> {
        self.jetstream.get()
    }

    /// Stops the streams; what they hold is checkpointed when this returns.
    pub(super) async fn stop_jetstream(&self) {
        if let Some(jetstream) = self.jetstream.get().cloned() {
            // Waits for disks, which no connection's thread may do.
            let _ = tokio::task::spawn_blocking(move || jetstream.shutdown()).await;
        }
        if let Some(links) = self.links.get() {
            links.close();
        }
    }

    async fn shutdown(self: Arc<Self>, running: Running) {
        tracing::info!("Initiating Shutdown...");
        notify(State::Stopping);
        self.ready.store(false, Ordering::Release);
        let _ = running.stop.send(true);
        let _ = running.accepting.await;
        if let Some(websocket) = running.websocket {
            let _ = websocket.await;
        }
        self.stop_jetstream().await;
        if let Some(system) = self.system.get().cloned() {
            // Joins a thread, which no connection's thread may do.
            let _ = tokio::task::spawn_blocking(move || system.shutdown()).await;
        }
        if let Some(clients) = self.clients.get() {
            clients
                .close_all(CloseReason::ServerShutdown, CLIENTS_CLOSE_MAX)
                .await;
        }
        if let Some(routes) = &self.routes {
            routes.close(ROUTES_CLOSE_MAX).await;
        }
        if let Some(routing) = running.routing {
            let _ = routing.await;
        }
        if let Some(monitoring) = running.monitoring {
            let _ = tokio::time::timeout(MONITOR_CLOSE_MAX, monitoring).await;
        }
        drop(self.ports_file.lock().take());
        tracing::info!("Server Exiting..");
    }
}

/// Waits for a signal that ends the server; the others find nothing to act on before it is ready.
async fn stop_requested(signals: &mut Signals) {
    loop {
        match signals.next().await {
            Request::Stop(_) | Request::LameDuck => return,
            request => tracing::warn!("{request:?} is not heeded before the server is ready"),
        }
    }
}

fn introduce(options: &Options, identity: &Identity) {
    tracing::info!("Starting nats-server");
    tracing::info!("  Version:  {REFERENCE_VERSION}");
    tracing::info!("  Git:      [{COMMIT}]");
    tracing::info!("  Build:    {OWN_VERSION} ({TOOLCHAIN})");
    let name = options.server_name.as_deref().unwrap_or(identity.id());
    tracing::info!("  Name:     {name}");
    tracing::info!("  ID:       {}", identity.id());
    if let Some(path) = &options.config_file {
        let path = path.display();
        tracing::info!(
            "Using configuration file: {path} ({})",
            options.config_digest
        );
    }
    for warning in &options.warnings {
        tracing::warn!("{warning}");
    }
    if options.holds_plain_passwords() {
        tracing::warn!("Plaintext passwords detected, use bcrypt");
    }
}

/// How client connections are encrypted, when that is asked for.
pub fn client_tls(options: &Options) -> Result<Option<TlsTerms>, TlsError> {
    let plain_text = match options.allow_non_tls {
        true => PlainText::Allowed,
        false => PlainText::Refused,
    };
    let tls = options.tls.as_ref();
    tls.map(|tls| TlsTerms::new(tls, plain_text)).transpose()
}

/// The port for monitoring and the host it listens on, when monitoring is asked for.
fn open_monitor(options: &Options) -> Result<Option<(std::net::TcpListener, String)>, StartError> {
    let Some(monitor) = &options.monitor else {
        return Ok(None);
    };
    let host = monitor.host.as_deref().unwrap_or(&options.host);
    let listener = listen(host, monitor.port).map_err(StartError::Monitor)?;
    Ok(Some((listener, host.to_owned())))
}

fn serve_monitor(
    monitor: &Arc<Monitor>,
    listener: std::net::TcpListener,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
    let facts = monitor.server.facts();
    tracing::info!(
        "Starting http monitor on {}",
        display_address(&facts.monitor_host, facts.monitor_port)
    );
    let router = monitor::router(Arc::clone(monitor));
    Ok(tokio::spawn(async move {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await;
        if let Err(error) = served {
            tracing::error!("Monitoring ended: {error}");
        }
    }))
}

fn reopen(logger: &Logger) {
    match logger.reopen() {
        Ok(true) => tracing::info!("File log re-opened"),
        Ok(false) => tracing::info!("File log re-open ignored, not a file logger"),
        Err(error) => tracing::error!("Could not re-open the log file: {error}"),
    }
}

impl Observed for Server {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn options(&self) -> Arc<Options> {
        Server::options(self)
    }

    fn options_since(&self) -> SystemTime {
        self.loaded.load().since
    }

    fn websocket_port(&self) -> u16 {
        self.websocket_port.load(Ordering::Acquire)
    }

    fn client_port(&self) -> u16 {
        self.client_port.load(Ordering::Acquire)
    }

    fn counters(&self) -> Counters {
        let traffic = self.broker.traffic().snapshot();
        let clients = self.clients.get();
        Counters {
            connections: clients.map_or(0, |clients| clients.connected_count() as u64),
            connections_total: clients.map_or(0, |clients| clients.admitted_count()),
            closed_clients: clients.map_or(0, |clients| clients.closed_count() as u64),
            subscriptions: self.broker.subscription_count() as u64,
            in_messages: traffic.in_messages,
            in_bytes: traffic.in_bytes,
            out_messages: traffic.out_messages,
            out_bytes: traffic.out_bytes,
            slow_consumers: traffic.slow_consumers,
            stale_connections: traffic.stale_connections,
            stalled_clients: traffic.stalled_clients,
        }
    }

    fn accounts(&self) -> Vec<Arc<Account>> {
        self.broker.accounts()
    }

    fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.broker.account(name)
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        self.clients
            .get()
            .map_or(Vec::new(), |clients| clients.all())
    }

    fn closed_clients(&self) -> Vec<Arc<ClosedClient>> {
        let clients = self.clients.get();
        clients.map_or(Vec::new(), |clients| clients.closed())
    }

    fn routes(&self) -> Option<RoutesView> {
        self.routes.as_ref().map(Routes::view)
    }

    fn cluster_name(&self) -> String {
        let routes = self.routes.as_ref();
        let clustered = routes.filter(|_| self.facts.options.cluster.port.is_some());
        clustered.map_or(String::new(), Routes::cluster_name)
    }

    fn not_ready(&self) -> Option<String> {
        match self.ready.load(Ordering::Acquire) {
            true => None,
            false => Some("failed to be ready for connections".into()),
        }
    }

    fn streams(&self) -> Option<Arc<dyn ObservedStreams>> {
        let jetstream = self.jetstream.get()?;
        Some(Arc::clone(jetstream) as Arc<dyn ObservedStreams>)
    }
}
