//! What a stream is configured to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Time, is_false, is_zero};

/// When messages leave a stream by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// When a limit is reached.
    #[default]
    Limits,
    /// When every consumer that wants them has acknowledged them.
    Interest,
    /// When one consumer has acknowledged them.
    Workqueue,
}

/// What happens to a message for which a limit leaves no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// Older ones make room.
    #[default]
    Old,
    /// It is refused.
    New,
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// How stored messages are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreCompression {
    /// Not at all.
    #[default]
    None,
    /// With S2.
    S2,
}

/// When a publish is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistMode {
    /// Once it is as durable as the server's setting says.
    #[default]
    #[serde(alias = "")]
    Default,
    /// Before it is synced.
    Async,
}

/// Where replicas are put.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// In which cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// On servers with these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Which server leads; step-down requests only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preferred: String,
}

/// How to reach a stream of another account or domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalStream {
    /// What takes the place of `$JS.API`.
    pub api: String,
    /// What messages are delivered under.
    pub deliver: String,
}

/// A consumer made beforehand for a mirror or source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSourceConsumer {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it delivers to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
}

/// A rewrite of subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectTransform {
    /// Which subjects.
    pub src: String,
    /// What they become.
    pub dest: String,
}

/// A stream that this one copies from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSource {
    /// Its name.
    pub name: String,
    /// From which sequence on.
    #[serde(skip_serializing_if = "is_zero")]
    pub opt_start_seq: u64,
    /// From which time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Time>,
    /// Only these subjects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Rewrites, which also select.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
    /// How to reach it when it is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    /// The consumer to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<StreamSourceConsumer>,
}

/// What is published again once it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Republish {
    /// Which subjects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// Under which subject.
    pub dest: String,
    /// Without payloads.
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
}

/// Defaults and caps for the consumers of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerLimits {
    /// How long a consumer may be idle, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// How many messages may wait for an ack.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
}

/// What a stream is configured to do. Durations are nanoseconds; `-1` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Its name, fixed.
    pub name: String,
    /// What people should know of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it stores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// When messages leave by themselves.
    pub retention: Retention,
    /// Consumers it may have.
    pub max_consumers: i64,
    /// Messages it may hold.
    pub max_msgs: i64,
    /// Accounted bytes it may hold.
    pub max_bytes: i64,
    /// How old a message may get; 0 is for ever.
    pub max_age: i64,
    /// Messages it may hold per subject.
    pub max_msgs_per_subject: i64,
    /// How large header and payload of a message may be together.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_msg_size: i32,
    /// What gives way when a limit is reached.
    pub discard: Discard,
    /// Where messages are kept, fixed.
    pub storage: Storage,
    /// How many servers hold a copy.
    pub num_replicas: i64,
    /// Publishes are not acknowledged.
    #[serde(skip_serializing_if = "is_false")]
    pub no_ack: bool,
    /// How long message ids are remembered.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicate_window: i64,
    /// Where replicas are put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The stream this one is a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSource>,
    /// The streams this one gathers from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSource>,
    /// How messages are compressed on disk.
    pub compression: StoreCompression,
    /// The sequence of the first message.
    #[serde(skip_serializing_if = "is_zero")]
    pub first_seq: u64,
    /// A rewrite before storing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    /// What is published again once it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Direct gets are answered.
    pub allow_direct: bool,
    /// A mirror answers direct gets for its origin.
    pub mirror_direct: bool,
    /// `discard: new` counts per subject.
    #[serde(skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    /// Nothing can change any more.
    pub sealed: bool,
    /// Messages cannot be deleted by request.
    pub deny_delete: bool,
    /// The stream cannot be purged by request.
    pub deny_purge: bool,
    /// A publish may replace what was there before.
    pub allow_rollup_hdrs: bool,
    /// Defaults and caps for its consumers.
    pub consumer_limits: ConsumerLimits,
    /// A publish may say how long the message lives.
    pub allow_msg_ttl: bool,
    /// When the last message of a subject expires, a marker takes its place for this long.
    #[serde(skip_serializing_if = "is_zero")]
    pub subject_delete_marker_ttl: i64,
    /// Every subject is a counter.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_counter: bool,
    /// Batches that are stored all or not at all.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_atomic: bool,
    /// Messages that are produced on a schedule.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_msg_schedules: bool,
    /// When a publish is acknowledged.
    #[serde(skip_serializing_if = "is_zero")]
    pub persist_mode: PersistMode,
    /// Batches that are acknowledged in bulk.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_batched: bool,
    /// Whatever the owner wants to keep with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl StreamConfig {
    /// How many replicas it is to have: one where it says none.
    pub fn replicas(&self) -> usize {
        usize::try_from(self.num_replicas).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Strictness, decode, encode};
    use super::*;

    /// As recorded from the reference.
    const RECORDED: &str = r#"{"name":"S2","subjects":["s2.*","a.\u003e"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msgs_per_subject":2,"max_msg_size":100,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"compression":"s2","allow_direct":true,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":true,"consumer_limits":{},"allow_msg_ttl":true,"allow_atomic":true,"metadata":{"_nats.level":"4","_nats.req.level":"2","_nats.ver":"2.14.5","k":"v"}}"#;

    #[test]
    fn a_recorded_configuration_is_written_byte_for_byte() {
        let config: StreamConfig =
            decode(RECORDED.as_bytes(), Strictness::Strict).expect("decodes");
        assert_eq!(String::from_utf8(encode(&config)).expect("text"), RECORDED);
    }

    #[test]
    fn unknown_policies_are_refused() {
        for body in [
            r#"{"retention":"bogus"}"#,
            r#"{"retention":1}"#,
            r#"{"storage":""}"#,
            r#"{"max_msg_size":2147483648}"#,
            r#"{"subjects":"a"}"#,
            r#"{"first_seq":-1}"#,
        ] {
            assert!(decode::<StreamConfig>(body.as_bytes(), Strictness::Lenient).is_err());
        }
    }
}
