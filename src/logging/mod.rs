//! What the server says: `[pid] 2026/11/23 12:00:00.000000 [INF] text`, one line each, flushed at once.
//!
//! The rest of the server uses `tracing`'s macros. [`line`] is the format, [`sink`] where lines go, [`subscriber`]
//! joins the two.

pub mod line;
pub mod sink;
pub mod subscriber;

pub use subscriber::{Logger, fatal};
