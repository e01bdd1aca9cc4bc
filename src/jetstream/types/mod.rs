//! The values of the JetStream API as clients see them: configurations, states, infos and errors, with the reference's
//! exact JSON.
//!
//! # Invariant
//! Nothing here decides anything or knows a stream's insides: these are plain values that serialise to the same bytes the
//! reference writes (key order, omitted fields, escapes).

mod cluster;
mod consumer;
mod duration;
mod error;
mod error_codes;
mod info;
mod json;
mod level;
mod stream;

pub use crate::protocol::json::{encode, encode_into};
pub use crate::protocol::time::Time;
pub use cluster::{ClusterInfo, MetaClusterInfo, MetaSnapshotStats, PeerId, PeerInfo, name_hash};
pub use consumer::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy, ReplayPolicy};
pub use duration::go_duration;
pub use error::ApiError;
pub use error_codes::ErrorCode;
pub use info::{
    ConsumerInfo, LostStreamData, PriorityGroupState, SequenceInfo, StoredMessage, StreamAlternate,
    StreamInfo, StreamSourceInfo, StreamState,
};
pub use json::{DecodeError, Strictness, decode, decode_optional, is_empty_request};
pub use level::{API_LEVEL, REFERENCE_VERSION, REQUIRED_LEVEL, header_exceeds_level, unsupported};
pub use stream::{
    ConsumerLimits, Discard, ExternalStream, PersistMode, Placement, Republish, Retention, Storage,
    StoreCompression, StreamConfig, StreamSource, StreamSourceConsumer, SubjectTransform,
};

pub(crate) use json::{decode_value, parse};
pub(crate) use json::{is_false, is_none_or_zero, is_zero};
