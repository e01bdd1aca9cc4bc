//! Durable storage for message streams: a shared journal, block files and the stores built on them.
//!
//! # Invariant
//! This crate knows no async runtime, no socket, no account and no clock of its own: time, randomness
//! and the disk are passed in, so that everything here replays exactly from a seed.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod block;
pub mod codec;
pub mod disk;
pub mod engine;
pub mod entropy;
pub mod executor;
pub mod filter;
pub mod fuzz;
pub mod index;
pub mod journal;
pub mod rest;
pub mod seal;
pub mod store;
