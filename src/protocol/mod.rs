//! The NATS client protocol as values: what a client may say, what we answer, and header blocks.
//!
//! # Invariant
//! Pure: bytes in, values out. Nothing here knows a socket, a runtime or an account, and parsing a
//! message allocates nothing. What a peer sends can be refused, but never panics.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod base62;
pub mod connect;
pub mod encode;
pub mod headers;
pub mod info;
pub mod json;
pub mod parser;
pub mod proxy;
pub mod quote;
pub mod route;
pub mod time;
pub mod trace;

pub use connect::ConnectRequest;
pub use info::ServerInfo;
pub use parser::{Op, Parsed, ProtocolViolation, Publish, Rules, parse};
