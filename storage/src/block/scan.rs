//! Finding the chunks of a block from the chunks alone: of a block that is still written, or whose footer is lost.

use bytes::Bytes;

use super::chunk::{ChunkCodec, PlacedChunk};
use super::error::Damage;
use super::format::chunk::CHUNK_MAGIC;
use super::format::footer::FOOTER_MAGIC;
use super::format::{CHUNK_HEADER_BYTES, ChunkHeader, FooterHeader};
use super::index::memory::MemoryIndex;

/// A part of a block that cannot be read, and the sequences that may have been in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// No lower sequence is lost.
    pub first_sequence: u64,
    /// No higher sequence is lost; `None` when nothing readable follows that would tell.
    pub last_sequence: Option<u64>,
    /// Where the part begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// What is wrong with it.
    pub damage: Damage,
}

impl Lost {
    pub(super) fn may_hold(&self, sequence: u64) -> bool {
        sequence >= self.first_sequence && self.last_sequence.is_none_or(|last| sequence <= last)
    }
}

/// What a walk over the chunk headers found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// The chunks whose headers are intact, in order.
    pub chunks: Vec<PlacedChunk>,
    /// Stretches that hold no chunk header where one is expected.
    pub lost: Vec<Lost>,
    /// The footer, where there is one.
    pub footer: Option<(u64, FooterHeader)>,
    /// Where the last readable part ends.
    pub end: u64,
}

/// Walks from chunk to chunk up to `limit`, and after damage searches for the next intact header.
pub(super) fn walk(codec: &ChunkCodec, file: &[u8], limit: u64) -> Walk {
    let file = file
        .get(..usize::try_from(limit).unwrap_or(usize::MAX).min(file.len()))
        .unwrap_or_default();
    let mut walk = Walk {
        end: codec.identity.data_offset(),
        ..Walk::default()
    };
    while (walk.end as usize) < file.len() {
        let at = walk.end as usize;
        let Some((found_at, part)) = find_part(codec, file, at, walk.chunks.last()) else {
            walk.lose(codec, file.len(), None);
            return walk;
        };
        match part {
            Part::Chunk(header) => {
                if found_at > at {
                    walk.lose(codec, found_at, header.first_sequence.checked_sub(1));
                }
                let placed = PlacedChunk {
                    offset: found_at as u64,
                    header,
                };
                walk.end = placed.end();
                walk.chunks.push(placed);
            }
            Part::Footer(header) => {
                if found_at > at {
                    walk.lose(codec, found_at, Some(header.last_sequence));
                }
                walk.footer = Some((found_at as u64, header));
                walk.end = found_at as u64;
                return walk;
            }
        }
    }
    walk
}

enum Part {
    Chunk(ChunkHeader),
    Footer(FooterHeader),
}

/// The first intact header at or after `at` that fits what came before.
fn find_part(
    codec: &ChunkCodec,
    file: &[u8],
    at: usize,
    before: Option<&PlacedChunk>,
) -> Option<(usize, Part)> {
    let fits = |header: &ChunkHeader, at: usize| {
        let end = (at + CHUNK_HEADER_BYTES).checked_add(header.stored_length as usize);
        end.is_some_and(|end| end <= file.len())
            && before.is_none_or(|before| {
                header.number > before.header.number
                    && header.first_sequence > before.header.last_sequence
            })
    };
    let mut position = at;
    loop {
        let rest = file.get(position..)?;
        if let Some(header) = ChunkHeader::decode(rest, codec.seed)
            && fits(&header, position)
        {
            return Some((position, Part::Chunk(header)));
        }
        if let Some(header) = FooterHeader::decode(rest, codec.seed) {
            return Some((position, Part::Footer(header)));
        }
        position += 1 + rest
            .get(1..)?
            .windows(4)
            .position(|window| window == CHUNK_MAGIC || window == FOOTER_MAGIC)?;
    }
}

impl Walk {
    fn lose(&mut self, codec: &ChunkCodec, upto: usize, last_sequence: Option<u64>) {
        let after = self
            .chunks
            .last()
            .map_or(codec.identity.first_sequence, |before| {
                before.header.last_sequence.saturating_add(1)
            });
        self.lost.push(Lost {
            first_sequence: after,
            last_sequence,
            offset: self.end,
            length: upto as u64 - self.end,
            damage: Damage::Header,
        });
    }
}

/// The index of a block from its chunks, and what could not be read of it.
pub(super) fn rebuild(codec: &ChunkCodec, file: &Bytes, limit: u64) -> (MemoryIndex, Vec<Lost>) {
    let walk = walk(codec, file, limit);
    let mut index = MemoryIndex::default();
    let mut lost = walk.lost;
    for placed in walk.chunks {
        let start = placed.body_offset() as usize;
        let stored = file.slice(start..start + placed.header.stored_length as usize);
        let absorbed = codec.decode(&placed.header, &stored).and_then(|plain| {
            let body = codec.body(&placed.header, plain);
            index.absorb(placed, &body).map_err(|_| Damage::Malformed)
        });
        if let Err(damage) = absorbed {
            lost.push(Lost {
                first_sequence: placed.header.first_sequence,
                last_sequence: Some(placed.header.last_sequence),
                offset: placed.offset,
                length: placed.end() - placed.offset,
                damage,
            });
        }
    }
    lost.sort_by_key(|lost| lost.offset);
    (index, lost)
}
