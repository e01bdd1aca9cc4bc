//! What finding the subscribers of a subject costs, over many subscriptions of every shape.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nats_server::subject::{Indexed, Matches, SubjectIndex};

const SUBSCRIPTIONS: u64 = 100_000;

#[derive(Clone)]
struct Entry(u64);

impl Indexed for Entry {
    fn id(&self) -> u64 {
        self.0
    }
}

/// One in ten has `*` in the middle, one in ten ends in `>`, one in ten is in a queue group.
fn index() -> SubjectIndex<Entry> {
    let mut index = SubjectIndex::default();
    for number in 0..SUBSCRIPTIONS {
        let region = number % 50;
        let (pattern, queue) = match number % 10 {
            0 => (format!("orders.{region}.*.{number}"), None),
            1 => (format!("orders.{region}.{number}.>"), None),
            2 => (
                format!("orders.{region}.{number}.new"),
                Some(&b"workers"[..]),
            ),
            _ => (format!("orders.{region}.{number}.new"), None),
        };
        let inserted = index.insert(pattern.as_bytes(), queue, Entry(number));
        assert!(inserted.is_ok(), "{pattern} is a subject");
    }
    index
}

fn matching(criterion: &mut Criterion) {
    let index = index();
    let mut group = criterion.benchmark_group("match in 100,000 subscriptions");
    let mut found = Matches::default();
    for (name, subject) in [
        ("one literal", "orders.7.4457.new"),
        ("queue group", "orders.2.4452.new"),
        ("a wildcard below", "orders.1.4451.a.b.c"),
        ("nothing", "orders.7.none.new"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                index.matches(black_box(subject.as_bytes()), &mut found);
                black_box(found.plain.len() + found.queues.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
