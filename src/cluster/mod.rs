//! Other servers: the sockets between this one and its peers, and nothing of what travels on them.
//!
//! - [`link`]: connections of our own, for Raft and for requests between servers.

pub mod link;
