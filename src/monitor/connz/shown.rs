//! One connection as `/connz` shows it.

use super::{Connection, Question};
use crate::broker::{Carrier, GLOBAL_ACCOUNT};
use crate::config::duration::format_duration;
use crate::connection::HeldSubscription;
use crate::jetstream::types::Time;
use crate::monitor::answer::uptime;
use crate::monitor::certificate::ShownCertificate;
use crate::monitor::observed::json_time;
use crate::monitor::subscriptions::{Listed, Lists, SubscriptionDetail};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub struct ShownConnection {
    cid: u64,
    kind: &'static str,
    #[serde(rename = "type")]
    client_type: &'static str,
    ip: String,
    port: u16,
    start: Time,
    last_activity: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    rtt: String,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls_version: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    tls_cipher_suite: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_peer_certs: Vec<ShownCertificate>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_first: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    authorized_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(flatten)]
    lists: Lists,
    #[serde(skip_serializing_if = "String::is_empty")]
    name_tag: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ShownConnection {
    /// As much of a connection as is asked for.
    pub(super) fn of(connection: &Connection, question: &Question, now: SystemTime) -> Self {
        let info = connection.info();
        let carrier = connection.carrier();
        let encryption = carrier.encryption.clone().unwrap_or_default();
        let traffic = connection.traffic();
        let until = connection.stopped().unwrap_or(now);
        let since = |then: SystemTime| until.duration_since(then).unwrap_or_default();
        let last_activity = connection.last_activity();
        let listed = question.listed();
        let held = match listed {
            Listed::Count => Vec::new(),
            Listed::Subjects | Listed::Details => connection.held(),
        };
        let when_asked = |text: &str| match question.auth {
            true => text.to_owned(),
            false => String::new(),
        };
        Self {
            cid: info.id,
            kind: "Client",
            client_type: match carrier.websocket {
                true => "websocket",
                false => "nats",
            },
            ip: info.address.ip().to_string(),
            port: info.address.port(),
            start: json_time(info.started),
            last_activity: json_time(last_activity),
            stop: connection.stopped().map(json_time),
            reason: connection.reason(),
            rtt: format_duration(Duration::from_micros(connection.round_trip_us())),
            uptime: uptime(since(info.started)),
            idle: uptime(since(last_activity)),
            pending_bytes: connection.pending_bytes(),
            in_msgs: traffic.in_messages,
            out_msgs: traffic.out_messages,
            in_bytes: traffic.in_bytes,
            out_bytes: traffic.out_bytes,
            stalls: connection.stalls(),
            subscriptions: connection.subscription_count(),
            name: info.name.clone(),
            lang: info.lang.clone(),
            version: info.version.clone(),
            tls_version: encryption.version,
            tls_cipher_suite: encryption.cipher,
            tls_peer_certs: match question.auth {
                true => encryption
                    .certificates
                    .iter()
                    .map(|certificate| ShownCertificate::of(certificate))
                    .collect(),
                false => Vec::new(),
            },
            tls_first: encryption.first,
            authorized_user: when_asked(&info.user),
            account: match info.account.as_str() {
                GLOBAL_ACCOUNT => String::new(),
                name => when_asked(name),
            },
            lists: Lists::new(
                listed,
                held.iter()
                    .map(|held| SubscriptionDetail::of_connection(held, info.id)),
            ),
            name_tag: when_asked(&info.account),
        }
    }
}

impl Connection {
    fn carrier(&self) -> &Carrier {
        match self {
            Self::Open(client) => client.carrier(),
            Self::Closed(closed) => &closed.carrier,
        }
    }

    fn held(&self) -> Vec<HeldSubscription> {
        match self {
            Self::Open(client) => HeldSubscription::all_of(client),
            Self::Closed(closed) => closed.subscriptions.clone(),
        }
    }
}
