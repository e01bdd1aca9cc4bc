//! JetStream: streams, consumers and the API that manages them.

pub mod api;
pub mod core;
mod id;
pub mod limits;
mod registry;
pub mod types;
