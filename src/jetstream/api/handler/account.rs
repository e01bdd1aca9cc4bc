//! What an account uses and may use, where one server has all of it.

use std::collections::BTreeMap;

use super::super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::super::types::{ApiError, Storage};
use super::super::super::usage::HeldByTier;
use super::super::response::AccountShown;
use super::{Context, shares};

pub(super) fn info(context: &Context<'_>) -> Result<AccountShown, ApiError> {
    context.check_level()?;
    let mut usage = shares::usage(context, held(context), |_| true);
    for stream in context.account.all() {
        usage.count_stream(&stream.config());
    }
    shares::info(context, &usage)
}

/// What its streams hold, as they say themselves.
fn held(context: &Context<'_>) -> HeldByTier {
    let mut all = HeldByTier::default();
    let streams = context.account.all();
    let asked = streams.iter();
    let pending: Vec<_> = asked
        .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
        .collect();
    for pending in pending {
        // A stream that has gone meanwhile uses nothing.
        if let StreamReply::Info { info, .. } = pending.wait() {
            let held = match info.config.storage {
                Storage::File => (0, info.state.bytes),
                Storage::Memory => (info.state.bytes, 0),
            };
            all.add(&HeldByTier {
                all: held,
                tiers: BTreeMap::from([(info.config.replicas(), held)]),
            });
        }
    }
    all
}
