//! Reports on traced messages as the reference writes them (ADR-41).

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::envelope::ServerInfo;
use crate::broker::TraceReport;
use crate::broker::message_trace::TraceStep;
use crate::jetstream::types::{Time, encode};
use crate::monitor::observed::json_time;

/// The JSON of a report by this server.
pub(super) fn payload(server: ServerInfo<'_>, report: &TraceReport) -> Vec<u8> {
    encode(&Document {
        server,
        request: Request {
            header: &report.headers,
            msgsize: report.message_bytes,
        },
        hops: report.hops,
        events: report
            .steps
            .iter()
            .map(|(at, step)| Event::of(*at, step))
            .collect(),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    server: ServerInfo<'a>,
    request: Request<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    hops: u64,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "is_nothing")]
    msgsize: usize,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Event<'a> {
    #[serde(rename = "in")]
    Ingress {
        ts: Time,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        acc: &'a str,
        subj: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    #[serde(rename = "sm")]
    Mapping { ts: Time, to: &'a str },
    #[serde(rename = "se")]
    StreamExport { ts: Time, acc: &'a str, to: &'a str },
    #[serde(rename = "si")]
    ServiceImport {
        ts: Time,
        acc: &'a str,
        from: &'a str,
        to: &'a str,
    },
    #[serde(rename = "js")]
    Stream {
        ts: Time,
        stream: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        subject: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        nointerest: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    #[serde(rename = "eg")]
    Egress {
        ts: Time,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        hop: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        acc: Option<&'a str>,
        #[serde(skip_serializing_if = "str::is_empty")]
        sub: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        queue: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
}

impl<'a> Event<'a> {
    fn of(at: SystemTime, step: &'a TraceStep) -> Self {
        let ts = json_time(at);
        match step {
            TraceStep::Ingress {
                kind,
                cid,
                name,
                account,
                subject,
                error,
            } => Self::Ingress {
                ts,
                kind: *kind as u8,
                cid: *cid,
                name,
                acc: account,
                subj: subject,
                error: error.as_deref(),
            },
            TraceStep::Mapping { to } => Self::Mapping { ts, to },
            TraceStep::StreamExport { account, to } => Self::StreamExport {
                ts,
                acc: account,
                to,
            },
            TraceStep::ServiceImport { account, from, to } => Self::ServiceImport {
                ts,
                acc: account,
                from,
                to,
            },
            TraceStep::Stream {
                stream,
                subject,
                unwanted,
                error,
            } => Self::Stream {
                ts,
                stream,
                subject,
                nointerest: *unwanted,
                error: error.as_deref(),
            },
            TraceStep::Egress {
                kind,
                cid,
                name,
                hop,
                account,
                subscription,
                queue,
                error,
            } => Self::Egress {
                ts,
                kind: *kind as u8,
                cid: *cid,
                name,
                hop,
                acc: account.as_deref(),
                sub: subscription,
                queue,
                error: *error,
            },
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_nothing(bytes: &usize) -> bool {
    *bytes == 0
}
