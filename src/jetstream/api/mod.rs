//! The `$JS.API.>` requests: what they may ask for and what they are answered.

mod body;
pub(crate) mod direct;
pub(crate) mod handler;
pub mod response;
pub mod route;
pub mod validate;
pub(crate) mod workers;

pub use response::ApiStats;
