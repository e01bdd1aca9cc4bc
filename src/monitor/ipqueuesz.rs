//! `/ipqueuesz`: what waits inside the server, by queue. The queues are other ones than the reference's.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::answer::{Parameters, json};
use super::endpoints::Monitor;

/// What may be asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Also queues in which nothing is.
    all: bool,
    /// Only queues with this in their names.
    filter: String,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// What waits.
    pending: u64,
    /// What has been taken out and is not done.
    in_progress: u64,
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let all = match parameters.bool("all") {
        Ok(all) => all,
        Err(bad) => return bad.into_response(),
    };
    let filter = parameters.text("queues").to_owned();
    json(&queues(monitor, &Question { all, filter }))
}

/// The queues that are asked for, by name.
pub fn queues(monitor: &Monitor, asked: &Question) -> BTreeMap<String, Queue> {
    let queues = monitor.server.queues().into_iter();
    let queues = queues.filter(|queue| asked.all || queue.pending > 0 || queue.in_progress > 0);
    queues
        .filter(|queue| queue.name.contains(&asked.filter))
        .map(|queue| {
            let figures = Queue {
                pending: queue.pending,
                in_progress: queue.in_progress,
            };
            (queue.name, figures)
        })
        .collect()
}
