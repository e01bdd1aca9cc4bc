//! A message whose publisher wants to know which way it goes: what happens to it is noted on its way, and reported when nobody here
//! holds it any more.
//!
//! # Invariant
//! A message that asks for nothing pays nothing but the question whether it asks. What is noted of one message is bounded.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::account::Account;
use super::client::Client;
use super::subscription::{Subscription, Target};
use crate::protocol::headers;
use crate::protocol::trace::{self, HeaderMap, TraceRequest};
use crate::subject;

/// More than this is not noted of one message.
const STEPS_MAX: usize = 64 * 1024;

/// What a connection is, as numbers of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionKind {
    /// A client.
    Client = 0,
    /// Another server of the cluster.
    Route = 1,
}

/// Where an account sends reports on messages with a W3C context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceDestination {
    /// The subject.
    pub subject: String,
    /// Of how many in a hundred messages.
    pub percent: u8,
}

/// What happened to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStep {
    /// It came in.
    Ingress {
        /// From what.
        kind: ConnectionKind,
        /// Over this connection.
        cid: u64,
        /// The connection's name.
        name: String,
        /// In this account.
        account: String,
        /// For this subject.
        subject: String,
        /// Why it went no further.
        error: Option<String>,
    },
    /// A mapping sent it elsewhere.
    Mapping {
        /// There.
        to: String,
    },
    /// It left its account as part of a stream of messages that the account exports.
    StreamExport {
        /// The account that imports it.
        account: String,
        /// Its subject there.
        to: String,
    },
    /// It left its account as a request to a service.
    ServiceImport {
        /// The account that exports the service.
        account: String,
        /// Its subject before.
        from: String,
        /// Its subject there.
        to: String,
    },
    /// A stream took it, or not.
    Stream {
        /// The stream.
        stream: String,
        /// The subject under which it is stored.
        subject: String,
        /// It is not stored because no consumer wants it.
        unwanted: bool,
        /// Why it was refused.
        error: Option<String>,
    },
    /// It went out.
    Egress {
        /// To what.
        kind: ConnectionKind,
        /// Over this connection.
        cid: u64,
        /// The connection's name.
        name: String,
        /// Under which hop the other server reports.
        hop: String,
        /// The receiver's account, when it is not that which it came in.
        account: Option<String>,
        /// The pattern that matched.
        subscription: String,
        /// Its queue group.
        queue: String,
        /// Why it did not.
        error: Option<&'static str>,
    },
}

/// Why a message did not go out, or goes out and is not reported on from there.
pub(super) mod passed {
    pub const NO_ECHO: &str = "Not delivered because of no echo";
    pub const DENIED: &str = "Not delivered because subscription denies this subject";
    pub const ENDED: &str = "Not delivered because subscription is closed";
    pub const CLOSED: &str = "Not delivered because client is closed";
    pub const EXCEEDED: &str = "Not delivered because auto-unsubscribe exceeded";
    pub const SLOW: &str = "Not delivered because fast producer not stalled and consumer is slow";
    pub const ONLY_UNKNOWN: &str = "Not delivered because remote does not support message tracing";
    pub const UNKNOWN: &str = "Message delivered but remote does not support message tracing so no trace event generated from there";
}

/// All that happened to a message on this server.
#[derive(Debug)]
pub struct TraceReport {
    /// In whose subjects the destination is.
    pub account: Arc<Account>,
    /// Where it goes.
    pub destination: String,
    /// The message's headers as they came.
    pub headers: HeaderMap,
    /// How large it is.
    pub message_bytes: usize,
    /// To how many other servers it went.
    pub hops: u64,
    /// What happened, and when.
    pub steps: Vec<(SystemTime, TraceStep)>,
}

impl TraceReport {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, values)| name.len() + values.iter().map(String::len).sum::<usize>() + 64)
            .sum();
        headers + self.steps.len() * (size_of::<(SystemTime, TraceStep)>() + 64) + 256
    }
}

/// Sends reports.
pub trait TraceSink: Send + Sync {
    /// Takes a report over. Called on connections' tasks and on shards: it must not block.
    fn report(&self, report: TraceReport);
}

