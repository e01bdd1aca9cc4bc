//! The WebSocket protocol (RFC 6455) with per-message compression (RFC 7692), as bytes: no socket, no client.
//!
//! - `upgrade`: the HTTP request that a connection begins with, and what is answered.
//! - `frame`: heads of frames.
//! - `decoder`: what a peer sends, back to the bytes that it means.
//! - `encoder`: bytes into frames.
//! - `deflate`: one message compressed and inflated.
//!
//! # Invariant
//! A peer makes nothing here grow: frames pass through as they come, and only a compressed message is held until it is whole, at most as long as
//! [`Limits`] say, before and after.

mod decoder;
mod deflate;
mod encoder;
mod frame;
pub(crate) mod fuzz;
mod upgrade;

pub use decoder::{Control, Decoder, Limits, Violation};
pub use encoder::{Encoder, Shape};
pub use frame::{CONTROL_BYTES_MAX, close_frame, control_frame};
pub use upgrade::{Origins, Path, Refusal, Terms, Upgrade};
