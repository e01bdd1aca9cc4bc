//! One server's share of answers that all servers of a cluster give together, and the answers made of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::super::limits::{AccountLimits, AccountTiers, reservation, tier_name};
use super::super::super::types::{ApiError, Storage, StreamConfig};
use super::super::super::usage::{Held, HeldByTier};
use super::super::response::{
    AccountInfo, AccountShown, ApiStats, Paged, RawStreamListPage, TierInfo,
};
use super::streams::{LIST_PAGE, in_list, matching};
use super::{Answer, Context, answer, at_most};

/// What an account uses on one server, or on several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    streams: u64,
    consumers: u64,
    api_total: u64,
    api_errors: u64,
    /// The same of its streams with so many replicas.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tiers: BTreeMap<usize, Usage>,
}

impl Usage {
    /// And what another server has.
    pub(crate) fn add(&mut self, other: &Self) {
        for (replicas, more) in &other.tiers {
            self.tiers.entry(*replicas).or_default().add(more);
        }
        for (own, more) in [
            (&mut self.memory, other.memory),
            (&mut self.storage, other.storage),
            (&mut self.reserved_memory, other.reserved_memory),
            (&mut self.reserved_storage, other.reserved_storage),
            (&mut self.streams, other.streams),
            (&mut self.consumers, other.consumers),
            (&mut self.api_total, other.api_total),
            (&mut self.api_errors, other.api_errors),
        ] {
            *own = own.saturating_add(more);
        }
    }
}

/// What the account holds here, in memory and on disk, and the consumers of the streams that this server leads. What streams hold counts led from here or not: every replica does.
pub(crate) fn usage(
    context: &Context<'_>,
    held: HeldByTier,
    leads: impl Fn(&str) -> bool,
) -> Usage {
    let (api_total, api_errors) = context.account.api.get();
    let of = |(memory, storage): Held| Usage {
        memory,
        storage,
        ..Usage::default()
    };
    let mut usage = Usage {
        api_total,
        api_errors,
        tiers: held
            .tiers
            .into_iter()
            .map(|(at, held)| (at, of(held)))
            .collect(),
        ..of(held.all)
    };
    let led = context.account.all();
    let pending: Vec<_> = led
        .iter()
        .filter(|stream| leads(&stream.name))
        .map(|stream| stream.start(StreamRequest::ConsumerCounts))
        .collect();
    for pending in pending {
        // A stream that has gone meanwhile has none.
        if let StreamReply::ConsumerCounts(counts) = pending.wait() {
            for (replicas, consumers) in counts {
                usage.consumers += consumers;
                usage.tiers.entry(replicas).or_default().consumers += consumers;
            }
        }
    }
    usage
}

impl Usage {
    /// And a stream of the account, wherever it is led.
    pub(crate) fn count_stream(&mut self, config: &StreamConfig) {
        self.count(config);
        self.tiers
            .entry(config.replicas())
            .or_default()
            .count(config);
    }

    fn count(&mut self, config: &StreamConfig) {
        self.streams += 1;
        let reserved = match config.storage {
            Storage::File => &mut self.reserved_storage,
            Storage::Memory => &mut self.reserved_memory,
        };
        *reserved = reserved.saturating_add(reservation(config));
    }

