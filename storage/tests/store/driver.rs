//! Steps that change a store, how they are made up, and the comparison with the model after each.

use proptest::prelude::*;
use storage::filter::Filter;
use storage::store::{
    Counting, Deletion, Discard, Expiry, Limits, NewMessage, Purge, Removal, State, Store,
};

use crate::model::ModelStore;

/// How many cases a property runs: few by default, `STORE_CASES` raises it.
pub fn cases(default: u32) -> u32 {
    match std::env::var("STORE_CASES") {
        Ok(text) => text.parse().expect("STORE_CASES is a number"),
        Err(_) => default,
    }
}

/// A sequence relative to what the store holds, in 256ths of its range; a few values lie outside.
pub type Place = u16;

#[derive(Debug, Clone)]
pub enum Step {
    Append {
        subject: u8,
        headers: u8,
        payload: u16,
        later_ns: u16,
        expiry: Dies,
    },
    Skip(u8),
    Delete(Place, Deletion),
    Purge {
        filter: u8,
        below: Option<Place>,
        keep: u8,
    },
    Compact(Place),
    Truncate(Place),
    Expire {
        later_ns: u16,
        removals_max: u8,
    },
    SetLimits(Limits),
}

#[derive(Debug, Clone, Copy)]
pub enum Dies {
    ByAge,
    After(u16),
    Never,
}

pub fn limits() -> impl Strategy<Value = Limits> {
    (
        proptest::option::weighted(0.3, 1u64..30),
        proptest::option::weighted(0.3, 100u64..3000),
        proptest::option::weighted(0.4, 1i64..3000),
        proptest::option::weighted(0.3, 1u64..5),
        any::<bool>(),
    )
        .prop_map(
            |(messages_max, bytes_max, age_max_ns, per_subject_max, old)| Limits {
                messages_max,
                bytes_max,
                age_max_ns,
                per_subject_max,
                discard: if old { Discard::Old } else { Discard::New },
            },
        )
}

fn dies() -> impl Strategy<Value = Dies> {
    prop_oneof![
        6 => Just(Dies::ByAge),
        1 => (0u16..3000).prop_map(Dies::After),
        1 => Just(Dies::Never),
    ]
}

pub fn step(payload_max: u16) -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0u8..24, prop_oneof![3 => Just(0u8), 1 => 1u8..40], 0..payload_max, 0u16..50, dies())
            .prop_map(|(subject, headers, payload, later_ns, expiry)| Step::Append {
                subject, headers, payload, later_ns, expiry,
            }),
        2 => (1u8..20).prop_map(Step::Skip),
        16 => (0u16..272, prop_oneof![Just(Deletion::Unlink), Just(Deletion::Erase)])
            .prop_map(|(place, deletion)| Step::Delete(place, deletion)),
        4 => (0u8..FILTERS.len() as u8, proptest::option::of(0u16..272), prop_oneof![Just(0u8), 0u8..8])
            .prop_map(|(filter, below, keep)| Step::Purge { filter, below, keep }),
        2 => (0u16..272).prop_map(Step::Compact),
        1 => (0u16..272).prop_map(Step::Truncate),
        5 => (0u16..600, 0u8..20).prop_map(|(later_ns, removals_max)| Step::Expire { later_ns, removals_max }),
        2 => limits().prop_map(Step::SetLimits),
    ]
}

pub const FILTERS: [&[&str]; 10] = [
    &[">"],
    &["a.b.0"],
    &["a.*.1"],
    &["*.b.>"],
    &["c.>"],
    &["a"],
    &["*"],
    &["nothing.here"],
    &["a.b.0", "c.*.2"],
    &["a.>", "*.b.1"],
];

pub fn filter(at: u8) -> Filter {
    Filter::new(
        FILTERS[at as usize % FILTERS.len()]
            .iter()
            .map(|p| p.as_bytes()),
    )
}

fn subject_text(at: u8) -> String {
    match at {
        0..=8 => format!("{}.b.{}", ['a', 'c', 'd'][at as usize / 3], at % 3),
        9..=14 => format!("a.{}.1", at),
        15 => "a".into(),
        16 => "a.b".into(),
        _ => format!("c.a-rather-long-token-that-fits-no-node.{}", at % 3),
    }
}

