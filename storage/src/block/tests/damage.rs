//! What damage costs, and what it never does.

use super::*;
use crate::entropy::Entropy;

#[test]
fn every_flipped_byte_is_noticed_or_harmless_and_costs_at_most_its_chunk() {
    let (messages, ring) = (plain_messages(1500), ring());
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
            (start..start + 80).step_by(3)
        });
        let tail = (file.len() - 200..file.len()).step_by(3);
        let spread = (0..file.len()).step_by(4999);
        for at in (0..70).step_by(3).chain(edges).chain(spread).chain(tail) {
            let mut damaged = file.to_vec();
            damaged[at] ^= 0x41;
            check_flip(&damaged.into(), at, &outline, &messages, &ring);
        }
    }
}

fn check_flip(file: &Bytes, at: usize, outline: &Outline, messages: &[Owned], ring: &KeyRing) {
    let block = match SealedBlock::open(file.clone(), Some(ring)) {
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
    let keys = BlockKeys::open(&outline.identity, file, Some(ring)).unwrap();
    let findings = verify(file, None, Depth::Records(keys), &mut |_| {}).unwrap();
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
    let findings = verify(&rotated.into(), None, Depth::Records(keys), &mut |_| {}).unwrap();
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
    assert!(
        verify(&file, None, Depth::Checksums, &mut |_| {})
            .unwrap()
            .is_empty()
    );
    let mut damaged = file.to_vec();
    damaged[outline.chunks[0].offset as usize + 500] ^= 1;
    assert_eq!(
        verify(&damaged.into(), None, Depth::Checksums, &mut |_| {})
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn mutated_blocks_never_panic_hang_or_lie() {
    let messages = plain_messages(300);
    let entropy = SeededEntropy::new(77);
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
            let _ = verify(
                &mutated,
                None,
                Depth::Records(BlockKeys::default()),
                &mut |_| {},
            );
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
pub(super) fn mutate(bytes: &mut Vec<u8>, entropy: &SeededEntropy) {
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

#[test]
fn a_sector_that_cannot_be_read_costs_its_chunk_and_stops_nothing() {
    let messages = plain_messages(3000);
    for (codec, cipher) in [(Compression::None, None), (Compression::None, CIPHERS[1])] {
        let file = encode(&messages, codec, cipher);
        let outline = Outline::read(&file, None).unwrap();
        let chunk = outline.chunks[1];
        let footer_at = outline.chunks.last().unwrap().end();
        let path = Path::new("/block");
        for bad in [
            chunk.offset + 20_000,
            footer_at + 5000,
            file.len() as u64 - 2,
        ] {
            let disk = SimDisk::new(1);
            let created = disk.open(path, OpenMode::CreateNew).unwrap();
            created.write_all_at(&file, 0).unwrap();
            disk.fail_reads_of(path, bad);
            let length = file.len() as u64;
            let block =
                SealedBlock::open_file(Arc::new(disk), path.into(), length, Some(&ring())).unwrap();
            let cache = BlockCache::new(1 << 20);
            for message in messages.iter().step_by(13) {
                let header = &chunk.header;
                let lost = bad < footer_at
                    && (header.first_sequence..=header.last_sequence).contains(&message.sequence);
                match block.load(message.sequence, &cache) {
                    Ok(record) => assert!(!lost && message.is(&record.unwrap())),
                    Err(error) => {
                        assert!(lost, "byte {bad}: {error}");
                        let range = (header.first_sequence, header.last_sequence);
                        assert_eq!(error.sequences(), Some(range));
                    }
                }
            }
        }
    }
}

#[test]
fn an_open_block_on_a_bad_sector_keeps_its_other_chunks() {
    let messages = plain_messages(2000);
    let bytes = encode(&messages, Compression::None, None);
    let outline = Outline::read(&bytes, None).unwrap();
    let written = outline.chunks.last().unwrap().end();
    let path = Path::new("/block");
    let disk = SimDisk::new(1);
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&bytes[..written as usize], 0).unwrap();
    disk.fail_reads_of(path, outline.chunks[1].offset + 20_000);
    let block = OpenBlock::open(file, written, None).unwrap();
    assert_eq!(block.lost().len(), 1);
    let cache = BlockCache::new(1 << 20);
    assert!(block.load(1, &cache).unwrap().is_some());
    let last = messages.last().unwrap().sequence;
    assert!(block.load(last, &cache).unwrap().is_some());
    let lost = outline.chunks[1].header.first_sequence;
    assert!(block.load(lost, &cache).is_err());
}
