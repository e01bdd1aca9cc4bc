//! What all routes share: who this server is, and which local interest other servers are told of.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::admitted_links::AdmittedLinks;
use super::change::Moved;
use super::compression::{Level, mode_name};
use super::dial::Dial;
use super::handle::{ClientUrls, Identity};
use super::options::{RouteOptions, shown};
use super::table::{Connection, Sinks, Table};
use crate::broker::outbox::{FlushBy, Staged};
use crate::broker::{Account, Broker, CloseReason, InterestSink};
use crate::cluster::{LinkAcceptor, PeerAddress};
use crate::config::options::Compression;
use crate::connection::Clients;
use crate::protocol::base62::digit;
use crate::protocol::route::{RouteInfo, encode};

/// What we can do on a route: accounts, and reports on traced messages.
pub(super) const ROUTE_PROTOCOL: i64 = 3;
/// The version of the links that the cluster port takes.
const LINKS_VERSION: i64 = 1;

/// The cluster's name, and whether it was made up.
#[derive(Debug, Clone)]
pub(super) struct ClusterName {
    pub name: String,
    pub dynamic: bool,
}

pub(super) struct Core {
    /// What holds now. It changes with the table locked: whoever enters the table under a lock enters on these.
    pub options: ArcSwap<RouteOptions>,
    /// While permissions change, those that interest was passed on by before.
    pub permissions_before: ArcSwapOption<RouteOptions>,
    pub identity: Identity,
    pub name: ArcSwap<ClusterName>,
    pub table: Mutex<Table>,
    /// Where interest goes, read without the table's lock.
    pub sinks: ArcSwap<Vec<Sinks>>,
    pub broker: OnceLock<Arc<Broker>>,
    pub clients: OnceLock<Arc<Clients>>,
    pub client_urls: ArcSwapOption<ClientUrls>,
    pub port: OnceLock<u16>,
    pub links: RwLock<Option<Arc<dyn LinkAcceptor>>>,
    /// The links that were let in. One comes in with the table locked, on the options that hold then.
    pub admitted_links: AdmittedLinks,
    pub runtime: OnceLock<Handle>,
    pub stop: watch::Sender<bool>,
    /// Moves whenever a connection comes or goes.
    pub changes: watch::Sender<u64>,
    /// Moves whenever accounts have come or gone, or the options have changed.
    pub reviews: watch::Sender<u64>,
    pub peers: watch::Sender<Vec<PeerAddress>>,
    /// Servers that are being dialled because another one told of them, with the account.
    pub dialling: Mutex<HashSet<(String, Option<String>)>>,
    /// The configured servers that are being dialled.
    pub dials: Mutex<Vec<Dial>>,
    /// Accounts that are getting connections of their own.
    pub moved: watch::Sender<Moved>,
    pub leaving: std::sync::atomic::AtomicBool,
    /// Whether JetStream is on.
    pub jetstream: std::sync::atomic::AtomicBool,
    pub last_id: std::sync::atomic::AtomicU64,
}

impl Core {
    pub fn new(options: RouteOptions, identity: Identity) -> Self {
        let (name, dynamic) = match &options.cluster.name {
            Some(name) => (name.clone(), false),
            None => (made_up_name(), true),
        };
        Self {
            options: ArcSwap::from_pointee(options),
            permissions_before: ArcSwapOption::empty(),
            name: ArcSwap::from_pointee(ClusterName { name, dynamic }),
            table: Mutex::default(),
            sinks: ArcSwap::default(),
            broker: OnceLock::new(),
            clients: OnceLock::new(),
            client_urls: ArcSwapOption::empty(),
            port: OnceLock::new(),
            links: RwLock::default(),
            admitted_links: AdmittedLinks::default(),
            runtime: OnceLock::new(),
            dials: Mutex::default(),
            moved: watch::Sender::new(Moved::default()),
            stop: watch::Sender::new(false),
            changes: watch::Sender::new(0),
            reviews: watch::Sender::new(0),
            peers: watch::Sender::new(Vec::new()),
            dialling: Mutex::default(),
            leaving: std::sync::atomic::AtomicBool::new(false),
            jetstream: std::sync::atomic::AtomicBool::new(identity.jetstream),
            last_id: std::sync::atomic::AtomicU64::new(0),
            identity,
        }
    }

    /// Whoever takes links now.
    pub fn link_acceptor(&self) -> Option<Arc<dyn LinkAcceptor>> {
        self.links.read().clone()
    }