/// A step with everything filled in, so that it means the same wherever it is played again.
#[derive(Debug, Clone)]
pub enum Concrete {
    Append {
        sequence: u64,
        time_ns: i64,
        subject: String,
        headers: Vec<u8>,
        payload: Vec<u8>,
        expiry: Expiry,
    },
    Skip(u64, i64),
    Delete(u64, Deletion),
    Purge(Purge),
    Compact(u64),
    Truncate(u64),
    Expire(i64, u64),
    SetLimits(Limits),
}

fn sequence_at_place(state: &State, place: Place) -> u64 {
    let range = state.last_sequence + 2 - state.first_sequence.min(state.last_sequence + 1);
    let first = state.first_sequence.saturating_sub(1);
    first + range * u64::from(place) / 256
}

/// Fills in what a step leaves open from the state and the clock.
pub fn concrete(step: &Step, state: &State, now_ns: &mut i64) -> Concrete {
    let place = |place: Place| sequence_at_place(state, place);
    match step {
        Step::Append {
            subject,
            headers,
            payload,
            later_ns,
            expiry,
        } => {
            *now_ns += i64::from(*later_ns);
            let sequence = state.last_sequence + 1;
            let fill = sequence.to_le_bytes();
            Concrete::Append {
                sequence,
                time_ns: *now_ns,
                subject: subject_text(*subject),
                headers: fill
                    .iter()
                    .cycle()
                    .take(*headers as usize)
                    .copied()
                    .collect(),
                payload: fill
                    .iter()
                    .cycle()
                    .take(*payload as usize)
                    .copied()
                    .collect(),
                expiry: match expiry {
                    Dies::ByAge => Expiry::ByAge,
                    Dies::After(later) => Expiry::At(*now_ns + i64::from(*later)),
                    Dies::Never => Expiry::Never,
                },
            }
        }
        Step::Skip(more) => Concrete::Skip(state.last_sequence + u64::from(*more), *now_ns),
        Step::Delete(at, deletion) => Concrete::Delete(place(*at), *deletion),
        Step::Purge {
            filter: at,
            below,
            keep,
        } => Concrete::Purge(Purge {
            filter: filter(*at),
            below_sequence: below.map(place),
            keep: u64::from(*keep),
        }),
        Step::Compact(at) => Concrete::Compact(place(*at)),
        Step::Truncate(at) => Concrete::Truncate(place(*at)),
        Step::Expire {
            later_ns,
            removals_max,
        } => {
            *now_ns += i64::from(*later_ns);
            Concrete::Expire(*now_ns, u64::from(*removals_max))
        }
        Step::SetLimits(limits) => Concrete::SetLimits(*limits),
    }
}

/// What a change answered, and what it removed (in sequence order).
pub type Outcome = (Result<u64, String>, Vec<(u64, Vec<u8>, u64)>);

/// Applies a change.
pub fn apply(store: &mut dyn Store, change: &Concrete) -> Outcome {
    let mut removed = Vec::new();
    let mut note = |removal: Removal<'_>| {
        removed.push((removal.sequence, removal.subject.to_vec(), removal.bytes));
    };
    let answer = match change {
        Concrete::Append {
            sequence,
            time_ns,
            subject,
            headers,
            payload,
            expiry,
        } => {
            let message = NewMessage {
                sequence: *sequence,
                time_ns: *time_ns,
                subject: subject.as_bytes(),
                headers,
                payload,
                expiry: *expiry,
            };
            store.append(&message, &mut note).map(|()| 0)
        }
        Concrete::Skip(last, time_ns) => store.skip(*last, *time_ns).map(|()| 0),
        Concrete::Delete(sequence, deletion) => {
            store.delete(*sequence, *deletion, &mut note).map(u64::from)
        }
        Concrete::Purge(purge) => store.purge(purge, &mut note),
        Concrete::Compact(first) => store.compact(*first, &mut note),
        Concrete::Truncate(last) => store.truncate(*last, &mut note).map(|()| 0),
        Concrete::Expire(now_ns, max) => store.expire(*now_ns, *max, &mut note),
        Concrete::SetLimits(limits) => store.set_limits(*limits, &mut note).map(|()| 0),
    };
    removed.sort_unstable();
    (answer.map_err(|error| error.to_string()), removed)
}

