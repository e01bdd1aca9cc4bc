//! API levels: which level a configuration needs, and the metadata that says so.
//!
//! `_nats.req.level` is stored with a configuration; `_nats.level` and `_nats.ver` are added to replies only, because they
//! describe the server that answers.

use serde::de::DeserializeOwned;

use super::{
    AckPolicy, ConsumerConfig, PersistMode, PriorityPolicy, StreamConfig, Strictness, decode,
};

/// The JetStream API level this server speaks.
pub const API_LEVEL: u32 = 4;
/// The release of the reference whose behaviour this is; clients gate features on it.
pub const REFERENCE_VERSION: &str = "2.14.5";

/// The metadata that says which level a configuration needs.
pub const REQUIRED_LEVEL: &str = "_nats.req.level";
const SERVER_LEVEL: &str = "_nats.level";
const SERVER_VERSION: &str = "_nats.ver";

type Metadata = std::collections::BTreeMap<String, String>;

/// Whether a request that demands this level (the value of `Nats-Required-Api-Level`, empty when absent) must be refused.
pub fn header_exceeds_level(value: &[u8]) -> bool {
    if value.is_empty() {
        return false;
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<i64>().ok())
        .is_none_or(|level| level > i64::from(API_LEVEL))
}

/// Why a configuration cannot be kept to here, if a later version wrote it: it names what this one does not know, or says that it needs more.
pub fn unsupported<T: DeserializeOwned>(json: &[u8]) -> Option<String> {
    match decode::<T>(json, Strictness::Strict) {
        Ok(_) => unsupported_level(json),
        Err(error) => Some(format!("unsupported - config error: {error}")),
    }
}

fn unsupported_level(json: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Levelled {
        #[serde(default)]
        metadata: Metadata,
    }
    let levelled: Levelled = serde_json::from_slice(json).ok()?;
    let required = levelled.metadata.get(REQUIRED_LEVEL)?;
    header_exceeds_level(required.as_bytes()).then(|| {
        format!("unsupported - required API level: {required}, current API level: {API_LEVEL}")
    })
}

fn remove_dynamic(metadata: &mut Metadata) {
    metadata.remove(SERVER_LEVEL);
    metadata.remove(SERVER_VERSION);
}

fn add_dynamic(metadata: &mut Metadata) {
    metadata.insert(SERVER_LEVEL.to_owned(), API_LEVEL.to_string());
    metadata.insert(SERVER_VERSION.to_owned(), REFERENCE_VERSION.to_owned());
}

fn copy_required(metadata: &mut Metadata, previous: &Metadata) {
    remove_dynamic(metadata);
    match previous.get(REQUIRED_LEVEL) {
        Some(level) => metadata.insert(REQUIRED_LEVEL.to_owned(), level.clone()),
        None => metadata.remove(REQUIRED_LEVEL),
    };
}

impl StreamConfig {
    /// The lowest API level that knows everything this configuration uses.
    pub fn required_level(&self) -> u32 {
        [
            (self.allow_msg_ttl || self.subject_delete_marker_ttl > 0, 1),
            (self.allow_msg_counter, 2),
            (self.allow_atomic, 2),
            (self.allow_msg_schedules, 2),
            (self.persist_mode == PersistMode::Async, 2),
            (self.allow_batched, 4),
        ]
        .into_iter()
        .filter_map(|(used, level)| used.then_some(level))
        .max()
        .unwrap_or(0)
    }

    /// Writes the required level into the metadata, as it is stored.
    pub fn set_stored_metadata(&mut self) {
        remove_dynamic(&mut self.metadata);
        let level = self.required_level().to_string();
        self.metadata.insert(REQUIRED_LEVEL.to_owned(), level);
    }

    /// Takes over the previous configuration's stored metadata, so that the two can be compared.
    pub fn take_stored_metadata(&mut self, previous: &Self) {
        copy_required(&mut self.metadata, &previous.metadata);
    }

    /// As shown in replies about this one stream.
    #[must_use]
    pub fn with_reply_metadata(mut self) -> Self {
        add_dynamic(&mut self.metadata);
        self
    }
}

impl ConsumerConfig {
    /// The lowest API level that knows everything this configuration uses.
    pub fn required_level(&self) -> u32 {
        let paused = self.pause_until.is_some_and(|until| !until.is_zero());
        let priorities = self.priority_policy != PriorityPolicy::None
            || self.priority_timeout != 0
            || !self.priority_groups.is_empty();
        if self.ack_policy == AckPolicy::FlowControl {
            4
        } else {
            u32::from(paused || priorities)
        }
    }

    /// Writes the required level into the metadata, as it is stored.
    pub fn set_stored_metadata(&mut self) {
        remove_dynamic(&mut self.metadata);
        let level = self.required_level().to_string();
        self.metadata.insert(REQUIRED_LEVEL.to_owned(), level);
    }

    /// Takes over the previous configuration's stored metadata, so that the two can be compared.
    pub fn take_stored_metadata(&mut self, previous: &Self) {
        copy_required(&mut self.metadata, &previous.metadata);
    }

    /// As shown in replies about this one consumer.
    #[must_use]
    pub fn with_reply_metadata(mut self) -> Self {
        add_dynamic(&mut self.metadata);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_levels_and_nonsense_are_refused() {
        for (value, refused) in [
            (&b""[..], false),
            (b"0", false),
            (b"4", false),
            (b"5", true),
            (b"-1", false),
            (b"four", true),
            (b"\xff", true),
        ] {
            assert_eq!(header_exceeds_level(value), refused);
        }
    }

    #[test]
    fn the_level_of_a_configuration_follows_from_what_it_uses() {
        let mut config = StreamConfig::default();
        assert_eq!(config.required_level(), 0);
        config.allow_msg_ttl = true;
        assert_eq!(config.required_level(), 1);
        config.allow_atomic = true;
        assert_eq!(config.required_level(), 2);
        config.allow_batched = true;
        assert_eq!(config.required_level(), 4);
    }
}
