//! The file store by itself: appending, reading, filters, start, and the memory it takes.
//!
//! What can only be measured once (memory, the start, a file's size) is printed first, next to its goal;
//! the rest is timed by criterion. Everything lies in real files in a temporary directory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use storage::block::BlockCache;
use storage::codec::Compression;
use storage::disk::RealDisk;
use storage::entropy::SystemEntropy;
use storage::executor::ThreadPool;
use storage::filter::Filter;
use storage::index::SubjectTree;
use storage::seal::{Cipher, KeyRing};
use storage::store::{
    Counting, Expiry, FileOptions, FileStore, Frozen, Limits, MemStore, NewMessage, Store,
};

/// Counts what is allocated.
struct HeapCounter;

static HEAP_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for HeapCounter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: HeapCounter = HeapCounter;

fn heap_bytes() -> usize {
    HEAP_BYTES.load(Ordering::Relaxed)
}

const MESSAGES: u64 = 10_000_000;

fn options(directory: &Path, compression: Compression, cipher: Option<Cipher>) -> FileOptions {
    let entropy = Arc::new(SystemEntropy);
    let cache = Arc::new(BlockCache::new(64 << 20));
    let background = Arc::new(ThreadPool::new("bench", 1));
    let mut options = FileOptions::new(1, entropy.clone(), cache, background);
    options.compression = compression;
    if let Some(cipher) = cipher {
        let ring = KeyRing::open(&RealDisk, directory, b"bench", None, cipher, &*entropy);
        options.ring = Some(Arc::new(ring.expect("a key ring")));
        options.cipher = Some(cipher);
    }
    options
}

fn append(store: &mut dyn Store, sequence: u64, subject: &[u8], payload: &[u8]) {
    let message = NewMessage {
        sequence,
        time_ns: 1_700_000_000_000_000_000 + sequence as i64 * 1000,
        subject,
        headers: b"",
        payload,
        expiry: Expiry::ByAge,
    };
    store.append(&message, &mut ()).expect("an append");
}

