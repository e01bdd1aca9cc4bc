//! `/routez`: the connections to the other servers of the cluster.

use super::answer::{Parameters, json, uptime};
use super::endpoints::Monitor;
use super::observed::json_time;
use super::subscriptions::{Listed, Lists, SubscriptionDetail};
use crate::broker::Target;
use crate::config::duration::format_duration;
use crate::jetstream::types::Time;
use crate::protocol::route::info::SubjectRules;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::SystemTime;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    subscriptions: bool,
    subscriptions_detail: bool,
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    match parameters.listed() {
        Ok(listed) => json(&routez(monitor, listed)),
        Err(bad) => bad.into_response(),
    }
}

impl Question {
    /// How much of subscriptions is shown.
    pub fn listed(self) -> Listed {
        Listed::switched(self.subscriptions, self.subscriptions_detail)
    }
}

/// All routes.
#[derive(Serialize)]
pub struct Routez {
    server_id: String,
    server_name: String,
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
    #[serde(flatten)]
    lists: Lists,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    compression: String,
}

/// The routes, and as much as this of what the other servers listen to.
pub fn routez(monitor: &Monitor, listed: Listed) -> Routez {
    let facts = monitor.server.facts();
    let view = monitor.server.routes();
    let now = SystemTime::now();
    let (import, export, routes) = match view {
        Some(view) => (view.import, view.export, view.routes),
        None => (None, None, Vec::new()),
    };
    let mut heard_of = match listed {
        Listed::Count => HashMap::new(),
        Listed::Subjects | Listed::Details => subscriptions_by_connection(monitor),
    };
    let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
    Routez {
        server_id: facts.server_id.clone(),
        server_name: facts.server_name.clone(),
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
                lists: Lists::new(
                    listed,
                    heard_of.remove(&route.client_id).unwrap_or_default(),
                ),
                account: route.account,
                compression: route.compression,
            })
            .collect(),
    }
}

/// What other servers listen to, by the connection that told of it.
fn subscriptions_by_connection(monitor: &Monitor) -> HashMap<u64, Vec<SubscriptionDetail>> {
    let mut found: HashMap<u64, Vec<_>> = HashMap::new();
    for account in monitor.server.accounts() {
        if account.remote_subscription_count() == 0 {
            continue;
        }
        for subscription in account.subscriptions() {
            if let Target::Route { sink, .. } = &subscription.target {
                let detail = SubscriptionDetail::of_account(&subscription, account.name());
                let details = found.entry(sink.client.id).or_default();
                details.push(detail.without_account());
            }
        }
    }
    found
}
