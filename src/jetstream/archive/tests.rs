use std::io::Read;

use storage::filter::Filter;
use storage::store::{Accounting, Limits, MemStore, Message, Store};

use super::*;
use crate::jetstream::core::{Pending, Place, Progress, StreamCore};
use crate::jetstream::types::{ConsumerConfig, StreamConfig, Time};

fn meta() -> StreamMeta {
    StreamMeta {
        created: Time::from_nanoseconds(1_800_000_000_000_000_000),
        config: StreamConfig {
            name: "S".to_owned(),
            subjects: vec!["a.>".to_owned()],
            max_msgs: -1,
            max_bytes: -1,
            max_msgs_per_subject: -1,
            max_consumers: -1,
            ..StreamConfig::default()
        },
    }
}

fn message(sequence: u64) -> Message {
    Message {
        sequence,
        time_ns: 1_000 + sequence as i64,
        subject: format!("a.{}", sequence % 3).into(),
        headers: match sequence % 2 {
            0 => "NATS/1.0\r\nA: b\r\n\r\n".into(),
            _ => "".into(),
        },
        payload: vec![sequence as u8; (sequence as usize * 37) % 2_000].into(),
    }
}

fn progress() -> Progress {
    let mut progress = Progress {
        delivered: Place {
            consumer: 4,
            stream: 9,
        },
        floor: Place {
            consumer: 2,
            stream: 5,
        },
        ..Progress::default()
    };
    let pending = Pending {
        consumer_sequence: 4,
        time_ns: 2_000_000_000,
    };
    progress.pending.insert(9, pending);
    progress
}

fn consumer() -> ConsumerMeta {
    ConsumerMeta {
        created: Time::from_nanoseconds(3),
        name: "C".to_owned(),
        config: ConsumerConfig {
            name: "C".to_owned(),
            durable_name: "C".to_owned(),
            ..ConsumerConfig::default()
        },
    }
}

fn written(sequences: &[u64], last: u64) -> Vec<u8> {
    let mut writer = ArchiveWriter::begin(Vec::new(), &meta(), 5_000_000_000).expect("it begins");
    for sequence in sequences {
        writer.message(&message(*sequence)).expect("it is taken");
    }
    writer.end_messages(last, 77).expect("it is taken");
    writer
        .consumer(&consumer(), &progress())
        .expect("it is taken");
    writer.finish().expect("it ends")
}

fn builder(meta: StreamMeta, on_damage: OnDamage) -> StreamBuilder {
    let store = Box::new(MemStore::new(Limits::default()));
    StreamBuilder::new(meta, "S", store, on_damage).expect("an empty store takes it")
}

fn read(bytes: &[u8]) -> Result<StreamCore, ArchiveError> {
    let reader = ArchiveReader::open(bytes)?;
    let mut builder = builder(reader.meta().clone(), OnDamage::Fail);
    reader.read_into(&mut builder, |_| Ok::<(), ArchiveError>(()))?;
    Ok(builder.finish(10)?.0)
}

fn live(core: &StreamCore) -> Vec<u64> {
    let everything = Filter::everything();
    let mut next = 0;
    std::iter::from_fn(|| {
        let sequence = core.store().next_sequence(next, &everything)?;
        next = sequence + 1;
        Some(sequence)
    })
    .collect()
}

#[test]
fn a_backup_brings_back_messages_gaps_and_consumers() {
    let sequences: Vec<u64> = (5..9_000).filter(|sequence| sequence % 7 != 0).collect();
    let core = read(&written(&sequences, 9_010)).expect("it reads");
    assert_eq!(live(&core), sequences);
    let state = core.store().state();
    assert_eq!((state.first_sequence, state.last_sequence), (5, 9_010));
    assert_eq!(core.created_ns(), meta().created.nanoseconds());
    for sequence in [5, 6, 4_321] {
        let stored = core.store().load(sequence).expect("it is readable");
        assert_eq!(stored, Some(message(sequence)));
    }
    assert_eq!(core.consumer_count(), 1);
}

#[test]
fn an_empty_stream_keeps_its_place() {
    let state = read(&written(&[], 12)).expect("it reads").store().state();
    assert_eq!((state.messages, state.first_sequence), (0, 13));
    assert_eq!(state.last_sequence, 12);
    let state = read(&written(&[], 0)).expect("it reads").store().state();
    assert_eq!(state.last_sequence, 0);
}

#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let whole = written(&[1, 2, 4], 4);
    for cut in 0..whole.len() {
        assert!(read(&whole[..cut]).is_err(), "{cut} bytes");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        // The same bytes can be compressed in more than one way.
        if let Ok(core) = read(&flipped) {
            assert_eq!(live(&core), [1, 2, 4], "byte {at}");
        }
    }
}

/// An archive with other files in it.
fn with_files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = TarWriter::new(FrameWriter::new(Vec::new()), 0);
    let bytes = meta().write();
    tar.file("meta.inf", &bytes).expect("it is taken");
    for (name, content) in files {
        tar.file(name, content).expect("it is taken");
    }
    let framed = tar.finish().expect("it ends");
    framed.finish().expect("it ends")
}

