//! The server as a library: every room of it, so that tests and tools can reach them.

pub mod broker;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod fuzz;
pub mod jetstream;
pub mod logging;
pub mod monitor;
pub mod profiling;
pub mod protocol;
pub mod server;
pub mod subject;
pub mod system;
pub mod tls;
pub mod websocket;
