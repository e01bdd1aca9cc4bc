//! A stream's configuration in the form the core needs.

use storage::store::{self, Limits};

use crate::jetstream::types::{Discard, StreamConfig};

/// The limits the store keeps for a configuration.
pub fn limits(config: &StreamConfig) -> Limits {
    let positive = |value: i64| (value > 0).then_some(value as u64);
    Limits {
        messages_max: positive(config.max_msgs),
        bytes_max: positive(config.max_bytes),
        age_max_ns: (config.max_age > 0).then_some(config.max_age),
        // Under `discard_new_per_subject` the core refuses what would exceed this, so that nothing is ever removed for it but by
        // a rollup, which cleans up after itself.
        per_subject_max: positive(config.max_msgs_per_subject),
        discard: match config.discard {
            Discard::Old => store::Discard::Old,
            Discard::New => store::Discard::New,
        },
    }
}
