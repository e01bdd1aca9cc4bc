//! The port for monitoring, in plain text or encrypted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::accept::accept;
use super::listen::{display_address, listen};
use super::start::StartError;
use crate::config::Options;
use crate::config::options::{PeerCertificate, TlsOptions};
use crate::monitor;
use crate::monitor::endpoints::Monitor;
use crate::tls::{self, ServerConfig, TlsError, TlsStream};

/// Handshakes that may go on at one time; who comes beyond that is turned away.
const HANDSHAKES_MAX: usize = 64;

/// The certificate, and how long a handshake may take.
pub(super) struct Encryption {
    config: Arc<ServerConfig>,
    timeout: Duration,
}

/// How the port is encrypted. Shared, so that a reload can put something else in its place.
#[derive(Clone)]
pub(super) struct MonitorTls(Arc<ArcSwap<Encryption>>);

impl MonitorTls {
    /// Whoever connects from now on is served so.
    pub(super) fn change(&self, encryption: Encryption) {
        self.0.store(Arc::new(encryption));
    }
}

/// A port that is open and not served yet.
pub(super) struct MonitorPort {
    pub(super) listener: std::net::TcpListener,
    pub(super) host: String,
    pub(super) tls: Option<MonitorTls>,
}

impl MonitorPort {
    /// Opens the port, when monitoring is asked for.
    pub(super) fn open(options: &Options) -> Result<Option<Self>, StartError> {
        let Some(monitor) = &options.monitor else {
            return Ok(None);
        };
        let tls = encryption(options)?;
        let tls = tls.map(|encryption| MonitorTls(Arc::new(ArcSwap::from_pointee(encryption))));
        let host = monitor.host.as_deref().unwrap_or(&options.host);
        let listener = listen(host, monitor.listens_on()).map_err(StartError::Monitor)?;
        Ok(Some(Self {
            listener,
            host: host.to_owned(),
            tls,
        }))
    }

    /// The number of the port.
    pub(super) fn number(&self) -> u16 {
        self.listener
            .local_addr()
            .map_or(0, |address| address.port())
    }

    /// Answers requests until it is told to stop.
    pub(super) fn serve(
        self,
        monitor: &Arc<Monitor>,
        stop: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, StartError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let address = display_address(&self.host, self.number());
        tracing::info!("Starting {scheme} monitor on {address}");
        let listener = TcpListener::from_std(self.listener).map_err(StartError::Listener)?;
        let router = monitor::router(Arc::clone(monitor));
        Ok(match self.tls {
            None => tokio::spawn(serve(listener, router, stop)),
            Some(tls) => {
                let listener = Encrypted::new(listener, tls, stop.clone());
                let listener = listener.map_err(StartError::Listener)?;
                tokio::spawn(serve(listener, router, stop))
            }
        })
    }
}

/// What the port is encrypted with, when it is: the certificate for clients. Who asks need show none.
pub(super) fn encryption(options: &Options) -> Result<Option<Encryption>, TlsError> {
    let monitor = options.monitor.as_ref();
    let is_encrypted = monitor.is_some_and(|monitor| monitor.is_encrypted());
    let Some(tls) = options.tls.as_ref().filter(|_| is_encrypted) else {
        return Ok(None);
    };
    let without_peers = TlsOptions {
        peer_certificate: PeerCertificate::NotAsked,
        pinned_keys: Default::default(),
        ..tls.clone()
    };
    Ok(Some(Encryption {
        config: tls::server_config(&without_peers)?,
        timeout: tls.timeout,
    }))
}

/// Serves a router until it is told to stop.
pub(super) async fn serve<L>(listener: L, router: axum::Router, mut stop: watch::Receiver<bool>)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await;
    if let Err(error) = served {
        tracing::error!("Monitoring ended: {error}");
    }
}

/// Hands over connections whose handshake is over, so that one that dribbles does not hold up the others.
struct Encrypted {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream, SocketAddr)>,
}

impl Encrypted {
    fn new(
        listener: TcpListener,
        tls: MonitorTls,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let admit = move |stream: TcpStream, from| {
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                tracing::debug!("monitoring: too many handshakes at a time, {from} is turned away");
                return;
            };
            let (tls, sender) = (tls.clone(), sender.clone());
            tokio::spawn(async move {
                let (config, timeout) = {
                    let encryption = tls.0.load();
                    (Arc::clone(&encryption.config), encryption.timeout)
                };
                match tls::accept(stream, config, timeout).await {
                    Ok(socket) => drop(sender.send((TlsStream::new(socket), from)).await),
                    Err(error) => tracing::debug!("monitoring: {from}: {error}"),
                }
                drop(place);
            });
        };
        tokio::spawn(accept(listener, stop, admit));
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Nobody listens any more; who serves is told to stop by itself.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
