//! All routes of a server: what the rest of it holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::dial;
use super::handshake::{self, Accepted};
use super::options::RouteOptions;
use super::shared::{Core, write};
use super::view::{self, RoutesView};
use crate::broker::outbox::FlushBy;
use crate::broker::{Broker, CloseReason, InterestSink};
use crate::cluster::link::{Credentials, Dialling, Meeting};
use crate::cluster::{LinkAcceptor, PeerAddress};
use crate::connection::Clients;
use crate::protocol::route::encode;

/// Who this server is to others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The identity of its run.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its version.
    pub version: String,
    /// What it was built with.
    pub built_with: String,
    /// Whether JetStream is on at first.
    pub jetstream: bool,
    /// Its domain; empty for none.
    pub domain: String,
}

/// Where clients connect to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientUrls {
    /// By the protocol itself.
    pub plain: Vec<String>,
    /// Over WebSocket.
    pub websocket: Vec<String>,
}

/// All routes of a server.
pub struct Routes {
    pub(super) core: Arc<Core>,
}

impl Routes {
    /// Nothing is dialled yet. [`Routes::interest_sink`] is for the broker that is made next.
    pub fn new(options: RouteOptions, identity: Identity) -> Self {
        Self {
            core: Arc::new(Core::new(options, identity)),
        }
    }

    /// Is to be told of all local interest.
    pub fn interest_sink(&self) -> Arc<dyn InterestSink> {
        Arc::clone(&self.core) as Arc<dyn InterestSink>
    }

    /// The cluster's name now; one that was made up may change.
    pub fn cluster_name(&self) -> String {
        self.core.name.load().name.clone()
    }

    /// Hands links that are dialled to the cluster port to this one.
    pub fn take_links(&self, acceptor: Arc<dyn LinkAcceptor>) {
        *self.core.links.write() = Some(acceptor);
    }

    /// Takes no links from now on.
    pub fn refuse_links(&self) {
        *self.core.links.write() = None;
    }

    /// Whether JetStream is on, as servers are told that meet this one from now on.
    pub fn set_jetstream(&self, is_on: bool) {
        self.core.jetstream.store(is_on, Ordering::Relaxed);
    }

    /// What links with those servers begin with.
    pub fn meeting(&self) -> Meeting {
        Meeting {
            cluster: self.cluster_name(),
            dialling: self.dialling(),
        }
    }

    fn dialling(&self) -> Dialling {
        let options = self.core.options.load();
        let cluster = &options.cluster;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Dialling {
            credentials: options.requires_credentials().then(|| Credentials {
                user: text(&cluster.user),
                password: text(&cluster.password),
            }),
            tls: options.tls.as_ref().map(|tls| Arc::clone(&tls.mutual)),
            pinned_keys: Arc::new(options.pinned_keys().cloned().unwrap_or_default()),
        }
    }

    /// The servers that were ever met, and how they are reached.
    pub fn peers(&self) -> watch::Receiver<Vec<PeerAddress>> {
        self.core.peers.subscribe()
    }

    /// Dials and admits from now on. Routes listen on `port`; clients are told of `client_urls`. Must be called within the runtime.
    pub fn start(
        &self,
        broker: &Arc<Broker>,
        clients: &Arc<Clients>,
        port: u16,
        client_urls: ClientUrls,
    ) {
        let core = &self.core;
        let _ = core.broker.set(Arc::clone(broker));
        let _ = core.clients.set(Arc::clone(clients));
        let _ = core.port.set(port);
        core.client_urls.store(Some(Arc::new(client_urls)));
        let _ = core.runtime.set(Handle::current());
        super::gossip::update_clients(core);
        dial::keep_configured(core);
    }

    /// Serves a socket from now on. Must be called within the runtime, after [`Routes::start`].
    pub fn admit(&self, stream: TcpStream, address: SocketAddr) {
        let core = Arc::clone(&self.core);
        tokio::spawn(async move {
            match handshake::accept(&core, stream, address).await {
                Ok(Accepted::Route(session)) => session.run().await,
                Ok(Accepted::Link) => {}
                Err(handshake::RouteError::OneSelf | handshake::RouteError::NoPlace { .. }) => {
                    tracing::debug!("{address} - Router connection closed: Duplicate Route");
                }
                Err(error) => {
                    tracing::error!("{address} - {error}");
                    let reason = error.reason();
                    tracing::info!("{address} - Router connection closed: {reason}");
                }
            }
        });
    }

    /// Tells the other servers that this one lets its clients go.
    pub fn announce_lame_duck(&self) {
        self.core.leaving.store(true, Ordering::Relaxed);
        let mut text = Vec::new();
        encode::json(&mut text, "INFO", &self.core.info(None, None, 0, 0));
        for remote in self.core.sinks.load().iter() {
            if let Some(connection) = remote.any() {
                write(connection, &text, FlushBy::Caller);
            }
        }
    }

    /// What monitoring may see.
    pub fn view(&self) -> RoutesView {
        view::of(&self.core)
    }

    /// Closes all routes and waits until they have ended, at most this long.
    pub async fn close(&self, at_most: Duration) {
        self.core.stop.send_replace(true);
        let everybody_left = async {
            loop {
                let mut changes = self.core.changes.subscribe();
                let connections = self.core.table.lock().connections();
                if connections.is_empty() {
                    return;
                }
                for connection in connections {
                    let reason = CloseReason::ServerShutdown;
                    connection.client().outbox().close(reason);
                }
                let _ = changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(at_most, everybody_left).await;
    }
}
