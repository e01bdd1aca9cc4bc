//! The order in which everything comes up, and goes down again.
//!
//! Up: log, pid file, monitoring (so that a start that takes long can be watched), streams, and only then the port for
//! clients. Down: no new clients, streams (checkpointed, their last acks handed over), clients (flushed and closed),
//! monitoring.

use super::accept::accept;
use super::certificates;
use super::files::{Ports, PortsFile, reachable_hosts, write_pid_file};
use super::identity::Identity;
use super::lame_duck;
use super::listen::{ListenError, display_address, listen};
use super::monitor_port::{MonitorPort, MonitorTls};
use super::notify::{State, notify};
use super::profiler;
use super::signals::{Request, Signals, StopSignal};
use super::streams;
use super::version::{COMMIT, OWN_VERSION, REFERENCE_VERSION, TOOLCHAIN};
use crate::broker::{Broker, CloseReason, ServerNames};
use crate::cluster::link::Links;
use crate::cluster::routes::{self, RouteOptions, RouteOptionsError, Routes};
use crate::config::{ConfigError, Options};
use crate::connection::{Clients, PlainText, TlsTerms, WebSocketError, settle_accounts};
use crate::jetstream::JetStream;
use crate::logging::Logger;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::{CertificateEnds, Facts, Observed};
use crate::system::{self, Operator, System};
use crate::tls::TlsError;
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
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
    /// The port for profiling cannot be opened.
    #[error("error starting profiler: {0}")]
    Profiler(ListenError),
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
pub(super) struct Loaded {
    pub(super) options: Arc<Options>,
    pub(super) since: SystemTime,
    pub(super) certificates: CertificateEnds,
}

/// A running server.
pub struct Server {
    pub(super) facts: Facts,
    pub(super) loaded: ArcSwap<Loaded>,
    /// Reads the configuration again.
    pub(super) load: Loader,
    pub(super) logger: Logger,
    /// Held while a new configuration is taken up.
    pub(super) reloading: Mutex<()>,
    ports_file: Mutex<Option<PortsFile>>,
    /// How monitoring is encrypted, when it is.
    pub(super) monitor_tls: Option<MonitorTls>,
    /// What messages to this server alone are sealed with.
    pub(super) curve_public_key: String,
    pub(super) broker: Arc<Broker>,
    pub(super) client_port: AtomicU16,
    pub(super) websocket_port: AtomicU16,
    pub(super) ready: AtomicBool,
    pub(super) routes: Option<Routes>,
    pub(super) clients: OnceLock<Arc<Clients>>,
    pub(super) jetstream: ArcSwapOption<JetStream>,
    pub(super) runtime: Handle,
    /// With the servers whose JetStream is one with this one's.
    pub(super) links: ArcSwapOption<Links>,
    pub(super) system: OnceLock<Arc<System>>,
}

/// What has to be ended, in the order of the fields.
struct Running {
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    websocket: Option<JoinHandle<()>>,
    routing: Option<JoinHandle<()>>,
    monitoring: Option<JoinHandle<()>>,
    profiling: Option<JoinHandle<()>>,
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
        let monitor_port = MonitorPort::open(&options)?;
        let profiler = profiler::open(&options)?;
        let server = Arc::new(Self::new(
            options,
            routes,
            &identity,
            monitor_port.as_ref(),
            Tools {
                load,
                logger: logger.clone(),
            },
            workers,
        ));
        let observed: Arc<dyn Observed> = Arc::clone(&server) as Arc<dyn Observed>;
        let monitor = Arc::new(Monitor::new(observed));
        let (stop, stopped) = watch::channel(false);
        let monitoring = match monitor_port {
            Some(port) => Some(port.serve(&monitor, stop.subscribe())?),
            None => None,
        };
        let profiling = match profiler {
            Some(listener) => Some(profiler::serve(listener, stop.subscribe())?),
            None => None,
        };
        server.start_jetstream().await?;
        if server.facts.options.has_system_account() {
            let system = System::start(
                monitor,
                &server.broker,
                Arc::clone(&server) as Arc<dyn Operator>,
            )?;
            let _ = server.system.set(Arc::new(system));
        }
        let listener = listen(&server.facts.options.host, server.facts.options.port)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let clients = server.open(&listener, tls)?;
        if let Some(system) = server.system.get().cloned() {
            clients.observe(system);
        }
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
            profiling,
        };
        Ok((server, running))
    }

    fn new(
        options: Options,
        routes: Option<RouteOptions>,
        identity: &Identity,
        monitor: Option<&MonitorPort>,
        tools: Tools,
        workers: usize,
    ) -> Self {
        let (monitor_host, monitor_port) = match monitor {
            Some(port) => (port.host.clone(), port.number()),
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
                    jetstream: options.jetstream().is_some(),
                    domain: options.jetstream.domain.clone(),
                },
            )
        });
        let broker = match &routes {
            Some(routes) => Broker::telling(routes.interest_sink()),
            None => Broker::new(),
        };
        let broker = broker.with_system_account(options.system_account());
        // Streams are brought back before clients are admitted, and may copy from other accounts.
        let names = ServerNames {
            server: server_name.clone(),
            cluster: routes.as_ref().map_or(String::new(), Routes::cluster_name),
        };
        broker.set_names(names);
        settle_accounts(&options, &broker);
        let loaded = Loaded {
            options: Arc::new(options.clone()),
            since: SystemTime::now(),
            certificates: certificates::ends(&options),
        };
        Server {
            loaded: ArcSwap::from_pointee(loaded),
            load: tools.load,
            logger: tools.logger,
            reloading: Mutex::new(()),
            ports_file: Mutex::new(None),
            monitor_tls: monitor.and_then(|port| port.tls.clone()),
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
            jetstream: ArcSwapOption::empty(),
            runtime: Handle::current(),
            links: ArcSwapOption::empty(),
            system: OnceLock::new(),
        }
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
                port => {
                    let scheme = if self.monitor_tls.is_some() {
                        "https"
                    } else {
                        "http"
                    };
                    urls(scheme, &self.facts.monitor_host, port)
                }
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
        let certificates = certificates::ends(&options);
        self.loaded.store(Arc::new(Loaded {
            options,
            since,
            certificates,
        }));
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
        for serving in running.monitoring.into_iter().chain(running.profiling) {
            let _ = tokio::time::timeout(MONITOR_CLOSE_MAX, serving).await;
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
    if let Some((known, unknown)) = options.feature_flags.shown() {
        tracing::info!("  Feature flags:");
        tracing::info!("    Configured:    {known}");
        if let Some(unknown) = unknown {
            tracing::info!("    Unsupported:   {unknown}");
        }
    }
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
pub(super) fn client_tls(options: &Options) -> Result<Option<TlsTerms>, TlsError> {
    let plain_text = match options.allow_non_tls {
        true => PlainText::Allowed,
        false => PlainText::Refused,
    };
    let tls = options.tls.as_ref();
    tls.map(|tls| TlsTerms::new(tls, plain_text)).transpose()
}

fn reopen(logger: &Logger) {
    match logger.reopen() {
        Ok(true) => tracing::info!("File log re-opened"),
        Ok(false) => tracing::info!("File log re-open ignored, not a file logger"),
        Err(error) => tracing::error!("Could not re-open the log file: {error}"),
    }
}
