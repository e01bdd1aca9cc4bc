//! TLS: what a `tls` block becomes, and a socket that speaks it.
//!
//! [`config`] loads certificates and makes what a server or a client needs ([`choice`] says what is offered, [`pins`] whom else than
//! the authorities a peer must please), [`identity`] reads who a peer is by its certificate, [`handshake`] turns a TCP connection into a
//! [`TlsSocket`], and [`socket`] reads and writes it from any thread without waiting, as a TCP socket is read and written.
//!
//! # Invariant
//! This room knows no client and no message. Which connections are encrypted, and when, is decided by whoever owns them.

mod agreed;
mod choice;
pub mod config;
mod der;
pub mod handshake;
pub mod identity;
mod name;
mod pins;
pub mod socket;

pub use agreed::Encryption;
pub use config::{TlsError, client_config, server_config};
pub use handshake::{HandshakeError, accept, connect};
pub use identity::{KeyHash, PeerIdentity};
pub use name::DistinguishedName;
pub use rustls::{ClientConfig, ServerConfig};
pub use socket::{TlsReader, TlsSocket, TlsWriter};

#[cfg(test)]
mod tests;
