//! What finding the subscribers of a subject costs, over a million subscriptions of every shape, what it costs to subscribe, and how much
//! memory the index takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use nats_server::subject::{Indexed, Listening, Matches, SharedIndex};

const SUBSCRIPTIONS: u64 = 1_000_000;

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone)]
struct Entry(Arc<(u64, String, bool)>);

impl Indexed for Entry {
    fn id(&self) -> u64 {
        self.0.0
    }
}

impl Listening for Entry {
    fn pattern(&self) -> &[u8] {
        self.0.1.as_bytes()
    }

    fn queue(&self) -> Option<&[u8]> {
        self.0.2.then_some(&b"workers"[..])
    }
}

/// How the patterns look.
#[derive(Clone, Copy)]
enum Shape {
    Literal,
    Star,
    Tail,
    /// One in ten has `*` in the middle, one in ten ends in `>`, one in ten is in a queue group.
    Mixed,
}

fn pattern(shape: Shape, number: u64) -> (String, bool) {
    let region = number % 50;
    match (shape, number % 10) {
        (Shape::Star, _) | (Shape::Mixed, 0) => (format!("orders.{region}.*.{number}"), false),
        (Shape::Tail, _) | (Shape::Mixed, 1) => (format!("orders.{region}.{number}.>"), false),
        (Shape::Mixed, 2) => (format!("orders.{region}.{number}.new"), true),
        _ => (format!("orders.{region}.{number}.new"), false),
    }
}

fn index(shape: Shape) -> SharedIndex<Entry> {
    let entries: Vec<Entry> = (0..SUBSCRIPTIONS)
        .map(|number| {
            let (pattern, queue) = pattern(shape, number);
            Entry(Arc::new((number, pattern, queue)))
        })
        .collect();
    let index = SharedIndex::default();
    let before = ALLOCATED.load(Ordering::Relaxed);
    let begun = Instant::now();
    for entry in &entries {
        let inserted = index.insert(entry);
        assert!(inserted.is_ok(), "{} is a subject", entry.0.1);
    }
    let took = begun.elapsed() / SUBSCRIPTIONS as u32;
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    println!(
        "each of {SUBSCRIPTIONS} subscriptions: {took:?} to insert, {} B of memory",
        bytes as u64 / SUBSCRIPTIONS
    );
    index
}

fn matching(criterion: &mut Criterion) {
    for (name, shape, subject) in [
        ("literal", Shape::Literal, "orders.7.$.new"),
        ("star", Shape::Star, "orders.7.any.$"),
        ("tail", Shape::Tail, "orders.7.$.a.b"),
        ("mixed", Shape::Mixed, "orders.7.$.new"),
    ] {
        let index = index(shape);
        // In turn, so that not one path stays in the caches; all of them are of region 7 and not in a queue group.
        let subjects: Vec<String> = (0..SUBSCRIPTIONS / 50)
            .map(|number| subject.replace('$', &(number * 7919 % 20_000 * 50 + 7).to_string()))
            .collect();
        let mut group = criterion.benchmark_group(format!("match in 1,000,000, {name}"));
        let mut found = Matches::default();
        let mut at = 0;
        group.bench_function("found", |bencher| {
            bencher.iter(|| {
                at = (at + 1) % subjects.len();
                index.matches(black_box(subjects[at].as_bytes()), &mut found);
                assert_eq!(found.plain.len(), 1);
            });
        });
        group.bench_function("nothing", |bencher| {
            bencher.iter(|| {
                index.matches(black_box(b"orders.7.none.other"), &mut found);
                assert!(found.is_empty());
            });
        });
        group.bench_function("has interest", |bencher| {
            bencher.iter(|| {
                at = (at + 1) % subjects.len();
                index.read(|index| assert!(index.has_match(black_box(subjects[at].as_bytes()))));
            });
        });
        if matches!(shape, Shape::Mixed) {
            churned(&mut group, &index, &subjects);
        }
        group.finish();
    }
}

/// The same while another thread subscribes and unsubscribes without a pause, and what that costs it.
fn churned(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    index: &SharedIndex<Entry>,
    subjects: &[String],
) {
    let mut found = Matches::default();
    let mut at = 0;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let entry = Entry(Arc::new((SUBSCRIPTIONS, "orders.7.more".to_owned(), false)));
            let (mut changes, mut took) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert!(index.insert(&entry).is_ok());
                assert_eq!(index.remove_all(std::slice::from_ref(&entry), |_| {}), 1);
                took += begun.elapsed();
                changes += 2;
            }
            took / changes.max(1)
        });
        group.bench_function("found while others subscribe", |bencher| {
            bencher.iter(|| {
                at = (at + 1) % subjects.len();
                index.matches(black_box(subjects[at].as_bytes()), &mut found);
                assert_eq!(found.plain.len(), 1);
            });
        });
        is_over.store(true, Ordering::Relaxed);
        if let Ok(change) = churn.join() {
            println!("one change meanwhile: {change:?}");
        }
    });
}

criterion_group!(benches, matching);
criterion_main!(benches);
