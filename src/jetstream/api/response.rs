//! What API requests are answered: one body per operation, with the keys the reference writes even on an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::limits::AccountLimits;
use super::super::types::{
    API_LEVEL, ApiError, ConsumerInfo, StoredMessage, StreamConfig, StreamInfo, StreamState, Time,
    encode, is_false, is_zero,
};

/// The answer of one operation; its default is what an error reply carries beside the error.
pub(crate) trait Body: Serialize + Default {
    /// The last part of the reply's `type`.
    const TYPE: &'static str;
}

#[derive(Serialize)]
struct Envelope<B> {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
    #[serde(flatten)]
    body: B,
}

/// The reply as JSON.
pub(crate) fn encode_reply<B: Body>(result: Result<B, ApiError>) -> Vec<u8> {
    let (error, body) = match result {
        Ok(body) => (None, body),
        Err(error) => (Some(error), B::default()),
    };
    encode(&Envelope {
        r#type: format!("io.nats.jetstream.api.v1.{}", B::TYPE),
        error,
        body,
    })
}

macro_rules! bodies {
    ($($body:ident = $type:literal;)*) => {
        $(impl Body for $body { const TYPE: &'static str = $type; })*
    };
}

bodies! {
    AccountShown = "account_info_response";
    StreamCreated = "stream_create_response";
    StreamUpdated = "stream_update_response";
    StreamShown = "stream_info_response";
    StreamDeleted = "stream_delete_response";
    StreamPurged = "stream_purge_response";
    StreamNamesPage = "stream_names_response";
    StreamListPage = "stream_list_response";
    RawStreamListPage = "stream_list_response";
    MessageShown = "stream_msg_get_response";
    MessageDeleted = "stream_msg_delete_response";
    StreamSnapshot = "stream_snapshot_response";
    StreamRestore = "stream_restore_response";
    PeerRemoved = "stream_remove_peer_response";
    StreamSteppedDown = "stream_leader_stepdown_response";
    ConsumerCreated = "consumer_create_response";
    ConsumerShown = "consumer_info_response";
    ConsumerDeleted = "consumer_delete_response";
    ConsumerNamesPage = "consumer_names_response";
    ConsumerListPage = "consumer_list_response";
    ConsumerPaused = "consumer_pause_response";
    ConsumerReset = "consumer_reset_response";
    ConsumerUnpinned = "consumer_unpin_response";
    ConsumerSteppedDown = "consumer_leader_stepdown_response";
    MetaSteppedDown = "meta_leader_stepdown_response";
    ServerRemoved = "meta_server_remove_response";
    AccountPurged = "account_purge_response";
}

macro_rules! successes {
    ($($(#[$doc:meta])* $body:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default, Serialize)]
            pub(crate) struct $body {
                #[serde(skip_serializing_if = "is_false")]
                pub success: bool,
            }
        )*
    };
}

successes! {
    /// A stream is gone.
    StreamDeleted;
    /// A message is gone.
    MessageDeleted;
    /// A consumer is gone.
    ConsumerDeleted;
    /// A replica is gone.
    PeerRemoved;
    /// Another replica leads.
    StreamSteppedDown;
    /// Another replica leads.
    ConsumerSteppedDown;
    /// Another server leads the meta group.
    MetaSteppedDown;
    /// A server is not part of the cluster any more.
    ServerRemoved;
}

/// Everything of an account is about to be gone.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AccountPurged {
    #[serde(skip_serializing_if = "is_false")]
    pub initiated: bool,
}

/// How often the API was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ApiStats {
    /// The API level this server speaks.
    pub level: u32,
    /// Requests answered.
    pub total: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Requests that wait for an answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub inflight: u64,
}

impl ApiStats {
    /// Figures of this server.
    pub(crate) fn new(total: u64, errors: u64, inflight: u64) -> Self {
        Self {
            level: API_LEVEL,
            total,
            errors,
            inflight,
        }
    }
}

/// What an account uses and may use, when it is told at all.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AccountShown {
    #[serde(flatten)]
    pub info: Option<AccountInfo>,
}

/// What an account uses and may use.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AccountInfo {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub streams: u64,
    pub consumers: u64,
    pub limits: AccountLimits,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    pub api: ApiStats,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, TierInfo>,
}

