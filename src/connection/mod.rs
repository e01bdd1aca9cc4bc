//! Client connections: admitting a socket, the task that serves it, and how it ends.
//!
//! [`Clients`] is what the server holds: it admits sockets and knows who is connected. Each connection
//! is a [`task`] that owns a [`session`]: the task waits (for bytes, for time, for the end), the session
//! decides what every operation of the client means and never waits.
//!
//! # Invariant
//! Whatever a peer sends, a connection holds no more than its read buffer, one message of at most the
//! maximum payload, and the pending bytes of its outbox.

pub mod authentication;
mod buffer;
pub mod clients;
pub mod closed;
mod entrance;
mod observer;
pub mod options;
mod ping;
mod proxied;
mod publish;
mod review;
mod session;
mod socket;
mod subscribe;
mod task;
mod terms;
mod trace;
mod traced;
pub mod transport;
mod websocket;

pub use authentication::Authenticator;
pub(crate) use buffer::ReadBuffer;
pub use clients::Clients;
pub use closed::{ClosedClient, ClosedClients, HeldSubscription};
pub use observer::ConnectionObserver;
pub use options::ConnectionOptions;
pub(crate) use socket::{TcpWire, TlsWire};
pub use terms::{Terms, settle_accounts};
pub use transport::{PlainText, TlsTerms};
pub use websocket::{WebSocketError, WebSocketTerms};

#[cfg(test)]
mod cutting_tests;
#[cfg(test)]
mod tests;
