//! What damage has taken of a stream, as far as it is known.

use super::StreamCore;
use crate::jetstream::core::request::InfoQuery;
use crate::jetstream::types::LostStreamData;

/// Sequences of lost messages that are listed for who asks for details.
const LISTED_MAX: usize = 100_000;
/// The same for who does not: so many that lists of streams stay short.
const LISTED_UNASKED_MAX: usize = 100;

impl StreamCore {
    /// The messages that cannot be read any more.
    pub(super) fn lost(&self, query: &InfoQuery) -> LostStreamData {
        let listed_max = match query.deleted_details {
            true => LISTED_MAX,
            false => LISTED_UNASKED_MAX,
        };
        let lost = self.store.lost_messages(listed_max);
        LostStreamData {
            msgs: lost.sequences,
            bytes: lost.bytes,
        }
    }
}