    /// What we say of ourselves on a connection.
    pub fn info(
        &self,
        account: Option<&str>,
        level: Option<Level>,
        pool_index: usize,
        gossip_mode: i64,
    ) -> RouteInfo {
        let options = self.options.load();
        let cluster = &options.cluster;
        let name = self.name.load();
        let listens = self.port.get().copied().unwrap_or_default();
        let (host, port) = match &cluster.advertise {
            Some((host, port)) => (host.clone(), port.unwrap_or(listens)),
            None => (cluster.host.clone(), listens),
        };
        let ip = match &cluster.advertise {
            Some(_) => format!("nats-route://{}/", address(&host, port)),
            None => String::new(),
        };
        let compression = match (&cluster.compression, level) {
            (Compression::Auto(_), _) | (_, None) => mode_name(&cluster.compression),
            (_, Some(level)) => level.name(),
        };
        let urls = match cluster.no_advertise {
            true => ClientUrls::default(),
            false => {
                let urls = self.client_urls.load();
                urls.as_deref().cloned().unwrap_or_default()
            }
        };
        RouteInfo {
            server_id: self.identity.server_id.clone(),
            server_name: self.identity.server_name.clone(),
            version: self.identity.version.clone(),
            proto: ROUTE_PROTOCOL,
            go: self.identity.built_with.clone(),
            host,
            port,
            headers: options.headers,
            auth_required: options.requires_credentials(),
            tls_required: options.tls.is_some(),
            tls_verify: options.tls.is_some(),
            max_payload: i64::try_from(options.client_payload_bytes_max).unwrap_or(i64::MAX),
            jetstream: self.jetstream.load(std::sync::atomic::Ordering::Relaxed),
            domain: self.identity.domain.clone(),
            ip,
            cluster: name.name.clone(),
            cluster_dynamic: name.dynamic,
            connect_urls: urls.plain,
            ws_connect_urls: urls.websocket,
            ldm: self.leaving.load(std::sync::atomic::Ordering::Relaxed),
            compression: compression.to_owned(),
            import: shown(cluster.import.as_ref()),
            export: shown(cluster.export.as_ref()),
            lnoc: true,
            route_pool_size: cluster.pool_size.map_or(0, i64::from),
            route_pool_idx: i64::try_from(pool_index).unwrap_or_default(),
            route_account: account.unwrap_or_default().to_owned(),
            gossip_mode,
            links: match self.link_acceptor() {
                Some(_) => LINKS_VERSION,
                None => 0,
            },
            ..RouteInfo::default()
        }
    }

    /// Takes over another name of the cluster, and lets all go that knew the old one.
    pub fn rename(&self, name: &str, dynamic: bool, except: &str) {
        tracing::info!("Cluster name updated to {name}");
        self.name.store(Arc::new(ClusterName {
            name: name.to_owned(),
            dynamic,
        }));
        if let Some(clients) = self.clients.get() {
            clients.rename_cluster(name);
        }
        for connection in self.table.lock().connections() {
            if connection.remote.server_id != except {
                let reason = CloseReason::ClusterNameConflict;
                connection.client().outbox().close(reason);
            }
        }
    }

    /// Whether both are of one cluster, perhaps after a change of a name that was made up here.
    pub fn is_of_our_cluster(&self, theirs: &str, dynamic: bool, server_id: &str) -> bool {
        let ours = self.name.load_full();
        if ours.name == theirs {
            return true;
        }
        let yields = ours.dynamic && (!dynamic || ours.name.as_str() < theirs);
        if yields {
            self.rename(theirs, dynamic, server_id);
        }
        yields
    }

    /// Tells a connection of all local interest that goes over it and that `matters`.
    pub fn tell_interest(
        &self,
        connection: &Connection,
        sinks: &Sinks,
        matters: impl Fn(&[u8]) -> bool,
    ) {
        let Some(broker) = self.broker.get() else {
            return;
        };
        for account in broker.accounts() {
            self.tell_interest_of(&account, connection, sinks, &matters);
        }
    }

    /// The same of one account.
    pub fn tell_interest_of(
        &self,
        account: &Account,
        connection: &Connection,
        sinks: &Sinks,
        matters: impl Fn(&[u8]) -> bool,
    ) {
        let names = connection.sink.names_account.then(|| account.name());
        let mut text = Vec::new();
        account.tell_local_interest(|all| {
            // Looked at where nothing changes: whoever changes them looks at this account later, and corrects what is told here.
            let options = self.options.load();
            let is_ours = sinks
                .of_account(&options, account.name())
                .is_some_and(|ours| std::ptr::eq(&**ours, connection));
            if !is_ours {
                return;
            }
            for (subject, queue, count) in all {
                if options.passes_on(subject) && matters(subject) {
                    let queue = queue.map(|queue| (queue, count));
                    encode::subscribe(&mut text, names, subject, queue);
                }
            }
            write(connection, &text, FlushBy::Task);
        });
    }

    /// The connections with one server.
    pub fn sinks_of(&self, server_id: &str) -> Option<Sinks> {
        let sinks = self.sinks.load();
        sinks
            .iter()
            .find(|sinks| sinks.server_id == server_id)
            .cloned()
    }
}

/// Hands bytes of the protocol over to a connection.
pub(super) fn write(connection: &Connection, text: &[u8], flush: FlushBy) {
    if text.is_empty() {
        return;
    }
    let mut staged = Staged::default();
    staged.write(text.len(), |out| out.extend_from_slice(text));
    let client = connection.client();
    client.outbox().accept(client, &mut staged, flush);
}

impl InterestSink for Core {
    fn interest_is(&self, account: &Account, subject: &[u8], queue: Option<&[u8]>, count: u32) {
        let sinks = self.sinks.load();
        if sinks.is_empty() {
            return;
        }
        let options = self.options.load();
        // What is over is told to those who may still know of it.
        let was_told = || {
            let before = self.permissions_before.load();
            before
                .as_ref()
                .is_some_and(|before| before.passes_on(subject))
        };
        if !options.passes_on(subject) && (count > 0 || !was_told()) {
            return;
        }
        let mut text = Vec::new();
        for remote in sinks.iter() {
            let Some(connection) = remote.of_account(&options, account.name()) else {
                continue;
            };
            let names = connection.sink.names_account.then(|| account.name());
            text.clear();
            match count {
                0 => encode::unsubscribe(&mut text, names, subject, queue),
                _ => {
                    let queue = queue.map(|queue| (queue, count));
                    encode::subscribe(&mut text, names, subject, queue);
                }
            }
            write(connection, &text, FlushBy::Task);
        }
    }
}

/// `host:port`, IPv6 in brackets.
pub(super) fn address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A name that no other cluster has.
pub(super) fn made_up_name() -> String {
    let mut bytes = [0u8; 22];
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| char::from(digit(*byte))).collect()
}
