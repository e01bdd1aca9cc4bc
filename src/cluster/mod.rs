//! Other servers: the sockets between this one and its peers, and nothing of what travels on them.
//!
//! - [`link`]: connections of our own, for Raft and for requests between servers.
//! - [`routes`]: the reference's connections between the servers of a cluster, for everything else.

pub mod link;
pub mod routes;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;

/// A server of the cluster that was met, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name, which it keeps.
    pub server_name: String,
    /// The identity of the run that was met last.
    pub server_id: String,
    /// Hosts and ports of its cluster port, most promising first.
    pub addresses: Vec<(String, u16)>,
    /// Whether connections there are encrypted.
    pub tls: bool,
    /// Whether it takes links there.
    pub links: bool,
    /// Whether there is a route with it now.
    pub connected: bool,
}

/// A connection to the cluster port that began with a `LINK` line: encrypted where the cluster is, and its credentials are right.
pub struct AcceptedLink {
    /// The connection.
    pub socket: link::Socket,
    /// The line, without its end.
    pub line: Vec<u8>,
    /// What was read behind it.
    pub rest: BytesMut,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Whether it may stay.
    pub admission: link::Admission,
}

/// Whoever takes links that are dialled to the cluster port.
pub trait LinkAcceptor: Send + Sync {
    /// Takes a connection over. Called within the runtime; it must not block.
    fn accept(&self, link: AcceptedLink);
}

/// Hands links to [`link::Links`].
pub struct ToLinks(pub Arc<link::Links>);

impl LinkAcceptor for ToLinks {
    fn accept(&self, accepted: AcceptedLink) {
        let links = Arc::clone(&self.0);
        tokio::spawn(async move {
            let AcceptedLink {
                socket,
                line,
                rest,
                address,
                admission,
            } = accepted;
            if let Err(error) = links.accept(socket, &line, rest, admission).await {
                tracing::warn!("Link from {address}: {error}");
            }
        });
    }
}
