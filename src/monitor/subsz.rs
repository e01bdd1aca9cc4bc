//! `/subsz`: the index of subscriptions, and what is in it.

use super::answer::{BadParameter, Parameters, decimal, json, page};
use super::endpoints::Monitor;
use super::observed::json_time;
use super::subscriptions::SubscriptionDetail;
use crate::broker::{Account, IndexFigures};
use crate::jetstream::types::Time;
use crate::subject::{is_valid_literal, subject_matches};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::SystemTime;

/// Subscriptions shown when nothing else is asked for.
const LIMIT_DEFAULT: usize = 1024;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Question {
    /// How many to leave out.
    pub offset: i64,
    /// How many to show.
    pub limit: i64,
    /// Whether to show any.
    pub subscriptions: bool,
    /// Only those of this account.
    pub account: String,
    /// Only those that a message with this subject would reach.
    pub test: String,
}

impl Question {
    fn read(parameters: &Parameters) -> Result<Self, BadParameter> {
        Ok(Question {
            subscriptions: parameters.bool("subs")?,
            offset: parameters.integer("offset")?,
            limit: parameters.integer("limit")?,
            account: parameters.text("acc").to_owned(),
            test: parameters.text("test").to_owned(),
        })
    }
}

/// How the index is used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct IndexStatistics {
    num_subscriptions: usize,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    #[serde(serialize_with = "decimal")]
    cache_hit_rate: f64,
    max_fanout: u64,
    #[serde(serialize_with = "decimal")]
    avg_fanout: f64,
}

impl IndexStatistics {
    /// Those of all these accounts together.
    pub(super) fn of(accounts: &[Arc<Account>]) -> Self {
        let figures = accounts
            .iter()
            .map(|account| account.index_figures())
            .fold(IndexFigures::default(), IndexFigures::and);
        Self {
            num_subscriptions: accounts
                .iter()
                .map(|account| account.subscription_count())
                .sum(),
            num_cache: figures.cached,
            num_inserts: figures.inserts,
            num_removes: figures.removes,
            num_matches: figures.matches(),
            cache_hit_rate: figures.hit_rate(),
            max_fanout: figures.fanout_max,
            avg_fanout: figures.fanout_average(),
        }
    }
}

/// The answer.
#[derive(Serialize)]
pub struct Subsz {
    server_id: String,
    now: Time,
    #[serde(flatten)]
    statistics: IndexStatistics,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubscriptionDetail>,
}

/// Answers over HTTP.
pub fn answer(monitor: &Monitor, parameters: &Parameters) -> Response {
    match Question::read(parameters).and_then(|question| subsz(monitor, &question)) {
        Ok(answer) => json(&answer),
        Err(bad) => bad.into_response(),
    }
}

/// The index, and what is in it.
pub fn subsz(monitor: &Monitor, question: &Question) -> Result<Subsz, BadParameter> {
    let test = question.test.as_bytes();
    if !test.is_empty() && !is_valid_literal(test) {
        return Err(BadParameter(format!(
            "invalid test subject, must be valid publish subject: {}",
            question.test
        )));
    }
    let mut accounts = monitor.server.accounts();
    accounts.retain(|account| question.account.is_empty() || account.name() == question.account);
    accounts.sort_by(|one, other| one.name().cmp(other.name()));
    let (offset, limit) = page(question.offset, question.limit, LIMIT_DEFAULT);
    let mut answer = Subsz {
        server_id: monitor.server.facts().server_id.clone(),
        now: json_time(SystemTime::now()),
        statistics: IndexStatistics::of(&accounts),
        total: 0,
        offset,
        limit,
        subscriptions_list: Vec::new(),
    };
    if !question.subscriptions {
        return Ok(answer);
    }
    for account in &accounts {
        for subscription in account.subscriptions() {
            let is_meant = !subscription.is_remote()
                && (test.is_empty() || subject_matches(test, &subscription.subject));
            if !is_meant {
                continue;
            }
            let shown = answer.subscriptions_list.len();
            if answer.total >= offset && shown < limit {
                let detail = SubscriptionDetail::of_account(&subscription, account.name());
                answer.subscriptions_list.push(detail);
            }
            answer.total += 1;
        }
    }
    Ok(answer)
}
