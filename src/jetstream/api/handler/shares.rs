//! One server's share of answers that all servers of a cluster give together, and the answers made of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::super::types::{ApiError, Storage};
use super::super::response::{AccountInfo, AccountShown, ApiStats, Paged, RawStreamListPage};
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
}

impl Usage {
    /// And what another server has.
    pub(crate) fn add(&mut self, other: &Self) {
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

/// What the account uses in the streams that this server leads. What they hold, in memory and on disk, counts led from here or not: every replica does.
pub(crate) fn usage(
    context: &Context<'_>,
    (memory, storage): (u64, u64),
    leads: impl Fn(&str) -> bool,
) -> Usage {
    let (api_total, api_errors) = context.account.api.get();
    let mut usage = Usage {
        memory,
        storage,
        api_total,
        api_errors,
        ..Usage::default()
    };
    let led = context.account.all();
    let pending: Vec<_> = led
        .iter()
        .filter(|stream| leads(&stream.name))
        .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
        .collect();
    for pending in pending {
        // A stream that has gone meanwhile uses nothing.
        if let StreamReply::Info { info, .. } = pending.wait() {
            let reserved = super::super::super::limits::reservation(&info.config);
            usage.streams += 1;
            usage.consumers += info.state.all_consumers();
            let all = match info.config.storage {
                Storage::File => &mut usage.reserved_storage,
                Storage::Memory => &mut usage.reserved_memory,
            };
            *all = all.saturating_add(reserved);
        }
    }
    usage
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

fn info(context: &Context<'_>, usage: &Usage) -> Result<AccountShown, ApiError> {
    context.check_level()?;
    let info = AccountInfo {
        memory: usage.memory,
        storage: usage.storage,
        reserved_memory: usage.reserved_memory,
        reserved_storage: usage.reserved_storage,
        streams: usage.streams,
        consumers: usage.consumers,
        limits: context.account.limits(),
        domain: context.server.domain.clone(),
        api: ApiStats::new(usage.api_total, usage.api_errors, 0),
    };
    Ok(AccountShown { info: Some(info) })
}
