//! `Nats-Request-Info`: what the account that answers is told of who asks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::broker::delivery::Origin;
use crate::protocol::json::encode;
use crate::protocol::time::Time;

/// The header's name.
pub(in crate::broker) const REQUEST_INFO: &str = "Nats-Request-Info";

/// What this server is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// The server.
    pub server: String,
    /// Its cluster; empty when it is in none.
    pub cluster: String,
}

/// Who asks, and how much of that may be told.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Asker<'a> {
    /// The account that it is in.
    pub account: &'a str,
    /// The account whose import was asked last, when that is another one.
    pub service: Option<&'a str>,
    /// Whether the account that it is in shares who it is.
    pub is_shared: bool,
    /// Whether it is told where it is.
    pub is_placed: bool,
    /// The reply subject that it wants answers to, where that says more than where they go.
    pub reply: Option<&'a [u8]>,
}

#[derive(Serialize)]
struct Info<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "is_zero")]
    id: u64,
    acc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    svc: Option<&'a str>,
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
    #[serde(skip_serializing_if = "str::is_empty")]
    server: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reply: &'a str,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Asker<'_> {
    /// The header's value, written by a server that is called so.
    pub(in crate::broker) fn describe(
        &self,
        origin: Option<&Origin<'_>>,
        names: &ServerNames,
    ) -> Vec<u8> {
        let (server, cluster) = match self.is_placed {
            true => (names.server.as_str(), names.cluster.as_str()),
            false => ("", ""),
        };
        let reply = self.reply.map(std::str::from_utf8);
        let mut info = Info {
            start: None,
            host: String::new(),
            id: 0,
            acc: self.account,
            svc: self.service,
            user: "",
            name: "",
            lang: "",
            ver: "",
            rtt: 0,
            server,
            cluster,
            kind: "",
            client_type: "",
            reply: reply.and_then(Result::ok).unwrap_or_default(),
        };
        let Some(origin) = origin else {
            return encode(&info);
        };
        let known = origin.info;
        let round_trip = Duration::from_micros(origin.client.round_trip_us());
        info.rtt = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
        if self.is_shared {
            info.start = Some(time(known.started));
            info.host = known.address.ip().to_string();
            info.id = known.id;
            info.user = &known.user;
            info.name = &known.name;
            info.lang = &known.lang;
            info.ver = &known.version;
            info.kind = "Client";
            info.client_type = match origin.client.carrier().websocket {
                true => "websocket",
                false => "nats",
            };
        }
        encode(&info)
    }
}

fn time(at: SystemTime) -> Time {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
