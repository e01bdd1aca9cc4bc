//! `/varz`: the server at a glance.

use super::answer::{decimal, json, nanoseconds, uptime};
use super::endpoints::Monitor;
use super::observed::{CertificateEnds, json_time};
use super::process::resident_bytes;
use crate::cluster::routes::RoutesView;
use crate::config::Options;
use crate::config::options::tls::TLS_TIMEOUT_DEFAULT;
use crate::config::options::{MonitorOptions, PeerCertificate, TlsOptions, WriteTimeout};
use crate::jetstream::monitor::Overview;
use crate::jetstream::types::Time;
use crate::server::version::{COMMIT, REFERENCE_VERSION, TOOLCHAIN};
use crate::tls::ocsp::CacheFigures;
use axum::response::Response;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

#[derive(Serialize)]
struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    proto: u8,
    git_commit: &'static str,
    go: &'static str,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_ocsp_peer_verify: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connect_urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ws_connect_urls: Vec<String>,
    max_connections: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_subscriptions: Option<u64>,
    #[serde(serialize_with = "nanoseconds")]
    ping_interval: Duration,
    ping_max: u32,
    http_host: &'a str,
    http_port: u16,
    http_base_path: &'a str,
    https_port: u16,
    #[serde(serialize_with = "decimal")]
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: u64,
    cluster: Cluster,
    gateway: Empty,
    leaf: Empty,
    mqtt: Empty,
    websocket: WebSocket<'a>,
    jetstream: JetStream,
    #[serde(serialize_with = "decimal")]
    tls_timeout: f64,
    #[serde(serialize_with = "nanoseconds")]
    write_deadline: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_timeout: Option<&'static str>,
    start: Time,
    now: Time,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    #[serde(serialize_with = "decimal")]
    cpu: f64,
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: Time,
    config_digest: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    feature_flags: BTreeMap<&'static str, bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    system_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocsp_peer_cache: Option<CacheFigures>,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    disk_io_wait_stats: DiskWaits,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Time>,
}

/// What is not configured is an empty object.
#[derive(Serialize)]
struct Empty {}

/// The WebSocket listener; what is not configured is left out.
#[derive(Serialize, Default)]
struct WebSocket<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_auth_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt_cookie: Option<&'a str>,
    #[serde(
        skip_serializing_if = "Duration::is_zero",
        serialize_with = "nanoseconds"
    )]
    handshake_timeout: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_timeout: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_tls: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_map: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_pinned_certs: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    same_origin: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed_origins: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compression: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_ocsp_peer_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Time>,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl<'a> WebSocket<'a> {
    fn of(monitor: &'a Monitor, options: &'a Options) -> Self {
        let Some(own) = options.websocket.as_ref().filter(|own| own.is_enabled()) else {
            return Self::default();
        };
        let authorization = &own.authorization;
        let tls = own.tls.as_ref();
        Self {
            host: own.host.as_deref().unwrap_or(&options.host),
            port: monitor.server.websocket_port(),
            advertise: own.advertise.as_ref().map(|(host, port)| match port {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            }),
            no_auth_user: authorization.no_auth_user.as_deref(),
            jwt_cookie: own.cookies.jwt.as_deref(),
            handshake_timeout: own.handshake_timeout.unwrap_or_default(),
            auth_timeout: authorization
                .required()
                .then_some(authorization.timeout.as_secs_f64()),
            no_tls: own.no_tls,
            tls_map: tls.is_some_and(|tls| tls.maps_users),
            tls_pinned_certs: tls.map_or(Vec::new(), pinned),
            same_origin: own.same_origin,
            allowed_origins: &own.allowed_origins,
            compression: own.compression,
            tls_ocsp_peer_verify: tls.is_some_and(|tls| tls.ocsp_peer.is_some()),
            tls_cert_not_after: monitor.server.certificate_ends().websocket.map(json_time),
        }
    }
}

/// The keys of which a peer must have one, in hexadecimal digits.
fn pinned(tls: &TlsOptions) -> Vec<String> {
    let digits = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect();
    tls.pinned_keys.iter().map(digits).collect()
}

/// The cluster, or an empty object outside of one.
#[derive(Default, Serialize)]
struct Cluster {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_timeout: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_timeout: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_deadline: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_timeout: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Time>,
}

impl Cluster {
    fn of(options: &Options, view: &RoutesView, ends: &CertificateEnds) -> Self {
        let cluster = &options.cluster;
        let tls = cluster.tls.as_ref();
        let verifies = |tls: &TlsOptions| tls.peer_certificate == PeerCertificate::Required;
        Self {
            name: view.cluster_name.clone(),
            addr: cluster.host.clone(),
            cluster_port: Some(view.port),
            auth_timeout: Some(cluster.authorization_timeout.as_secs_f64()),
            urls: view.urls.clone(),
            tls_timeout: tls.map(|tls| tls.timeout.as_secs_f64()),
            tls_required: tls.is_some(),
            tls_verify: tls.is_some_and(verifies),
            pool_size: Some(cluster.pool_size.map_or(-1, i64::from)),
            write_deadline: cluster
                .write_deadline
                .and_then(|deadline| u64::try_from(deadline.as_nanos()).ok()),
            write_timeout: cluster.write_timeout.map(WriteTimeout::name),
            tls_cert_not_after: ends.cluster.map(json_time),
        }
    }
}

/// JetStream, or an empty object while there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum JetStream {
    Off(Empty),
    On(Box<Overview>),
}

/// A count by the kind of connection; only clients exist.
#[derive(Default, Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    fn clients(clients: u64) -> Self {
        ByKind {
            clients,
            ..ByKind::default()
        }
    }
}

