//! `/gatewayz` and `/leafz`: connections to other servers that are not of the same cluster. There are none while nothing that
//! makes them is built, and tools that ask get that answer instead of an error.

use super::answer::{BadParameter, Parameters, json};
use super::observed::{Facts, json_time};
use crate::jetstream::types::Time;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// A server without gateways.
#[derive(Serialize)]
pub struct Gatewayz {
    server_id: String,
    now: Time,
    outbound_gateways: BTreeMap<String, ()>,
    inbound_gateways: BTreeMap<String, ()>,
}

/// A server without leaf nodes.
#[derive(Serialize)]
pub struct Leafz {
    server_id: String,
    now: Time,
    leafnodes: usize,
    leafs: [(); 0],
}

/// Gateways over HTTP.
pub fn gateways(facts: &Facts, parameters: &Parameters) -> Response {
    let readable = || -> Result<(), BadParameter> {
        parameters.listed()?;
        parameters.bool("accs")?;
        Ok(())
    };
    match readable() {
        Ok(()) => json(&gatewayz(facts)),
        Err(bad) => bad.into_response(),
    }
}

/// Gateways.
pub fn gatewayz(facts: &Facts) -> Gatewayz {
    Gatewayz {
        server_id: facts.server_id.clone(),
        now: json_time(SystemTime::now()),
        outbound_gateways: BTreeMap::new(),
        inbound_gateways: BTreeMap::new(),
    }
}

/// Leaf nodes over HTTP.
pub fn leaf_nodes(facts: &Facts, parameters: &Parameters) -> Response {
    match parameters.bool("subs") {
        Ok(_) => json(&leafz(facts)),
        Err(bad) => bad.into_response(),
    }
}

/// Leaf nodes.
pub fn leafz(facts: &Facts) -> Leafz {
    Leafz {
        server_id: facts.server_id.clone(),
        now: json_time(SystemTime::now()),
        leafnodes: 0,
        leafs: [],
    }
}
