//! What servers need that dial each other: each is the listening side for some and the connecting side for others.
//!
//! Where our certificate is shown with a proof that it has not been revoked, the other side has to prove the same of its own. A server
//! that we dial shows its proof in the handshake. One that dials us cannot: rustls shows none as a client, and takes none as a server. So
//! its responder is asked, as strictly.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::net::TcpStream;

use super::config::{self, TlsError};
use super::handshake::{self, HandshakeError};
use super::ocsp::{PeerCheck, PeerKind};
use super::socket::TlsSocket;
use crate::config::options::TlsOptions;

/// What is needed on both sides of connections between servers.
#[derive(Debug, Clone)]
pub struct MutualTls {
    accept: Arc<ServerConfig>,
    connect: Arc<ClientConfig>,
    /// In place of the proof that whoever dials us cannot show.
    unproven: Option<Arc<PeerCheck>>,
    /// What the operator wants to have asked about the others, whoever dials.
    asked: Option<Arc<PeerCheck>>,
}

impl MutualTls {
    /// What a `tls` block says. Reads files, and may ask a responder about our own certificate: not for a connection's thread.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let (accept, is_proven) = config::listening(options)?;
        Ok(Self {
            accept,
            connect: config::dialling(options, is_proven)?,
            unproven: match is_proven {
                true => Some(Arc::new(config::check_without_proof(options)?)),
                false => None,
            },
            asked: config::peer_check(options, PeerKind::Server)?,
        })
    }

    /// Whether an error of a connection that we have dialled says that the other side wants a proof with our certificate. In TLS 1.3 it
    /// looks at that when our side of the handshake is over.
    pub fn is_asked_for_proof(&self, error: &io::Error) -> bool {
        let alert = error.get_ref().and_then(|error| error.downcast_ref());
        let refused = rustls::Error::AlertReceived(AlertDescription::BadCertificate);
        self.unproven.is_some() && alert == Some(&refused)
    }

    /// Another server dialled us.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        at_most: Duration,
    ) -> Result<TlsSocket, HandshakeError> {
        let socket = handshake::accept(tcp, Arc::clone(&self.accept), at_most).await?;
        let socket = handshake::checked(socket, self.asked.as_ref()).await?;
        handshake::checked(socket, self.unproven.as_ref()).await
    }

    /// We dial another server; `host` is the name or address that its certificate must bear.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        host: &str,
        at_most: Duration,
    ) -> Result<TlsSocket, HandshakeError> {
        let config = Arc::clone(&self.connect);
        let socket = handshake::connect(tcp, config, host, at_most).await?;
        handshake::checked(socket, self.asked.as_ref()).await
    }
}
