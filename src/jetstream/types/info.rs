//! What streams and consumers are at a moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ApiError, ClusterInfo, ConsumerConfig, ExternalStream, StreamConfig, SubjectTransform, Time,
    is_false, is_none_or_zero, is_zero,
};

/// Messages a stream has lost through damage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostStreamData {
    /// Their sequences.
    pub msgs: Vec<u64>,
    /// Their bytes.
    pub bytes: u64,
}

/// The totals of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Live messages.
    pub messages: u64,
    /// Their accounted bytes.
    pub bytes: u64,
    /// The lowest live sequence.
    pub first_seq: u64,
    /// Its time; [`Time::ZERO`] when nothing is live.
    pub first_ts: Time,
    /// The highest sequence ever used.
    pub last_seq: u64,
    /// Its time.
    pub last_ts: Time,
    /// Distinct subjects.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_subjects: u64,
    /// Messages by subject, when asked for.
    #[serde(skip_serializing_if = "is_none_or_zero")]
    pub subjects: Option<BTreeMap<String, u64>>,
    /// Sequences between first and last that are not live.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_deleted: u64,
    /// Which ones, when asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<u64>,
    /// What damage took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostStreamData>,
    /// Consumers.
    pub consumer_count: u64,
}

/// How far a mirror or source has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSourceInfo {
    /// The origin's name.
    pub name: String,
    /// How it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    /// Messages still to come.
    pub lag: u64,
    /// How long ago something came, in nanoseconds; -1 when nothing ever did.
    pub active: i64,
    /// Why nothing comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// Only these subjects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Rewrites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
}

/// A stream that holds what another one does: itself, or a mirror of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAlternate {
    /// Its name.
    pub name: String,
    /// Its domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// The cluster that it is in.
    pub cluster: String,
}

/// A stream at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// What it is configured to do.
    pub config: StreamConfig,
    /// Since when it exists.
    pub created: Time,
    /// Its totals.
    pub state: StreamState,
    /// Its domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Who holds copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    /// How far the mirror has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSourceInfo>,
    /// How far the sources have come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSourceInfo>,
    /// Where else the same is to be had, in a cluster: the stream itself among its mirrors. Only shown to who asks for this stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternates: Vec<StreamAlternate>,
    /// When this was true.
    pub ts: Time,
}

/// A place in a consumer's deliveries and in its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SequenceInfo {
    /// Which delivery.
    pub consumer_seq: u64,
    /// Which message.
    pub stream_seq: u64,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Time>,
}

/// Who is pinned in a priority group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityGroupState {
    /// The group.
    pub group: String,
    /// The pinned client.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pinned_client_id: String,
    /// Since when.
    pub pinned_ts: Time,
}

/// A consumer at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream_name: String,
    /// Its name.
    pub name: String,
    /// Since when it exists.
    pub created: Time,
    /// What it is configured to do.
    pub config: ConsumerConfig,
    /// The last delivery.
    pub delivered: SequenceInfo,
    /// Everything up to here is acknowledged.
    pub ack_floor: SequenceInfo,
    /// Messages that wait for an ack.
    pub num_ack_pending: u64,
    /// Messages that were delivered more than once and still wait.
    pub num_redelivered: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
    /// Messages still to be delivered.
    pub num_pending: u64,
    /// Who holds copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    /// Whether somebody listens on the deliver subject.
    #[serde(default, skip_serializing_if = "is_false")]
    pub push_bound: bool,
    /// Whether it is paused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// For how much longer, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pause_remaining: i64,
    /// When this was true.
    pub ts: Time,
    /// Who is pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<PriorityGroupState>,
}

/// A message as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub seq: u64,
    /// Its header block in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hdrs: String,
    /// Its payload in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// When it was stored.
    pub time: Time,
}
