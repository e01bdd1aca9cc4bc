//! All client connections of a server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::authentication::new_nonce;
use super::closed::{ClosedClient, ClosedClients};
use super::entrance::Entrance;
use super::observer::{ConnectionObserver, Observer};
use super::task;
use super::terms::{Terms, settle_accounts};
use super::transport::{HandshakeRate, TlsTerms};
use super::websocket::WebSocketError;
use crate::broker::outbox::{FlushBy, Staged};
use crate::broker::{Broker, Client, CloseReason};
use crate::config::options::{ConnectionType, Options};
use crate::protocol::{ServerInfo, encode};
use crate::tls::HandshakeError;
use crate::tls::ocsp::CacheFigures;

/// All client connections of a server, and what they share.
#[derive(Debug)]
pub struct Clients {
    pub(super) broker: Arc<Broker>,
    terms: ArcSwap<Terms>,
    /// Where the server listens for clients.
    listening: (String, u16),
    pub(super) handshakes: HandshakeRate,
    info: ArcSwap<ServerInfo>,
    /// Held by whoever changes it.
    changing: Mutex<()>,
    connected: Mutex<HashMap<u64, Arc<Client>>>,
    pub(super) closed: ClosedClients,
    last_id: AtomicU64,
    admitted: AtomicU64,
    left: Notify,
    pub(super) observer: Observer,
}

impl Clients {
    /// Nobody is connected yet. What `info` says about limits and authorization follows the options.
    pub fn new(
        broker: Arc<Broker>,
        options: &Options,
        tls: Option<TlsTerms>,
        info: ServerInfo,
    ) -> Result<Arc<Self>, WebSocketError> {
        let terms = Terms::new(options, tls, &broker)?;
        settle_accounts(options, &broker);
        let closed_max = options.limits.closed_clients_max;
        let listening = (info.host.clone(), info.port);
        let info = terms.told_in(info, &listening);
        Ok(Arc::new(Self {
            broker,
            terms: ArcSwap::from_pointee(terms),
            listening,
            handshakes: HandshakeRate::default(),
            info: ArcSwap::from_pointee(info),
            changing: Mutex::default(),
            connected: Mutex::default(),
            closed: ClosedClients::new(closed_max),
            last_id: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            left: Notify::new(),
            observer: Observer::default(),
        }))
    }

    /// What holds for connections now.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// New terms for all: those who are connected already are asked to look at them.
    pub fn change_terms(&self, options: &Options, terms: Terms) {
        settle_accounts(options, &self.broker);
        self.change_info(|info| {
            *info = terms.told_in(info.clone(), &self.listening);
        });
        let connections_max = terms.options.connections_max;
        self.terms.store(Arc::new(terms));
        let mut clients = self.all();
        clients.sort_by_key(|client| client.id);
        let most =
            connections_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let surplus = clients.split_off(most.min(clients.len()));
        for client in &surplus {
            self.send(client, |line| {
                encode::error(line, "maximum connections exceeded")
            });
            client.outbox().close(CloseReason::MaxConnectionsExceeded);
        }
        if !surplus.is_empty() {
            let closed = surplus.len();
            tracing::info!("Closed {closed} connections to fall within max_connections");
        }
        for client in clients {
            client.outbox().ask_for_review();
        }
    }

    /// Sends a line of the protocol to one client.
    fn send(&self, client: &Arc<Client>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut staged = Staged::default();
        let mut text = Vec::new();
        write(&mut text);
        staged.write(text.len(), |out| out.extend_from_slice(&text));
        client.outbox().accept(client, &mut staged, FlushBy::Caller);
    }

