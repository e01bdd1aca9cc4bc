//! What accounts use, as of the assignments, beside what they may use.

use super::state::Meta;
use crate::jetstream::limits::{AccountTiers, Tier, reservation};
use crate::jetstream::types::{ApiError, ErrorCode, Storage, StreamConfig};

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
    let (limits, tier) = tiers.select(config.replicas())?;
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