    /// As the API shows it to an account that may use so much: its tiers where it has them, and others that hold something.
    pub(crate) fn shown(&self, limits: &AccountTiers, domain: &str, api: ApiStats) -> AccountInfo {
        let mut tiers = BTreeMap::new();
        if limits.all.is_none() {
            let unused = limits
                .tiers
                .keys()
                .map(|replicas| (*replicas, Self::default()));
            let mut used: BTreeMap<usize, Self> = unused.collect();
            let known = |used: &(&usize, &Self)| {
                limits.tiers.contains_key(used.0) || *used.1 != Self::default()
            };
            used.extend(
                self.tiers
                    .iter()
                    .filter(known)
                    .map(|(at, it)| (*at, it.clone())),
            );
            tiers = used
                .into_iter()
                .map(|(replicas, usage)| {
                    let limits = limits.tiers.get(&replicas).copied();
                    let tier = TierInfo {
                        memory: usage.memory,
                        storage: usage.storage,
                        reserved_memory: usage.reserved_memory,
                        reserved_storage: usage.reserved_storage,
                        streams: usage.streams,
                        consumers: usage.consumers,
                        limits: limits.unwrap_or(AccountLimits::NONE_SHOWN),
                    };
                    (tier_name(replicas), tier)
                })
                .collect();
        }
        AccountInfo {
            memory: self.memory,
            storage: self.storage,
            reserved_memory: self.reserved_memory,
            reserved_storage: self.reserved_storage,
            streams: self.streams,
            consumers: self.consumers,
            limits: limits.all.unwrap_or(AccountLimits::NONE_SHOWN),
            domain: domain.to_owned(),
            api,
            tiers,
        }
    }
}

/// The streams that this server leads, as they stand in a list.
pub(crate) fn streams(context: &Context<'_>, leads: impl Fn(&str) -> bool) -> Vec<Box<RawValue>> {
    let Ok((_, streams)) = matching(context) else {
        // Whoever merges the shares refuses the request.
        return Vec::new();
    };
    let pending: Vec<_> = streams
        .iter()
        .filter(|stream| leads(&stream.name))
        .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
        .collect();
    let infos = pending
        .into_iter()
        .filter_map(|pending| match pending.wait() {
            StreamReply::Info { info, .. } => Some(in_list(context, *info)),
            // It has gone meanwhile.
            _ => None,
        });
    infos
        .filter_map(|info| serde_json::value::to_raw_value(&info).ok())
        .collect()
}

/// A page of all streams, of what the servers gave; those that nobody gave are named as missing. `elsewhere` says why other servers cannot run some of them.
pub(crate) fn list_page(
    context: &Context<'_>,
    given: BTreeMap<String, Box<RawValue>>,
    elsewhere: &BTreeMap<String, String>,
) -> Answer {
    answer(page(context, given, elsewhere))
}

fn page(
    context: &Context<'_>,
    mut given: BTreeMap<String, Box<RawValue>>,
    elsewhere: &BTreeMap<String, String>,
) -> Result<RawStreamListPage, ApiError> {
    let (request, streams) = matching(context)?;
    let here = match request.subject.is_empty() {
        true => context.account.all_offline(),
        false => BTreeMap::new(),
    };
    let mut names: Vec<_> = streams.iter().map(|stream| stream.name.clone()).collect();
    names.extend(here.keys().cloned());
    names.sort();
    let total = names.len();
    let offset = at_most(request.offset, total);
    let (mut shown, mut missing) = (Vec::new(), Vec::new());
    let mut offline = BTreeMap::new();
    for name in names.into_iter().skip(offset).take(LIST_PAGE) {
        match given.remove(&name) {
            Some(info) => shown.push(info),
            None => {
                if let Some(reason) = here.get(&name).or_else(|| elsewhere.get(&name)) {
                    offline.insert(name.clone(), reason.clone());
                }
                missing.push(name);
            }
        }
    }
    Ok(RawStreamListPage {
        paged: Paged {
            total,
            offset,
            limit: LIST_PAGE,
        },
        streams: shown,
        missing,
        offline,
    })
}

/// What the account uses on all servers together.
pub(crate) fn account_info(context: &Context<'_>, usage: &Usage) -> Answer {
    answer(info(context, usage))
}

pub(super) fn info(context: &Context<'_>, usage: &Usage) -> Result<AccountShown, ApiError> {
    context.check_level()?;
    let api = ApiStats::new(usage.api_total, usage.api_errors, 0);
    let info = usage.shown(&context.account.tiers(), &context.server.domain, api);
    Ok(AccountShown { info: Some(info) })
}
