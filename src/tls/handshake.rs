//! From a TCP connection to an encrypted one, within a time.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, OtherError, ServerConfig,
    ServerConnection,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ocsp::{PeerCheck, PeerRefusal};
use super::socket::TlsSocket;

/// Why a connection could not be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer took too long.
    #[error("TLS handshake timeout")]
    Timeout,
    /// The connection broke, or the peer refused us or was refused.
    #[error("TLS handshake error: {0}")]
    Failed(#[from] io::Error),
    /// The other side's certificate is sound, and something else about it is not: as a proof that it has not been revoked.
    #[error("TLS handshake error: {0}")]
    Unproven(Arc<dyn Error + Send + Sync>),
    /// The peer's certificates may have been revoked.
    #[error("TLS handshake error: {0}")]
    Revoked(Box<PeerRefusal>),
    /// What comes before a handshake was wrong.
    #[error("{0}")]
    Before(io::Error),
    /// Too many handshakes begin at once.
    #[error("Connection throttling is active. Please try again later.")]
    Throttled,
    /// The other side's name is neither a host name nor an address.
    #[error("TLS handshake error: {name:?} is no host: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// A session cannot be made of the configuration.
    #[error("TLS handshake error: {0}")]
    Session(#[from] rustls::Error),
}

/// The listening side's handshake.
pub async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    at_most: Duration,
) -> Result<TlsSocket, HandshakeError> {
    let session = Connection::Server(ServerConnection::new(config)?);
    complete(TlsSocket::new(tcp, session), at_most).await
}

/// The listening side's handshake, and then the question whether the peer's certificates have been revoked, where that is asked.
pub async fn accept_checked(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    at_most: Duration,
    check: Option<&Arc<PeerCheck>>,
) -> Result<TlsSocket, HandshakeError> {
    checked(accept(tcp, config, at_most).await?, check).await
}

/// The connection, if what is asked about the peer's certificates has nothing against them.
pub(super) async fn checked(
    socket: TlsSocket,
    check: Option<&Arc<PeerCheck>>,
) -> Result<TlsSocket, HandshakeError> {
    if let Some(check) = check
        && let Err(refusal) = check.admits(&socket.peer_certificates()).await
    {
        socket.shutdown();
        return Err(HandshakeError::Revoked(refusal));
    }
    Ok(socket)
}

/// The connecting side's handshake; `host` is the name or address that the other side's certificate must bear.
pub async fn connect(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    host: &str,
    at_most: Duration,
) -> Result<TlsSocket, HandshakeError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|source| HandshakeError::Name {
        name: host.to_owned(),
        source,
    })?;
    let session = Connection::Client(ClientConnection::new(config, name)?);
    complete(TlsSocket::new(tcp, session), at_most).await
}

async fn complete(socket: TlsSocket, at_most: Duration) -> Result<TlsSocket, HandshakeError> {
    match timeout(at_most, socket.handshake()).await {
        Ok(Ok(())) => Ok(socket),
        Ok(Err(error)) => Err(reason(&error).map_or(error.into(), HandshakeError::Unproven)),
        Err(_) => Err(HandshakeError::Timeout),
    }
}

/// What a check of our own has against a certificate; rustls hands it on without its words.
fn reason(error: &io::Error) -> Option<Arc<dyn Error + Send + Sync>> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            Some(Arc::clone(reason))
        }
        _ => None,
    }
}
