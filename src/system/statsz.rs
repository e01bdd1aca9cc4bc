//! The figures of the server that others listen to.

use std::path::PathBuf;

use serde::Serialize;

use super::envelope::{Sequence, ServerInfo};
use crate::broker::Broker;
use crate::jetstream::monitor::Overview;
use crate::jetstream::types::{Time, encode};
use crate::monitor::accstatz::Amount;
use crate::monitor::answer::decimal;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::json_time;
use crate::monitor::process::resident_bytes;

#[derive(Serialize)]
struct Figures {
    start: Time,
    mem: u64,
    cores: usize,
    #[serde(serialize_with = "decimal")]
    cpu: f64,
    connections: u64,
    total_connections: u64,
    active_accounts: usize,
    subscriptions: u64,
    sent: Amount,
    sent_to_clients: Amount,
    received: Amount,
    received_from_clients: Amount,
    slow_consumers: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stale_connections: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalled_clients: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteFigures>,
    active_servers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jetstream: Option<Overview>,
    gomaxprocs: usize,
}

/// What went over one connection of a route.
#[derive(Serialize)]
struct RouteFigures {
    rid: u64,
    name: String,
    sent: Amount,
    received: Amount,
    pending: usize,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The figures as they are now. May wait for streams.
pub(super) fn payload(monitor: &Monitor, broker: &Broker, sequence: &Sequence) -> Vec<u8> {
    #[derive(Serialize)]
    struct Statsz<'a> {
        server: ServerInfo<'a>,
        statsz: Figures,
    }
    encode(&Statsz {
        server: sequence.info(&*monitor.server),
        statsz: figures(monitor, broker),
    })
}

fn figures(monitor: &Monitor, broker: &Broker) -> Figures {
    let facts = monitor.server.facts();
    let counters = monitor.server.counters();
    let accounts = broker.accounts();
    let view = monitor.server.routes();
    let sent = Amount {
        msgs: counters.out_messages,
        bytes: counters.out_bytes,
    };
    let received = Amount {
        msgs: counters.in_messages,
        bytes: counters.in_bytes,
    };
    Figures {
        start: json_time(facts.started),
        mem: resident_bytes(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: monitor.processor.percent(),
        connections: counters.connections,
        total_connections: counters.connections_total,
        active_accounts: accounts
            .iter()
            .filter(|account| account.connection_count() > 0)
            .count(),
        subscriptions: counters.subscriptions,
        sent,
        sent_to_clients: sent,
        received,
        received_from_clients: received,
        slow_consumers: counters.slow_consumers,
        stale_connections: counters.stale_connections,
        stalled_clients: counters.stalled_clients,
        active_servers: 1 + view.as_ref().map_or(0, |view| view.remotes as u64),
        routes: view
            .map_or(Vec::new(), |view| view.routes)
            .into_iter()
            .map(|route| RouteFigures {
                rid: route.id,
                name: route.remote_name,
                sent: Amount {
                    msgs: route.out_messages,
                    bytes: route.out_bytes,
                },
                received: Amount {
                    msgs: route.in_messages,
                    bytes: route.in_bytes,
                },
                pending: route.pending_bytes,
            })
            .collect(),
        jetstream: monitor.server.streams().map(|streams| {
            let mut overview = streams.overview();
            // Where a server keeps its files concerns nobody who only listens.
            overview.config.store_dir = PathBuf::new();
            overview
        }),
        gomaxprocs: facts.workers,
    }
}
