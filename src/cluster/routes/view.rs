//! What monitoring may see of routes.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::shared::{Core, address};
use crate::protocol::route::info::SubjectRules;

/// One connection.
#[derive(Debug, Clone)]
pub struct RouteView {
    /// Its number.
    pub id: u64,
    /// Its number among all connections, clients' too.
    pub client_id: u64,
    /// The other server's id.
    pub remote_id: String,
    /// The other server's name.
    pub remote_name: String,
    /// Whether this server dialled.
    pub solicited: bool,
    /// Whether its address stands in the configuration.
    pub configured: bool,
    /// Where the other side is.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// When it began.
    pub started: SystemTime,
    /// When something came last.
    pub heard: SystemTime,
    /// The last measured round trip.
    pub round_trip: Duration,
    /// What the other server asks to be passed on.
    pub import: Option<SubjectRules>,
    /// What it takes.
    pub export: Option<SubjectRules>,
    /// What waits to be sent.
    pub pending_bytes: usize,
    /// Messages that came.
    pub in_messages: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages that went.
    pub out_messages: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// How much interest the other server has told of on it.
    pub subscriptions: u64,
    /// The account that it is for; empty for the pool's.
    pub account: String,
    /// How it compresses.
    pub compression: String,
}

/// All routes.
#[derive(Debug, Clone)]
pub struct RoutesView {
    /// The cluster's name.
    pub cluster_name: String,
    /// Where routes listen.
    pub port: u16,
    /// The servers that are connected.
    pub remotes: usize,
    /// The configured servers, without credentials.
    pub urls: Vec<String>,
    /// Every connection, by number.
    pub routes: Vec<RouteView>,
    /// What this server passes on.
    pub import: Option<SubjectRules>,
    /// What it takes.
    pub export: Option<SubjectRules>,
    /// Where clients are told that they can connect.
    pub connect_urls: Vec<String>,
    /// The same for those that speak WebSocket.
    pub websocket_urls: Vec<String>,
}

pub(super) fn of(core: &Core) -> RoutesView {
    let (connections, remotes) = {
        let table = core.table.lock();
        (table.connections(), table.sinks().len())
    };
    let mut routes: Vec<_> = connections
        .iter()
        .map(|connection| {
            let client = connection.client();
            let (in_messages, in_bytes) = client.counted_in();
            let (out_messages, out_bytes) = client.outbox().counted_out();
            let remote = &connection.remote;
            let rules = connection.rules.load();
            let heard = connection.heard_ms.load(Ordering::Relaxed);
            RouteView {
                id: connection.id,
                client_id: client.id,
                remote_id: remote.server_id.clone(),
                remote_name: remote.server_name.clone(),
                solicited: connection.solicited,
                configured: connection.configured.load(Ordering::Relaxed),
                ip: connection.address.ip().to_string(),
                port: connection.address.port(),
                started: connection.started,
                heard: SystemTime::UNIX_EPOCH + Duration::from_millis(heard),
                round_trip: Duration::from_micros(client.round_trip_us()),
                import: rules.import.clone(),
                export: rules.export.clone(),
                pending_bytes: client.outbox().pending_bytes(),
                in_messages,
                in_bytes,
                out_messages,
                out_bytes,
                subscriptions: connection.subscription_count(),
                account: connection.account.clone().unwrap_or_default(),
                compression: match &connection.level {
                    Some(level) => level.get().name().to_owned(),
                    None => connection.compression.to_owned(),
                },
            }
        })
        .collect();
    routes.sort_by_key(|route| route.id);
    let options = core.options.load();
    let cluster = &options.cluster;
    RoutesView {
        cluster_name: core.name.load().name.clone(),
        port: core.port.get().copied().unwrap_or_default(),
        remotes,
        urls: cluster
            .routes
            .iter()
            .map(|route| address(&route.host, route.port))
            .collect(),
        routes,
        import: super::options::shown(cluster.import.as_ref()),
        export: super::options::shown(cluster.export.as_ref()),
        connect_urls: core
            .clients
            .get()
            .map(|clients| clients.info().connect_urls.clone())
            .unwrap_or_default(),
        websocket_urls: core
            .clients
            .get()
            .map(|clients| clients.info().websocket_urls.clone())
            .unwrap_or_default(),
    }
}
