//! What accounts may use, and what they use as of the assignments.

use std::collections::BTreeMap;

use super::assignment::replicas;
use super::state::Meta;
use crate::jetstream::limits::{AccountLimits, reservation};
use crate::jetstream::types::{ApiError, ErrorCode, Storage, StreamConfig};

/// What an account may use: all together, or by the number of replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountTiers {
    /// For all streams together. With it, every replica counts.
    pub all: Option<AccountLimits>,
    /// For the streams of a tier, `R1`, `R3`…; what a stream may hold counts once, however many replicas it has.
    pub tiers: BTreeMap<String, AccountLimits>,
}

/// The part of an account's streams that a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// All of them.
    All,
    /// Those with so many replicas.
    Replicas(usize),
}

/// What an account uses of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Streams.
    pub streams: usize,
    /// Consumers of these.
    pub consumers: usize,
    /// Bytes that its streams in memory reserve.
    pub memory_reserved: u64,
    /// Bytes that its streams on disk reserve.
    pub storage_reserved: u64,
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
        match self.tiers.get(&format!("R{replicas}")) {
            Some(limits) => Ok((limits, Tier::Replicas(replicas))),
            None => Err(ErrorCode::NoLimits.into()),
        }
    }
}

impl Tier {
    fn holds(self, config: &StreamConfig) -> bool {
        match self {
            Self::All => true,
            Self::Replicas(count) => replicas(config) == count,
        }
    }

    /// What a stream that may hold so many bytes counts as.
    fn footprint(self, config: &StreamConfig, bytes: u64) -> u64 {
        match self {
            Self::All => bytes.saturating_mul(replicas(config) as u64),
            Self::Replicas(_) => bytes,
        }
    }
}

impl Meta {
    /// What an account uses of a tier, without the stream `except`.
    pub fn usage(&self, account: &str, tier: Tier, except: Option<&str>) -> Usage {
        let mut usage = Usage::default();
        let streams = self.streams(account);
        let others = streams.filter(|(name, _)| Some(name.as_str()) != except);
        for (_, stream) in others.filter(|(_, stream)| tier.holds(stream.config())) {
            let config = stream.config();
            usage.streams += 1;
            usage.consumers += stream.consumers.len();
            let reserved = match config.storage {
                Storage::Memory => &mut usage.memory_reserved,
                Storage::File => &mut usage.storage_reserved,
            };
            *reserved = reserved.saturating_add(tier.footprint(config, reservation(config)));
        }
        usage
    }
}

/// Whether a stream may be, beside all others of its account.
pub(super) fn check_stream_limits(
    meta: &Meta,
    account: &str,
    tiers: &AccountTiers,
    config: &StreamConfig,
) -> Result<(), ApiError> {
    let (limits, tier) = tiers.select(replicas(config))?;
    let usage = meta.usage(account, tier, Some(&config.name));
    if usize::try_from(limits.max_streams).is_ok_and(|max| max > 0 && usage.streams >= max) {
        return Err(ErrorCode::MaximumStreamsLimit.into());
    }
    if limits.max_consumers > 0 && config.max_consumers > limits.max_consumers {
        return Err(ErrorCode::MaximumConsumersLimit.into());
    }
    let (reserved, exceeded) = match config.storage {
        Storage::Memory => (usage.memory_reserved, ErrorCode::MemoryResourcesExceeded),
        Storage::File => (usage.storage_reserved, ErrorCode::StorageResourcesExceeded),
    };
    // A stream without a limit of its own needs room for something at least.
    let bytes = reservation(config).max(u64::from(config.max_bytes < 0));
    let needed = reserved.saturating_add(tier.footprint(config, bytes));
    match limits.bytes_max(config.storage) {
        Some(max) if needed > max => Err(exceeded.into()),
        _ => Ok(()),
    }
}
