//! What an account uses and may use.

use super::super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::super::types::{ApiError, Storage};
use super::super::response::{AccountInfo, AccountShown, ApiStats};
use super::Context;

pub(super) fn info(context: &Context<'_>) -> Result<AccountShown, ApiError> {
    context.check_level()?;
    let account = context.account;
    let (total, errors) = account.api.get();
    let mut info = AccountInfo {
        reserved_memory: account.reserved(Storage::Memory, None),
        reserved_storage: account.reserved(Storage::File, None),
        limits: account.limits(),
        domain: context.server.domain.clone(),
        api: ApiStats::new(total, errors, 0),
        ..Default::default()
    };
    let pending: Vec<_> = account
        .all()
        .iter()
        .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
        .collect();
    for pending in pending {
        // A stream that has gone meanwhile uses nothing.
        if let StreamReply::Info { info: stream, .. } = pending.wait() {
            info.streams += 1;
            info.consumers += stream.state.all_consumers();
            match stream.config.storage {
                Storage::File => info.storage += stream.state.bytes,
                Storage::Memory => info.memory += stream.state.bytes,
            }
        }
    }
    Ok(AccountShown { info: Some(info) })
}