/// What an account uses of a tier.
#[derive(Debug, Default, Serialize)]
pub(crate) struct TierInfo {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub streams: u64,
    pub consumers: u64,
    pub limits: AccountLimits,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamCreated {
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
    #[serde(skip_serializing_if = "is_false")]
    pub did_create: bool,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamUpdated {
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
}

/// Where a page stands in the whole.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Paged {
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamShown {
    #[serde(flatten)]
    pub paged: Paged,
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamPurged {
    #[serde(skip_serializing_if = "is_false")]
    pub success: bool,
    pub purged: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamNamesPage {
    #[serde(flatten)]
    pub paged: Paged,
    /// `null` when there is none.
    pub streams: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamListPage {
    #[serde(flatten)]
    pub paged: Paged,
    pub streams: Vec<StreamInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

/// A page of streams that other servers have shown.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RawStreamListPage {
    #[serde(flatten)]
    pub paged: Paged,
    pub streams: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct MessageShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<StoredMessage>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct StreamSnapshot {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<StreamConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StreamState>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StreamRestore {
    pub deliver_subject: String,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerCreated {
    #[serde(flatten)]
    pub info: Option<ConsumerInfo>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerShown {
    #[serde(flatten)]
    pub info: Option<ConsumerInfo>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerNamesPage {
    #[serde(flatten)]
    pub paged: Paged,
    pub consumers: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerListPage {
    #[serde(flatten)]
    pub paged: Paged,
    pub consumers: Vec<ConsumerInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerPaused {
    pub paused: bool,
    pub pause_until: Time,
    #[serde(skip_serializing_if = "is_zero")]
    pub pause_remaining: i64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerReset {
    #[serde(flatten)]
    pub info: Option<ConsumerInfo>,
    pub reset_seq: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ConsumerUnpinned {}

#[cfg(test)]
mod tests {
    use super::super::super::types::ErrorCode;
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("JSON is text")
    }

    #[test]
    fn errors_are_answered_with_the_keys_the_reference_writes() {
        let error = ApiError::from(ErrorCode::StreamNotFound);
        let stream = r#""error":{"code":404,"err_code":10059,"description":"stream not found"}"#;
        assert_eq!(
            text(encode_reply::<StreamShown>(Err(error.clone()))),
            format!(
                r#"{{"type":"io.nats.jetstream.api.v1.stream_info_response",{stream},"total":0,"offset":0,"limit":0}}"#
            )
        );
        assert_eq!(
            text(encode_reply::<StreamPurged>(Err(error.clone()))),
            format!(
                r#"{{"type":"io.nats.jetstream.api.v1.stream_purge_response",{stream},"purged":0}}"#
            )
        );
        assert_eq!(
            text(encode_reply::<StreamDeleted>(Err(error.clone()))),
            format!(r#"{{"type":"io.nats.jetstream.api.v1.stream_delete_response",{stream}}}"#)
        );
        assert_eq!(
            text(encode_reply::<StreamCreated>(Err(error.clone()))),
            format!(r#"{{"type":"io.nats.jetstream.api.v1.stream_create_response",{stream}}}"#)
        );
    }

    #[test]
    fn empty_pages_are_as_recorded() {
        assert_eq!(
            text(encode_reply(Ok(StreamNamesPage {
                paged: Paged {
                    total: 0,
                    offset: 0,
                    limit: 1024
                },
                streams: None,
            }))),
            r#"{"type":"io.nats.jetstream.api.v1.stream_names_response","total":0,"offset":0,"limit":1024,"streams":null}"#
        );
        assert_eq!(
            text(encode_reply(Ok(StreamListPage {
                paged: Paged {
                    total: 0,
                    offset: 0,
                    limit: 256
                },
                ..Default::default()
            }))),
            r#"{"type":"io.nats.jetstream.api.v1.stream_list_response","total":0,"offset":0,"limit":256,"streams":[]}"#
        );
    }

    #[test]
    fn an_untouched_account_is_as_recorded() {
        assert_eq!(
            text(encode_reply(Ok(AccountShown {
                info: Some(AccountInfo {
                    api: ApiStats::new(0, 0, 0),
                    ..Default::default()
                }),
            }))),
            r#"{"type":"io.nats.jetstream.api.v1.account_info_response","memory":0,"storage":0,"reserved_memory":0,"reserved_storage":0,"streams":0,"consumers":0,"limits":{"max_memory":-1,"max_storage":-1,"max_streams":-1,"max_consumers":-1,"max_ack_pending":-1,"memory_max_stream_bytes":-1,"storage_max_stream_bytes":-1,"max_bytes_required":false},"api":{"level":4,"total":0,"errors":0}}"#
        );
    }
}
