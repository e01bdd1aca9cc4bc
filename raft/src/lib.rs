//! Replicated groups: openraft on top of the shared journal.
//!
//! Reading order: [`group`] is what the rest of the server sees; [`types`] says what a group's entries, nodes and votes are; [`codec`] writes
//! them as bytes for the journal and `wire` for other servers; [`log`] keeps a group's log in the journal that all streams and groups of a server
//! share; [`runtime`] is where it all runs; with the feature `simulation` there is what simulations of whole clusters share.
//!
//! # Invariant
//! No socket and no subject is named here, and nothing outside this crate names an openraft type.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod codec;
pub mod group;
pub mod log;
pub mod runtime;
#[cfg(all(feature = "simulation", not(test)))]
pub mod simulation;
pub mod types;
mod watch;
mod wire;
