//! Advisories: what operators and tools may hear of, as messages in the account they concern.
//!
//! Nothing is built for an advisory that nobody listens to.

pub(crate) mod cluster;
pub(crate) mod consumer;

use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::id;
use super::types::{Time, encode, is_zero};
use crate::broker::ClientInfo;

/// Where requests and their answers are reported.
pub(crate) const API_AUDIT: &str = "$JS.EVENT.ADVISORY.API";
/// Where dropped requests are reported.
pub(crate) const API_LIMIT_REACHED: &str = "$JS.EVENT.ADVISORY.API.LIMIT_REACHED";

/// What every advisory begins with.
#[derive(Serialize)]
struct Typed<T> {
    r#type: &'static str,
    id: String,
    timestamp: Time,
    #[serde(flatten)]
    event: T,
}

pub(crate) fn typed<T: Serialize>(kind: &'static str, timestamp: Time, event: T) -> Vec<u8> {
    encode(&Typed {
        r#type: kind,
        id: id::unique(),
        timestamp,
        event,
    })
}

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamAction {
    Created,
    Updated,
    Deleted,
}

impl StreamAction {
    /// Where it is reported.
    pub(crate) fn subject(self, stream: &str) -> String {
        let verb = match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
        };
        format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{stream}")
    }

    /// What is reported.
    pub(crate) fn payload(self, stream: &str, domain: &str, now: Time) -> Vec<u8> {
        #[derive(Serialize)]
        struct Event<'a> {
            stream: &'a str,
            action: &'static str,
            #[serde(skip_serializing_if = "str::is_empty")]
            domain: &'a str,
        }
        let action = match self {
            Self::Created => "create",
            Self::Updated => "modify",
            Self::Deleted => "delete",
        };
        typed(
            "io.nats.jetstream.advisory.v1.stream_action",
            now,
            Event {
                stream,
                action,
                domain,
            },
        )
    }
}

/// A client as advisories show it.
#[derive(Serialize)]
pub(crate) struct Client<'a> {
    start: Time,
    host: String,
    id: u64,
    acc: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ver: &'a str,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    rtt: u64,
    server: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    kind: &'static str,
    client_type: &'static str,
}

impl<'a> Client<'a> {
    pub(crate) fn new(info: &'a ClientInfo, server: &'a str, cluster: &'a str) -> Self {
        let started = info.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_ns = i64::try_from(started.as_nanos()).unwrap_or(i64::MAX);
        Self {
            start: Time::from_nanoseconds(start_ns),
            host: info.address.ip().to_string(),
            id: info.id,
            acc: &info.account,
            user: &info.user,
            name: &info.name,
            lang: &info.lang,
            ver: &info.version,
            rtt: info.round_trip.microseconds().saturating_mul(1000),
            server,
            cluster,
            kind: "Client",
            client_type: match info.websocket {
                true => "websocket",
                false => "nats",
            },
        }
    }
}

/// An API request and its answer.
pub(crate) struct ApiAudit<'a> {
    pub server: &'a str,
    /// Its cluster; empty for none.
    pub cluster: &'a str,
    pub client: Option<&'a ClientInfo>,
    pub subject: &'a str,
    pub request: &'a [u8],
    pub response: &'a [u8],
    pub domain: &'a str,
}

impl ApiAudit<'_> {
    /// What is reported.
    pub(crate) fn payload(&self, now: Time) -> Vec<u8> {
        #[derive(Serialize)]
        struct Event<'a> {
            server: &'a str,
            client: Option<Client<'a>>,
            subject: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            request: &'a str,
            response: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            domain: &'a str,
        }
        let request = String::from_utf8_lossy(self.request);
        let response = String::from_utf8_lossy(self.response);
        typed(
            "io.nats.jetstream.advisory.v1.api_audit",
            now,
            Event {
                server: self.server,
                client: self
                    .client
                    .map(|info| Client::new(info, self.server, self.cluster)),
                subject: self.subject,
                request: &request,
                response: &response,
                domain: self.domain,
            },
        )
    }
}

/// Requests were dropped because too many waited.
pub(crate) fn api_limit_reached(server: &str, domain: &str, dropped: u64, now: Time) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event<'a> {
        server: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        domain: &'a str,
        dropped: u64,
    }
    typed(
        "io.nats.jetstream.advisory.v1.api_limit_reached",
        now,
        Event {
            server,
            domain,
            dropped,
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_client_is_shown_with_its_cluster_its_round_trip_and_how_it_came() {
        let said = serde_json::json!({
            "id": 7, "account": "A", "user": "u", "name": "", "lang": "rust", "version": "1",
            "address": "127.0.0.1:4000", "started": std::time::UNIX_EPOCH,
            "websocket": true, "round_trip": 25,
        });
        let info: ClientInfo = serde_json::from_value(said).expect("a client");
        let shown = serde_json::to_value(Client::new(&info, "s1", "c1")).expect("JSON");
        let expected = serde_json::json!({
            "start": "1970-01-01T00:00:00Z", "host": "127.0.0.1", "id": 7, "acc": "A", "user": "u",
            "lang": "rust", "ver": "1", "rtt": 25_000, "server": "s1", "cluster": "c1",
            "kind": "Client", "client_type": "websocket",
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_stream_action_says_what_happened_to_which_stream() {
        assert_eq!(
            StreamAction::Created.subject("S"),
            "$JS.EVENT.ADVISORY.STREAM.CREATED.S"
        );
        let payload = StreamAction::Deleted.payload("S", "hub", Time::from_nanoseconds(0));
        let event: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(event["type"], "io.nats.jetstream.advisory.v1.stream_action");
        assert_eq!(event["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(event["stream"], "S");
        assert_eq!(event["action"], "delete");
        assert_eq!(event["domain"], "hub");
        assert_eq!(event["id"].as_str().map(str::len), Some(22));
    }
}
