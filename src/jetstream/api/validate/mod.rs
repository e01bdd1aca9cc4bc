//! Which configurations are acceptable: the reference's rules, in its order, with its errors.
//!
//! # Invariant
//! These are pure functions over values. The first rule that a configuration breaks decides the error, so the order of the
//! checks is part of the contract.

mod consumer;
mod name;
mod origins;
mod stream;
mod update;

pub use consumer::{check_consumer, check_consumer_update, filters_collide, is_valid_group};
pub use name::{has_path_separators, is_valid_name};
pub use origins::check_origins;
pub use stream::{check_stream, check_stream_creation};
pub use update::check_update;

use super::super::limits::{AccountLimits, ServerLimits};

/// What a configuration is measured against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What the server allows.
    pub server: &'a ServerLimits,
    /// What the account allows.
    pub account: &'a AccountLimits,
    /// Whether values may be adjusted.
    pub adjust: Adjust,
}

/// Whether the server may replace values it does not like by ones it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjust {
    /// It does so silently.
    Freely,
    /// The request is pedantic: it is refused instead.
    Never,
}

#[cfg(test)]
mod tests;
