//! Subjects: their grammar, how patterns relate to each other, and the index of subscriptions.
//!
//! A subject is a list of non-empty tokens separated by dots. In a pattern `*` stands for exactly one
//! token and `>`, as the last token, for one or more.
//!
//! # Invariant
//! Pure: nothing here knows a socket, a runtime or an account.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod index;
pub mod relation;
pub mod transform;
pub mod validate;

pub use index::{
    Indexed, InvalidSubject, Listening, Matches, QueueGroup, SharedIndex, SubjectIndex,
};
pub use relation::{intersection, is_subset, overlap, subject_matches};
pub use validate::{
    has_wildcard, is_valid_literal, is_valid_queue, is_valid_subject, token_count, tokens,
};
