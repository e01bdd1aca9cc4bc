//! The store in memory keeps the promises of a store.

use proptest::prelude::*;
use storage::filter::Filter;
use storage::store::{Deletion, Expiry, Limits, MemStore, NewMessage, Purge, Store};

use crate::driver::{agree, cases, limits, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), ..ProptestConfig::default() })]

    #[test]
    fn a_memory_store_agrees_with_the_model(
        limits in limits(),
        steps in proptest::collection::vec(step(60), 1..120),
    ) {
        agree(limits, &mut MemStore::new(limits), &steps);
    }
}

fn store_of(count: u64, limits: Limits) -> MemStore {
    let mut store = MemStore::new(limits);
    for sequence in 1..=count {
        let subject = format!("orders.{}", sequence % 10);
        let message = NewMessage {
            sequence,
            time_ns: sequence as i64,
            subject: subject.as_bytes(),
            headers: b"",
            payload: b"payload",
            expiry: Expiry::ByAge,
        };
        store.append(&message, &mut ()).unwrap();
    }
    store
}

#[test]
fn a_purge_of_everything_keeps_the_last_sequence_and_forgets_the_first_time() {
    let mut store = store_of(5, Limits::default());
    let purge = Purge {
        filter: Filter::everything(),
        below_sequence: None,
        keep: 0,
    };
    assert_eq!(store.purge(&purge, &mut ()).unwrap(), 5);
    let state = store.state();
    assert_eq!((state.first_sequence, state.last_sequence), (6, 5));
    assert_eq!((state.first_time_ns, state.last_time_ns), (0, 5));
}

#[test]
fn compacting_beyond_the_last_moves_both_ends() {
    let mut store = store_of(5, Limits::default());
    assert_eq!(store.compact(100, &mut ()).unwrap(), 5);
    let state = store.state();
    assert_eq!((state.first_sequence, state.last_sequence), (100, 99));
}

#[test]
fn many_holes_do_not_keep_their_slots() {
    let mut store = store_of(10_000, Limits::default());
    for sequence in (2..=10_000).filter(|sequence| sequence % 100 != 0) {
        let deletion = storage::store::Deletion::Unlink;
        assert!(store.delete(sequence, deletion, &mut ()).unwrap());
    }
    assert_eq!(store.state().messages, 101);
    let filter = Filter::new([&b"orders.0"[..]]);
    assert_eq!(store.next_sequence(150, &filter), Some(200));
    assert_eq!(store.previous_sequence(150, &filter), Some(100));
    let mut ranges = 0;
    store.deleted(&mut |_, _| {
        ranges += 1;
        true
    });
    assert_eq!(ranges, 100);
}

#[test]
fn messages_count_as_in_the_memory_of_the_reference() {
    let mut store = store_of(2, Limits::default());
    // Subject, payload and sixteen more.
    assert_eq!(store.state().bytes, 2 * (8 + 7 + 16));
    let message = NewMessage {
        sequence: 3,
        time_ns: 3,
        subject: b"orders.3",
        headers: b"NATS/1.0\r\n\r\n",
        payload: b"",
        expiry: Expiry::ByAge,
    };
    store.append(&message, &mut ()).unwrap();
    assert_eq!(store.state().bytes, 2 * (8 + 7 + 16) + (8 + 12 + 16));
    store.delete(3, Deletion::Unlink, &mut ()).unwrap();
    assert_eq!(store.state().bytes, 2 * (8 + 7 + 16));
}
