//! What the server says: `[pid] 2026/11/23 12:00:00.000000 [INF] text`, one line each, flushed at once.
//!
//! The rest of the server uses `tracing`'s macros. [`line`] is the format, [`sink`] where lines go (a file, standard error, or a [`syslog`], whose lines wait in a [`queue`]), [`subscriber`]
//! joins the two; `repeats` keeps warnings from filling a log.

pub mod line;
pub mod queue;
mod repeats;
pub mod sink;
pub mod subscriber;
pub mod syslog;

pub use subscriber::{Logger, PreparedLog, fatal};