/// Who had to wait because no more operations on disks may run at one time (`max_concurrent_io`).
#[derive(Default, Serialize)]
struct DiskWaits {
    waiters: u64,
    waits: u64,
    wait_time: u64,
    max_wait_time: u64,
}

impl From<storage::disk::DiskWaits> for DiskWaits {
    fn from(of: storage::disk::DiskWaits) -> Self {
        Self {
            waiters: of.waiters,
            waits: of.waits,
            wait_time: of.waited_ns,
            max_wait_time: of.waited_ns_max,
        }
    }
}

/// Answers over HTTP. May wait for streams.
pub fn answer(monitor: &Monitor) -> Response {
    json(&varz(monitor))
}

/// The server at a glance. May wait for streams.
pub fn varz(monitor: &Monitor) -> impl Serialize {
    let options = monitor.server.options();
    // Owned, as a reload may replace the options at any time.
    serde_json::to_value(of_options(monitor, &options)).unwrap_or_default()
}

fn of_options<'a>(monitor: &'a Monitor, options: &'a Options) -> impl Serialize + 'a {
    let facts = monitor.server.facts();
    let tls = options.tls.as_ref();
    let counters = monitor.server.counters();
    let routes = monitor.server.routes();
    let now = SystemTime::now();
    let ends = monitor.server.certificate_ends();
    let monitored = facts.options.monitor.as_ref();
    let encrypted = monitored.is_some_and(MonitorOptions::is_encrypted);
    let streams = monitor.server.streams();
    let jetstream = match &streams {
        Some(streams) => JetStream::On(Box::new(streams.overview())),
        None => JetStream::Off(Empty {}),
    };
    Varz {
        server_id: &facts.server_id,
        server_name: &facts.server_name,
        version: REFERENCE_VERSION,
        proto: 1,
        git_commit: COMMIT,
        go: TOOLCHAIN,
        host: &options.host,
        port: monitor.server.client_port(),
        auth_required: options.authorization_required(),
        tls_required: tls.is_some() && !options.allow_non_tls,
        tls_verify: tls.is_some_and(|tls| tls.peer_certificate == PeerCertificate::Required),
        tls_ocsp_peer_verify: tls.is_some_and(|tls| tls.ocsp_peer.is_some()),
        connect_urls: routes
            .as_ref()
            .map_or(Vec::new(), |view| view.connect_urls.clone()),
        ws_connect_urls: routes
            .as_ref()
            .map_or(Vec::new(), |view| view.websocket_urls.clone()),
        max_connections: match options.limits.connections_max {
            None | Some(0) => -1,
            Some(count) => i64::try_from(count).unwrap_or(i64::MAX),
        },
        max_subscriptions: options.limits.subscriptions_max,
        ping_interval: options.timing.ping_interval,
        ping_max: options.timing.pings_outstanding_max,
        http_host: &facts.monitor_host,
        http_port: if encrypted { 0 } else { facts.monitor_port },
        http_base_path: options.monitor.as_ref().map_or("", |m| &m.base_path),
        https_port: if encrypted { facts.monitor_port } else { 0 },
        auth_timeout: options.authentication_timeout().as_secs_f64(),
        max_control_line: options.limits.control_line_bytes_max,
        max_payload: options.limits.payload_bytes_max,
        max_pending: options.limits.pending_bytes_max,
        cluster: routes
            .as_ref()
            .map_or_else(Cluster::default, |view| Cluster::of(options, view, &ends)),
        gateway: Empty {},
        leaf: Empty {},
        mqtt: Empty {},
        websocket: WebSocket::of(monitor, options),
        jetstream,
        tls_timeout: tls
            .map_or(TLS_TIMEOUT_DEFAULT, |tls| tls.timeout)
            .as_secs_f64(),
        write_deadline: options.timing.write_deadline,
        write_timeout: options.timing.write_timeout.map(WriteTimeout::name),
        start: json_time(facts.started),
        now: json_time(now),
        uptime: uptime(now.duration_since(facts.started).unwrap_or_default()),
        mem: resident_bytes(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        gomaxprocs: facts.workers,
        cpu: monitor.processor.percent(),
        connections: counters.connections,
        total_connections: counters.connections_total,
        routes: routes.as_ref().map_or(0, |view| view.routes.len() as u64),
        remotes: routes.as_ref().map_or(0, |view| view.remotes as u64),
        leafnodes: 0,
        in_msgs: counters.in_messages,
        in_bytes: counters.in_bytes,
        in_client_msgs: counters.in_messages,
        in_client_bytes: counters.in_bytes,
        out_msgs: counters.out_messages,
        out_bytes: counters.out_bytes,
        out_client_msgs: counters.out_messages,
        out_client_bytes: counters.out_bytes,
        slow_consumers: counters.slow_consumers,
        stale_connections: counters.stale_connections,
        stalled_clients: counters.stalled_clients,
        subscriptions: counters.subscriptions,
        http_req_stats: monitor.requests(),
        config_load_time: json_time(monitor.server.options_since()),
        config_digest: &options.config_digest,
        tags: &options.server_tags,
        metadata: &options.server_metadata,
        feature_flags: options.feature_flags.known(),
        system_account: match options.has_system_account() {
            true => options.system_account(),
            false => "",
        },
        ocsp_peer_cache: monitor.server.ocsp_cache(),
        slow_consumer_stats: ByKind::clients(counters.slow_consumers),
        stale_connection_stats: ByKind::clients(counters.stale_connections),
        disk_io_wait_stats: streams
            .as_deref()
            .and_then(|streams| streams.engine_figures())
            .map_or_else(DiskWaits::default, |figures| figures.disk_waits.into()),
        tls_cert_not_after: ends.clients.map(json_time),
    }
}
