//! What API requests ask for, as their JSON bodies say it.

use serde::Deserialize;

use super::super::core::ConsumerAction;
use super::super::types::{
    ConsumerConfig, DecodeError, StreamConfig, StreamState, Strictness, Time, decode_value, parse,
};

/// A stream's configuration and how strictly it is meant.
#[derive(Debug, Default)]
pub(crate) struct StreamConfigRequest {
    pub config: StreamConfig,
    pub pedantic: bool,
}

impl StreamConfigRequest {
    /// The configuration and `pedantic` stand side by side in one object.
    pub(crate) fn decode(body: &[u8], strictness: Strictness) -> Result<Self, DecodeError> {
        let mut value = parse(body)?;
        let pedantic = value
            .as_object_mut()
            .and_then(|fields| fields.remove("pedantic"))
            .map_or(Ok(false), |pedantic| decode_value(pedantic, strictness))?;
        Ok(Self {
            config: decode_value(value, strictness)?,
            pedantic,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamInfoRequest {
    pub offset: i64,
    pub deleted_details: bool,
    pub subjects_filter: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamNamesRequest {
    pub offset: i64,
    pub subject: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamPurgeRequest {
    pub seq: u64,
    pub filter: String,
    pub keep: u64,
}

/// `jsck` asks for every message to be checked first. Every message is checked when it is read, and a damaged one ends the backup.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamSnapshotRequest {
    pub deliver_subject: String,
    pub no_consumers: bool,
    pub chunk_size: i64,
    pub window_size: i64,
    #[serde(rename = "jsck")]
    pub _check_messages: bool,
}

/// What the stream held when it was backed up is told, and is not needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamRestoreRequest {
    pub config: StreamConfig,
    #[serde(rename = "state")]
    pub _state: StreamState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MessageDeleteRequest {
    pub seq: u64,
    pub no_erase: bool,
}

/// Also the body of a direct get.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MessageGetRequest {
    pub seq: u64,
    pub last_by_subj: String,
    pub next_by_subj: String,
    pub batch: i64,
    pub max_bytes: i64,
    pub start_time: Option<Time>,
    pub multi_last: Vec<String>,
    pub up_to_seq: u64,
    pub up_to_time: Option<Time>,
    pub no_hdr: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    #[default]
    #[serde(rename = "")]
    CreateOrUpdate,
    Create,
    Update,
}

impl From<Action> for ConsumerAction {
    fn from(action: Action) -> Self {
        match action {
            Action::CreateOrUpdate => Self::CreateOrUpdate,
            Action::Create => Self::Create,
            Action::Update => Self::Update,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerCreateRequest {
    pub stream_name: String,
    pub config: ConsumerConfig,
    pub action: Action,
    pub pedantic: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumersRequest {
    pub offset: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerPauseRequest {
    pub pause_until: Time,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerResetRequest {
    pub seq: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerUnpinRequest {
    pub group: String,
}
