//! One frame: a header and its payload.

use super::{array_at, crc_seeded, put, u32_at, u64_at};
use crate::journal::frame::{FrameKind, Owner};

const PAYLOAD_CRC_AT: usize = 4;
const LENGTH_AT: usize = PAYLOAD_CRC_AT + 4;
const KIND_AT: usize = LENGTH_AT + 4;
const ZERO_AT: usize = KIND_AT + 1;
const OWNER_AT: usize = ZERO_AT + 3;
const INDEX_AT: usize = OWNER_AT + 8;
/// Bytes of a frame header; the payload follows directly.
pub const FRAME_HEADER_BYTES: usize = INDEX_AT + 8;
const _: () = assert!(FRAME_HEADER_BYTES == 32);

/// The largest payload of one frame.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The crc32 of the payload, seeded.
    pub payload_crc: u32,
    /// Bytes of the payload.
    pub length: u32,
    /// What it means.
    pub kind: FrameKind,
    /// Whose it is.
    pub owner: Owner,
    /// Its place in the owner's log.
    pub index: u64,
}

impl FrameHeader {
    /// As it stands in a segment whose crcs are seeded with `seed`.
    pub fn encode(&self, seed: u32) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        put(&mut bytes, PAYLOAD_CRC_AT, &self.payload_crc.to_le_bytes());
        put(&mut bytes, LENGTH_AT, &self.length.to_le_bytes());
        put(&mut bytes, KIND_AT, &[self.kind.to_byte()]);
        put(&mut bytes, OWNER_AT, &self.owner.0.to_le_bytes());
        put(&mut bytes, INDEX_AT, &self.index.to_le_bytes());
        let crc = crc_seeded(seed, bytes.get(PAYLOAD_CRC_AT..).unwrap_or_default());
        put(&mut bytes, 0, &crc.to_le_bytes());
        bytes
    }

    /// Reads a frame header of that incarnation; `None` when it is none.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes: [u8; FRAME_HEADER_BYTES] = array_at(bytes, 0)?;
        let crc = crc_seeded(seed, bytes.get(PAYLOAD_CRC_AT..)?);
        if u32_at(&bytes, 0)? != crc || array_at(&bytes, ZERO_AT)? != [0u8; 3] {
            return None;
        }
        Some(Self {
            payload_crc: u32_at(&bytes, PAYLOAD_CRC_AT)?,
            length: u32_at(&bytes, LENGTH_AT)?,
            kind: FrameKind::from_byte(*bytes.get(KIND_AT)?)?,
            owner: Owner(u64_at(&bytes, OWNER_AT)?),
            index: u64_at(&bytes, INDEX_AT)?,
        })
    }
}
