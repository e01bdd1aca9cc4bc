use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::verify::{Finding, Outline, Sealing, verify};
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
        let findings = verify(&file, None, Some(keys), &mut |_| {}).unwrap();
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
fn every_flipped_byte_is_noticed_or_harmless_and_costs_at_most_its_chunk() {
    let messages = plain_messages(1500);
    for (codec, cipher) in [
        (Compression::None, None),
        (Compression::S2, None),
        (Compression::S2, CIPHERS[1]),
    ] {
        let file = encode(&messages, codec, cipher);
        let outline = Outline::read(&file, None).unwrap();
        assert!(outline.chunks.len() >= 3);
        let edges = outline.chunks.iter().flat_map(|chunk| {
            let start = chunk.offset as usize;
            start..start + 80
        });
        let tail = file.len() - 200..file.len();
        let spread = (0..file.len()).step_by(1987);
        for at in (0..70).chain(edges).chain(spread).chain(tail) {
            let mut damaged = file.to_vec();
            damaged[at] ^= 0x41;
            check_flip(&damaged.into(), at, &outline, &messages);
        }
    }
}

fn check_flip(file: &Bytes, at: usize, outline: &Outline, messages: &[Owned]) {
    let ring = ring();
    let block = match SealedBlock::open(file.clone(), Some(&ring)) {
        Ok(block) => (block, BlockCache::new(1 << 20)),
        Err(error) => {
            let in_header = at < format::HEADER_BYTES;
            let in_slot = at < outline.identity.data_offset() as usize;
            assert!(in_header || in_slot, "byte {at}: {error}");
            return;
        }
    };
    let owner = outline
        .chunks
        .iter()
        .find(|chunk| (chunk.offset..chunk.end()).contains(&(at as u64)));
    for message in messages.iter().step_by(7) {
        let costs = owner.is_some_and(|chunk| {
            (chunk.header.first_sequence..=chunk.header.last_sequence).contains(&message.sequence)
        });
        match block.load(message.sequence) {
            Ok(Some(record)) => assert!(message.is(&record), "byte {at}"),
            Ok(None) => panic!("byte {at}: sequence {} vanished", message.sequence),
            Err(error) => {
                assert!(costs, "byte {at}: {error}");
                let (first, last) = error.sequences().unwrap();
                assert!((first..=last).contains(&message.sequence));
            }
        }
    }
    // Whatever the damage, filters find what they found before.
    let filter = filter(&["orders.1.>"]);
    let expected = messages
        .iter()
        .filter(|message| filter.matches(&message.subject))
        .count();
    assert_eq!(block.count(0, &filter), expected as u64, "byte {at}");
    let keys = BlockKeys::open(&outline.identity, file, Some(&ring)).unwrap();
    let findings = verify(file, None, Some(keys), &mut |_| {}).unwrap();
    let padding = (format::HEADER_BYTES..outline.identity.data_offset() as usize).contains(&at);
    assert!(padding || !findings.is_empty(), "byte {at} is not noticed");
}

#[test]
fn damage_in_a_block_without_footer_costs_one_chunk_and_is_named() {
    let messages = plain_messages(3000);
    let file = encode(&messages, Compression::None, None);
    let outline = Outline::read(&file, None).unwrap();
    let victim = outline.chunks[2];
    let after = outline.chunks[3].header.first_sequence;
    for at in [victim.offset as usize + 5, victim.offset as usize + 5000] {
        let mut damaged = file[..outline.chunks.last().unwrap().end() as usize].to_vec();
        damaged[at] ^= 0xff;
        let (block, cache) = sealed(damaged.into());
        let [lost] = block.lost() else {
            panic!("{:?}", block.lost());
        };
        assert_eq!(lost.offset, victim.offset);
        assert_eq!(lost.length, victim.end() - victim.offset);
        let before = outline.chunks[1].header.last_sequence;
        assert!((before + 1..=victim.header.first_sequence).contains(&lost.first_sequence));
        assert!((victim.header.last_sequence..after).contains(&lost.last_sequence.unwrap()));
        for message in &messages {
            let lost = (victim.header.first_sequence..=victim.header.last_sequence)
                .contains(&message.sequence);
            match block.load(message.sequence, &cache) {
                Ok(Some(record)) => assert!(!lost && message.is(&record)),
                Err(error) => assert!(lost, "{error}"),
                Ok(None) => panic!("sequence {} vanished", message.sequence),
            }
        }
    }
}

#[test]
fn an_open_block_that_lost_its_end_says_so() {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/block"), OpenMode::CreateNew).unwrap();
    let messages = plain_messages(2000);
    let bytes = encode(&messages, Compression::None, None);
    let outline = Outline::read(&bytes, None).unwrap();
    let written = outline.chunks[2].end();
    file.write_all_at(&bytes[..outline.chunks[1].end() as usize], 0)
        .unwrap();
    let block = OpenBlock::open(file, written, None).unwrap();
    assert_eq!(block.lost().len(), 1);
    assert_eq!(
        block.lost()[0].first_sequence,
        outline.chunks[1].header.last_sequence + 1
    );
    let cache = BlockCache::new(1 << 20);
    let lost = outline.chunks[2].header.first_sequence;
    assert!(block.load(lost, &cache).is_err());
    assert!(block.load(1, &cache).unwrap().is_some());
}

