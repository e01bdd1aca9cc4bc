//! Encoding a block: records into chunks, chunks into file bytes, and at the end the footer.
//!
//! # Invariant
//! The writer touches no file. It hands out bytes and says where they go; whoever writes them owns order and syncs. A writer
//! that continues a block after a restart always does so under a fresh data key, because what the last one wrote beyond the
//! checkpoint is unknown and a nonce must not see two texts.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::body::BodyBuilder;
use super::chunk::{ChunkCodec, PlacedChunk};
use super::error::BlockOpenError;
use super::format::chunk::body_crc;
use super::format::{
    BlockIdentity, CHUNK_HEADER_BYTES, FOOTER_HEADER_BYTES, FooterHeader, HEADER_PAGE_BYTES,
    KeySlot, TRAILER_BYTES, Trailer,
};
use super::index::memory::{MemoryIndex, Totals};
use super::index::{RecordIndex, sealed};
use super::keys::BlockKeys;
use super::open::OpenBlock;
use crate::entropy::Entropy;
use crate::seal::KeyRing;
use crate::store::NewMessage;

/// Bytes for a file, and where in it they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBytes {
    /// Where they go.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// A finished chunk that is to be written.
#[derive(Debug, Clone)]
pub struct EncodedChunk {
    /// Its header and place.
    pub placed: PlacedChunk,
    /// Header and body as they go to [`PlacedChunk::offset`].
    pub bytes: Bytes,
    /// The body before compression and sealing, for the index.
    pub(super) plain: Bytes,
}

/// Encodes one block.
pub struct BlockWriter {
    codec: ChunkCodec,
    builder: BodyBuilder,
    next_number: u32,
    next_offset: u64,
    next_sequence: u64,
    finished: Vec<EncodedChunk>,
}

impl BlockWriter {
    /// A new block. The bytes (header page and key slots) go to offset 0 before anything else.
    ///
    /// An identity with a cipher needs a key ring.
    pub fn create(
        identity: BlockIdentity,
        ring: Option<&KeyRing>,
        entropy: &dyn Entropy,
    ) -> Result<(Self, PlacedBytes), BlockOpenError> {
        let mut start = identity.encode().to_vec();
        start.resize(HEADER_PAGE_BYTES, 0);
        let mut keys = BlockKeys::default();
        if identity.cipher.is_some() {
            let ring = ring.ok_or(BlockOpenError::KeyMissing)?;
            let (opened, slot) = keys.extend(&identity, None, ring, entropy)?;
            keys = opened;
            start.resize(slot.offset() as usize, 0);
            start.extend_from_slice(&slot.encode(&identity));
            start.resize(identity.data_offset() as usize, 0);
        }
        let writer = Self {
            codec: ChunkCodec::new(identity, keys),
            builder: BodyBuilder::new(identity.stream),
            next_number: 0,
            next_offset: identity.data_offset(),
            next_sequence: identity.first_sequence,
            finished: Vec::new(),
        };
        let start = PlacedBytes {
            offset: 0,
            bytes: start.into(),
        };
        Ok((writer, start))
    }

    /// Continues a block that was opened after a restart. When it is encrypted, the key slot that comes back must be written
    /// before any chunk of this writer, and `block` reads those chunks only through this call.
    pub fn resume(
        block: &mut OpenBlock,
        ring: Option<&KeyRing>,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Option<PlacedBytes>), BlockOpenError> {
        let identity = *block.identity();
        let mut slot_bytes = None;
        if identity.cipher.is_some() {
            let ring = ring.ok_or(BlockOpenError::KeyMissing)?;
            let (keys, slot) =
                block
                    .codec
                    .keys
                    .extend(&identity, Some(&block.read_key_slot()?), ring, entropy)?;
            block.codec.keys = keys;
            slot_bytes = Some(PlacedBytes {
                offset: slot.offset(),
                bytes: slot.encode(&identity).into(),
            });
        }
        let writer = Self {
            codec: block.codec.clone(),
            builder: BodyBuilder::new(identity.stream),
            next_number: block.next_number(),
            next_offset: block.written_length(),
            next_sequence: block
                .last_sequence()
                .map_or(identity.first_sequence, |last| last.saturating_add(1)),
            finished: Vec::new(),
        };
        Ok((writer, slot_bytes))
    }

    /// What the block is.
    pub fn identity(&self) -> &BlockIdentity {
        &self.codec.identity
    }

    pub(super) fn codec(&self) -> &ChunkCodec {
        &self.codec
    }

    /// Adds a message. Sequences ascend; the caller has seen to it that they do.
    pub fn push(&mut self, message: &NewMessage<'_>) {
        assert!(
            message.sequence >= self.next_sequence,
            "sequence {} after {}",
            message.sequence,
            self.next_sequence
        );
        if !self.builder.has_room_for(message) {
            self.close_chunk();
        }
        self.builder.push(message);
        self.next_sequence = message.sequence.saturating_add(1);
    }

    /// Finishes the chunk that is being filled, however small it is.
    pub fn close_chunk(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let (facts, plain) = self.builder.finish();
        let (header, bytes) = self.codec.encode(self.next_number, &facts, &plain);
        let placed = PlacedChunk {
            offset: self.next_offset,
            header,
        };
        self.next_number += 1;
        self.next_offset = placed.end();
        self.finished.push(EncodedChunk {
            placed,
            bytes: bytes.into(),
            plain: plain.into(),
        });
    }

