//! What happened: who came, who went, who was turned away, how many an account has.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::envelope::{Sequence, ServerInfo, event};
use crate::broker::{Account, Client, ClientInfo, CloseReason, ConnectionTraffic};
use crate::jetstream::types::{Time, encode};
use crate::monitor::accstatz::{AccountFigures, Amount};
use crate::monitor::observed::{Observed, json_time};
use crate::tls::ocsp::{CertificateInfo, PeerRefusal};

/// A client as it was when something happened to it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) info: Arc<ClientInfo>,
    pub(super) traffic: ConnectionTraffic,
    round_trip_us: u64,
    at: SystemTime,
}

impl Snapshot {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            info: client.info(),
            traffic: ConnectionTraffic::of(client),
            round_trip_us: client.round_trip_us(),
            at: SystemTime::now(),
        }
    }
}

/// A client as events show it.
#[derive(Serialize)]
struct ShownClient<'a> {
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
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Time>,
    kind: &'static str,
    client_type: &'static str,
}

impl<'a> ShownClient<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let info = &*snapshot.info;
        Self {
            start: json_time(info.started),
            host: info.address.ip().to_string(),
            id: info.id,
            acc: &info.account,
            user: &info.user,
            name: &info.name,
            lang: &info.lang,
            ver: &info.version,
            rtt: None,
            stop: None,
            kind: "Client",
            client_type: "nats",
        }
    }

    fn that_left(snapshot: &'a Snapshot) -> Self {
        let round_trip = snapshot.round_trip_us.saturating_mul(1000);
        Self {
            rtt: Some(round_trip).filter(|round_trip| *round_trip > 0),
            stop: Some(json_time(snapshot.at)),
            ..Self::of(snapshot)
        }
    }
}

/// A client came: subject and payload.
pub(super) fn connect(
    server: &dyn Observed,
    sequence: &Sequence,
    who: &Snapshot,
) -> (String, Vec<u8>) {
    #[derive(Serialize)]
    struct Connect<'a> {
        server: ServerInfo<'a>,
        client: ShownClient<'a>,
    }
    let connect = Connect {
        server: sequence.info(server),
        client: ShownClient::of(who),
    };
    (
        format!("$SYS.ACCOUNT.{}.CONNECT", who.info.account),
        event("io.nats.server.advisory.v1.client_connect", &connect),
    )
}

/// A client went: subject and payload.
pub(super) fn disconnect(
    server: &dyn Observed,
    sequence: &Sequence,
    who: &Snapshot,
    reason: CloseReason,
) -> (String, Vec<u8>) {
    (
        format!("$SYS.ACCOUNT.{}.DISCONNECT", who.info.account),
        left(server, sequence, who, reason),
    )
}

/// A client was turned away: subject and payload.
pub(super) fn refused(
    server: &dyn Observed,
    sequence: &Sequence,
    who: &Snapshot,
    reason: CloseReason,
) -> (String, Vec<u8>) {
    (
        format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", server.facts().server_id),
        left(server, sequence, who, reason),
    )
}

fn left(
    server: &dyn Observed,
    sequence: &Sequence,
    who: &Snapshot,
    reason: CloseReason,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Disconnect<'a> {
        server: ServerInfo<'a>,
        client: ShownClient<'a>,
        sent: Amount,
        received: Amount,
        reason: String,
    }
    let disconnect = Disconnect {
        server: sequence.info(server),
        client: ShownClient::that_left(who),
        sent: Amount {
            msgs: who.traffic.in_messages,
            bytes: who.traffic.in_bytes,
        },
        received: Amount {
            msgs: who.traffic.out_messages,
            bytes: who.traffic.out_bytes,
        },
        reason: reason.to_string(),
    };
    event("io.nats.server.advisory.v1.client_disconnect", &disconnect)
}

/// How many connections an account has: the payload.
pub(super) fn account_connections(
    server: &dyn Observed,
    sequence: &Sequence,
    account: &Account,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Connections<'a> {
        server: ServerInfo<'a>,
        #[serde(flatten)]
        figures: AccountFigures,
    }
    let connections = Connections {
        server: sequence.info(server),
        figures: AccountFigures::of(account),
    };
    event(
        "io.nats.server.advisory.v1.account_connections",
        &connections,
    )
}

/// A certificate on somebody's way to an authority may have been revoked, and so that one was not let in: subjects and payloads.
pub(super) fn certificate_refused(
    server: &dyn Observed,
    sequence: &Sequence,
    refusal: &PeerRefusal,
) -> [(String, Vec<u8>); 2] {
    #[derive(Serialize)]
    struct Invalid<'a> {
        link: &'a CertificateInfo,
        peer: &'a CertificateInfo,
        server: ServerInfo<'a>,
        reason: &'a str,
    }
    #[derive(Serialize)]
    struct Reject<'a> {
        kind: &'static str,
        peer: &'a CertificateInfo,
        server: ServerInfo<'a>,
        reason: &'static str,
    }
    let id = &server.facts().server_id;
    let invalid = Invalid {
        link: &refusal.link,
        peer: &refusal.peer,
        server: sequence.info(server),
        reason: &refusal.reason,
    };
    let reject = Reject {
        kind: "Client",
        peer: &refusal.peer,
        server: sequence.info(server),
        reason: refusal.kind.refused(),
    };
    [
        (
            format!("$SYS.SERVER.{id}.OCSP.PEER.LINK.INVALID"),
            event(
                "io.nats.server.advisory.v1.ocsp_peer_link_invalid",
                &invalid,
            ),
        ),
        (
            format!("$SYS.SERVER.{id}.OCSP.PEER.CONN.REJECT"),
            event("io.nats.server.advisory.v1.ocsp_peer_reject", &reject),
        ),
    ]
}

/// The server itself, and nothing else: the payload of its last words.
pub(super) fn server_alone(server: &dyn Observed, sequence: &Sequence) -> Vec<u8> {
    encode(&sequence.info(server))
}
