//! The process, its clients, and the servers it is connected to.

use super::exposition::Exposition;
use super::family::{Column, Family, Kind, counter, families_of, gauge};
use crate::cluster::routes::RouteView;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::Counters;
use crate::monitor::process::{self, resident_bytes};
use crate::server::version::REFERENCE_VERSION;
use std::time::SystemTime;

/// The server at one moment.
struct ServerRow {
    started: f64,
    processor_seconds: f64,
    resident_bytes: u64,
    descriptors: u64,
    descriptors_max: u64,
    is_ready: bool,
    counters: Counters,
}

/// A connection to another server.
struct RouteRow {
    labels: [String; 3],
    view: RouteView,
}

const NONE: &[&str] = &[];
const ROUTE: &[&str] = &["remote_name", "account", "rid"];

static OF_SERVER_NAME: [Column<[String; 4]>; 1] = [Column {
    family: Family {
        name: "nats_server",
        kind: Kind::Info,
        unit: "",
        labels: &["server_id", "server_name", "cluster", "version"],
        help: "Which server this is; the version is that of the reference it speaks like.",
    },
    value: |_| true.into(),
}];

static OF_SERVER: [Column<ServerRow>; 17] = [
    Column {
        family: gauge(
            "process_start_time_seconds",
            NONE,
            "When the server started, in seconds since 1970.",
        )
        .seconds(),
        value: |row| row.started.into(),
    },
    Column {
        family: counter(
            "process_cpu_seconds",
            NONE,
            "Processor time used, in user and kernel mode.",
        )
        .seconds(),
        value: |row| row.processor_seconds.into(),
    },
    Column {
        family: gauge(
            "process_resident_memory_bytes",
            NONE,
            "Memory that is resident.",
        )
        .bytes(),
        value: |row| row.resident_bytes.into(),
    },
    Column {
        family: gauge("process_open_fds", NONE, "Open file descriptors."),
        value: |row| row.descriptors.into(),
    },
    Column {
        family: gauge(
            "process_max_fds",
            NONE,
            "File descriptors that may be open.",
        ),
        value: |row| row.descriptors_max.into(),
    },
    Column {
        family: gauge("nats_ready", NONE, "1 while clients can connect."),
        value: |row| row.is_ready.into(),
    },
    Column {
        family: gauge("nats_connections", NONE, "Clients that are connected."),
        value: |row| row.counters.connections.into(),
    },
    Column {
        family: counter(
            "nats_connections_opened",
            NONE,
            "Clients that have ever connected.",
        ),
        value: |row| row.counters.connections_total.into(),
    },
    Column {
        family: gauge(
            "nats_subscriptions",
            NONE,
            "Subscriptions of clients and of the server's own parts.",
        ),
        value: |row| row.counters.subscriptions.into(),
    },
    Column {
        family: counter("nats_received_messages", NONE, "Messages from clients."),
        value: |row| row.counters.in_messages.into(),
    },
    Column {
        family: counter(
            "nats_received_bytes",
            NONE,
            "Bytes of messages from clients, headers included.",
        )
        .bytes(),
        value: |row| row.counters.in_bytes.into(),
    },
    Column {
        family: counter("nats_sent_messages", NONE, "Messages to clients."),
        value: |row| row.counters.out_messages.into(),
    },
    Column {
        family: counter(
            "nats_sent_bytes",
            NONE,
            "Bytes of messages to clients, headers included.",
        )
        .bytes(),
        value: |row| row.counters.out_bytes.into(),
    },
    Column {
        family: counter(
            "nats_slow_consumers",
            NONE,
            "Clients closed because they did not take their messages in time.",
        ),
        value: |row| row.counters.slow_consumers.into(),
    },
    Column {
        family: counter(
            "nats_stale_connections",
            NONE,
            "Connections closed because pings went unanswered.",
        ),
        value: |row| row.counters.stale_connections.into(),
    },
    Column {
        family: counter(
            "nats_stalled_clients",
            NONE,
            "How often a publisher was held up for a slow receiver.",
        ),
        value: |row| row.counters.stalled_clients.into(),
    },
    Column {
        family: gauge(
            "nats_closed_clients_kept",
            NONE,
            "Ended connections that /connz still tells of.",
        ),
        value: |row| row.counters.closed_clients.into(),
    },
];

