//! TLS: what a `tls` block becomes, and a socket that speaks it.
//!
//! [`config`] loads certificates and makes what a server or a client needs ([`choice`] says what is offered, [`pins`] whom else than
//! the authorities a peer must please), [`ocsp`] says whether a certificate has been revoked, [`identity`] reads who a peer is by its certificate, [`handshake`] turns a TCP connection into a
//! [`TlsSocket`], [`mutual`] does that for servers that dial each other, and [`socket`] reads and writes it from any thread without waiting, as a TCP socket is read and written.
//! [`stream`] is the same for whoever wants a stream.
//!
//! # Invariant
//! This room knows no client and no message. Which connections are encrypted, and when, is decided by whoever owns them.

mod agreed;
mod choice;
pub mod config;
mod der;
pub mod handshake;
pub mod identity;
mod mutual;
mod name;
pub mod ocsp;
mod pins;
pub mod socket;
mod stream;

pub use agreed::Encryption;
pub use choice::is_for;
pub use config::{TlsError, client_config, not_after, peer_check, server_config};
pub use handshake::{HandshakeError, accept, accept_checked, connect};
#[cfg(test)]
pub(crate) use identity::key_hash;
pub use identity::{KeyHash, PeerIdentity};
pub use mutual::MutualTls;
pub use name::DistinguishedName;
pub use rustls::{ClientConfig, ServerConfig};
pub use socket::{TlsReader, TlsSocket, TlsWriter};
pub use stream::TlsStream;

#[cfg(test)]
mod tests;
