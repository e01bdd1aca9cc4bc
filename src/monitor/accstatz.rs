//! `/accstatz`: what each account has, and what passed through it.

use super::answer::{BadParameter, Parameters, json};
use super::endpoints::Monitor;
use super::observed::json_time;
use crate::broker::Account;
use crate::jetstream::types::Time;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Only these accounts.
    pub accounts: Vec<String>,
    /// Those to which nobody is connected, too.
    pub include_unused: bool,
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Amount {
    /// Messages.
    pub msgs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What went one way over the connections of an account, by their kind; of an account's own, only clients exist.
#[derive(Debug, Default, Serialize)]
pub struct AmountByKind {
    #[serde(flatten)]
    all: Amount,
    gateways: Amount,
    routes: Amount,
    leafs: Amount,
}

impl AmountByKind {
    /// All of it was clients'.
    pub fn of_clients(msgs: u64, bytes: u64) -> Self {
        Self {
            all: Amount { msgs, bytes },
            ..Self::default()
        }
    }
}

/// What an account has and what passed through it.
#[derive(Serialize)]
pub struct AccountFigures {
    acc: String,
    name: String,
    conns: usize,
    leafnodes: usize,
    total_conns: usize,
    num_subscriptions: usize,
    sent: AmountByKind,
    received: AmountByKind,
    slow_consumers: u64,
}

impl AccountFigures {
    /// Those of an account.
    pub fn of(account: &Account) -> Self {
        let traffic = account.connection_traffic();
        let connections = account.connection_count();
        Self {
            acc: account.name().to_owned(),
            name: account.name().to_owned(),
            conns: connections,
            leafnodes: 0,
            total_conns: connections,
            num_subscriptions: account.subscription_count(),
            sent: AmountByKind::of_clients(traffic.out_messages, traffic.out_bytes),
            received: AmountByKind::of_clients(traffic.in_messages, traffic.in_bytes),
            slow_consumers: account.slow_consumers(),
        }
    }
}

/// The answer.
#[derive(Serialize)]
pub struct AccountStatz {
    server_id: String,
    now: Time,
    account_statz: Vec<AccountFigures>,
}

impl AccountStatz {
    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.account_statz.is_empty()
    }
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    match read(parameters) {
        Ok(question) => json(&account_statz(monitor, &question)),
        Err(bad) => bad.into_response(),
    }
}

fn read(parameters: &Parameters) -> Result<Question, BadParameter> {
    Ok(Question {
        accounts: Vec::new(),
        include_unused: parameters.bool("unused")?,
    })
}

/// The accounts that are asked for.
pub fn account_statz(monitor: &Monitor, question: &Question) -> AccountStatz {
    let mut accounts = monitor.server.accounts();
    accounts.retain(|account| {
        let is_meant = question.accounts.is_empty()
            || question.accounts.iter().any(|name| name == account.name());
        is_meant && (question.include_unused || account.connection_count() > 0)
    });
    accounts.sort_by(|one, other| one.name().cmp(other.name()));
    AccountStatz {
        server_id: monitor.server.facts().server_id.clone(),
        now: json_time(SystemTime::now()),
        account_statz: accounts
            .iter()
            .map(|account| AccountFigures::of(account))
            .collect(),
    }
}