#[test]
fn a_key_rotation_rewraps_without_touching_data_and_a_torn_one_leaves_the_old_keys() {
    let messages = plain_messages(50);
    let file = encode(&messages, Compression::S2, CIPHERS[2]);
    let identity = identity(Compression::S2, CIPHERS[2]);
    let slot = rewrap_keys(&identity, &file, &ring(), &SeededEntropy::new(8)).unwrap();
    let mut rotated = file.to_vec();
    let place = slot.offset as usize..slot.offset as usize + slot.bytes.len();
    rotated[place.clone()].copy_from_slice(&slot.bytes);
    agree(&sealed(rotated.clone().into()), &messages);
    rotated[place.start + 100..place.end].fill(0);
    agree(&sealed(rotated.clone().into()), &messages);
    let keys = BlockKeys::open(&identity, &rotated, Some(&ring())).unwrap();
    let findings = verify(&rotated.into(), None, Some(keys), &mut |_| {}).unwrap();
    assert!(
        matches!(findings[..], [Finding::KeySlot { .. }]),
        "{findings:?}"
    );
}

#[test]
fn a_sealed_block_shows_nothing_of_its_messages_and_needs_its_key() {
    let mut messages = plain_messages(200);
    messages[100].payload = b"a very secret payload".to_vec();
    let file = encode(&messages, Compression::None, CIPHERS[1]);
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"orders") && !holds(b"secret"));
    assert!(matches!(
        SealedBlock::open(file.clone(), None),
        Err(BlockOpenError::KeyMissing)
    ));
    // Headers and checksums can be looked at without it.
    let outline = Outline::read(&file, None).unwrap();
    assert_eq!((outline.records(), outline.sealing), (200, Sealing::Sealed));
    assert!(verify(&file, None, None, &mut |_| {}).unwrap().is_empty());
    let mut damaged = file.to_vec();
    damaged[outline.chunks[0].offset as usize + 500] ^= 1;
    assert_eq!(
        verify(&damaged.into(), None, None, &mut |_| {})
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn mutated_blocks_never_panic_hang_or_lie() {
    let messages = plain_messages(300);
    let entropy = SeededEntropy::new(77);
    use crate::entropy::Entropy;
    let rounds: u64 = std::env::var("FUZZ_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(150);
    for (codec, cipher) in [
        (Compression::None, None),
        (Compression::Lz4, None),
        (Compression::S2, CIPHERS[1]),
    ] {
        let file = encode(&messages, codec, cipher);
        for round in 0..rounds {
            let mut mutated = file.to_vec();
            for _ in 0..1 + entropy.below(4) {
                mutate(&mut mutated, &entropy);
            }
            let mutated = Bytes::from(mutated);
            let _ = verify(&mutated, None, None, &mut |_| {});
            let Ok(block) = SealedBlock::open(mutated, Some(&ring())) else {
                continue;
            };
            let block = (block, BlockCache::new(1 << 20));
            for message in messages.iter().step_by(11) {
                if let Ok(Some(record)) = block.load(message.sequence) {
                    assert!(message.is(&record), "round {round}");
                }
            }
            let _ = (block.all(), block.subjects(&filter(&["orders.>"])));
        }
    }
}

/// Flips, cuts, repeats or zeroes a part.
fn mutate(bytes: &mut Vec<u8>, entropy: &SeededEntropy) {
    use crate::entropy::Entropy;
    if bytes.is_empty() {
        return;
    }
    let at = entropy.below(bytes.len() as u64) as usize;
    let end = (at + 1 + entropy.below(300) as usize).min(bytes.len());
    match entropy.below(5) {
        0 => bytes[at] ^= 1 << entropy.below(8),
        1 => bytes[at..end].fill(0),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        _ => {
            let copy = bytes[at..end].to_vec();
            let to = entropy.below(bytes.len() as u64) as usize;
            bytes.splice(to..to, copy);
        }
    }
}

/// The bytes of the example in docs/format.md.
fn documented_block() -> Bytes {
    let document = include_str!("../../../docs/format.md");
    let (_, example) = document.split_once("### An example").unwrap();
    let mut file = Vec::new();
    let lines = example
        .lines()
        .skip_while(|line| !line.starts_with("    #"));
    for line in lines.take_while(|line| line.starts_with("    ")) {
        let Some((at, bytes)) = line.trim().split_once(": ") else {
            continue;
        };
        file.resize(usize::from_str_radix(at, 16).unwrap(), 0);
        file.extend(
            bytes
                .split(' ')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap()),
        );
    }
    file.into()
}

#[test]
fn the_block_in_the_document_is_the_block_we_write_and_read() {
    let first = Owned {
        sequence: 1,
        time_ns: 1_700_000_000_000_000_000,
        subject: b"a.b".to_vec(),
        headers: Vec::new(),
        payload: b"hello".to_vec(),
        expiry: Expiry::ByAge,
    };
    let second = Owned {
        sequence: 2,
        time_ns: first.time_ns + 300,
        subject: b"a.c".to_vec(),
        headers: b"NATS/1.0\r\nA: b\r\n\r\n".to_vec(),
        payload: b"world".to_vec(),
        expiry: Expiry::ByAge,
    };
    let messages = [first, second];
    let identity = BlockIdentity {
        number: 0,
        ..identity(Compression::None, None)
    };
    let file = documented_block();
    agree(&sealed(file.clone()), &messages);
    assert!(verify(&file, None, None, &mut |_| {}).unwrap().is_empty());
    let entropy = SeededEntropy::new(1);
    let written = encode_block(identity, None, &entropy, messages.iter().map(Owned::as_new));
    assert_eq!(written.unwrap(), file);
}
