//! What fuzzers run here: stores and backups of the reference as bytes.

use storage::fuzz::Target;
use storage::store::{Limits, MemStore, Message};

use super::*;
use crate::jetstream::core::Progress;
use crate::jetstream::types::{ConsumerConfig, StreamConfig, Time};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "reference_archive",
        run: archive,
        seeds: archives,
    },
    Target {
        name: "reference_archive_files",
        run: files,
        seeds: plain_archives,
    },
    Target {
        name: "reference_block",
        run: block,
        seeds: blocks,
    },
    Target {
        name: "reference_index",
        run: index,
        seeds: indexes,
    },
    Target {
        name: "reference_consumer",
        run: consumer,
        seeds: consumers,
    },
];

fn meta() -> StreamMeta {
    StreamMeta {
        created: Time::from_nanoseconds(1),
        config: StreamConfig {
            name: "S".to_owned(),
            subjects: vec!["a".to_owned()],
            ..StreamConfig::default()
        },
    }
}

fn message(sequence: u64) -> Message {
    Message {
        sequence,
        time_ns: 5,
        subject: "a".into(),
        headers: "NATS/1.0\r\nA: b\r\n\r\n".into(),
        payload: "hello".into(),
    }
}

fn archives() -> Vec<Vec<u8>> {
    let written = || -> Result<Vec<u8>, WriteError> {
        let mut writer = ArchiveWriter::begin(Vec::new(), &meta(), 7)?;
        writer.message(&message(1))?;
        writer.message(&message(3))?;
        writer.end_messages(5, 6)?;
        let consumer = ConsumerMeta {
            created: Time::from_nanoseconds(2),
            name: "C".to_owned(),
            config: ConsumerConfig::default(),
        };
        writer.consumer(&consumer, &Progress::default())?;
        writer.finish()
    };
    written().into_iter().collect()
}

/// Without the compression around them, which hides most of their bytes from a fuzzer.
fn plain_archives() -> Vec<Vec<u8>> {
    let plain = |bytes: Vec<u8>| {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut FrameReader::new(&bytes[..]), &mut plain).ok()?;
        Some(plain)
    };
    archives().into_iter().filter_map(plain).collect()
}

fn read(bytes: &[u8]) -> Option<()> {
    let reader = ArchiveReader::open(bytes).ok()?;
    let store = Box::new(MemStore::new(Limits::default()));
    let meta = reader.meta().clone();
    let name = meta.config.name.clone();
    let mut builder = StreamBuilder::new(meta, &name, store, OnDamage::Fail).ok()?;
    let admit = |_| Ok::<(), ArchiveError>(());
    reader.read_into(&mut builder, admit).ok()?;
    let (core, _) = builder.finish(9).ok()?;
    assert!(core.store().state().messages <= bytes.len() as u64 * 4096);
    Some(())
}

fn archive(input: &[u8]) {
    let _ = read(input);
}

fn files(input: &[u8]) {
    let framed = || -> std::io::Result<Vec<u8>> {
        let mut writer = FrameWriter::new(Vec::new());
        std::io::Write::write_all(&mut writer, input)?;
        writer.finish()
    };
    if let Ok(framed) = framed() {
        let _ = read(&framed);
    }
}

fn blocks() -> Vec<Vec<u8>> {
    let mut block = Vec::new();
    for kind in [
        RecordKind::Message,
        RecordKind::Erased,
        RecordKind::Tombstone,
    ] {
        let record = Record {
            kind,
            sequence: 1,
            time_ns: 5,
            subject: b"a",
            headers: b"NATS/1.0\r\n\r\n",
            payload: b"p",
        };
        write_record(&mut block, &Sums::of_block("S", 1), &record);
    }
    vec![block]
}

fn block(input: &[u8]) {
    let store = Box::new(MemStore::new(Limits::default()));
    let Ok(mut builder) = StreamBuilder::new(meta(), "S", store, OnDamage::Pass) else {
        return;
    };
    let _ = builder.block(1, "1.blk", input);
    let _ = builder.finish(9);
}

fn indexes() -> Vec<Vec<u8>> {
    vec![vec![
        11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
    ]]
}

fn index(input: &[u8]) {
    if let Ok(index) = Index::read_content(input) {
        let deleted = index.blocks.iter().map(|block| block.deleted().count());
        assert!(deleted.sum::<usize>() <= input.len() * 8);
    }
}

fn consumers() -> Vec<Vec<u8>> {
    vec![vec![22, 2, 1, 1, 3, 3, 1, 20, 1, 1, 2, 1, 1, 1]]
}

fn consumer(input: &[u8]) {
    if let Ok(progress) = read_consumer_state(input) {
        let again = read_consumer_state(&write_consumer_state(&progress, 0));
        assert!(again.is_ok_and(|again| again.delivered == progress.delivered));
    }
}
