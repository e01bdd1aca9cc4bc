//! `/jsz`: JetStream, its accounts, streams and consumers, as deep as the question asks.

use super::answer::{BadParameter, Parameters, json};
use super::endpoints::Monitor;
use super::observed::json_time;
use crate::jetstream::monitor::{JetStreamInfo, Query};
use axum::response::{IntoResponse, Response};
use std::time::SystemTime;

/// Answers the question. May wait for streams.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let query = match read(parameters) {
        Ok(query) => query,
        Err(bad) => return bad.into_response(),
    };
    let server_id = &monitor.server.facts().server_id;
    match monitor.server.streams() {
        Some(streams) => json(&streams.info(&query, server_id)),
        None => json(&JetStreamInfo::disabled(
            server_id,
            json_time(SystemTime::now()),
        )),
    }
}

fn read(parameters: &Parameters) -> Result<Query, BadParameter> {
    // A server on its own leads everything it has and has no groups to name: these three leave nothing out.
    for name in ["leader-only", "stream-leader-only", "raft"] {
        parameters.bool(name)?;
    }
    let count = |name: &str| -> Result<usize, BadParameter> {
        Ok(usize::try_from(parameters.integer(name)?).unwrap_or(0))
    };
    // The reference takes a negative limit for none.
    let limit = match parameters.integer("limit")? {
        ..0 => usize::MAX,
        _ => count("limit")?,
    };
    Ok(Query {
        account: Some(parameters.text("acc").to_owned()).filter(|name| !name.is_empty()),
        accounts: parameters.bool("accounts")?,
        streams: parameters.bool("streams")?,
        consumers: parameters.bool("consumers")?,
        direct_consumers: parameters.bool("direct-consumers")?,
        config: parameters.bool("config")?,
        offset: count("offset")?,
        limit,
    })
}
