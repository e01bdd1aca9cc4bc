//! JetStream: streams, consumers and the API that manages them.

pub mod api;
pub mod core;
pub mod limits;
pub mod types;