static OF_ENDPOINT: [Column<([&str; 1], u64)>; 1] = [Column {
    family: counter(
        "nats_monitor_requests",
        &["path"],
        "Requests to each monitoring endpoint.",
    ),
    value: |row| row.1.into(),
}];

static OF_ROUTE: [Column<RouteRow>; 7] = [
    Column {
        family: counter(
            "nats_route_received_messages",
            ROUTE,
            "Messages from another server of the cluster, by connection.",
        ),
        value: |row| row.view.in_messages.into(),
    },
    Column {
        family: counter("nats_route_received_bytes", ROUTE, "Their bytes.").bytes(),
        value: |row| row.view.in_bytes.into(),
    },
    Column {
        family: counter(
            "nats_route_sent_messages",
            ROUTE,
            "Messages to another server of the cluster, by connection.",
        ),
        value: |row| row.view.out_messages.into(),
    },
    Column {
        family: counter("nats_route_sent_bytes", ROUTE, "Their bytes.").bytes(),
        value: |row| row.view.out_bytes.into(),
    },
    Column {
        family: gauge(
            "nats_route_pending_bytes",
            ROUTE,
            "Bytes that wait for another server.",
        )
        .bytes(),
        value: |row| row.view.pending_bytes.into(),
    },
    Column {
        family: gauge(
            "nats_route_subscriptions",
            ROUTE,
            "Subscriptions that another server has told of.",
        ),
        value: |row| row.view.subscriptions.into(),
    },
    Column {
        family: gauge(
            "nats_route_round_trip_seconds",
            ROUTE,
            "The last measured round trip to another server.",
        )
        .seconds(),
        value: |row| row.view.round_trip.as_secs_f64().into(),
    },
];

/// Every metric of this table.
pub(super) fn families() -> Vec<&'static Family> {
    families_of(&OF_SERVER_NAME)
        .chain(families_of(&OF_SERVER))
        .chain(families_of(&OF_ENDPOINT))
        .chain(families_of(&OF_ROUTE))
        .collect()
}

pub(super) fn write(out: &mut Exposition, monitor: &Monitor) {
    let facts = monitor.server.facts();
    let started = facts.started.duration_since(SystemTime::UNIX_EPOCH);
    let name = [
        facts.server_id.clone(),
        facts.server_name.clone(),
        monitor.server.cluster_name(),
        REFERENCE_VERSION.to_owned(),
    ];
    out.table(&OF_SERVER_NAME, &[name], |row| row);
    let descriptors = process::descriptors();
    let row = ServerRow {
        started: started.unwrap_or_default().as_secs_f64(),
        processor_seconds: process::processor_seconds(),
        resident_bytes: resident_bytes(),
        descriptors: descriptors.open,
        descriptors_max: descriptors.max,
        is_ready: monitor.server.not_ready().is_none(),
        counters: monitor.server.counters(),
    };
    out.table(&OF_SERVER, &[row], |_| NONE);
    let requests: Vec<_> = monitor
        .requests()
        .into_iter()
        .map(|(path, count)| ([path], count))
        .collect();
    out.table(&OF_ENDPOINT, &requests, |row| &row.0);
    let routes = monitor
        .server
        .routes()
        .map_or(Vec::new(), |view| view.routes);
    let routes: Vec<_> = routes
        .into_iter()
        .map(|view| RouteRow {
            labels: [
                view.remote_name.clone(),
                view.account.clone(),
                view.id.to_string(),
            ],
            view,
        })
        .collect();
    out.table(&OF_ROUTE, &routes, |row| &row.labels);
}
