//! Whether a stream can become what it is asked to become.

use super::stream::{check_discard_new_per_subject, invalid};
use crate::jetstream::types::{ApiError, Discard, ErrorCode, Retention, StreamConfig};

/// Checks the step from `old` to `new` (which was already checked by itself) and completes it.
pub fn check_update(old: &StreamConfig, new: StreamConfig) -> Result<StreamConfig, ApiError> {
    let mut new = new;
    let retention_moves = new.retention != old.retention
        && (old.retention == Retention::Workqueue || new.retention == Retention::Workqueue);
    first(&[
        (
            new.name != old.name,
            "stream configuration name must match original",
        ),
        (
            new.storage != old.storage,
            "stream configuration update can not change storage type",
        ),
        (
            retention_moves,
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            !new.sealed && old.sealed,
            "stream configuration update can not unseal a sealed stream",
        ),
        (
            !new.deny_delete && old.deny_delete,
            "stream configuration update can not cancel deny message deletes",
        ),
        (
            !new.deny_purge && old.deny_purge,
            "stream configuration update can not cancel deny purge",
        ),
    ])?;
    if new.mirror.is_some() && new.mirror != old.mirror {
        return Err(ErrorCode::StreamMirrorNotUpdatable.into());
    }
    check_discard_new_per_subject(&new)?;
    first(&[
        (
            old.allow_msg_ttl && !new.allow_msg_ttl,
            "message TTL status can not be disabled",
        ),
        (
            new.allow_msg_counter != old.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        ),
        (
            old.allow_msg_schedules && !new.allow_msg_schedules,
            "message schedules can not be disabled",
        ),
        (
            old.persist_mode != new.persist_mode,
            "stream configuration update can not change persist mode",
        ),
    ])?;
    if new.sealed {
        new.max_age = 0;
        new.discard = Discard::New;
        new.deny_delete = true;
        new.deny_purge = true;
        new.allow_rollup_hdrs = false;
    }
    Ok(new)
}

fn first(rules: &[(bool, &str)]) -> Result<(), ApiError> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, text)) => Err(invalid(text)),
        None => Ok(()),
    }
}
