//! `PROFILEZ`: a profile, asked for over the protocol.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::config::duration::format_duration;
use crate::profiling::cpu_profile;

/// The longest that somebody may wait for the answer.
const DURATION_MAX: Duration = Duration::from_secs(15);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProfileQuestion {
    name: String,
    /// Nanoseconds.
    duration: i64,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Profile {
    /// In base64.
    profile: Option<String>,
    error: String,
}

/// Takes the profile. Blocks the thread for as long as was asked.
pub(super) fn profile(asked: &ProfileQuestion) -> Profile {
    let refused = |error: String| Profile {
        profile: None,
        error,
    };
    match asked.name.as_str() {
        "" => return refused("Profile name not specified".into()),
        "cpu" => {}
        // Go's runtime has profiles of its insides; there is nothing like them here.
        other => return refused(format!("Profile {other:?} not found")),
    }
    let duration = u64::try_from(asked.duration).map(Duration::from_nanos);
    let duration = match duration {
        Ok(duration) if !duration.is_zero() && duration <= DURATION_MAX => duration,
        Ok(duration) => {
            let written = format_duration(duration);
            return refused(format!("Duration {written} should be between 0s and 15s"));
        }
        Err(_) => return refused("Duration should be between 0s and 15s".into()),
    };
    match cpu_profile(duration) {
        Ok(bytes) => Profile {
            profile: Some(STANDARD.encode(bytes)),
            error: String::new(),
        },
        Err(error) => refused(error.to_string()),
    }
}