/// What becomes of a message that asks for reports.
#[derive(Debug)]
pub enum Asked {
    /// It is not traced and goes on as it is.
    Untraced,
    /// It goes on, and other servers must not trace it either.
    Disabled,
    /// It goes no further.
    Dropped,
    /// It goes no further: its publisher may not publish where the reports would go.
    Denied(String),
    /// It is traced.
    Traced(Arc<MessageTrace>),
}

/// Who publishes, for a trace that begins.
#[derive(Debug, Clone, Copy)]
pub struct Ingress<'a> {
    /// What the connection is.
    pub kind: ConnectionKind,
    /// The connection.
    pub client: &'a Client,
    /// Its name.
    pub name: &'a str,
    /// The account of the message.
    pub account: &'a Arc<Account>,
    /// Its subject.
    pub subject: &'a [u8],
    /// The bytes of its headers and its payload.
    pub message_bytes: usize,
}

/// A message that is traced. Whoever drops it last has it reported.
pub struct MessageTrace {
    sink: Arc<dyn TraceSink>,
    only: bool,
    /// The hop that this server is, empty for the first one.
    hop: String,
    state: Mutex<Option<TraceReport>>,
}

impl std::fmt::Debug for MessageTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageTrace")
            .field("only", &self.only)
            .field("hop", &self.hop)
            .finish_non_exhaustive()
    }
}

impl Drop for MessageTrace {
    fn drop(&mut self) {
        if let Some(report) = self.state.get_mut().take() {
            self.sink.report(report);
        }
    }
}

impl MessageTrace {
    /// Decides what becomes of a message that asks. `may_publish` says whether its publisher may publish to a subject, `random` draws a
    /// number; `refused` is why the message goes no further whatever it asks.
    pub fn begin(
        request: TraceRequest,
        ingress: Ingress<'_>,
        sink: Option<&Arc<dyn TraceSink>>,
        may_publish: impl FnOnce(&str) -> bool,
        random: impl FnOnce() -> u32,
        refused: Option<&str>,
    ) -> Asked {
        let only = request.is_only();
        let untraced = || match only {
            true => Asked::Dropped,
            false => Asked::Untraced,
        };
        let is_first = ingress.kind == ConnectionKind::Client;
        if let Some(origin) = request.first(trace::ORIGIN_ACCOUNT) {
            tracing::error!(
                "Message tracing disabled because of header {:?} with value={origin:?}",
                trace::ORIGIN_ACCOUNT
            );
            return match only {
                true => Asked::Dropped,
                false => Asked::Disabled,
            };
        }
        let Some(sink) = sink else {
            return untraced();
        };
        let destination = match &request.destination {
            Some(destination) => destination.clone(),
            None => {
                let Some(configured) = ingress.account.trace_destination() else {
                    return Asked::Untraced;
                };
                if is_first && random() % 100 >= u32::from(configured.percent) {
                    return Asked::Disabled;
                }
                configured.subject.clone()
            }
        };
        let has_blanks = destination.contains(|c: char| c.is_ascii_whitespace() || c == '\0');
        if has_blanks || !subject::is_valid_literal(destination.as_bytes()) {
            tracing::error!(
                "Destination {destination:?} is not valid, won't be able to trace events"
            );
            return untraced();
        }
        if !may_publish(&destination) {
            return Asked::Denied(destination);
        }
        let hop = match is_first {
            true => String::new(),
            false => request.first(trace::HOP).unwrap_or_default().to_owned(),
        };
        let step = TraceStep::Ingress {
            kind: ingress.kind,
            cid: ingress.client.id,
            name: ingress.name.to_owned(),
            account: ingress.account.name().to_owned(),
            subject: text(ingress.subject),
            error: refused.map(str::to_owned),
        };
        Asked::Traced(Arc::new(Self {
            sink: Arc::clone(sink),
            only,
            hop,
            state: Mutex::new(Some(TraceReport {
                account: Arc::clone(ingress.account),
                destination,
                headers: request.headers,
                message_bytes: ingress.message_bytes,
                hops: 0,
                steps: vec![(SystemTime::now(), step)],
            })),
        }))
    }

    /// Whether it is delivered to nobody.
    pub fn is_only(&self) -> bool {
        self.only
    }

    /// Where reports on it go, in the account that it came in.
    pub(super) fn destination(&self) -> String {
        let state = self.state.lock();
        let report = state.as_ref();
        report.map_or_else(String::new, |report| report.destination.clone())
    }

