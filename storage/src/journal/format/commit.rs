//! What stands in front of the frames that were written together.

use super::{array_at, crc_seeded, put, u32_at, u64_at};
use crate::seal::{Nonce, TAG_BYTES, Tag};

const MAGIC: [u8; 4] = *b"NSCM";
const FLAG_SEALED: u8 = 1;
const FLAG_CLOSING: u8 = 2;

const CRC_AT: usize = 4;
const LSN_AT: usize = CRC_AT + 4;
const SYNCED_LSN_AT: usize = LSN_AT + 8;
const LENGTH_AT: usize = SYNCED_LSN_AT + 8;
const FRAMES_AT: usize = LENGTH_AT + 4;
const FLAGS_AT: usize = FRAMES_AT + 4;
const TAG_AT: usize = FLAGS_AT + 1 + 7; // + 7 zero
/// Bytes of a commit header; the frames follow directly.
pub const COMMIT_HEADER_BYTES: usize = TAG_AT + TAG_BYTES + 8; // + 8 zero
const _: () = assert!(COMMIT_HEADER_BYTES == 64);

/// What a commit says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitHeader {
    /// Counts commits, over all segments, from 1.
    pub lsn: u64,
    /// All commits up to this one were known to be durable when this one was written.
    pub synced_lsn: u64,
    /// Bytes of the frames.
    pub length: u32,
    /// How many frames they are.
    pub frames: u32,
    /// Whether it is the last commit of an orderly shutdown.
    pub closing: bool,
    /// The tag, when the frames are sealed.
    pub tag: Option<Tag>,
}

impl CommitHeader {
    /// As it stands in a segment whose crcs are seeded with `seed`.
    pub fn encode(&self, seed: u32) -> [u8; COMMIT_HEADER_BYTES] {
        let mut bytes = [0; COMMIT_HEADER_BYTES];
        let sealed = if self.tag.is_some() { FLAG_SEALED } else { 0 };
        let closing = if self.closing { FLAG_CLOSING } else { 0 };
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, LSN_AT, &self.lsn.to_le_bytes());
        put(&mut bytes, SYNCED_LSN_AT, &self.synced_lsn.to_le_bytes());
        put(&mut bytes, LENGTH_AT, &self.length.to_le_bytes());
        put(&mut bytes, FRAMES_AT, &self.frames.to_le_bytes());
        put(&mut bytes, FLAGS_AT, &[sealed | closing]);
        put(&mut bytes, TAG_AT, &self.tag.unwrap_or_default());
        let crc = crc_seeded(seed, bytes.get(LSN_AT..).unwrap_or_default());
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }

    /// Reads a commit header of that incarnation; `None` when it is none.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes: [u8; COMMIT_HEADER_BYTES] = array_at(bytes, 0)?;
        let checked = bytes.get(LSN_AT..)?;
        if !bytes.starts_with(&MAGIC) || u32_at(&bytes, CRC_AT)? != crc_seeded(seed, checked) {
            return None;
        }
        let flags = *bytes.get(FLAGS_AT)?;
        if flags & !(FLAG_SEALED | FLAG_CLOSING) != 0 {
            return None;
        }
        Some(Self {
            lsn: u64_at(&bytes, LSN_AT)?,
            synced_lsn: u64_at(&bytes, SYNCED_LSN_AT)?,
            length: u32_at(&bytes, LENGTH_AT)?,
            frames: u32_at(&bytes, FRAMES_AT)?,
            closing: flags & FLAG_CLOSING != 0,
            tag: (flags & FLAG_SEALED != 0).then_some(array_at(&bytes, TAG_AT)?),
        })
    }

    /// What bytes that may be a damaged header claim their lsn is.
    pub fn claimed_lsn(bytes: &[u8]) -> Option<u64> {
        u64_at(bytes, LSN_AT)
    }

    /// What is authenticated with sealed frames: the header from the lsn up to the tag.
    pub fn associated(encoded: &[u8; COMMIT_HEADER_BYTES]) -> &[u8] {
        encoded.get(LSN_AT..TAG_AT).unwrap_or_default()
    }

    /// The nonce of the sealed frames: the lsn, which no two commits under one key share.
    pub fn nonce(lsn: u64) -> Nonce {
        let mut nonce = Nonce::default();
        put(&mut nonce, 0, &lsn.to_le_bytes());
        nonce
    }

    /// Bytes of header and frames, and what follows up to the next page.
    pub fn stored_bytes(&self) -> usize {
        super::whole_pages(COMMIT_HEADER_BYTES + self.length as usize)
    }
}
