//! The protocol that the servers of a cluster speak on their routes.
//!
//! [`parser`] reads one operation at a time out of what has arrived, [`encode`] writes them, and [`info`] holds the
//! JSON of `INFO` and `CONNECT`.

pub mod encode;
pub mod info;
pub mod parser;

pub use info::{RouteConnect, RouteInfo};
pub use parser::{Queues, RouteMessage, RouteOp, parse};
