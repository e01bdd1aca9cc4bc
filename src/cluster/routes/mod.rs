//! Routes: the connections between the servers of a cluster, in the reference's protocol.
//!
//! In reading order:
//! - `handle`: all [`Routes`], what the rest of the server holds.
//! - `options`: what the operator decided, ready to be used.
//! - `shared`: what all connections share; what we say of ourselves, and what local interest is passed on.
//! - `table`: which servers are connected, over which connections, and whether one more has its place.
//! - `dial`: dialling a server until its connections are there, and again when they are gone.
//! - `handshake`: from a socket to a connection that has its place.
//! - `session`: one connection while it lives; `interest`: what the other server has told on it; `updates`: what changes on it.
//! - `change`: taking up other options while connections are there; `admission`: who they let in; `admitted_links`: the same of links.
//! - `gossip`: telling servers of each other, and clients of servers.
//! - `socket`, `compression`: what bytes go through.
//! - `view`: what monitoring may see.
//!
//! # Invariant
//! What came over one route never goes out over another. A connection carries nothing before both sides know who the other is,
//! are of one cluster, and the credentials are right.

mod admission;
mod admitted_links;
mod change;
mod compression;
mod dial;
mod gossip;
mod handle;
mod handshake;
mod interest;
mod options;
mod session;
mod shared;
mod socket;
mod table;
mod updates;
mod view;

pub use handle::{ClientUrls, Identity, Routes};
pub use options::{RouteOptions, RouteOptionsError};
pub use view::{RouteView, RoutesView};
