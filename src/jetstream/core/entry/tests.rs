use bytes::Bytes;
use proptest::prelude::*;

use super::super::codec::DecodeError;
use super::*;

const HEADER: EntryHeader = EntryHeader {
    term: 3,
    time_ns: -5,
    base_sequence: 7,
    base_index: 11,
    ordinal: 2,
};

fn samples() -> Vec<Op<'static>> {
    vec![
        Op::Message(MessageOp {
            subject: b"a.b",
            headers: b"NATS/1.0\r\n\r\n",
            payload: b"hello",
            id: b"id",
            expiry: Expiry::At(9),
            rollup: Rollup::Subject,
            schedule_ns: Some(-7),
            scheduler: Some(Scheduler {
                subject: b"s",
                next_ns: Some(11),
            }),
        }),
        Op::Message(MessageOp {
            subject: b"a",
            headers: b"",
            payload: b"",
            id: b"",
            expiry: Expiry::Never,
            rollup: Rollup::Everything,
            schedule_ns: None,
            scheduler: Some(Scheduler {
                subject: b"",
                next_ns: None,
            }),
        }),
        Op::Delete {
            sequence: 300,
            erase: true,
        },
        Op::Purge {
            filter: "a.>",
            below_sequence: 4,
            keep: 0,
        },
        Op::Expire { removals_max: 1000 },
        Op::Config { json: b"{}" },
        Op::ConsumerCreate {
            id: 1,
            name: "c",
            json: b"{}",
        },
        Op::ConsumerUpdate { id: 1, json: b"{}" },
        Op::ConsumerDelete { id: 1 },
        Op::Delivered {
            id: 1,
            consumer_sequence: 2,
            stream_sequence: 3,
            deliveries: 4,
        },
        Op::Acked {
            id: 1,
            consumer_sequence: 2,
            stream_sequence: u64::MAX,
        },
        Op::Exhausted {
            id: 1,
            stream_sequence: 2,
            deliveries: 3,
        },
        Op::Touched {
            id: 1,
            stream_sequence: 2,
            time_ns: i64::MIN,
        },
        Op::Reserved {
            id: 1,
            consumer_sequence: 1000,
        },
        Op::Reset {
            id: 1,
            stream_sequence: 5,
        },
        Op::ConsumerLost { id: 1 },
        Op::ConsumerRestarted { id: 1 },
        Op::Unscheduled { sequence: 7 },
        Op::FastMessage {
            reply: b"inbox.id.9.ok.1.0.$FI",
        },
        Op::FastPassed {
            sequence: 300,
            reply: b"inbox.id.9.ok.2.1.$FI",
        },
        Op::FastEnd { id: "id" },
        Op::Mirrored {
            sequence: 12,
            time_ns: -3,
            message: MessageOp {
                subject: b"a",
                headers: b"",
                payload: b"x",
                id: b"",
                expiry: Expiry::ByAge,
                rollup: Rollup::None,
                schedule_ns: None,
                scheduler: None,
            },
        },
        Op::Skip { last_sequence: 99 },
        Op::Compare {
            index: 300,
            digest: u64::MAX,
        },
    ]
}

fn written() -> Bytes {
    let mut writer = EntryWriter::new();
    for (at, op) in samples().iter().enumerate() {
        assert_eq!(writer.push(op), at as u32);
    }
    writer.finish(HEADER)
}

fn read_all(bytes: &[u8]) -> Result<(EntryHeader, usize), DecodeError> {
    let mut reader = EntryReader::new(bytes)?;
    let mut operations = 0;
    while reader.next()?.is_some() {
        operations += 1;
    }
    Ok((reader.header(), operations))
}

#[test]
fn every_operation_reads_back_as_written() {
    let bytes = written();
    let mut reader = EntryReader::new(&bytes).expect("header");
    assert_eq!(reader.header(), HEADER);
    for op in samples() {
        assert_eq!(reader.next(), Ok(Some(op)));
    }
    assert_eq!(reader.next(), Ok(None));
}

#[test]
fn an_entry_cut_anywhere_is_an_error_or_a_shorter_entry() {
    let bytes = written();
    for cut in 0..bytes.len() {
        if let Ok((_, operations)) = read_all(&bytes[..cut]) {
            assert!(operations < samples().len());
        }
    }
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = written().to_vec();
    bytes[0] = 9;
    assert_eq!(read_all(&bytes).unwrap_err(), DecodeError::Version(9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&bytes);
        let mut entry = written().to_vec();
        entry.truncate(HEADER_BYTES);
        entry.extend_from_slice(&bytes);
        let _ = read_all(&entry);
    }

    #[test]
    fn a_flipped_byte_never_makes_the_reader_panic(at in 0usize..300, with in any::<u8>()) {
        let mut entry = written().to_vec();
        let at = at % entry.len();
        entry[at] = with;
        let _ = read_all(&entry);
    }
}