/// Compares the totals only.
pub fn compare_state(model: &ModelStore, store: &dyn Store) {
    assert_eq!(model.state(), store.state(), "state");
    assert_eq!(
        model.next_expiry_ns(),
        store.next_expiry_ns(),
        "next expiry"
    );
    assert_eq!(model.limits(), store.limits(), "limits");
}

/// Compares every answer that a store can give.
pub fn compare_everything(model: &ModelStore, store: &dyn Store) {
    compare_state(model, store);
    if let Some(next_ns) = model.next_expiry_ns() {
        for (now_ns, most) in [(next_ns - 1, 9), (next_ns, 9), (next_ns + 1000, u64::MAX)] {
            assert_eq!(model.due(now_ns, most), store.due(now_ns, most), "due");
        }
    }
    let state = model.state();
    let first = state.first_sequence.saturating_sub(2);
    let sequences: Vec<u64> = (first..=state.last_sequence + 2).collect();
    for &sequence in &sequences {
        assert_eq!(
            model.load(sequence).unwrap(),
            store.load(sequence).unwrap(),
            "load {sequence}"
        );
    }
    for at in 0..FILTERS.len() as u8 {
        compare_filter(model, store, &filter(at), &sequences);
    }
    for at in 0..24 {
        let subject = subject_text(at);
        let subject = subject.as_bytes();
        assert_eq!(model.subject(subject), store.subject(subject), "subject");
        let (expected, found) = (model.last_on(subject), store.last_on(subject));
        assert_eq!(expected.unwrap(), found.unwrap(), "last on");
    }
    let ranges = |store: &dyn Store| {
        let mut ranges = Vec::new();
        store.deleted(&mut |first, last| {
            ranges.push((first, last));
            true
        });
        ranges
    };
    assert_eq!(ranges(model), ranges(store), "deleted");
    for time_ns in [
        0,
        state.first_time_ns,
        state.last_time_ns,
        state.last_time_ns + 1,
    ] {
        for time_ns in [time_ns, (time_ns + state.first_time_ns) / 2] {
            assert_eq!(
                model.sequence_at(time_ns),
                store.sequence_at(time_ns),
                "sequence at {time_ns}"
            );
        }
    }
}

fn compare_filter(model: &ModelStore, store: &dyn Store, filter: &Filter, sequences: &[u64]) {
    let step = (sequences.len() / 16).max(1);
    for &at in sequences.iter().step_by(step).chain(sequences.last()) {
        let what = format!("{filter:?} at {at}");
        let expected = model.next_sequence(at, filter);
        assert_eq!(expected, store.next_sequence(at, filter), "next {what}");
        assert_eq!(
            model.next(at, filter).unwrap(),
            store.next(at, filter).unwrap(),
            "next {what}"
        );
        assert_eq!(
            model.previous_sequence(at, filter),
            store.previous_sequence(at, filter),
            "previous {what}"
        );
        for counting in [Counting::Every, Counting::LastPerSubject] {
            assert_eq!(
                model.count(at, filter, counting),
                store.count(at, filter, counting),
                "count {counting:?} {what}"
            );
        }
        for results_max in [2, 100] {
            assert_eq!(
                model.last_sequences(filter, at, results_max),
                store.last_sequences(filter, at, results_max),
                "last sequences {what}"
            );
        }
    }
    let listed = |store: &dyn Store| {
        let mut listed = Vec::new();
        store.subjects(filter, &mut |subject, state| {
            listed.push((subject.to_vec(), state));
            true
        });
        listed
    };
    assert_eq!(listed(model), listed(store), "subjects {filter:?}");
}

/// Plays steps on the model and on `store`; everything is compared now and then and at the end.
pub fn agree(limits: Limits, store: &mut dyn Store, steps: &[Step]) {
    let mut model = ModelStore::of(limits, store);
    let mut now_ns = 1_000;
    for (at, step) in steps.iter().enumerate() {
        let change = concrete(step, &model.state(), &mut now_ns);
        let expected = apply(&mut model, &change);
        assert_eq!(expected, apply(store, &change), "step {at}: {change:?}");
        compare_state(&model, store);
        if at % 16 == 15 {
            compare_everything(&model, store);
        }
    }
    compare_everything(&model, store);
}
