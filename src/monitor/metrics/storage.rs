//! The journal that all streams share, and the cache in front of their files.

use super::exposition::Exposition;
use super::family::{Column, Family, Kind, Value, counter, families_of, gauge};
use crate::monitor::observed::ObservedStreams;
use ::storage::engine::EngineFigures;
use ::storage::journal::HistogramFigures;

const NONE: &[&str] = &[];

static OF_STORAGE: [Column<EngineFigures>; 8] = [
    Column {
        family: counter(
            "nats_journal_commits",
            NONE,
            "Commits written to the journal; each holds all that came while the last one was written.",
        ),
        value: |row| row.journal.commit_frames.count().into(),
    },
    Column {
        family: counter(
            "nats_journal_frames",
            NONE,
            "Entries of streams and groups in those commits.",
        ),
        value: |row| row.journal.frames.into(),
    },
    Column {
        family: counter(
            "nats_journal_written_bytes",
            NONE,
            "Bytes of those commits as written, padding included.",
        )
        .bytes(),
        value: |row| row.journal.bytes.into(),
    },
    Column {
        family: gauge(
            "nats_journal_staged_bytes",
            NONE,
            "Bytes that wait for the journal.",
        )
        .bytes(),
        value: |row| row.staged_bytes.into(),
    },
    Column {
        family: counter(
            "nats_block_cache_hits",
            NONE,
            "How often decoded data of blocks was found in memory.",
        ),
        value: |row| row.cache.hits.into(),
    },
    Column {
        family: counter(
            "nats_block_cache_misses",
            NONE,
            "How often it had to be read and decoded.",
        ),
        value: |row| row.cache.misses.into(),
    },
    Column {
        family: gauge(
            "nats_block_cache_bytes",
            NONE,
            "Bytes of decoded data that are kept.",
        )
        .bytes(),
        value: |row| row.cache.bytes.into(),
    },
    Column {
        family: gauge(
            "nats_block_cache_max_bytes",
            NONE,
            "Bytes of decoded data that may be kept.",
        )
        .bytes(),
        value: |row| row.cache.bytes_max.into(),
    },
];

static COMMIT_FRAMES: Family = Family {
    name: "nats_journal_commit_frames",
    kind: Kind::Histogram,
    unit: "",
    labels: NONE,
    help: "Entries of one commit: how well commits are shared.",
};

static SYNC_SECONDS: Family = Family {
    name: "nats_journal_sync_seconds",
    kind: Kind::Histogram,
    unit: "seconds",
    labels: NONE,
    help: "How long an fdatasync of the journal takes.",
};

/// Every metric of this table.
pub(super) fn families() -> Vec<&'static Family> {
    families_of(&OF_STORAGE)
        .chain([&COMMIT_FRAMES, &SYNC_SECONDS])
        .collect()
}

pub(super) fn write(out: &mut Exposition, streams: &dyn ObservedStreams) {
    let Some(figures) = streams.engine_figures() else {
        return;
    };
    let figures = [figures];
    out.table(&OF_STORAGE, &figures, |_| NONE);
    let [EngineFigures { journal, .. }] = &figures;
    write_histogram(out, &COMMIT_FRAMES, &journal.commit_frames, |frames| {
        Value::Whole(frames)
    });
    write_histogram(out, &SYNC_SECONDS, &journal.sync_ns, |nanoseconds| {
        Value::Decimal(nanoseconds as f64 / 1e9)
    });
}

fn write_histogram(
    out: &mut Exposition,
    family: &Family,
    figures: &HistogramFigures,
    shown: impl Fn(u64) -> Value,
) {
    let bound = |bound: u64| match shown(bound) {
        Value::Whole(bound) => bound as f64,
        Value::Decimal(bound) => bound,
    };
    let buckets = figures
        .buckets
        .iter()
        .map(|(upper, count)| (bound(*upper), *count));
    out.histogram(family, buckets, figures.above, shown(figures.sum));
}
