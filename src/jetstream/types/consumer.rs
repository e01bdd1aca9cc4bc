//! What a consumer is configured to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stream::{Retention, StreamConfig};
use super::{Time, is_false, is_zero};

/// Where a new consumer starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// At the first message.
    #[default]
    #[serde(alias = "undefined")]
    All,
    /// At the last message.
    Last,
    /// At the next message.
    New,
    /// At a sequence.
    ByStartSequence,
    /// At a time.
    ByStartTime,
    /// At the last message of every subject.
    LastPerSubject,
}

/// What must be acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// Nothing.
    #[default]
    None,
    /// A message, which covers all before it.
    All,
    /// Every message.
    Explicit,
    /// What flow control replies cover.
    FlowControl,
}

/// How fast old messages are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    /// As fast as they can be taken.
    #[default]
    Instant,
    /// As fast as they came.
    Original,
}

/// Which pull requests are served first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityPolicy {
    /// The oldest.
    #[default]
    None,
    /// Those whose thresholds are met.
    Overflow,
    /// Those of one client.
    PinnedClient,
    /// Those with the lowest number.
    Prioritized,
}

/// What a consumer is configured to do. Durations are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    /// Its name when it is to outlive its clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub durable_name: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What people should know of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it starts.
    pub deliver_policy: DeliverPolicy,
    /// The sequence it starts at.
    #[serde(skip_serializing_if = "is_zero")]
    pub opt_start_seq: u64,
    /// The time it starts at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Time>,
    /// What must be acknowledged.
    pub ack_policy: AckPolicy,
    /// How long an ack may take before the message is delivered again.
    #[serde(skip_serializing_if = "is_zero")]
    pub ack_wait: i64,
    /// How often a message is delivered at most; -1 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_deliver: i64,
    /// How long an ack may take, by delivery.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    /// Which subjects, when it is one filter.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Which subjects, when there are several filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    /// How fast old messages are delivered.
    pub replay_policy: ReplayPolicy,
    /// Bits per second it delivers at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate_limit_bps: u64,
    /// Which share of acks is reported.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    /// Pull requests that may wait.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_waiting: i64,
    /// Messages that may wait for an ack; -1 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    /// Push waits for the client to keep up.
    #[serde(skip_serializing_if = "is_false")]
    pub flow_control: bool,
    /// Payloads are left out.
    #[serde(skip_serializing_if = "is_false")]
    pub headers_only: bool,
    /// How many messages one pull request may ask for.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch: i64,
    /// How long one pull request may wait.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_expires: i64,
    /// How many bytes one pull request may ask for.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_bytes: i64,
    /// Where messages are pushed to; empty for a pull consumer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    /// Which queue group shares the deliver subject.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    /// How often an idle push consumer says that it is there.
    #[serde(skip_serializing_if = "is_zero")]
    pub idle_heartbeat: i64,
    /// How long it may be unused before it goes.
    #[serde(skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// How many servers keep its state; 0 is as many as the stream.
    pub num_replicas: i64,
    /// Its state is kept in memory only.
    #[serde(skip_serializing_if = "is_false")]
    pub mem_storage: bool,
    /// It belongs to a mirror or source.
    #[serde(skip_serializing_if = "is_false")]
    pub direct: bool,
    /// It is a durable one that belongs to a mirror or source.
    #[serde(skip_serializing_if = "is_false")]
    pub sourcing: bool,
    /// Whatever the owner wants to keep with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Until when nothing is delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Time>,
    /// The groups that pull requests may name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    /// Which pull requests are served first.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority_policy: PriorityPolicy,
    /// How long a silent client keeps its pin.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority_timeout: i64,
}

impl ConsumerConfig {
    /// Whether messages are pushed to a subject rather than pulled.
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// Whether it belongs to a mirror or source. Those are not among the consumers that a stream may have so many of.
    pub fn is_of_a_copy(&self) -> bool {
        self.direct || self.sourcing
    }

    /// Whether it outlives its clients.
    pub fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// How many replicas it counts as, on such a stream.
    pub fn replicas_on(&self, stream: &StreamConfig) -> usize {
        let of_stream = stream.replicas();
        match usize::try_from(self.num_replicas).unwrap_or(0) {
            0 if !self.is_durable() && stream.retention == Retention::Limits => 1,
            0 => of_stream,
            asked => asked.min(of_stream),
        }
    }

    /// All filters, however they were given; none means every message.
    pub fn filters(&self) -> &[String] {
        if self.filter_subject.is_empty() {
            &self.filter_subjects
        } else {
            std::slice::from_ref(&self.filter_subject)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Strictness, decode, encode};
    use super::*;

    /// As recorded from the reference.
    const RECORDED: &str = r#"{"durable_name":"C1","name":"C1","deliver_policy":"by_start_time","opt_start_time":"2026-11-23T08:37:05.5Z","ack_policy":"flow_control","ack_wait":1000000000,"max_deliver":-1,"replay_policy":"instant","max_waiting":512,"max_ack_pending":1000,"num_replicas":0,"metadata":{"_nats.level":"4","_nats.req.level":"0","_nats.ver":"2.14.5"},"priority_groups":["g"],"priority_policy":"pinned_client","priority_timeout":10000000000}"#;

    #[test]
    fn a_recorded_configuration_is_written_byte_for_byte() {
        let config: ConsumerConfig =
            decode(RECORDED.as_bytes(), Strictness::Strict).expect("decodes");
        assert_eq!(String::from_utf8(encode(&config)).expect("text"), RECORDED);
    }

    #[test]
    fn filters_are_the_same_however_they_were_given() {
        let one = ConsumerConfig {
            filter_subject: "a".to_owned(),
            ..Default::default()
        };
        let list = ConsumerConfig {
            filter_subjects: vec!["a".to_owned()],
            ..Default::default()
        };
        assert_eq!(one.filters(), list.filters());
        assert!(ConsumerConfig::default().filters().is_empty());
    }
}
