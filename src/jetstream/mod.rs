//! JetStream: streams, consumers and the API that manages them.

mod accounts;
mod advisory;
pub mod api;
pub mod archive;
pub mod core;
mod farewell;
mod id;
mod intake;
pub mod limits;
pub mod log;
pub mod meta;
pub mod monitor;
mod registry;
mod reload;
pub(crate) mod replication;
mod runtime;
mod shard;
mod sourcing;
pub mod types;
mod usage;

pub(crate) use id::unique as unique_id;
pub use replication::ClusterSetup;
pub use runtime::{JetStream, Setup, StartError, WaitingMax};
