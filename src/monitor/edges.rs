//! `/routez`, `/gatewayz` and `/leafz`: connections to other servers. There are no gateways and leaf nodes while nothing that makes
//! them is built, and tools that ask get that answer instead of an error.

use super::answer::{json, uptime};
use super::endpoints::Monitor;
use super::observed::{Facts, json_time};
use crate::config::duration::format_duration;
use crate::jetstream::types::Time;
use crate::protocol::route::info::SubjectRules;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use std::time::SystemTime;

/// Routes over HTTP.
pub fn routes(monitor: &Monitor) -> Response {
    json(&routez(monitor))
}

/// All routes.
#[derive(Serialize)]
struct Routez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    now: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<SubjectRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<SubjectRules>,
    num_routes: usize,
    routes: Vec<ShownRoute>,
}

/// One connection of a route.
#[derive(Serialize)]
struct ShownRoute {
    rid: u64,
    remote_id: String,
    remote_name: String,
    did_solicit: bool,
    is_configured: bool,
    ip: String,
    port: u16,
    start: Time,
    last_activity: Time,
    #[serde(skip_serializing_if = "String::is_empty")]
    rtt: String,
    uptime: String,
    idle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<SubjectRules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<SubjectRules>,
    pending_size: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    compression: String,
}

/// The routes at a glance.
pub fn routez(monitor: &Monitor) -> impl Serialize {
    let facts = monitor.server.facts();
    let view = monitor.server.routes();
    let now = SystemTime::now();
    let (import, export, routes) = match view {
        Some(view) => (view.import, view.export, view.routes),
        None => (None, None, Vec::new()),
    };
    let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
    Routez {
        server_id: &facts.server_id,
        server_name: &facts.server_name,
        now: json_time(now),
        import,
        export,
        num_routes: routes.len(),
        routes: routes
            .into_iter()
            .map(|route| ShownRoute {
                rid: route.id,
                remote_id: route.remote_id,
                remote_name: route.remote_name,
                did_solicit: route.solicited,
                is_configured: route.configured,
                ip: route.ip,
                port: route.port,
                start: json_time(route.started),
                last_activity: json_time(route.heard),
                rtt: format_duration(route.round_trip),
                uptime: uptime(since(route.started)),
                idle: uptime(since(route.heard)),
                import: route.import,
                export: route.export,
                pending_size: route.pending_bytes,
                in_msgs: route.in_messages,
                out_msgs: route.out_messages,
                in_bytes: route.in_bytes,
                out_bytes: route.out_bytes,
                subscriptions: route.subscriptions,
                account: route.account,
                compression: route.compression,
            })
            .collect(),
    }
}

/// Gateways.
pub fn gateways(facts: &Facts) -> Response {
    json(&json!({
        "server_id": facts.server_id,
        "now": json_time(SystemTime::now()),
        "outbound_gateways": {},
        "inbound_gateways": {},
    }))
}

/// Leaf nodes.
pub fn leaf_nodes(facts: &Facts) -> Response {
    json(&json!({
        "server_id": facts.server_id,
        "now": json_time(SystemTime::now()),
        "leafnodes": 0,
        "leafs": [],
    }))
}