/// Twenty bytes, out of a hundred; one in a million is on a subject of its own.
fn subject(sequence: u64, text: &mut Vec<u8>) {
    text.clear();
    if sequence.is_multiple_of(1_000_000) {
        text.extend_from_slice(b"rare.subject.of.fewx");
    } else {
        text.extend_from_slice(b"sensors.floor.000000");
        let mut number = sequence % 100;
        for byte in text.iter_mut().rev().take(6) {
            *byte = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
}

fn save(store: &mut FileStore, index: u64) {
    match store.freeze(index, Bytes::new(), 0) {
        Frozen::Carry(_) => {}
        Frozen::Files(job) => job().expect("a checkpoint"),
    }
}

/// Lets everything that is due be done.
fn settle(store: &mut FileStore) {
    let since = Instant::now();
    while store.tail_bytes() > (1 << 20) && since.elapsed() < Duration::from_secs(60) {
        // A change that is refused: the store sees to its jobs and changes nothing.
        let _ = store.skip(0, 0);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Nanoseconds that this thread has had of a processor: what counts when the machine is shared.
fn thread_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn print(what: &str, figure: String, goal: &str) {
    println!("{what:<66} {figure:>16}   goal {goal}");
}

fn per_second(count: u64, elapsed: Duration) -> String {
    format!("{:.2} M/s", count as f64 / elapsed.as_secs_f64() / 1e6)
}

/// Ten million messages in files: what they take, and what it takes to find them.
fn ten_million(directory: &Path) -> FileStore {
    let payload = [b'x'; 128];
    let mut text = Vec::new();
    let limits = Limits::default();
    let options = options(directory, Compression::None, None);
    let disk: Arc<RealDisk> = Arc::new(RealDisk);
    let mut store = FileStore::create(disk.clone(), directory.into(), options.clone(), limits);
    let (begun, busy) = (Instant::now(), thread_ns());
    for sequence in 1..=MESSAGES {
        subject(sequence, &mut text);
        append(&mut store, sequence, &text, &payload);
    }
    let figure = per_second(MESSAGES, begun.elapsed());
    let busy = (thread_ns() - busy) / MESSAGES;
    print(
        "processor time of the owner per append",
        format!("{busy} ns"),
        "-",
    );
    print(
        "append 128 B to the store alone, blocks written behind",
        figure,
        "1.5 M/s",
    );
    let begun = Instant::now();
    settle(&mut store);
    save(&mut store, MESSAGES);
    let _ = store.skip(0, 0);
    let figure = format!("{:?}", begun.elapsed());
    print("flush and checkpoint behind them", figure, "-");
    let bytes = store.file_bytes() as f64 / MESSAGES as f64;
    let figure = format!("{bytes:.1} B");
    print("bytes in blocks per message of 128 B", figure, "150 B");
    drop(store);

    let before = heap_bytes();
    let begun = Instant::now();
    let opened = FileStore::open(disk, directory.into(), None, options, limits).expect("a store");
    let figure = format!("{:?}", begun.elapsed());
    print("start on 10 M messages, the log apart", figure, "1 s");
    let heap = heap_bytes().saturating_sub(before) as f64 / MESSAGES as f64;
    let figure = format!("{heap:.3} B");
    print("heap per message in sealed blocks", figure, "2 B");
    let store = opened.store;
    for (name, pattern) in [
        ("literal", "rare.subject.of.fewx"),
        ("wildcard", "rare.*.of.>"),
    ] {
        rare(&store, name, pattern);
    }
    let (begun, busy) = (Instant::now(), thread_ns());
    let mut from = 1;
    let everything = Filter::everything();
    while let Some(message) = store.next(from, &everything).expect("a read") {
        from = message.sequence + 1;
        black_box(&message.payload);
    }
    let figure = per_second(MESSAGES, begun.elapsed());
    print("sequential read of 10 M through next()", figure, "5 M/s");
    let busy = (thread_ns() - busy) / MESSAGES;
    print("  processor time", format!("{busy} ns"), "200 ns");
    store
}

/// A filter that matches one message in a million.
fn rare(store: &FileStore, name: &str, pattern: &str) {
    let filter = Filter::new([pattern.as_bytes()]);
    let begun = Instant::now();
    let found = store.next(2, &filter).expect("a read");
    let first = begun.elapsed();
    assert_eq!(found.map(|message| message.sequence), Some(1_000_000));
    let what = format!("first match of a {name} filter, 1 in 1 M, first use");
    print(&what, format!("{first:?}"), "1 ms");
    let begun = Instant::now();
    let mut from = 2;
    let mut count = 0;
    while let Some(message) = store.next(from, &filter).expect("a read") {
        from = message.sequence + 1;
        count += 1;
    }
    assert_eq!(count, 10);
    let what = format!("all ten matches of a {name} filter");
    print(&what, format!("{:?}", begun.elapsed()), "-");
    let begun = Instant::now();
    assert_eq!(store.count(2_500_000, &filter, Counting::Every), 8);
    let what = format!("pending of a {name} filter from the middle");
    print(&what, format!("{:?}", begun.elapsed()), "-");
}

fn subjects_heap() {
    let before = heap_bytes();
    let mut tree: SubjectTree<[u64; 3]> = SubjectTree::new();
    let mut text = Vec::new();
    let begun = Instant::now();
    for number in 0..1_000_000u64 {
        million_subject(number, &mut text);
        tree.insert(&text);
    }
    let elapsed = begun.elapsed();
    let heap = heap_bytes().saturating_sub(before) as f64 / 1e6;
    let figure = format!("{heap:.1} B");
    print(
        "heap per distinct subject, 1 M of 20 B, hexadecimal",
        figure,
        "120 B",
    );
    let figure = format!("{} ns", elapsed.as_nanos() / 1_000_000);
    print("  insert", figure, "-");
    let begun = Instant::now();
    for number in 0..1_000_000u64 {
        million_subject(number.wrapping_mul(7919) % 1_000_000, &mut text);
        assert!(tree.find(&text).is_some());
    }
    let figure = format!("{} ns", begun.elapsed().as_nanos() / 1_000_000);
    print("  look up at random", figure, "-");
}

/// Twenty bytes that are hard to share: a scattered hexadecimal number.
fn million_subject(number: u64, text: &mut Vec<u8>) {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    text.clear();
    text.extend_from_slice(b"devices.");
    for place in 0..12 {
        let digit = (scattered >> (4 * (11 - place)) & 15) as usize;
        text.push(b"0123456789abcdef"[digit]);
    }
}

fn reads(criterion: &mut Criterion, store: &FileStore) {
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    group.bench_function("load by sequence, random, warm", |bencher| {
        bencher.iter(|| black_box(store.load(1 + next() % MESSAGES)));
    });
    let mut sequence = 0;
    group.bench_function("load by sequence, in order", |bencher| {
        bencher.iter(|| {
            sequence = sequence % MESSAGES + 1;
            black_box(store.load(sequence))
        });
    });
    group.finish();
}

fn last_of_a_million(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path(), Compression::None, None);
    let disk = Arc::new(RealDisk);
    let limits = Limits::default();
    let mut store = FileStore::create(disk, directory.path().into(), options, limits);
    let mut text = Vec::new();
    for sequence in 1..=2_000_000u64 {
        million_subject(sequence % 1_000_000, &mut text);
        append(&mut store, sequence, &text, &[b'x'; 128]);
    }
    settle(&mut store);
    let mut number = 0u64;
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    group.bench_function("last by subject of 1 M subjects", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(7919);
            million_subject(number % 1_000_000, &mut text);
            black_box(store.last_on(&text))
        });
    });
    group.finish();
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    let ways = [
        ("plain", Compression::None, None),
        ("s2", Compression::S2, None),
        ("aes", Compression::None, Some(Cipher::Aes256Gcm)),
        ("chacha", Compression::None, Some(Cipher::ChaCha20Poly1305)),
    ];
    for payload_bytes in [16usize, 128, 1024, 16384] {
        let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 7 % 61) as u8).collect();
        for (name, compression, cipher) in ways {
            let directory = tempfile::tempdir().expect("a directory");
            let options = options(directory.path(), compression, cipher);
            // So that the disk does not fill up however long this is timed.
            let limits = Limits {
                bytes_max: Some(1 << 30),
                ..Limits::default()
            };
            let disk = Arc::new(RealDisk);
            let mut store = FileStore::create(disk, directory.path().into(), options, limits);
            let mut text = Vec::new();
            let mut sequence = 0;
            group.bench_function(BenchmarkId::new(name, payload_bytes), |bencher| {
                bencher.iter(|| {
                    sequence += 1;
                    subject(sequence, &mut text);
                    append(&mut store, sequence, &text, &payload);
                    // As an engine does when its log fills up.
                    if sequence.is_multiple_of(1_000_000) {
                        save(&mut store, sequence);
                    }
                });
            });
            settle(&mut store);
        }
    }
    let mut store = MemStore::new(Limits {
        messages_max: Some(1_000_000),
        ..Limits::default()
    });
    let mut text = Vec::new();
    let mut sequence = 0;
    group.bench_function(BenchmarkId::new("memory", 128), |bencher| {
        bencher.iter(|| {
            sequence += 1;
            subject(sequence, &mut text);
            append(&mut store, sequence, &text, &[b'x'; 128]);
        });
    });
    group.finish();
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    subjects_heap();
    let store = ten_million(directory.path());
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    reads(&mut criterion, &store);
    drop(store);
    last_of_a_million(&mut criterion);
    appends(&mut criterion);
    criterion.final_summary();
}
