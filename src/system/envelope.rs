//! What every message of the system account says about the server that sent it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use crate::jetstream::types::{Time, encode};
use crate::jetstream::unique_id;
use crate::monitor::observed::{Observed, json_time};
use crate::server::version::REFERENCE_VERSION;

/// The bit of `flags` that says that there is JetStream.
const JETSTREAM_ENABLED: u64 = 1;

/// The server as others see it.
#[derive(Serialize)]
pub(super) struct ServerInfo<'a> {
    name: &'a str,
    host: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    ver: &'static str,
    feature_flags: BTreeMap<&'static str, bool>,
    jetstream: bool,
    flags: u64,
    seq: u64,
    time: Time,
}

/// Numbers the messages of a server.
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU64);

impl Sequence {
    /// The server as it is now, with the next number.
    pub(super) fn info<'a>(&self, server: &'a dyn Observed) -> ServerInfo<'a> {
        let facts = server.facts();
        let jetstream = facts.options.jetstream().is_some();
        ServerInfo {
            name: &facts.server_name,
            host: &facts.options.host,
            id: &facts.server_id,
            cluster: server.cluster_name(),
            ver: REFERENCE_VERSION,
            feature_flags: [("js_ack_fc_v2", false), ("js_raft_delete_range", false)].into(),
            jetstream,
            flags: match jetstream {
                true => JETSTREAM_ENABLED,
                false => 0,
            },
            seq: self.0.fetch_add(1, Ordering::Relaxed) + 1,
            time: json_time(SystemTime::now()),
        }
    }
}

/// Why a question was not answered.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    code: u16,
    description: String,
}

impl Refusal {
    /// The question cannot be read.
    pub(super) fn bad_request(description: impl ToString) -> Self {
        Self {
            code: 400,
            description: description.to_string(),
        }
    }

    /// The answer cannot be given.
    pub(super) fn failed(description: impl ToString) -> Self {
        Self {
            code: 500,
            description: description.to_string(),
        }
    }
}

/// The answer to a question, in its envelope.
pub(super) fn response<T: Serialize>(
    server: ServerInfo<'_>,
    answer: Result<T, Refusal>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Response<'a, T> {
        server: ServerInfo<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<T>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Refusal>,
    }
    let (data, error) = match answer {
        Ok(data) => (Some(data), None),
        Err(refusal) => (None, Some(refusal)),
    };
    encode(&Response {
        server,
        data,
        error,
    })
}

/// The answer to what was done and needs no more words.
pub(super) fn done_without_data(server: ServerInfo<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Done<'a> {
        server: ServerInfo<'a>,
    }
    encode(&Done { server })
}

/// An event of this type, which happened now.
pub(super) fn event<T: Serialize>(kind: &'static str, event: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Typed<'a, T> {
        r#type: &'static str,
        id: String,
        timestamp: Time,
        #[serde(flatten)]
        event: &'a T,
    }
    encode(&Typed {
        r#type: kind,
        id: unique_id(),
        timestamp: json_time(SystemTime::now()),
        event,
    })
}
