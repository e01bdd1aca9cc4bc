//! The `$JS.API.>` requests: what they may ask for and what they are answered.

pub mod validate;
