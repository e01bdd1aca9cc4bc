//! Where a new consumer starts.

use storage::filter::Filter;
use storage::store::Store;

use crate::jetstream::core::consumer::Progress;
use crate::jetstream::types::{ConsumerConfig, DeliverPolicy, StreamConfig};

/// The progress of a consumer that has delivered nothing yet.
pub(super) fn starting_progress(
    stream: &StreamConfig,
    config: &ConsumerConfig,
    store: &dyn Store,
) -> Progress {
    let state = store.state();
    let (first, last) = (state.first_sequence, state.last_sequence);
    let filter = Filter::new(config.filters().iter().map(String::as_bytes));
    let mut resume = 0;
    let start = match config.deliver_policy {
        DeliverPolicy::All => first,
        DeliverPolicy::Last if filter.is_everything() => last,
        DeliverPolicy::Last => store.previous_sequence(last, &filter).unwrap_or(0),
        DeliverPolicy::LastPerSubject if stream.max_msgs_per_subject == 1 => first,
        DeliverPolicy::LastPerSubject => {
            resume = last;
            let listed = store.last_sequences(&filter, last, usize::MAX);
            listed
                .and_then(|list| list.first().copied())
                .unwrap_or(last)
        }
        DeliverPolicy::New => last + 1,
        DeliverPolicy::ByStartSequence => config.opt_start_seq,
        DeliverPolicy::ByStartTime => config
            .opt_start_time
            .and_then(|time| store.sequence_at(time.nanoseconds()))
            .unwrap_or(last + 1),
    };
    let given = config.opt_start_seq != 0;
    let start = if first == 0 && !given {
        1
    } else if start > last && !given {
        last + 1
    } else {
        start.max(first)
    };
    Progress::starting_at(start, resume)
}
