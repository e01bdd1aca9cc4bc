//! `/raftz`: the Raft groups that this server takes part in.

use super::answer::{Parameters, json};
use super::endpoints::Monitor;
use crate::jetstream::monitor::GroupDetails;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    /// The account whose groups are asked for; the system account when none is named, which has the meta group.
    account: String,
    /// Only this one.
    group: String,
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let question = Question {
        account: parameters.text("acc").to_owned(),
        group: parameters.text("group").to_owned(),
    };
    let not_found = |text: &'static str| (StatusCode::NOT_FOUND, text).into_response();
    let is_clustered = |monitor: &Monitor| {
        let streams = monitor.server.streams();
        streams.is_some_and(|streams| streams.is_clustered())
    };
    if !is_clustered(monitor) {
        return not_found("No Raft nodes registered");
    }
    match raftz(monitor, &question) {
        groups if groups.is_empty() => not_found("No Raft nodes returned, check supplied filters"),
        groups => json(&groups),
    }
}

/// The groups asked for.
pub fn raftz(monitor: &Monitor, question: &Question) -> GroupDetails {
    let system = monitor.server.facts().options.system_account();
    let account = match question.account.as_str() {
        "" => system,
        account => account,
    };
    let streams = monitor.server.streams();
    let mut all = streams
        .and_then(|streams| streams.raft_groups())
        .unwrap_or_default();
    let mut found = all.remove(account).unwrap_or_default();
    if account == system {
        found.extend(all.remove("").unwrap_or_default());
    }
    if !question.group.is_empty() {
        found.retain(|name, _| *name == question.group);
    }
    for group in found.values_mut() {
        system.clone_into(&mut group.traffic_account);
    }
    match found.is_empty() {
        true => GroupDetails::new(),
        false => GroupDetails::from([(account.to_owned(), found)]),
    }
}
