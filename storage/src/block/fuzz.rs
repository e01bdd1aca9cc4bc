//! Block decoders for fuzzers: whole blocks, and what lies behind a block's checksums.

use bytes::{Buf, BufMut, Bytes};

use super::body::{BodyBuilder, BodyFacts};
use super::cache::BlockCache;
use super::chunk::{ChunkCodec, PlacedChunk};
use super::format::{
    BlockIdentity, ChunkHeader, FOOTER_HEADER_BYTES, FooterHeader, HEADER_PAGE_BYTES, KeySlot,
    Trailer,
};
use super::index::memory::MemoryIndex;
use super::index::sealed::SealedIndex;
use super::index::{RecordIndex, query};
use super::keys::BlockKeys;
use super::sealed::SealedBlock;
use super::verify::{Depth, verify};
use super::writer::encode_block;
use crate::codec::Compression;
use crate::entropy::SeededEntropy;
use crate::filter::Filter;
use crate::fuzz::Target;
use crate::store::{Expiry, NewMessage};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "block",
        run: block,
        seeds: blocks,
    },
    Target {
        name: "block_headers",
        run: headers,
        seeds: blocks,
    },
    Target {
        name: "block_index",
        run: index,
        seeds: indexes,
    },
    Target {
        name: "chunk_body",
        run: body,
        seeds: bodies,
    },
];

const FILTERS: [&[u8]; 4] = [b"orders.1.1", b"orders.>", b"*.2.*", b"x"];

fn identity(compression: Compression) -> BlockIdentity {
    BlockIdentity {
        stream: 7,
        number: 3,
        generation: 0,
        first_sequence: 1,
        cipher: None,
        compression,
    }
}

fn codec() -> ChunkCodec {
    ChunkCodec::new(identity(Compression::None), BlockKeys::default())
}

