//! What an account and the server allow.

use std::collections::BTreeMap;

use serde::Serialize;

use super::core::BatchLimits;
use super::types::{ApiError, ErrorCode, Storage, StreamConfig};

/// What one account may use; `-1` is no limit. Serialises as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AccountLimits {
    /// Bytes in memory.
    pub max_memory: i64,
    /// Bytes on disk.
    pub max_storage: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers per stream.
    pub max_consumers: i64,
    /// Messages of one consumer that may wait for an ack.
    pub max_ack_pending: i64,
    /// Bytes of one stream in memory.
    pub memory_max_stream_bytes: i64,
    /// Bytes of one stream on disk.
    pub storage_max_stream_bytes: i64,
    /// Every stream must say how many bytes it may hold.
    pub max_bytes_required: bool,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

impl AccountLimits {
    /// No limits.
    pub const UNLIMITED: Self = Self {
        max_memory: -1,
        max_storage: -1,
        max_streams: -1,
        max_consumers: -1,
        max_ack_pending: -1,
        memory_max_stream_bytes: -1,
        storage_max_stream_bytes: -1,
        max_bytes_required: false,
    };
    /// As the API shows those of all streams together where there are tiers.
    pub const NONE_SHOWN: Self = Self {
        max_memory: 0,
        max_storage: 0,
        max_streams: 0,
        max_consumers: 0,
        max_ack_pending: 0,
        memory_max_stream_bytes: 0,
        storage_max_stream_bytes: 0,
        max_bytes_required: false,
    };

    /// Bytes that all streams of this kind may hold together; `None` is no limit.
    pub fn bytes_max(&self, storage: Storage) -> Option<u64> {
        u64::try_from(match storage {
            Storage::File => self.max_storage,
            Storage::Memory => self.max_memory,
        })
        .ok()
    }

    /// Bytes that one stream of this kind may hold; `None` is no limit.
    pub fn stream_bytes_max(&self, storage: Storage) -> Option<i64> {
        let limit = match storage {
            Storage::File => self.storage_max_stream_bytes,
            Storage::Memory => self.memory_max_stream_bytes,
        };
        (limit > 0).then_some(limit)
    }
}

/// What an account may use: all together, or by the number of replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountTiers {
    /// For all streams together. With it, every replica counts.
    pub all: Option<AccountLimits>,
    /// For those with so many replicas; what a stream may hold counts once, however many it has.
    pub tiers: BTreeMap<usize, AccountLimits>,
}

/// The part of an account's streams that a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// All of them.
    All,
    /// Those with so many replicas.
    Replicas(usize),
}

impl AccountTiers {
    /// One limit for everything.
    pub fn of_all(limits: AccountLimits) -> Self {
        Self {
            all: Some(limits),
            tiers: BTreeMap::new(),
        }
    }

    /// The limit that a stream with so many replicas comes under.
    pub fn select(&self, replicas: usize) -> Result<(&AccountLimits, Tier), ApiError> {
        if let Some(limits) = &self.all {
            return Ok((limits, Tier::All));
        }
        let replicas = replicas.max(1);
        match self.tiers.get(&replicas) {
            Some(limits) => Ok((limits, Tier::Replicas(replicas))),
            None => Err(ErrorCode::NoLimits.into()),
        }
    }
}

/// What the API calls the tier of streams with so many replicas.
pub fn tier_name(replicas: usize) -> String {
    format!("R{replicas}")
}

impl Tier {
    /// Whether a stream belongs to it.
    pub fn holds(self, config: &StreamConfig) -> bool {
        match self {
            Self::All => true,
            Self::Replicas(count) => config.replicas() == count,
        }
    }

    /// What a stream that may hold so many bytes counts as.
    pub fn footprint(self, config: &StreamConfig, bytes: u64) -> u64 {
        match self {
            Self::All => bytes.saturating_mul(config.replicas() as u64),
            Self::Replicas(_) => bytes,
        }
    }
}

/// What the server allows each stream and consumer; 0 is no limit. Serialises as `/jsz` shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ServerLimits {
    /// How many messages one pull request may ask for.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_request_batch: i64,
    /// How many messages of one consumer may wait for an ack.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_ack_pending: i64,
    /// How many replicated assets this server may hold.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_ha_assets: i64,
    /// How long message ids may be remembered, in nanoseconds.
    #[serde(
        rename = "max_duplicate_window",
        skip_serializing_if = "super::types::is_zero"
    )]
    pub duplicate_window_ns: i64,
    /// How many batches of one stream may be open; here and below 0 is the default.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_batch_inflight_per_stream: i64,
    /// How many batches of all streams together.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_batch_inflight_total: i64,
    /// How many messages an atomic batch may have.
    #[serde(skip_serializing_if = "super::types::is_zero")]
    pub max_batch_size: i64,
    /// How long a batch waits for its next message, in nanoseconds.
    #[serde(
        rename = "max_batch_timeout",
        skip_serializing_if = "super::types::is_zero"
    )]
    pub batch_timeout_ns: i64,
}

impl ServerLimits {
    /// What it allows batches.
    pub fn batches(&self) -> BatchLimits {
        let count = |max: i64| usize::try_from(max).ok().filter(|max| *max > 0);
        BatchLimits {
            per_stream_max: count(self.max_batch_inflight_per_stream),
            total_max: count(self.max_batch_inflight_total),
            messages_max: count(self.max_batch_size),
            idle_ns_max: Some(self.batch_timeout_ns).filter(|max| *max > 0),
        }
    }
}

/// The bytes a stream reserves: what it says that it may hold.
pub fn reservation(config: &StreamConfig) -> u64 {
    u64::try_from(config.max_bytes).unwrap_or(0)
}