    /// To how many other servers it went so far.
    pub(super) fn hops(&self) -> u64 {
        self.state.lock().as_ref().map_or(0, |report| report.hops)
    }

    fn note(&self, step: TraceStep) {
        if let Some(report) = self.state.lock().as_mut()
            && report.steps.len() < STEPS_MAX
        {
            report.steps.push((SystemTime::now(), step));
        }
    }

    /// It goes no further, for this reason.
    pub fn refused(&self, why: &str) {
        if let Some(report) = self.state.lock().as_mut()
            && let Some((_, TraceStep::Ingress { error, .. })) = report.steps.first_mut()
        {
            *error = Some(why.to_owned());
        }
    }

    /// A mapping sent it elsewhere.
    pub fn mapped(&self, to: &[u8]) {
        self.note(TraceStep::Mapping { to: text(to) });
    }

    /// It left its account as part of a stream that the account exports.
    pub fn exported(&self, account: &str, to: &[u8]) {
        self.note(TraceStep::StreamExport {
            account: account.to_owned(),
            to: text(to),
        });
    }

    /// It left its account as a request to a service.
    pub fn imported(&self, account: &str, from: &[u8], to: &[u8]) {
        self.note(TraceStep::ServiceImport {
            account: account.to_owned(),
            from: text(from),
            to: text(to),
        });
    }

    /// It is on its way to a stream.
    pub(super) fn to_stream(&self, stream: &str) {
        self.note(TraceStep::Stream {
            stream: stream.to_owned(),
            subject: String::new(),
            unwanted: false,
            error: None,
        });
    }

    /// What the stream did with it.
    pub fn judged(&self, by: &str, as_subject: &[u8], is_unwanted: bool, why_not: Option<String>) {
        let mut state = self.state.lock();
        let steps = state.iter_mut().flat_map(|report| report.steps.iter_mut());
        for (at, step) in steps.rev() {
            if let TraceStep::Stream {
                stream,
                subject,
                unwanted,
                error,
            } = step
                && stream == by
            {
                *at = SystemTime::now();
                *subject = text(as_subject);
                *unwanted = is_unwanted;
                *error = why_not;
                return;
            }
        }
    }

    /// It went to a client's subscription, or did not for this reason.
    pub(super) fn delivered(
        &self,
        to: &Subscription,
        account: &Account,
        error: Option<&'static str>,
    ) {
        let Target::Client { client, .. } = &to.target else {
            return;
        };
        let account = {
            let state = self.state.lock();
            let came = state.as_ref().map(|report| report.account.name());
            (came != Some(account.name())).then(|| account.name().to_owned())
        };
        self.note(TraceStep::Egress {
            kind: ConnectionKind::Client,
            cid: client.id,
            name: client.info().name.clone(),
            hop: String::new(),
            account,
            subscription: text(&to.subject),
            queue: text(to.queue.as_deref().unwrap_or_default()),
            error,
        });
    }

    /// It goes to another server, which may know of tracing: the headers it goes with, or nothing when it does not go.
    pub(super) fn routed(&self, to: &Client, traces: bool, block: &[u8]) -> Option<Vec<u8>> {
        let hop = {
            let mut state = self.state.lock();
            let hops = state.as_mut().map_or(0, |report| {
                report.hops += 1;
                report.hops
            });
            match self.hop.is_empty() {
                true => hops.to_string(),
                false => format!("{}.{hops}", self.hop),
            }
        };
        let error = match (traces, self.only) {
            (true, _) => None,
            (false, true) => Some(passed::ONLY_UNKNOWN),
            (false, false) => Some(passed::UNKNOWN),
        };
        let mut block = block.to_vec();
        headers::set(&mut block, trace::HOP, hop.as_bytes());
        self.note(TraceStep::Egress {
            kind: ConnectionKind::Route,
            cid: to.id,
            name: to.info().name.clone(),
            hop,
            account: None,
            subscription: String::new(),
            queue: String::new(),
            error,
        });
        (error != Some(passed::ONLY_UNKNOWN)).then_some(block)
    }
}

/// The headers of a message that other servers and later deliveries shall not trace.
pub fn disabled(block: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    headers::set(&mut block, trace::DESTINATION, trace::DISABLED.as_bytes());
    block
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
