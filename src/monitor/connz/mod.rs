//! `/connz`: the connections of clients, open ones and those that have ended.
//!
//! Read in this order: [`question`] is what may be asked, [`order`] how the answer is sorted, [`shown`] what is told of one
//! connection. Only the connections of the page that is shown are looked at closely.

mod order;
mod question;
mod shown;

pub use question::{ConnectionState, Question};

use super::answer::{BadParameter, Parameters, json, page};
use super::endpoints::Monitor;
use super::observed::json_time;
use crate::broker::Client;
use crate::connection::ClosedClient;
use crate::jetstream::types::Time;
use crate::subject::overlap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shown::ShownConnection;
use std::sync::Arc;
use std::time::SystemTime;

/// Connections shown when nothing else is asked for.
const LIMIT_DEFAULT: usize = 1024;

/// The answer.
#[derive(Serialize)]
pub struct Connz {
    server_id: String,
    now: Time,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    /// Nothing at all when the account that was asked for does not exist.
    connections: Option<Vec<ShownConnection>>,
}

/// A connection, open or not.
#[derive(Clone, Debug)]
enum Connection {
    Open(Arc<Client>),
    Closed(Arc<ClosedClient>),
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    match Question::read(parameters).and_then(|question| connz(monitor, &question)) {
        Ok(answer) => json(&answer),
        Err(bad) => bad.into_response(),
    }
}

/// The connections that are asked for.
pub fn connz(monitor: &Monitor, question: &Question) -> Result<Connz, BadParameter> {
    let order = question.order()?;
    question.check()?;
    let (offset, limit) = page(question.offset, question.limit, LIMIT_DEFAULT);
    let limit = if question.cid > 0 { 1 } else { limit };
    let now = SystemTime::now();
    let mut answer = Connz {
        server_id: String::new(),
        now: json_time(now),
        num_connections: 0,
        total: 0,
        offset,
        limit,
        connections: None,
    };
    let Some(candidates) = candidates(monitor, question) else {
        return Ok(answer);
    };
    answer
        .server_id
        .clone_from(&monitor.server.facts().server_id);
    answer.total = candidates.len();
    let mut found = select(candidates, question);
    order.sort(&mut found, now);
    let shown: Vec<_> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|connection| ShownConnection::of(connection, question, now))
        .collect();
    answer.num_connections = shown.len();
    answer.connections = Some(shown);
    Ok(answer)
}

/// All connections in the asked state, of the asked account; `None` when there is no such account.
fn candidates(monitor: &Monitor, question: &Question) -> Option<Vec<Connection>> {
    let mut candidates = Vec::new();
    let account = match question.account.as_str() {
        "" => None,
        name => Some(monitor.server.account(name)?),
    };
    if question.state != ConnectionState::Closed {
        let open = match &account {
            Some(account) => account.connections(),
            None => monitor.server.clients(),
        };
        candidates.extend(open.into_iter().map(Connection::Open));
    }
    if question.state != ConnectionState::Open {
        let closed = monitor.server.closed_clients().into_iter();
        let of_account = |closed: &Arc<ClosedClient>| {
            account
                .as_ref()
                .is_none_or(|account| closed.info.account == account.name())
        };
        candidates.extend(closed.filter(of_account).map(Connection::Closed));
    }
    Some(candidates)
}

/// Those of the candidates that the rest of the question is about.
fn select(mut candidates: Vec<Connection>, question: &Question) -> Vec<Connection> {
    if question.cid > 0 {
        candidates.retain(|connection| connection.info().id == question.cid);
        return candidates;
    }
    // No client speaks MQTT.
    if !question.mqtt_client.is_empty() {
        return Vec::new();
    }
    if !question.user.is_empty() {
        candidates.retain(|connection| connection.info().user == question.user);
    }
    if let Some(filter) = question.subject_filter() {
        candidates.retain(|connection| match connection {
            Connection::Open(client) => client
                .subscriptions()
                .values()
                .any(|subscription| overlap(filter, &subscription.subject)),
            Connection::Closed(_) => true,
        });
    }
    candidates
}

impl Connection {
    fn info(&self) -> Arc<crate::broker::ClientInfo> {
        match self {
            Connection::Open(client) => client.info(),
            Connection::Closed(closed) => Arc::clone(&closed.info),
        }
    }
}
