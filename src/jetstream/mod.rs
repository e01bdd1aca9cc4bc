//! JetStream: streams, consumers and the API that manages them.

mod advisory;
pub mod api;
pub mod core;
mod id;
pub mod limits;
mod registry;
pub mod types;
