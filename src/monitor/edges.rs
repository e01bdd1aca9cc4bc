//! `/routez`, `/gatewayz` and `/leafz`: connections to other servers. There are none while nothing that makes them is built,
//! and tools that ask get that answer instead of an error.

use super::answer::json;
use super::observed::{Facts, json_time};
use axum::response::Response;
use serde_json::json;
use std::time::SystemTime;

/// Routes.
pub fn routes(facts: &Facts) -> Response {
    json(&json!({
        "server_id": facts.server_id,
        "server_name": facts.server_name,
        "now": json_time(SystemTime::now()),
        "num_routes": 0,
        "routes": [],
    }))
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
