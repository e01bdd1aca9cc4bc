//! Links: the connections of their own between two servers, one for control and one for bulk.
//!
//! In reading order:
//! - [`links`](Links): all links of this server; what the rest of the server holds.
//! - `options`: who we are, limits, and times.
//! - `frame`: what travels on a link, as bytes.
//! - `hello`: the line with which a link begins, and what is checked in it.
//! - `accept`, `dial`: the two ways in which a link comes to be.
//! - `peer`: another server, and which of several connections to it counts.
//! - `session`: one connection while it lives: what is read, written, and how its end is found.
//! - `queue`, `socket`: what waits to be written, and the socket it is written to.
//! - `requests`, `slices`: questions to another server, answered at once or in slices with back-pressure.
//! - `rate`: how much bulk data a peer is sent per second.
//! - `statistics`: what went over the links.
//!
//! # Invariant
//! Nobody who sends ever waits for a socket. Per channel and peer one connection counts at a time, and only what came over that one is handed on: so
//! frames arrive in the order they were sent, none twice, and all behind a lost one until the loss is told are lost too. No length that a peer names is
//! believed before it is checked.

mod accept;
mod dial;
mod frame;
pub(crate) mod fuzz;
mod hello;
mod links;
mod options;
mod peer;
mod queue;
mod rate;
mod requests;
mod session;
mod slices;
mod socket;
mod statistics;

pub use accept::{AcceptError, Admission};
pub use dial::{Address, KnownPeer};
pub use hello::{HELLO_LINE_BYTES_MAX, HELLO_VERB, HelloError};
pub use links::{FrameSink, Links};
pub use options::{Authorize, Credentials, Dialling, LinkLimits, LinkOptions, LinkTiming, Meeting};
pub use requests::{Handler, LinkError, Request, RequestKind, Responder};
pub use slices::{SliceSender, Slices, SlicesEnded};
pub use socket::Socket;
pub use statistics::{ChannelStatistics, PeerStatistics};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
