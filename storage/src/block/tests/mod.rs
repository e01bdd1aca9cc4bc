//! What blocks promise: every kind of block answers like a plain list of the messages written to it.

mod damage;
mod decoders;
mod document;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::verify::{Depth, Finding, Outline, Sealing, verify};
use super::*;
use crate::codec::Compression;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::entropy::SeededEntropy;
use crate::filter::Filter;
use crate::seal::{Cipher, KeyRing};
use crate::store::{Expiry, NewMessage, accounted_bytes};

const CODECS: [Compression; 3] = [Compression::None, Compression::S2, Compression::Lz4];
const CIPHERS: [Option<Cipher>; 3] = [
    None,
    Some(Cipher::Aes256Gcm),
    Some(Cipher::ChaCha20Poly1305),
];

/// A message with its own memory.
#[derive(Debug, Clone)]
struct Owned {
    sequence: u64,
    time_ns: i64,
    subject: Vec<u8>,
    headers: Vec<u8>,
    payload: Vec<u8>,
    expiry: Expiry,
}

impl Owned {
    fn as_new(&self) -> NewMessage<'_> {
        NewMessage {
            sequence: self.sequence,
            time_ns: self.time_ns,
            subject: &self.subject,
            headers: &self.headers,
            payload: &self.payload,
            expiry: self.expiry,
        }
    }

    fn is(&self, record: &Record) -> bool {
        record.as_new() == self.as_new()
    }
}

impl PartialEq for NewMessage<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.sequence, self.time_ns, self.expiry) == (other.sequence, other.time_ns, other.expiry)
            && self.subject == other.subject
            && self.headers == other.headers
            && self.payload == other.payload
    }
}

fn identity(compression: Compression, cipher: Option<Cipher>) -> BlockIdentity {
    BlockIdentity {
        stream: 7,
        number: 3,
        generation: 0,
        first_sequence: 1,
        cipher,
        compression,
    }
}

fn ring() -> KeyRing {
    let disk = SimDisk::new(1);
    let entropy = SeededEntropy::new(1);
    let root = Path::new("/");
    KeyRing::open(&disk, root, b"secret", None, Cipher::Aes256Gcm, &entropy).unwrap()
}

fn encode(messages: &[Owned], compression: Compression, cipher: Option<Cipher>) -> Bytes {
    encode_block(
        identity(compression, cipher),
        Some(&ring()),
        &SeededEntropy::new(9),
        messages.iter().map(Owned::as_new),
    )
    .unwrap()
    .into()
}

/// `count` messages of 100 B on some subjects, every third sequence missing.
fn plain_messages(count: u64) -> Vec<Owned> {
    (0..count)
        .map(|at| Owned {
            sequence: 1 + at + at / 2,
            time_ns: 1_700_000_000_000_000_000 + at as i64 * 1_000_000,
            subject: format!("orders.{}.{}", at % 3, at % 50).into_bytes(),
            headers: Vec::new(),
            payload: vec![at as u8; 100],
            expiry: Expiry::ByAge,
        })
        .collect()
}

fn any_message() -> impl Strategy<Value = Owned> {
    let size = prop_oneof![
        20 => 0..200usize,
        3 => 200..5_000usize,
        1 => 50_000..80_000usize,
    ];
    let gap = prop_oneof![30 => Just(1u64), 3 => 2..100u64, 1 => Just(1u64 << 33)];
    let expiry = prop_oneof![
        8 => Just(Expiry::ByAge),
        1 => Just(Expiry::Never),
        1 => (0..i64::MAX).prop_map(Expiry::At),
    ];
    let headers =
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..40)];
    (
        gap,
        0..2_000i64,
        "[ab]\\.[a-d]{1,2}",
        headers,
        size,
        any::<u8>(),
        expiry,
    )
        .prop_map(|(gap, time, subject, headers, size, fill, expiry)| Owned {
            sequence: gap,
            time_ns: 1_000_000 + time,
            subject: subject.into_bytes(),
            headers,
            payload: (0..size).map(|at| fill.wrapping_mul(at as u8)).collect(),
            expiry,
        })
}

fn any_messages(count: usize) -> impl Strategy<Value = Vec<Owned>> {
    prop::collection::vec(any_message(), 0..count).prop_map(|mut messages| {
        let mut sequence = 0;
        for message in &mut messages {
            sequence += message.sequence;
            message.sequence = sequence;
        }
        messages
    })
}

const FILTERS: [&[&str]; 8] = [
    &[],
    &["a.b"],
    &["a.*"],
    &["*.c"],
    &["b.>", "a.a"],
    &["nothing"],
    &["a.aa", "a.ab", "a.ac"],
    &["*.*"],
];