    /// The chunks finished since the last call. Each is written at its offset and then given to [`OpenBlock::absorb`].
    pub fn take_chunks(&mut self) -> Vec<EncodedChunk> {
        std::mem::take(&mut self.finished)
    }

    /// How long the file would be (without footer) if the chunk being filled were finished now; an upper bound.
    pub fn file_length(&self) -> u64 {
        let pending = match self.builder.is_empty() {
            true => 0,
            false => CHUNK_HEADER_BYTES + self.builder.plain_length() + self.codec.keys.overhead(),
        };
        self.next_offset + pending as u64
    }

    /// The footer of a block all of whose chunks `block` has absorbed. The file ends with it and is then complete.
    pub fn seal(self, block: &OpenBlock) -> PlacedBytes {
        assert!(
            self.finished.is_empty() && self.builder.is_empty(),
            "chunks are taken and absorbed before a block is sealed"
        );
        assert_eq!(self.next_offset, block.written_length());
        let bytes = encode_footer(&self.codec, &block.index, self.next_offset);
        PlacedBytes {
            offset: self.next_offset,
            bytes: bytes.into(),
        }
    }
}

/// A whole sealed block in memory: what a rewrite of live records needs, whose result replaces the old file in one step.
pub fn encode_block<'a>(
    identity: BlockIdentity,
    ring: Option<&KeyRing>,
    entropy: &dyn Entropy,
    messages: impl Iterator<Item = NewMessage<'a>>,
) -> Result<Vec<u8>, BlockOpenError> {
    let (mut writer, start) = BlockWriter::create(identity, ring, entropy)?;
    let mut index = MemoryIndex::default();
    let mut file = start.bytes.to_vec();
    let mut take = |writer: &mut BlockWriter| {
        for chunk in writer.take_chunks() {
            let body = writer.codec.body(&chunk.placed.header, chunk.plain);
            let absorbed = index.absorb(chunk.placed, &body);
            assert!(absorbed.is_ok(), "a chunk just encoded is well-formed");
            file.extend_from_slice(&chunk.bytes);
        }
    };
    for message in messages {
        writer.push(&message);
        take(&mut writer);
    }
    writer.close_chunk();
    take(&mut writer);
    let footer = encode_footer(&writer.codec, &index, writer.next_offset);
    file.extend_from_slice(&footer);
    Ok(file)
}

/// SHA-256 over the headers of all chunks.
pub(super) fn content_digest(index: &impl RecordIndex, seed: u32) -> [u8; 32] {
    let mut digest = Sha256::new();
    for chunk in index.chunks() {
        digest.update(chunk.placed.header.encode(seed));
    }
    digest.finalize().into()
}

/// The totals of an index as a footer states them, before the index itself is encoded.
pub(super) fn summarize(index: &impl RecordIndex, totals: &Totals, seed: u32) -> FooterHeader {
    let chunks = index.chunks();
    let empty = chunks.is_empty();
    FooterHeader {
        epoch: 0,
        records: index.records(),
        chunks: chunks.len() as u32,
        subjects: index.subjects(),
        plain_length: 0,
        stored_length: 0,
        first_sequence: chunks
            .first()
            .map_or(0, |chunk| chunk.placed.header.first_sequence),
        last_sequence: chunks
            .last()
            .map_or(0, |chunk| chunk.placed.header.last_sequence),
        first_time_ns: if empty { 0 } else { totals.first_time_ns },
        last_time_ns: if empty { 0 } else { totals.last_time_ns },
        accounted_bytes: totals.accounted_bytes,
        digest: content_digest(index, seed),
        index_crc: 0,
    }
}

fn encode_footer(codec: &ChunkCodec, index: &MemoryIndex, footer_at: u64) -> Vec<u8> {
    let mut stored = sealed::encode(index, codec.seed);
    let mut header = FooterHeader {
        epoch: codec.keys.current().0,
        plain_length: stored.len() as u32,
        stored_length: (stored.len() + codec.keys.overhead()) as u32,
        ..summarize(index, &index.totals, codec.seed)
    };
    if codec.keys.is_sealed() {
        let associated = [&codec.encoded_identity[..], &header.authenticated()];
        codec.keys.seal(header.nonce(), &associated, &mut stored);
    }
    header.index_crc = body_crc(codec.seed, &stored);
    let mut bytes = Vec::with_capacity(FOOTER_HEADER_BYTES + stored.len() + TRAILER_BYTES);
    bytes.extend_from_slice(&header.encode(codec.seed));
    bytes.append(&mut stored);
    bytes.extend_from_slice(&Trailer { footer_at }.encode(codec.seed));
    bytes
}

/// A rewrapped key slot for an encrypted block, to be written at its offset and synced: after a change of master key.
pub fn rewrap_keys(
    identity: &BlockIdentity,
    file_start: &[u8],
    ring: &KeyRing,
    entropy: &dyn Entropy,
) -> Result<PlacedBytes, BlockOpenError> {
    let slot = KeySlot::newest(file_start, identity).ok_or(BlockOpenError::KeySlots)?;
    let keys = (0u16..)
        .zip(&slot.keys)
        .map(|(epoch, wrapped)| {
            let context = KeySlot::context(identity, epoch);
            let key = ring.unwrap(wrapped, &context)?;
            Ok(ring.wrap(&key, wrapped.data_cipher, &context, entropy))
        })
        .collect::<Result<Vec<_>, BlockOpenError>>()?;
    let slot = KeySlot {
        revision: slot.revision + 1,
        keys,
    };
    Ok(PlacedBytes {
        offset: slot.offset(),
        bytes: slot.encode(identity).into(),
    })
}
