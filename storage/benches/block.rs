//! Reading one sealed block: in order, at random, through filters; finding it again without its footer; and encoding one.
//!
//! Everything happens on one thread and waits for nothing, so the thread's CPU time is measured: other work on the machine then
//! counts as little as it can.
//!
//! The block holds 64 MiB of 128 B messages on 1,000 subjects and lies in a mapped file, as it does in a server.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use storage::block::verify::Outline;
use storage::block::{BlockCache, BlockIdentity, SealedBlock, encode_block};
use storage::codec::Compression;
use storage::disk::{Disk, OpenMode, RealDisk};
use storage::entropy::SeededEntropy;
use storage::filter::Filter;
use storage::seal::{Cipher, KeyRing};
use storage::store::{Expiry, NewMessage};

const PAYLOAD_BYTES: usize = 128;
const BLOCK_BYTES: usize = 64 << 20;
/// With subjects, headers of chunks and the footer a message takes about this much.
const RECORDS: u64 = (BLOCK_BYTES / 150) as u64;
const SUBJECTS: u64 = 1000;

/// CPU time of the measuring thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the clock exists on Linux, and the pointer is to a value of ours for the whole call.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(result, 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        static WALL_TIME: WallTime = WallTime;
        WALL_TIME.formatter()
    }
}

struct Fixture {
    block: SealedBlock,
    cache: BlockCache,
    _directory: tempfile::TempDir,
}

fn payload(sequence: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [0; PAYLOAD_BYTES];
    for (at, byte) in payload.iter_mut().enumerate() {
        // Half of it compresses.
        *byte = if at % 2 == 0 {
            b'x'
        } else {
            (sequence >> (at % 8)) as u8
        };
    }
    payload
}

/// One subject in a million is rare, the others repeat.
fn subject(sequence: u64) -> Vec<u8> {
    match sequence {
        s if s == RECORDS - 10 => b"rare.one".to_vec(),
        s => format!("sensors.{}.{:010}", s % 2, s * 7919 % SUBJECTS).into_bytes(),
    }
}

type Body = (u64, Vec<u8>, [u8; PAYLOAD_BYTES]);

fn bodies() -> Vec<Body> {
    (1..=RECORDS)
        .map(|at| (at, subject(at), payload(at)))
        .collect()
}

fn encode(
    bodies: &[Body],
    compression: Compression,
    cipher: Option<Cipher>,
    directory: &std::path::Path,
) -> Vec<u8> {
    let entropy = SeededEntropy::new(1);
    let ring = cipher.map(|cipher| {
        KeyRing::open(&RealDisk, directory, b"bench", None, cipher, &entropy).unwrap()
    });
    let identity = BlockIdentity {
        stream: 1,
        number: 1,
        generation: 0,
        first_sequence: 1,
        cipher,
        compression,
    };
    let messages = bodies
        .iter()
        .map(|(sequence, subject, payload)| NewMessage {
            sequence: *sequence,
            time_ns: 1_700_000_000_000_000_000 + *sequence as i64 * 250_000,
            subject,
            headers: b"",
            payload,
            expiry: Expiry::ByAge,
        });
    encode_block(identity, ring.as_ref(), &entropy, messages).unwrap()
}

fn fixture(compression: Compression, cipher: Option<Cipher>) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let bytes = encode(&bodies(), compression, cipher, directory.path());
    let path = directory.path().join("block");
    std::fs::write(&path, &bytes).unwrap();
    let mapped: Bytes = RealDisk
        .open(&path, OpenMode::Read)
        .unwrap()
        .map(bytes.len() as u64)
        .unwrap();
    let ring = cipher.map(|_| KeyRing::read(&RealDisk, directory.path(), &[b"bench"]).unwrap());
    let block = SealedBlock::open(mapped, ring.as_ref()).unwrap();
    let cache = BlockCache::new(128 << 20);
    assert!(block.load(RECORDS, &cache).unwrap().is_some());
    println!(
        "{compression} {cipher:?}: {:.1} bytes in the file and {:.2} bytes of heap per message",
        bytes.len() as f64 / RECORDS as f64,
        block.heap_bytes() as f64 / RECORDS as f64,
    );
    Fixture {
        block,
        cache,
        _directory: directory,
    }
}

const KINDS: [(&str, Compression, Option<Cipher>); 4] = [
    ("plain", Compression::None, None),
    ("s2", Compression::S2, None),
    ("aes", Compression::None, Some(Cipher::Aes256Gcm)),
    ("s2+chacha", Compression::S2, Some(Cipher::ChaCha20Poly1305)),
];

fn reads(criterion: &mut Criterion<CpuTime>) {
    for (name, compression, cipher) in KINDS {
        let Fixture { block, cache, .. } = &fixture(compression, cipher);
        let mut group = criterion.benchmark_group("block/read");
        group.throughput(Throughput::Elements(1));
        let mut sequence = 0;
        group.bench_function(BenchmarkId::new("sequential", name), |bencher| {
            bencher.iter(|| {
                sequence = sequence % RECORDS + 1;
                black_box(block.load(sequence, cache).unwrap())
            });
        });
        let mut state = 1u64;
        group.bench_function(BenchmarkId::new("random", name), |bencher| {
            bencher.iter(|| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let sequence = (state >> 33) % RECORDS + 1;
                black_box(block.load(sequence, cache).unwrap())
            });
        });
    }
}

fn filters(criterion: &mut Criterion<CpuTime>) {
    let Fixture { block, cache, .. } = &fixture(Compression::None, None);
    let mut group = criterion.benchmark_group("block/filter");
    for (name, pattern) in [
        ("one subject", "sensors.0.0000000500"),
        ("rare literal", "rare.one"),
        ("rare wildcard", "rare.*"),
        ("half of all", "sensors.1.*"),
        ("wide wildcard", "sensors.>"),
        ("nothing", "absent.>"),
    ] {
        let filter = Filter::new([pattern.as_bytes()]);
        let mut from = 1;
        group.bench_function(BenchmarkId::new("next", name), |bencher| {
            bencher.iter(|| {
                from = block
                    .next(from, &filter, cache)
                    .map_or(1, |found| found + 1);
                black_box(from)
            });
        });
        group.bench_function(BenchmarkId::new("count", name), |bencher| {
            bencher.iter(|| black_box(block.count(RECORDS / 2, &filter, cache)));
        });
    }
}

/// A block whose footer is lost, or was never written: found again chunk by chunk.
fn rebuild(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("block/rebuild");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(RECORDS));
    for (name, compression, cipher) in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Bytes = encode(&bodies(), compression, cipher, directory.path()).into();
        let ring = cipher.map(|_| KeyRing::read(&RealDisk, directory.path(), &[b"bench"]).unwrap());
        let outline = Outline::read(&bytes, None).unwrap();
        let chunks = bytes.slice(..outline.chunks.last().unwrap().end() as usize);
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(SealedBlock::open(chunks.clone(), ring.as_ref()).unwrap()));
        });
    }
}

fn encodes(criterion: &mut Criterion<CpuTime>) {
    let bodies = bodies();
    let directory = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("block/encode");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(RECORDS));
    for (name, compression, cipher) in KINDS {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(encode(&bodies, compression, cipher, directory.path())));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = reads, filters, rebuild, encodes
}
criterion_main!(benches);
