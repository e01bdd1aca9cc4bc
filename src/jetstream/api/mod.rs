//! The `$JS.API.>` requests: what they may ask for and what they are answered.

pub mod administration;
pub(crate) mod backup;
mod body;
pub(crate) mod direct;
pub(crate) mod elsewhere;
pub(crate) mod handler;
pub mod response;
pub mod route;
pub mod validate;
pub(crate) mod workers;

pub use response::ApiStats;

use super::types::Time;

/// The wall clock.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