    /// Serves a socket from now on. Must be called within the runtime.
    pub fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(task::run(Arc::clone(self), stream, address));
    }

    /// The same for a socket that is to speak WebSocket.
    pub fn admit_websocket(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(task::run_websocket(Arc::clone(self), stream, address));
    }

    /// A number for a connection (or for a part of the server that counts as one).
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets this one know who comes and goes, from now on. The first stays.
    pub fn observe(&self, observer: Arc<dyn ConnectionObserver>) {
        self.observer.set(observer);
    }

    /// Lets the observer know of a handshake that came to nothing because of a certificate.
    pub(super) fn tell_of(&self, error: &HandshakeError) {
        if let HandshakeError::Revoked(refusal) = error
            && let Some(observer) = self.observer.get()
        {
            observer.certificate_refused(refusal);
        }
    }

    /// How the answers are used that tell whether clients' certificates have been revoked; `None` where nobody asks.
    pub fn ocsp_cache(&self) -> Option<CacheFigures> {
        let terms = self.terms();
        let check = terms.tls.as_ref()?.peer_check.as_ref()?;
        Some(check.cache_figures())
    }

    /// What the server says about itself.
    pub fn info(&self) -> Arc<ServerInfo> {
        self.info.load_full()
    }

    /// What one client is told about the server.
    pub(super) fn info_for(
        &self,
        entrance: &Entrance,
        id: u64,
        address: SocketAddr,
        nonce: &str,
    ) -> ServerInfo {
        let info = ServerInfo::clone(&self.info());
        let is_websocket = entrance.kind == ConnectionType::WebSocket;
        ServerInfo {
            auth_required: entrance.authenticator.is_announced(),
            tls_required: entrance.tls_required,
            tls_available: info.tls_available && !is_websocket,
            client_id: id,
            client_ip: address.ip().to_string(),
            nonce: nonce.to_owned(),
            ..told_over(is_websocket, info)
        }
    }

    /// Something for one client to sign; empty when no user has a key.
    pub(super) fn nonce(&self, entrance: &Entrance) -> String {
        if !entrance.authenticator.needs_nonce() {
            return String::new();
        }
        new_nonce().unwrap_or_else(|error| {
            // Whoever wants to log in with a key is refused then.
            tracing::error!("No random bytes for a nonce: {error}");
            String::new()
        })
    }

    /// What a client that is there is told about the server now.
    fn info_now(&self, client: &Client) -> ServerInfo {
        let terms = self.terms();
        let way = match client.carrier().websocket {
            true => ConnectionType::WebSocket,
            false => ConnectionType::Standard,
        };
        self.info_for(terms.entrance(way), client.id, client.info().address, "")
    }

    /// Changes what the server says about itself, and says it to all who want to know when that is something new. Changes are made one
    /// after the other: none undoes another.
    pub fn announce(&self, change: impl FnOnce(&mut ServerInfo)) {
        if !self.change_info(change) {
            return;
        }
        for client in self.all() {
            if client.takes_info() {
                let line = self.info_now(&client);
                self.send(&client, |out| encode::info(out, &line));
            }
        }
    }

    /// The cluster is called so from now on.
    pub fn rename_cluster(&self, name: &str) {
        self.broker.set_cluster_name(name);
        self.announce(|info| name.clone_into(&mut info.cluster));
    }

    /// Changes what is said to those who connect from now on.
    pub fn tell_later(&self, change: impl FnOnce(&mut ServerInfo)) {
        self.change_info(change);
    }

    /// Whether that made a difference.
    fn change_info(&self, change: impl FnOnce(&mut ServerInfo)) -> bool {
        let _one_at_a_time = self.changing.lock();
        let before = self.info();
        let mut info = ServerInfo::clone(&before);
        change(&mut info);
        let differs = info != *before;
        if differs {
            self.info.store(Arc::new(info));
        }
        differs
    }

    /// How many are connected.
    pub fn connected_count(&self) -> usize {
        self.connected.lock().len()
    }

    /// How many have ever connected.
    pub fn admitted_count(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// All who are connected, in no order.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    /// The connection of this number.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    /// Those that have ended lately, the oldest first.
    pub fn closed(&self) -> Vec<Arc<ClosedClient>> {
        self.closed.all()
    }

    /// Tells one client to look for another server; `false` when it cannot be told.
    pub fn send_away(&self, client: &Arc<Client>) -> bool {
        if client.takes_info() {
            let info = ServerInfo {
                ldm: true,
                ..self.info_now(client)
            };
            self.send(client, |out| encode::info(out, &info));
        }
        client.takes_info()
    }

    /// How many of those that have ended are still told of.
    pub fn closed_count(&self) -> usize {
        self.closed.len()
    }

    /// Closes all connections and waits until they have ended, at most this long.
    pub async fn close_all(&self, reason: CloseReason, at_most: Duration) {
        let everybody_left = async {
            loop {
                let left = self.left.notified();
                let clients = self.all();
                if clients.is_empty() {
                    return;
                }
                for client in clients {
                    client.outbox().close(reason);
                }
                left.await;
            }
        };
        let _ = tokio::time::timeout(at_most, everybody_left).await;
    }

    /// Counts a connection as there; `false` when there are too many.
    pub(super) fn enter(&self, client: &Arc<Client>) -> bool {
        let most = self.terms.load().options.connections_max;
        let mut connected = self.connected.lock();
        let is_full = most.is_some_and(|max| connected.len() as u64 >= max);
        if !is_full {
            connected.insert(client.id, Arc::clone(client));
        }
        !is_full
    }

    pub(super) fn leave(&self, client: &Client) {
        self.connected.lock().remove(&client.id);
        self.left.notify_waiters();
    }
}

/// What clients are told who come this way: of the addresses that they can use.
fn told_over(websocket: bool, mut info: ServerInfo) -> ServerInfo {
    if websocket {
        info.connect_urls = std::mem::take(&mut info.websocket_urls);
    }
    info
}
