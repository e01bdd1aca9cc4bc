//! What the settings of a server mean for every stream on it.

use std::sync::Arc;

use super::ack_names::AckForm;
use super::batch_quota::BatchQuota;

/// What the settings of a server mean for every stream on it.
#[derive(Debug, Clone, Default)]
pub struct StreamTerms {
    /// How many batches may be open; all streams are counted together.
    pub batches: Arc<BatchQuota>,
    /// Which ack subjects are written.
    pub ack_form: AckForm,
}
