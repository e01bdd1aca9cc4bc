//! A stream on several servers: its group's state machine, and how a replica that lags is given the state.
//!
//! - `machine`: what the group commits goes to the stream's shard; roles, manifests and states likewise.
//! - `request`: what one replica asks of another, as bytes.
//! - `fetch`: how such a request reaches the other server, and who answers there.
//! - `replica`: all of it together, from start to end.
//! - `install`: from a manifest to an equal replica.
//!
//! The stream itself, with its replica's part, lives on a shard.

pub(crate) mod fetch;
mod install;
pub(crate) mod machine;
pub(crate) mod replica;
mod request;
#[cfg(test)]
mod tests;
