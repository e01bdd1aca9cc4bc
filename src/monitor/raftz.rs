//! `/raftz`: the Raft groups that this server takes part in.

use super::answer::{Parameters, json};
use super::endpoints::Monitor;
use crate::jetstream::monitor::GroupDetail;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Only groups of this account. All of them are the system account's.
    account: String,
    /// Only this one.
    group: String,
}

/// Groups by account, and there by name.
pub type Raftz = BTreeMap<String, BTreeMap<String, GroupDetail>>;

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
pub fn raftz(monitor: &Monitor, question: &Question) -> Raftz {
    let system = monitor.server.facts().options.system_account();
    let mut groups = Raftz::new();
    let asked = question.account.is_empty() || question.account == system;
    let streams = monitor.server.streams().filter(|_| asked);
    let mut found = streams
        .and_then(|streams| streams.raft_groups())
        .unwrap_or_default();
    if !question.group.is_empty() {
        found.retain(|name, _| *name == question.group);
    }
    if !found.is_empty() {
        groups.insert(system.to_owned(), found);
    }
    groups
}