#[test]
fn what_no_backup_holds_is_refused() {
    let refused = |files: &[(&str, &[u8])]| match read(&with_files(files)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{files:?} was taken"),
    };
    for name in [
        "../../etc/passwd",
        "msgs/../1.blk",
        "obs/../meta.inf",
        "obs/C/o.key",
        "msgs/+1.blk",
        "/meta.sum",
    ] {
        assert!(
            refused(&[(name, b"")]).contains("unexpected content"),
            "{name}"
        );
    }
    assert!(refused(&[("meta.sum", b"0123456789abcdef")]).contains("checksum"));
    assert!(refused(&[("errors.txt", b"disk on fire")]).contains("disk on fire"));
    assert!(refused(&[("obs/C/meta.inf", b"{}")]).contains("obs/C/meta.sum"));
    let mut block = Vec::new();
    let record = Record {
        kind: RecordKind::Message,
        sequence: 1,
        time_ns: 1,
        subject: b"a.*",
        headers: b"",
        payload: b"",
    };
    write_record(&mut block, &Sums::of_block("S", 2), &record);
    assert!(refused(&[("msgs/2.blk", &block)]).contains("subject"));
    let disorder: [(&str, &[u8]); 2] = [("msgs/3.blk", b""), ("msgs/2.blk", b"")];
    assert!(refused(&disorder).contains("block 2 comes after block 3"));
    let known: [(&str, &[u8]); 3] = [
        ("msgs/1.idx", b"x"),
        ("msgs/1.fss", b"x"),
        ("msgs/1.blk", b""),
    ];
    assert!(read(&with_files(&known)).is_ok());
}

#[test]
fn tombstones_in_later_blocks_remove_and_damage_is_passed_over_only_when_asked() {
    let blocks = |numbers: std::ops::RangeInclusive<u64>, kind, number| {
        let mut block = Vec::new();
        for sequence in numbers {
            let record = Record {
                kind,
                sequence,
                time_ns: 1,
                subject: if kind == RecordKind::Message {
                    b"a.b"
                } else {
                    b""
                },
                headers: b"",
                payload: b"",
            };
            write_record(&mut block, &Sums::of_block("S", number), &record);
        }
        block
    };
    let mut first = blocks(1..=4, RecordKind::Message, 1);
    let second = [
        blocks(5..=6, RecordKind::Message, 2),
        blocks(2..=2, RecordKind::Tombstone, 2),
    ]
    .concat();
    let take = |builder: &mut StreamBuilder, first: &[u8]| {
        builder.block(1, "1.blk", first)?;
        builder.block(2, "2.blk", &second[..])
    };
    let mut whole = builder(meta(), OnDamage::Fail);
    take(&mut whole, &first).expect("both are taken");
    let (core, findings) = whole.finish(10).expect("it is built");
    assert_eq!(live(&core), [1, 3, 4, 5, 6]);
    assert!(findings.without_index.is_some());

    // The third record.
    first[33 * 2 + 25] ^= 1;
    let mut strict = builder(meta(), OnDamage::Fail);
    let error = take(&mut strict, &first).expect_err("it is damaged");
    assert!(error.to_string().contains("sequence 3"), "{error}");
    let mut lenient = builder(meta(), OnDamage::Pass);
    take(&mut lenient, &first).expect("the rest is taken");
    let (core, findings) = lenient.finish(10).expect("it is built");
    assert_eq!(live(&core), [1, 4, 5, 6]);
    assert_eq!(findings.passed[0].sequences, Some((3, 3)));
}

/// Backups that the reference made, where they are.
fn fixture(name: &str) -> Option<Vec<u8>> {
    let directory = std::env::var("FIXTURES_DIR");
    let directory = directory.unwrap_or_else(|_| "../shared/fixtures".to_owned());
    let packed = std::fs::read(format!("{directory}/backup-{name}.tar.gz")).ok()?;
    let mut tar = TarReader::new(flate2::read::GzDecoder::new(&packed[..]));
    while let Some(entry) = tar.next_entry().expect("the fixture is a tar") {
        if entry.name.ends_with("stream.tar.s2") {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).expect("the fixture is whole");
            return Some(bytes);
        }
    }
    None
}

#[test]
fn a_backup_is_read_into_memory_too() {
    let name = "KV_cfg";
    let Some(backup) = fixture(name) else {
        eprintln!("the reference's backups are not here: nothing is compared");
        return;
    };
    let reader = ArchiveReader::open(&backup[..]).unwrap();
    let store: Box<dyn Store> = Box::new(MemStore::new(Limits::default()));
    let mut builder =
        StreamBuilder::new(reader.meta().clone(), name, store, OnDamage::Fail).unwrap();
    reader
        .read_into(&mut builder, |_| Ok::<(), ArchiveError>(()))
        .unwrap();
    let (core, _) = builder.finish(10).unwrap();
    // It counts as a stream in memory: the bytes are not those of the files.
    assert_eq!(core.store().state().messages, 200);
}

#[test]
fn backups_of_the_reference_are_read() {
    for (name, messages, bytes, last) in [
        ("ORDERS", 1944, 336_806, 3000),
        ("KV_cfg", 200, 10_562, 1002),
    ] {
        let Some(backup) = fixture(name) else {
            eprintln!("the reference's backups are not here: nothing is compared");
            return;
        };
        let core = match read_named(&backup, name) {
            Ok(core) => core,
            Err(error) => panic!("{name}: {error}"),
        };
        let state = core.store().state();
        assert_eq!((state.messages, state.bytes), (messages, bytes), "{name}");
        assert_eq!(state.last_sequence, last, "{name}");
    }
}

fn read_named(bytes: &[u8], name: &str) -> Result<StreamCore, ArchiveError> {
    let reader = ArchiveReader::open(bytes)?;
    let store: Box<dyn Store> = Box::new(MemStore::counting(Limits::default(), Accounting::File));
    let mut builder = StreamBuilder::new(reader.meta().clone(), name, store, OnDamage::Fail)?;
    reader.read_into(&mut builder, |_| Ok::<(), ArchiveError>(()))?;
    let (core, findings) = builder.finish(10)?;
    assert_eq!(findings.without_index, None);
    Ok(core)
}