/// Calls with messages whose sequences have gaps, some of which carry headers or die by themselves.
fn each_message(count: u64, mut take: impl FnMut(&NewMessage<'_>)) {
    for number in 1..=count {
        let subject = format!("orders.{}.{}", number % 3, number % 7);
        take(&NewMessage {
            sequence: number + number / 10,
            time_ns: 1_700_000_000_000_000_000 + number as i64 * 1_000,
            subject: subject.as_bytes(),
            headers: match number % 4 {
                0 => b"NATS/1.0\r\nA: b\r\n\r\n",
                _ => b"",
            },
            payload: &[number as u8; 19],
            expiry: match number % 5 {
                0 => Expiry::At(1_800_000_000_000_000_000),
                _ => Expiry::ByAge,
            },
        });
    }
}

fn encoded(compression: Compression, count: u64) -> Option<Bytes> {
    let mut owned = Vec::new();
    each_message(count, |message| {
        owned.push((
            message.sequence,
            message.time_ns,
            message.subject.to_vec(),
            message.headers.to_vec(),
            message.payload.to_vec(),
            message.expiry,
        ));
    });
    let messages =
        owned.iter().map(
            |(sequence, time_ns, subject, headers, payload, expiry)| NewMessage {
                sequence: *sequence,
                time_ns: *time_ns,
                subject,
                headers,
                payload,
                expiry: *expiry,
            },
        );
    let entropy = SeededEntropy::new(1);
    encode_block(identity(compression), None, &entropy, messages)
        .ok()
        .map(Bytes::from)
}

fn blocks() -> Vec<Vec<u8>> {
    [Compression::None, Compression::S2, Compression::Lz4]
        .into_iter()
        .flat_map(|compression| [1, 40, 700].map(|count| (compression, count)))
        .filter_map(|(compression, count)| encoded(compression, count))
        .map(Vec::from)
        .collect()
}

fn block(input: &[u8]) {
    let file = Bytes::copy_from_slice(input);
    let depth = Depth::Records(BlockKeys::default());
    let _ = verify(&file, None, depth, &mut |_| {});
    let Ok(block) = SealedBlock::open(file, None) else {
        return;
    };
    let cache = BlockCache::new(1 << 20);
    for sequence in [0, 1, 2, 11, 12, 300, u64::MAX] {
        let _ = block.load(sequence, &cache);
    }
    for filter in FILTERS.map(|pattern| Filter::new([pattern])) {
        let _ = block.next(5, &filter, &cache);
    }
}

fn headers(input: &[u8]) {
    let identity = identity(Compression::None);
    let _ = BlockIdentity::decode(input);
    let _ = KeySlot::decode(input, &identity);
    for at in [0, HEADER_PAGE_BYTES, input.len().saturating_sub(64)] {
        let input = input.get(at..).unwrap_or_default();
        let _ = ChunkHeader::decode(input, identity.seed());
        let _ = FooterHeader::decode(input, identity.seed());
        let _ = Trailer::decode(input, identity.seed());
    }
}

fn indexes() -> Vec<Vec<u8>> {
    let index = |count| {
        let file = encoded(Compression::None, count)?;
        let seed = identity(Compression::None).seed();
        let footer_at = Trailer::decode(&file, seed)?.footer_at as usize;
        let footer = FooterHeader::decode(file.get(footer_at..)?, seed)?;
        let start = footer_at + FOOTER_HEADER_BYTES;
        let index = file.get(start..start + footer.stored_length as usize)?;
        Some(index.to_vec())
    };
    [1, 40, 700].into_iter().filter_map(index).collect()
}

fn index(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Ok(index) = SealedIndex::parse(bytes, codec().seed) else {
        return;
    };
    let _ = index.check();
    for filter in FILTERS.map(|pattern| Filter::new([pattern])) {
        let matching = query::resolve(&index, &filter);
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

/// What a chunk's header says of its body, then the body.
fn bodies() -> Vec<Vec<u8>> {
    let body = |count| {
        let mut builder = BodyBuilder::new(identity(Compression::None).stream);
        each_message(count, |message| builder.push(message));
        let (facts, plain) = builder.finish();
        let mut out = Vec::with_capacity(44 + plain.len());
        out.put_u32_le(facts.records);
        out.put_u32_le(facts.subjects);
        out.put_u32_le(facts.dictionary_at);
        out.put_u64_le(facts.first_sequence);
        out.put_u64_le(facts.last_sequence);
        out.put_i64_le(facts.base_time_ns);
        out.put_i64_le(facts.last_time_ns);
        out.extend_from_slice(&plain);
        out
    };
    vec![body(1), body(40), body(300)]
}

fn facts(input: &mut &[u8]) -> Option<BodyFacts> {
    Some(BodyFacts {
        records: input.try_get_u32_le().ok()?,
        subjects: input.try_get_u32_le().ok()?,
        dictionary_at: input.try_get_u32_le().ok()?,
        first_sequence: input.try_get_u64_le().ok()?,
        last_sequence: input.try_get_u64_le().ok()?,
        base_time_ns: input.try_get_i64_le().ok()?,
        last_time_ns: input.try_get_i64_le().ok()?,
    })
}

fn body(mut input: &[u8]) {
    let Some(facts) = facts(&mut input) else {
        return;
    };
    let codec = codec();
    let header = ChunkHeader {
        epoch: 0,
        compression: Compression::None,
        number: 0,
        records: facts.records,
        stored_length: input.len() as u32,
        plain_length: input.len() as u32,
        dictionary_at: facts.dictionary_at,
        subjects: facts.subjects,
        first_sequence: facts.first_sequence,
        last_sequence: facts.last_sequence,
        base_time_ns: facts.base_time_ns,
        last_time_ns: facts.last_time_ns,
        body_crc: 0,
    };
    // Headers whose numbers cannot be true together end here, as they do in a file.
    let Some(header) = ChunkHeader::decode(&header.encode(codec.seed), codec.seed) else {
        return;
    };
    let body = codec.body(&header, Bytes::copy_from_slice(input));
    let placed = PlacedChunk { offset: 0, header };
    let mut index = MemoryIndex::default();
    if index.absorb(placed, &body).is_err() {
        assert_eq!(index.records(), 0);
    }
    for offset in [0, 1, 50, input.len(), usize::MAX] {
        let _ = body.record(offset);
    }
}
