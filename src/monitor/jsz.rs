//! `/jsz`: JetStream, its accounts, streams and consumers, as deep as the question asks.

use super::answer::{BadParameter, Parameters, json};
use super::endpoints::Monitor;
use super::observed::json_time;
use crate::jetstream::monitor::{JetStreamInfo, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::time::SystemTime;

/// Answers the question. May wait for streams.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let query = match read(parameters) {
        Ok(query) => query,
        Err(bad) => return bad.into_response(),
    };
    let server_id = &monitor.server.facts().server_id;
    let streams = monitor.server.streams();
    let leads = streams.as_ref().is_some_and(|streams| streams.leads_meta());
    match parameters.bool("leader-only") {
        Ok(true) if !leads => {
            let reason = "filtered response: not leader";
            return (StatusCode::BAD_REQUEST, reason).into_response();
        }
        Ok(_) => {}
        Err(bad) => return bad.into_response(),
    }
    match streams {
        Some(streams) => json(&streams.info(&query, server_id)),
        None => json(&JetStreamInfo::disabled(
            server_id,
            json_time(SystemTime::now()),
        )),
    }
}

fn read(parameters: &Parameters) -> Result<Query, BadParameter> {
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
        stream_leader_only: parameters.bool("stream-leader-only")?,
        groups: parameters.bool("raft")?,
        offset: count("offset")?,
        limit,
    })
}
