//! What holds for connections: all that a new configuration may change while they live.

use std::sync::Arc;

use super::authentication::{Authenticator, limits};
use super::entrance::Entrance;
use super::options::ConnectionOptions;
use super::transport::{PlainText, TlsTerms};
use super::websocket::{WebSocketError, WebSocketTerms};
use crate::broker::{Broker, TraceDestination};
use crate::config::options::{ConnectionType, Options, PeerCertificate};
use crate::protocol::ServerInfo;

/// What holds for connections. New ones begin on the terms of the moment; those that are there change to new ones when they are told.
#[derive(Debug)]
pub struct Terms {
    pub(super) options: ConnectionOptions,
    /// For those who come to the port for clients.
    pub(super) entrance: Entrance,
    /// For those who come over WebSocket.
    pub(super) websocket: Option<WebSocketTerms>,
    /// How connections are encrypted; none of them is without.
    pub(super) tls: Option<TlsTerms>,
    /// Whether clients must show certificates.
    verifies: bool,
    /// What clients are told instead of where the server listens.
    advertise: Option<(String, Option<u16>)>,
}

impl Terms {
    /// What the options say. Accounts that they name are made, and nothing else changes.
    pub fn new(
        options: &Options,
        tls: Option<TlsTerms>,
        broker: &Broker,
    ) -> Result<Self, WebSocketError> {
        let authenticator = Arc::new(Authenticator::new(options, broker)?);
        let websocket = options
            .websocket
            .as_ref()
            .filter(|own| own.is_enabled())
            .map(|own| WebSocketTerms::new(options, own, &authenticator, broker))
            .transpose()?;
        let entrance = Entrance {
            kind: ConnectionType::Standard,
            authenticator,
            authentication_timeout: options.authentication_timeout(),
            ping_interval: options.timing.ping_interval,
            tls_required: requires_tls(tls.as_ref()),
        };
        let verifies = options
            .tls
            .as_ref()
            .is_some_and(|tls| tls.peer_certificate == PeerCertificate::Required);
        Ok(Self {
            advertise: options.client_advertise.clone(),
            options: ConnectionOptions::from(options),
            entrance,
            websocket,
            tls,
            verifies,
        })
    }

    /// For those who come in this way.
    pub(super) fn entrance(&self, way: ConnectionType) -> &Entrance {
        match (way, &self.websocket) {
            (ConnectionType::WebSocket, Some(websocket)) => &websocket.entrance,
            _ => &self.entrance,
        }
    }

    /// What is said of them to clients of a server that listens there.
    pub(super) fn told_in(&self, info: ServerInfo, listening: &(String, u16)) -> ServerInfo {
        let (host, port) = match &self.advertise {
            Some((host, port)) => (host, port.unwrap_or(listening.1)),
            None => (&listening.0, listening.1),
        };
        let most = self.options.payload_bytes_max;
        ServerInfo {
            host: host.clone(),
            port,
            headers: self.options.headers,
            auth_required: self.entrance.authenticator.is_announced(),
            tls_required: self.entrance.tls_required,
            tls_available: self.tls.is_some() && !self.entrance.tls_required,
            tls_verify: self.verifies,
            max_payload: i32::try_from(most).unwrap_or(i32::MAX),
            ..info
        }
    }
}

/// What the options say of accounts, put in force: limits, mappings, and what they take from each other. Accounts that they do not name any
/// more are forgotten.
pub fn settle_accounts(options: &Options, broker: &Broker) {
    broker.global().set_mappings(options.mappings_of(None));
    for account in &options.accounts {
        let known = broker.ensure_account(&account.name);
        known.set_limits(limits(&account.limits));
        known.set_mappings(options.mappings_of(Some(account)));
        let trace = account.trace.as_ref().map(|trace| TraceDestination {
            subject: trace.destination.clone(),
            percent: trace.percent,
        });
        known.set_trace_destination(trace);
    }
    let named = |name: &str| options.accounts.iter().any(|account| account.name == name);
    broker.share(&options.accounts);
    broker.forget_accounts(|name| !named(name));
}

/// Whether nobody may do without encryption.
fn requires_tls(tls: Option<&TlsTerms>) -> bool {
    tls.is_some_and(|tls| tls.plain_text == PlainText::Refused)
}
