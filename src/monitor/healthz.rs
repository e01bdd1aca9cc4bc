//! `/healthz`: whether the server is fit to be used.

use super::answer::{BadParameter, Parameters, compact_json};
use super::endpoints::Monitor;
use super::observed::ObservedStreams;
use crate::jetstream::monitor::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// The API's words for JetStream that is off.
const NOT_ENABLED: &str = "JetStream not enabled";

/// How the server is.
#[derive(Serialize)]
pub struct Health {
    status: &'static str,
    /// As a status of HTTP; 0 is not shown.
    #[serde(skip_serializing_if = "is_zero")]
    status_code: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Problem>,
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

/// One thing that is wrong.
#[derive(Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    error: String,
    #[serde(skip)]
    verdict: Verdict,
}

/// What a problem is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Kind {
    Connection,
    BadRequest,
    #[serde(rename = "JETSTREAM")]
    JetStream,
    Account,
    Stream,
    Consumer,
}

/// How bad it is.
#[derive(Clone, Copy)]
enum Verdict {
    /// The question makes no sense.
    BadRequest,
    /// Clients cannot connect.
    NotReady,
    /// JetStream, or a part of it, cannot be used.
    Unavailable,
    /// What was asked about does not exist.
    NotFound,
}

impl Verdict {
    fn status(self) -> (StatusCode, &'static str) {
        match self {
            Verdict::BadRequest => (StatusCode::BAD_REQUEST, "error"),
            Verdict::NotReady => (StatusCode::INTERNAL_SERVER_ERROR, "error"),
            Verdict::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Verdict::NotFound => (StatusCode::NOT_FOUND, "unavailable"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Question {
    /// The old name of what follows.
    #[serde(rename = "js-enabled")]
    enabled: bool,
    #[serde(rename = "js-enabled-only")]
    enabled_only: bool,
    #[serde(rename = "js-server-only")]
    server_only: bool,
    #[serde(rename = "js-meta-only")]
    meta_only: bool,
    account: String,
    stream: String,
    consumer: String,
    details: bool,
}

impl Question {
    fn read(parameters: &Parameters) -> Result<Self, BadParameter> {
        let enabled = parameters.bool("js-enabled")?;
        if enabled {
            tracing::warn!("Healthcheck: js-enabled deprecated, use js-enabled-only instead");
        }
        let enabled_only = parameters.bool("js-enabled-only")?;
        let server_only = parameters.bool("js-server-only")?;
        let meta_only = parameters.bool("js-meta-only")?;
        let text = |name: &str| parameters.text(name).to_owned();
        Ok(Question {
            enabled,
            enabled_only,
            server_only,
            meta_only,
            account: text("account"),
            stream: text("stream"),
            consumer: text("consumer"),
            details: parameters.bool("details")?,
        })
    }

    fn problem(&self, kind: Kind, verdict: Verdict, error: String) -> Problem {
        let named = |name: &String, from: Kind| match kind >= from {
            true => name.clone(),
            false => String::new(),
        };
        Problem {
            kind,
            account: named(&self.account, Kind::Account),
            stream: named(&self.stream, Kind::Stream),
            consumer: named(&self.consumer, Kind::Consumer),
            error,
            verdict,
        }
    }
}

/// Answers over HTTP. May wait for streams.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    let question = match Question::read(parameters) {
        Ok(question) => question,
        Err(bad) => return bad.into_response(),
    };
    let mut health = health(monitor, &question);
    // HTTP says it in its own way.
    let code = std::mem::take(&mut health.status_code);
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    compact_json(status, &health)
}

/// How the server is. May wait for streams.
pub fn health(monitor: &Monitor, question: &Question) -> Health {
    let Some(problem) = check(monitor, question) else {
        return Health {
            status: "ok",
            status_code: StatusCode::OK.as_u16(),
            error: String::new(),
            errors: Vec::new(),
        };
    };
    let (status, word) = problem.verdict.status();
    tracing::warn!("Healthcheck failed: {:?}", problem.error);
    match question.details {
        true => Health {
            status: "error",
            status_code: status.as_u16(),
            error: String::new(),
            errors: vec![problem],
        },
        false => Health {
            status: word,
            status_code: status.as_u16(),
            error: problem.error,
            errors: Vec::new(),
        },
    }
}

fn check(monitor: &Monitor, question: &Question) -> Option<Problem> {
    let missing = |name: &str, asset: &str| {
        let reason = format!("{name:?} must not be empty when checking {asset} health");
        Some(question.problem(Kind::BadRequest, Verdict::BadRequest, reason))
    };
    if question.account.is_empty() && !question.stream.is_empty() {
        return missing("account", "stream");
    }
    if question.stream.is_empty() && !question.consumer.is_empty() {
        return missing("stream", "consumer");
    }
    if let Some(reason) = monitor.server.not_ready() {
        return Some(question.problem(Kind::Connection, Verdict::NotReady, reason));
    }
    if question.server_only || monitor.server.options().jetstream().is_none() {
        return None;
    }
    let unavailable =
        |reason: String| Some(question.problem(Kind::JetStream, Verdict::Unavailable, reason));
    let Some(streams) = monitor.server.streams() else {
        return unavailable(NOT_ENABLED.into());
    };
    if streams.is_disabled() {
        return unavailable(NOT_ENABLED.into());
    }
    if question.enabled || question.enabled_only {
        return None;
    }
    if let Some(fault) = streams.meta_fault() {
        return unavailable(fault);
    }
    // A server on its own has no meta group: its streams are looked at, as in the reference.
    if question.meta_only && streams.is_clustered() {
        return None;
    }
    if let Some(fault) = streams.fault() {
        return unavailable(fault);
    }
    if let Some(fault) = streams.stream_fault() {
        let (account, stream, reason) = (fault.account, fault.stream, fault.reason);
        let error = format!("JetStream stream '{account} > {stream}' is not current: {reason}");
        let mut problem = question.problem(Kind::Stream, Verdict::Unavailable, error);
        (problem.account, problem.stream) = (account, stream);
        return Some(problem);
    }
    match question.account.is_empty() {
        true => None,
        false => check_named(monitor, &*streams, question),
    }
}

/// Whether what the question names exists. That no stream is damaged has been seen before.
fn check_named(
    monitor: &Monitor,
    streams: &dyn ObservedStreams,
    question: &Question,
) -> Option<Problem> {
    let Question {
        account,
        stream,
        consumer,
        ..
    } = question;
    let missing =
        |kind: Kind, reason: String| Some(question.problem(kind, Verdict::NotFound, reason));
    let query = Query {
        account: Some(account.clone()),
        streams: !stream.is_empty(),
        consumers: !consumer.is_empty(),
        direct_consumers: true,
        ..Query::default()
    };
    let info = streams.info(&query, &monitor.server.facts().server_id);
    let Some(found) = info.account_details.iter().find(|a| a.name == *account) else {
        return missing(
            Kind::Account,
            format!("JetStream account {account:?} not found"),
        );
    };
    if stream.is_empty() {
        return None;
    }
    let Some(found) = found.stream_detail.iter().find(|s| s.name == *stream) else {
        let reason = format!("JetStream stream {stream:?} not found on account {account:?}");
        return missing(Kind::Stream, reason);
    };
    let mut consumers = found
        .consumer_detail
        .iter()
        .chain(&found.direct_consumer_detail);
    if consumer.is_empty() || consumers.any(|found| found["name"] == consumer.as_str()) {
        return None;
    }
    let reason = format!(
        "JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}"
    );
    missing(Kind::Consumer, reason)
}
