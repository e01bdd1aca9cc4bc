//! What a store knows of its messages without reading them: which subjects are live, and what dies when.
//!
//! Read in this order: [`SubjectTree`] (`tree.rs`, built of `node.rs` and walked by `walk.rs`), then
//! [`ExpiryQueue`] (`expiry.rs`).

mod expiry;
mod node;
mod tree;
mod walk;

pub use expiry::ExpiryQueue;
pub use tree::{SubjectId, SubjectTree};
