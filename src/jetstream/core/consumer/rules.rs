//! A consumer's configuration in the form deliveries need.

use bytes::Bytes;
use storage::filter::Filter;

use crate::jetstream::types::{AckPolicy, ConsumerConfig, PriorityPolicy, ReplayPolicy};

/// The ack wait where none is configured.
const ACK_WAIT_DEFAULT_NS: i64 = 30_000_000_000;

/// What deliveries read of a [`ConsumerConfig`].
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) filter: Filter,
    pub(crate) everything: bool,
    pub(crate) ack: AckPolicy,
    pub(crate) ack_wait_ns: i64,
    pub(crate) backoff_ns: Vec<i64>,
    pub(crate) deliver_max: Option<u64>,
    pub(crate) ack_pending_max: Option<usize>,
    pub(crate) waiting_max: usize,
    /// Of how many acks in a hundred the world hears.
    pub(crate) sample_percent: u64,
    pub(crate) headers_only: bool,
    pub(crate) deliver_subject: Bytes,
    pub(crate) flow_control: bool,
    pub(crate) idle_heartbeat_ns: i64,
    pub(crate) rate_bits_per_second: u64,
    pub(crate) original_speed: bool,
    pub(crate) inactive_ns: Option<i64>,
    pub(crate) pause_until_ns: Option<i64>,
    pub(crate) request_batch_max: Option<i64>,
    pub(crate) request_expires_max_ns: Option<i64>,
    pub(crate) request_bytes_max: Option<i64>,
    pub(crate) priority: PriorityPolicy,
    pub(crate) priority_groups: Vec<String>,
    pub(crate) priority_timeout_ns: i64,
}

/// Reads `50` or `50%`.
fn sample_percent(freq: &str) -> u64 {
    freq.trim_end_matches('%').parse().unwrap_or(0)
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

impl Rules {
    pub(crate) fn new(config: &ConsumerConfig) -> Self {
        let filter = Filter::new(config.filters().iter().map(String::as_bytes));
        let everything = filter.is_everything();
        let ack_wait_ns = match (config.backoff.first(), config.ack_wait) {
            (Some(first), _) => *first,
            (None, wait) if wait > 0 => wait,
            _ => ACK_WAIT_DEFAULT_NS,
        };
        let inactive_ns = positive(config.inactive_threshold);
        let acks = config.ack_policy != AckPolicy::None;
        Self {
            filter,
            everything,
            ack: config.ack_policy,
            ack_wait_ns,
            backoff_ns: config.backoff.clone(),
            deliver_max: positive(config.max_deliver).map(|max| max as u64),
            ack_pending_max: positive(config.max_ack_pending)
                .filter(|_| acks)
                .map(|max| max as usize),
            waiting_max: positive(config.max_waiting).unwrap_or(512) as usize,
            sample_percent: sample_percent(&config.sample_freq),
            headers_only: config.headers_only,
            deliver_subject: Bytes::copy_from_slice(config.deliver_subject.as_bytes()),
            flow_control: config.flow_control,
            idle_heartbeat_ns: config.idle_heartbeat.max(0),
            rate_bits_per_second: config.rate_limit_bps,
            original_speed: config.replay_policy == ReplayPolicy::Original,
            inactive_ns,
            pause_until_ns: config
                .pause_until
                .filter(|until| !until.is_zero())
                .map(|until| until.nanoseconds()),
            request_batch_max: positive(config.max_batch),
            request_expires_max_ns: positive(config.max_expires),
            request_bytes_max: positive(config.max_bytes),
            priority: config.priority_policy,
            priority_groups: config.priority_groups.clone(),
            priority_timeout_ns: positive(config.priority_timeout).unwrap_or(120_000_000_000),
        }
    }

    pub(crate) fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    pub(crate) fn matches(&self, subject: &[u8]) -> bool {
        self.everything || self.filter.matches(subject)
    }

    pub(crate) fn is_paused(&self, now_ns: i64) -> bool {
        self.pause_until_ns.is_some_and(|until| now_ns < until)
    }

    /// How long the ack of a message that was redelivered this often is waited for.
    pub(crate) fn wait_ns(&self, redelivered: u64) -> i64 {
        let last = self.backoff_ns.len().saturating_sub(1);
        let at = usize::try_from(redelivered).unwrap_or(last).min(last);
        self.backoff_ns.get(at).copied().unwrap_or(self.ack_wait_ns)
    }
}