fn filter(patterns: &[&str]) -> Filter {
    Filter::new(patterns.iter().map(|pattern| pattern.as_bytes()))
}

/// What a block must answer, whichever kind it is.
trait Reads {
    fn load(&self, sequence: u64) -> Result<Option<Record>, BlockReadError>;
    fn next(&self, from: u64, filter: &Filter) -> Option<u64>;
    fn previous(&self, upto: u64, filter: &Filter) -> Option<u64>;
    fn count(&self, from: u64, filter: &Filter) -> u64;
    fn sequences(&self, from: u64, filter: &Filter) -> Vec<u64>;
    fn subjects(&self, filter: &Filter) -> BTreeMap<Vec<u8>, (u64, u64, u64)>;
    fn sequence_at(&self, time_ns: i64) -> Option<u64>;
    fn all(&self) -> Vec<Result<Record, BlockReadError>>;
}

macro_rules! reads {
    ($kind:ty) => {
        impl Reads for ($kind, BlockCache) {
            fn load(&self, sequence: u64) -> Result<Option<Record>, BlockReadError> {
                self.0.load(sequence, &self.1)
            }
            fn next(&self, from: u64, filter: &Filter) -> Option<u64> {
                self.0.next(from, filter, &self.1)
            }
            fn previous(&self, upto: u64, filter: &Filter) -> Option<u64> {
                self.0.previous(upto, filter, &self.1)
            }
            fn count(&self, from: u64, filter: &Filter) -> u64 {
                self.0.count(from, filter, &self.1)
            }
            fn sequences(&self, from: u64, filter: &Filter) -> Vec<u64> {
                let mut found = Vec::new();
                self.0.sequences(from, filter, &self.1, &mut |sequence| {
                    found.push(sequence);
                    true
                });
                found
            }
            fn subjects(&self, filter: &Filter) -> BTreeMap<Vec<u8>, (u64, u64, u64)> {
                let mut found = BTreeMap::new();
                self.0.subjects(filter, &self.1, &mut |subject, state| {
                    let state = (state.messages, state.first_sequence, state.last_sequence);
                    found.insert(subject.to_vec(), state);
                    true
                });
                found
            }
            fn sequence_at(&self, time_ns: i64) -> Option<u64> {
                self.0.sequence_at(time_ns, 0, &self.1).unwrap()
            }
            fn all(&self) -> Vec<Result<Record, BlockReadError>> {
                let mut found = Vec::new();
                self.0.for_each(0, &self.1, &mut |record| {
                    found.push(record);
                    true
                });
                found
            }
        }
    };
}

reads!(SealedBlock);
reads!(OpenBlock);

fn sealed(file: Bytes) -> (SealedBlock, BlockCache) {
    let block = SealedBlock::open(file, Some(&ring())).unwrap();
    (block, BlockCache::new(1 << 20))
}

