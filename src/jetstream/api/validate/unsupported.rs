//! What a stream may ask for that this server does not do yet.

use crate::jetstream::types::{ApiError, ErrorCode, PersistMode, StreamConfig};

/// Refuses a configuration that relies on something that is not there, so that nobody depends on it unknowingly.
pub fn refuse_unsupported(config: &StreamConfig) -> Result<(), ApiError> {
    let asked_for = [(
        config.persist_mode == PersistMode::Async,
        "persist_mode async",
    )];
    match asked_for.into_iter().find(|(asked, _)| *asked) {
        Some((_, feature)) => Err(ErrorCode::StreamInvalidConfig.with(format_args!(
            "{feature} is not supported by this server yet"
        ))),
        None => Ok(()),
    }
}
