//! `/metrics`: the server's figures in the text format of OpenMetrics 1.0, for scrapers.
//!
//! Read in this order: [`family`] says what a metric is and how a table of them is written down, [`exposition`] is the text
//! itself. [`server`], [`accounts`], [`jetstream`] and [`storage`] are the tables. What each metric means is said once, in its
//! table; docs/metrics.md lists them all.
//!
//! # Invariant
//! An answer has a limited length: what has a name of its own (an account, a stream, a consumer) is shown whole or not at all,
//! in the order of names, until the limit of series is reached. What was left out is counted, in a metric of its own.

mod accounts;
mod exposition;
mod family;
mod jetstream;
mod server;
mod storage;
#[cfg(test)]
mod tests;

use super::endpoints::Monitor;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use exposition::Exposition;
use family::{Budget, Column, Family, families_of, gauge};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers over HTTP. May wait for streams.
pub fn answer(monitor: &Monitor) -> Response {
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (StatusCode::OK, headers, text(monitor)).into_response()
}

/// All metrics now. May wait for streams.
pub fn text(monitor: &Monitor) -> String {
    let most = monitor.server.options().limits.metric_series_max;
    let mut budget = Budget::of(most);
    let mut out = Exposition::default();
    server::write(&mut out, monitor);
    let mut left_out = vec![LeftOut::new(
        "account",
        accounts::write(&mut out, monitor, &mut budget),
    )];
    if let Some(streams) = monitor.server.streams() {
        storage::write(&mut out, &*streams);
        let (streams, consumers) = jetstream::write(&mut out, monitor, &*streams, &mut budget);
        left_out.push(LeftOut::new("stream", streams));
        left_out.push(LeftOut::new("consumer", consumers));
    }
    out.table(&OF_LIMIT, &[(most as u64, [])], |(_, labels)| labels);
    out.table(&OF_LEFT_OUT, &left_out, |row| &row.kind);
    out.end()
}

/// Things with names of their own that were not shown.
struct LeftOut {
    kind: [&'static str; 1],
    count: usize,
}

impl LeftOut {
    fn new(kind: &'static str, count: usize) -> Self {
        Self {
            kind: [kind],
            count,
        }
    }
}

static OF_LIMIT: [Column<(u64, [&str; 0])>; 1] = [Column {
    family: gauge(
        "nats_metrics_series_max",
        &[],
        "Series of accounts, streams and consumers that one answer shows at most (max_metric_series).",
    ),
    value: |row| row.0.into(),
}];

static OF_LEFT_OUT: [Column<LeftOut>; 1] = [Column {
    family: gauge(
        "nats_metrics_left_out",
        &["kind"],
        "Accounts, streams or consumers that this answer leaves out because of that limit.",
    ),
    value: |row| row.count.into(),
}];

/// Every metric, in the order of the answer.
pub fn families() -> Vec<&'static Family> {
    let mut all = server::families();
    all.extend(families_of(&accounts::OF_ACCOUNT));
    all.extend(storage::families());
    all.extend(jetstream::families());
    all.extend(families_of(&OF_LIMIT).chain(families_of(&OF_LEFT_OUT)));
    all
}

/// All of them as a table of Markdown, as docs/metrics.md has it.
pub fn list() -> String {
    let mut text = String::from("| metric | type | labels | what it says |\n|---|---|---|---|\n");
    for family in families() {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        text.push_str(&format!(
            "| `{}{}` | {} | {} | {} |\n",
            family.name,
            family.kind.suffix(),
            family.kind.word(),
            labels.join(", "),
            family.help
        ));
    }
    text
}