/// Compares a block with the plain list of what was written to it.
fn agree(block: &impl Reads, messages: &[Owned]) {
    let read = block.all();
    assert_eq!(read.len(), messages.len());
    for (record, message) in read.iter().zip(messages) {
        assert!(message.is(record.as_ref().unwrap()));
    }
    let last = messages.last().map_or(0, |message| message.sequence);
    let step = messages.len() / 20 + 1;
    let probes: Vec<u64> = messages
        .iter()
        .step_by(step)
        .flat_map(|message| [message.sequence - 1, message.sequence, message.sequence + 1])
        .chain([0, 1, last, last + 1, u64::MAX])
        .collect();
    for &probe in &probes {
        let expected = messages.iter().find(|message| message.sequence == probe);
        match (block.load(probe).unwrap(), expected) {
            (Some(record), Some(message)) => assert!(message.is(&record)),
            (None, None) => {}
            (found, _) => panic!("{probe}: {found:?}"),
        }
    }
    for patterns in FILTERS {
        let filter = filter(patterns);
        let matching: Vec<&Owned> = messages
            .iter()
            .filter(|message| filter.matches(&message.subject))
            .collect();
        for &probe in &probes {
            let after = matching.partition_point(|message| message.sequence < probe);
            let sequence = |message: &&Owned| message.sequence;
            assert_eq!(
                block.next(probe, &filter),
                matching.get(after).map(sequence),
                "{patterns:?} from {probe}"
            );
            assert_eq!(block.count(probe, &filter), (matching.len() - after) as u64);
            let before = matching
                .iter()
                .rev()
                .find(|message| message.sequence <= probe);
            assert_eq!(block.previous(probe, &filter), before.map(sequence));
        }
        let sequences: Vec<u64> = matching.iter().map(|message| message.sequence).collect();
        assert_eq!(block.sequences(0, &filter), sequences);
        let mut subjects = BTreeMap::new();
        for message in &matching {
            let state = subjects
                .entry(message.subject.clone())
                .or_insert((0, message.sequence, 0));
            (state.0, state.2) = (state.0 + 1, message.sequence);
        }
        assert_eq!(block.subjects(&filter), subjects);
    }
    for message in messages.iter().step_by(step) {
        let expected = messages
            .iter()
            .find(|other| other.time_ns >= message.time_ns);
        assert_eq!(
            block.sequence_at(message.time_ns),
            expected.map(|message| message.sequence)
        );
    }
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(default))
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_sealed_block_answers_like_a_plain_list(
        messages in any_messages(150),
        codec in 0..3usize,
        cipher in 0..3usize,
    ) {
        let file = encode(&messages, CODECS[codec], CIPHERS[cipher]);
        agree(&sealed(file.clone()), &messages);
        let keys = BlockKeys::open(&identity(CODECS[codec], CIPHERS[cipher]), &file, Some(&ring())).unwrap();
        let findings = verify(&file, None, Depth::Records(keys), &mut |_| {}).unwrap();
        prop_assert!(findings.is_empty(), "{findings:?}");
        // Without its footer the block answers the same.
        let footer_at = Outline::read(&file, None).unwrap().chunks.last().map(PlacedChunk::end);
        let cut = footer_at.unwrap_or(identity(CODECS[codec], CIPHERS[cipher]).data_offset());
        let rebuilt = sealed(file.slice(..cut as usize));
        prop_assert!(rebuilt.0.footer_damage().is_some());
        prop_assert!(rebuilt.0.lost().is_empty());
        agree(&rebuilt, &messages);
    }

    #[test]
    fn an_open_block_answers_like_a_plain_list_and_goes_on_after_a_restart(
        messages in any_messages(120),
        restarts in prop::collection::vec(0..120usize, 0..4),
        codec in 0..3usize,
        cipher in 0..3usize,
    ) {
        let disk = SimDisk::new(1);
        let (identity, entropy) = (identity(CODECS[codec], CIPHERS[cipher]), SeededEntropy::new(4));
        let file = disk.open(Path::new("/block"), OpenMode::CreateNew).unwrap();
        let (mut writer, start) = BlockWriter::create(identity, Some(&ring()), &entropy).unwrap();
        file.write_all_at(&start.bytes, start.offset).unwrap();
        let mut block = OpenBlock::new(&writer, file.clone());
        for (at, message) in messages.iter().enumerate() {
            if restarts.contains(&at) {
                writer.close_chunk();
                write(&mut writer, &mut block, &file);
                // Something that was never acknowledged follows, and is overwritten.
                file.write_all_at(b"NCHK torn tail", block.written_length()).unwrap();
                block = OpenBlock::open(file.clone(), block.written_length(), Some(&ring())).unwrap();
                let (next, slot) = BlockWriter::resume(&mut block, Some(&ring()), &entropy).unwrap();
                prop_assert_eq!(slot.is_some(), identity.cipher.is_some());
                if let Some(slot) = slot {
                    file.write_all_at(&slot.bytes, slot.offset).unwrap();
                }
                writer = next;
            }
            writer.push(&message.as_new());
            write(&mut writer, &mut block, &file);
        }
        writer.close_chunk();
        prop_assert!(writer.file_length() >= block.written_length());
        write(&mut writer, &mut block, &file);
        agree(&(OpenBlock::open(file.clone(), block.written_length(), Some(&ring())).unwrap(), BlockCache::new(1 << 20)), &messages);
        let accounted: u64 = messages
            .iter()
            .map(|message| accounted_bytes(message.subject.len(), message.headers.len(), message.payload.len()))
            .sum();
        prop_assert_eq!(block.accounted_bytes(), accounted);
        let footer = writer.seal(&block);
        file.write_all_at(&footer.bytes, footer.offset).unwrap();
        file.set_length(footer.offset + footer.bytes.len() as u64).unwrap();
        agree(&(block, BlockCache::new(1 << 20)), &messages);
        let bytes = file.map(file.length().unwrap()).unwrap();
        let sealed = sealed(bytes);
        agree(&sealed, &messages);
        prop_assert!(sealed.0.footer_damage().is_none());
        prop_assert_eq!(sealed.0.summary().accounted_bytes, accounted);
    }
}

