//! What a snapshot promises: the same state again, and no harm from bytes that are not one.

use proptest::prelude::*;
use storage::store::{Limits, MemStore};

use super::{Bench, SECOND, durable, stream};
use crate::jetstream::core::{BeginError, StreamCore};

/// A stream with duplicates, two consumers, pending, redelivered and acknowledged messages.
fn busy() -> Bench {
    let mut bench = Bench::new(stream("S", &["a.>"]));
    bench.consumer(durable("one"));
    bench.consumer(durable("two"));
    for number in 0..20 {
        let id = format!("id-{number}");
        bench.publish_with("a.b", &[("Nats-Msg-Id", &id)], "payload");
    }
    let delivered = bench.pull("one", "10");
    for message in delivered.iter().step_by(2) {
        bench.ack(message, "+ACK");
    }
    for message in bench.pull("two", "3") {
        bench.ack(&message, "-NAK {\"delay\": 5000000000}");
    }
    bench.pass(40 * SECOND);
    bench
}

fn restore(snapshot: &[u8]) -> Result<StreamCore, BeginError> {
    let store = Box::new(MemStore::new(Limits::default()));
    StreamCore::restore(snapshot, "", store)
}

#[test]
fn a_restored_core_writes_the_snapshot_that_it_came_from() {
    let snapshot = busy().core.snapshot();
    assert_eq!(restore(&snapshot).expect("restores").snapshot(), snapshot);
}

#[test]
fn a_snapshot_that_is_cut_short_is_refused() {
    let snapshot = busy().core.snapshot();
    for length in 0..snapshot.len() {
        assert!(restore(&snapshot[..length]).is_err(), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changed_bytes_are_refused_or_read_and_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut snapshot = busy().core.snapshot().to_vec();
        for (at, value) in changes {
            let at = at.index(snapshot.len());
            snapshot[at] = value;
        }
        let _ = restore(&snapshot);
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = restore(&bytes);
        let mut versioned = vec![1];
        versioned.extend(bytes);
        let _ = restore(&versioned);
    }
}
