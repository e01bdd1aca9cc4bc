//! Whether an account has room for one more message.

use super::slot::Slot;
use crate::broker::Inbound;
use crate::jetstream::types::{ApiError, ErrorCode};

impl Slot {
    /// Whether the account has room for a message on all servers that are to have it.
    pub(super) fn refusal_by_account(&self, inbound: &Inbound) -> Option<ApiError> {
        if !self.meter.is_account_limited() {
            return None;
        }
        let bytes = self.core.store().accounting().bytes(
            inbound.subject.len(),
            inbound.headers.len(),
            inbound.payload.len(),
        );
        let replicas = u64::try_from(self.core.config().num_replicas).unwrap_or(1);
        let exceeds = self
            .meter
            .would_exceed_account(bytes.saturating_mul(replicas.max(1)));
        exceeds.then(|| ErrorCode::AccountResourcesExceeded.into())
    }
}