fn write(writer: &mut BlockWriter, block: &mut OpenBlock, file: &Arc<dyn DiskFile>) {
    for chunk in writer.take_chunks() {
        file.write_all_at(&chunk.bytes, chunk.placed.offset)
            .unwrap();
        block.absorb(&chunk);
    }
}

#[test]
fn a_large_record_is_a_chunk_of_its_own_and_its_neighbours_are_not_in_it() {
    for (codec, cipher) in [(Compression::None, None), (Compression::S2, CIPHERS[1])] {
        let mut messages = plain_messages(3);
        messages[1].payload = (0..3_000_000u32)
            .map(|at| at.wrapping_mul(at) as u8)
            .collect();
        let file = encode(&messages, codec, cipher);
        let outline = Outline::read(&file, None).unwrap();
        let records: Vec<u32> = outline
            .chunks
            .iter()
            .map(|chunk| chunk.header.records)
            .collect();
        assert_eq!(records, [1, 1, 1]);
        agree(&sealed(file), &messages);
    }
}

#[test]
fn a_record_of_128_bytes_costs_at_most_150_in_a_plain_block() {
    let messages: Vec<Owned> = (0..50_000u64)
        .map(|at| Owned {
            sequence: 1 + at,
            // Some 4,000 messages a second.
            time_ns: 1_700_000_000_000_000_000 + (at * 250_000 + at * at % 99_991) as i64,
            subject: format!("sensors.floor.{:06}", at * at % 17 % 13).into_bytes(),
            headers: Vec::new(),
            payload: vec![at as u8; 128],
            expiry: Expiry::ByAge,
        })
        .collect();
    assert_eq!(messages[0].subject.len(), 20);
    let file = encode(&messages, Compression::None, None);
    let each = file.len() as f64 / messages.len() as f64;
    println!("{each:.1} bytes per message");
    assert!(each <= 150.0, "{each} bytes per message");
    let (block, cache) = sealed(file);
    block.load(1, &cache).unwrap().unwrap();
    let heap = block.heap_bytes() as f64 / messages.len() as f64;
    assert!(heap <= 2.0, "{heap} bytes of heap per message");
}

#[test]
fn a_wildcard_follows_an_open_block_as_it_grows() {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/block"), OpenMode::CreateNew).unwrap();
    let identity = identity(Compression::None, None);
    let (mut writer, _) = BlockWriter::create(identity, None, &SeededEntropy::new(1)).unwrap();
    let mut block = OpenBlock::new(&writer, file.clone());
    let cache = BlockCache::new(1 << 20);
    let messages = plain_messages(700);
    let filters = [filter(&["orders.1.*"]), filter(&["*.2.3*", "orders.*.44"])];
    for (at, message) in messages.iter().enumerate() {
        writer.push(&message.as_new());
        if at % 50 != 49 {
            continue;
        }
        writer.close_chunk();
        write(&mut writer, &mut block, &file);
        for filter in &filters {
            let written = &messages[..=at];
            let matching = written
                .iter()
                .filter(|message| filter.matches(&message.subject));
            let sequences: Vec<u64> = matching.map(|message| message.sequence).collect();
            assert_eq!(block.count(0, filter, &cache), sequences.len() as u64);
            assert_eq!(block.next(0, filter, &cache), sequences.first().copied());
            let last = block.previous(u64::MAX, filter, &cache);
            assert_eq!(last, sequences.last().copied());
        }
    }
}

#[test]
fn many_subjects_with_few_messages_are_found_among_many() {
    let mut messages = plain_messages(3000);
    for message in messages.iter_mut().skip(70).step_by(75) {
        message.subject = format!("rare.{}", message.sequence).into_bytes();
    }
    let (block, cache) = sealed(encode(&messages, Compression::None, None));
    let rare = filter(&["rare.*"]);
    let expected: Vec<u64> = messages
        .iter()
        .filter(|message| rare.matches(&message.subject))
        .map(|message| message.sequence)
        .collect();
    assert!(expected.len() > 16 && expected.len() < messages.len() / 32);
    let mut found = Vec::new();
    block.sequences(0, &rare, &cache, &mut |sequence| {
        found.push(sequence);
        true
    });
    assert_eq!(found, expected);
    for (at, &sequence) in expected.iter().enumerate() {
        let count = (expected.len() - at) as u64;
        assert_eq!(block.count(sequence, &rare, &cache), count);
        assert_eq!(block.count(sequence + 1, &rare, &cache), count - 1);
        assert_eq!(block.previous(sequence, &rare, &cache), Some(sequence));
        let before = at.checked_sub(1).map(|before| expected[before]);
        assert_eq!(block.previous(sequence - 1, &rare, &cache), before);
    }
}
