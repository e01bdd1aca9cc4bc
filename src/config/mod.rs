//! What the operator asked for: the configuration file and the command line, as typed options.
//!
//! Read in this order: [`value`] is the tree a file becomes, [`lexer`] and [`parser`] make it, [`digest`] names it,
//! [`duration`] reads and writes Go's durations, [`options`] is the typed result that the rest of the server reads, [`flags`] is the
//! command line that overrides it, and [`changes`] what differs between two results.
//!
//! # Invariant
//! This room is pure: text in, values out. It knows no socket, no tokio and no clock; files and the environment are
//! reached only through [`parser::Surroundings`]. A key is honoured or refused with its place in the file, never ignored.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used
    )
)]

pub mod bytes;
pub mod changes;
pub mod digest;
pub mod duration;
pub mod flags;
pub mod lexer;
pub mod options;
pub mod parser;
pub mod value;

pub use flags::{Command, FlagError, Flags};
pub use options::{ConfigError, Options};
