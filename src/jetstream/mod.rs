//! JetStream: streams, consumers and the API that manages them.

pub mod core;
pub mod types;
