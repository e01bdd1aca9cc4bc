//! What every message of the system account says about the server that sent it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use crate::jetstream::types::{Time, encode};
use crate::jetstream::unique_id;
use crate::monitor::observed::{Observed, json_time};
use crate::server::version::REFERENCE_VERSION;

/// The bit of `flags` that says that there is JetStream. The reference has two more, 2 for the form of snapshots and 4 for the account
/// of traffic, both of its own Raft groups: whoever sets them says that those may be sent here.
const JETSTREAM_ENABLED: u64 = 1;

/// The server as others see it.
#[derive(Serialize)]
pub(super) struct ServerInfo<'a> {
    name: &'a str,
    host: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    ver: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
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
        let jetstream = server.streams().is_some();
        let options = server.options();
        ServerInfo {
            name: &facts.server_name,
            host: &facts.options.host,
            id: &facts.server_id,
            cluster: server.cluster_name(),
            domain: &facts.options.jetstream.domain,
            ver: REFERENCE_VERSION,
            tags: options.server_tags.clone(),
            metadata: options.server_metadata.clone(),
            feature_flags: options.feature_flags.known(),
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
