//! Every decoder on bytes whose checksums are right and whose content is not: none panics, hangs or asks for more memory than
//! its input could fill.

use super::damage::mutate;
use super::*;
use crate::block::body::{Body, BodyFacts, Holder};
use crate::block::chunk::ChunkCodec;
use crate::block::format::record::RawRecord;
use crate::block::format::{ChunkHeader, FooterHeader, KeySlot, Trailer};
use crate::block::index::RecordIndex;
use crate::block::index::memory::MemoryIndex;
use crate::block::index::query;
use crate::block::index::sealed::SealedIndex;
use crate::entropy::Entropy;

fn rounds(default: u64) -> u64 {
    let rounds = std::env::var("FUZZ_ROUNDS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// A block, its codec and the bytes of its index.
fn indexed(messages: &[Owned]) -> (Bytes, ChunkCodec, Bytes) {
    let file = encode(messages, Compression::None, None);
    let codec = ChunkCodec::new(identity(Compression::None, None), BlockKeys::default());
    let footer_at = Trailer::decode(&file, codec.seed).unwrap().footer_at as usize;
    let footer = FooterHeader::decode(&file[footer_at..], codec.seed).unwrap();
    let start = footer_at + format::FOOTER_HEADER_BYTES;
    let index = file.slice(start..start + footer.stored_length as usize);
    (file, codec, index)
}

#[test]
fn an_index_of_nonsense_is_refused_or_answers_nonsense() {
    let entropy = SeededEntropy::new(5);
    let filters: Vec<Filter> = ["orders.1.1", "orders.>", "*.2.*", "x"]
        .iter()
        .map(|pattern| filter(&[pattern]))
        .collect();
    for messages in [plain_messages(2), plain_messages(1200)] {
        let (_, codec, bytes) = indexed(&messages);
        for _ in 0..rounds(400) {
            let mut mutated = bytes.to_vec();
            for _ in 0..1 + entropy.below(3) {
                // Most of the meaning is in the directory and the packed arrays behind the chunk table.
                let keep = [0, 136, 136 + 80][entropy.below(3) as usize].min(mutated.len());
                let mut rest = mutated.split_off(keep);
                mutate(&mut rest, &entropy);
                mutated.append(&mut rest);
            }
            let Ok(index) = SealedIndex::parse(mutated.into(), codec.seed) else {
                continue;
            };
            let _ = index.check();
            for filter in &filters {
                let matching = query::resolve(&index, filter);
                for at in [0, 1, 600, u32::MAX] {
                    let _ = query::next(&index, &matching, at);
                    let _ = query::previous(&index, &matching, at);
                    let _ = query::count(&index, &matching, at);
                }
            }
            for sequence in [0, 1, 900, u64::MAX] {
                let ordinal = index.at_or_after(sequence);
                let _ = (index.sequence(ordinal), index.offset(ordinal));
            }
        }
    }
}

#[test]
fn bodies_of_nonsense_are_refused_whole() {
    let entropy = SeededEntropy::new(6);
    let (file, codec, _) = indexed(&plain_messages(40));
    let placed = Outline::read(&file, None).unwrap().chunks[0];
    let start = placed.body_offset() as usize;
    let plain = &file[start..start + placed.header.stored_length as usize];
    let mut absorbed = 0;
    for _ in 0..rounds(2000) {
        let mut mutated = plain.to_vec();
        mutate(&mut mutated, &entropy);
        let mut placed = placed;
        placed.header.plain_length = mutated.len() as u32;
        let body = codec.body(&placed.header, mutated.into());
        let mut index = MemoryIndex::default();
        match index.absorb(placed, &body) {
            Ok(()) => absorbed += 1,
            Err(_) => assert_eq!(index.records(), 0),
        }
        for offset in [0, 1, 50, plain.len(), usize::MAX] {
            let _ = body.record(offset);
        }
    }
    // Payloads are not looked at here, so that some pass; their own checksums catch those.
    assert!(absorbed > 0);
}

#[test]
fn arbitrary_bytes_are_no_part_of_a_block() {
    let entropy = SeededEntropy::new(7);
    let identity = identity(Compression::None, CIPHERS[1]);
    for round in 0..rounds(2000) {
        let mut bytes = vec![0; entropy.below(300) as usize];
        entropy.fill(&mut bytes);
        let seed = identity.seed();
        assert_eq!(ChunkHeader::decode(&bytes, seed), None);
        assert_eq!(FooterHeader::decode(&bytes, seed), None);
        assert_eq!(Trailer::decode(&bytes, seed), None);
        assert!(BlockIdentity::decode(&bytes).is_err());
        bytes.resize(format::KEY_SLOT_BYTES, round as u8);
        assert_eq!(KeySlot::decode(&bytes, &identity), None);
        let facts = BodyFacts {
            records: 3,
            subjects: 2,
            dictionary_at: entropy.below(300) as u32,
            first_sequence: entropy.next_u64(),
            last_sequence: entropy.next_u64(),
            base_time_ns: entropy.next_u64() as i64,
            last_time_ns: 0,
        };
        let at = entropy.below(400) as usize;
        let _ = RawRecord::decode(&bytes, at, facts.base(1));
        let _ = facts.subject(&bytes, entropy.below(4) as u32);
        let body = Body {
            facts,
            stream: 1,
            range: 0..bytes.len(),
            holder: Holder::Unpacked(bytes.into()),
        };
        assert!(body.walk().count() <= 3);
    }
}

#[test]
fn a_header_whose_numbers_cannot_be_true_together_is_refused() {
    let (file, codec, _) = indexed(&plain_messages(40));
    let header = Outline::read(&file, None).unwrap().chunks[0].header;
    let reread = |header: ChunkHeader| ChunkHeader::decode(&header.encode(codec.seed), codec.seed);
    assert_eq!(reread(header), Some(header));
    let changes: [fn(&mut ChunkHeader); 9] = [
        |header| header.records = 0,
        |header| header.records = 10_000,
        |header| header.subjects = 0,
        |header| header.subjects = 41,
        |header| header.last_sequence = 0,
        |header| header.last_sequence = 1 << 33,
        |header| header.dictionary_at = header.plain_length + 1,
        |header| header.plain_length = 70_000,
        |header| header.stored_length = header.plain_length + 17,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = header;
        change(&mut changed);
        assert_eq!(reread(changed), None, "change {at}");
    }
}
