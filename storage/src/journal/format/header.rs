//! The first page of a segment, and its copy in the last one.

use super::{PAGE_BYTES, array_at, put, u32_at, u64_at};
use crate::seal::{WRAPPED_KEY_BYTES, WrappedKey};

const MAGIC: [u8; 8] = *b"NSJRNL\x1a\n";
/// The version of the journal's format.
pub const VERSION: u16 = 1;
/// Bytes of the random nonce of an incarnation.
pub const NONCE_BYTES: usize = 16;
/// What the context of a segment's wrapped key begins with; number and nonce follow.
pub const SEGMENT_NONCE_CONTEXT: &[u8] = b"journal segment";

const FLAG_SEALED: u16 = 1;

const VERSION_AT: usize = 8;
const FLAGS_AT: usize = VERSION_AT + 2;
const NUMBER_AT: usize = FLAGS_AT + 2 + 4; // + 4 zero
const LENGTH_AT: usize = NUMBER_AT + 8;
const NONCE_AT: usize = LENGTH_AT + 8;
const FIRST_LSN_AT: usize = NONCE_AT + NONCE_BYTES;
const FLOOR_AT: usize = FIRST_LSN_AT + 8;
const PREVIOUS_END_AT: usize = FLOOR_AT + 8;
const KEY_AT: usize = PREVIOUS_END_AT + 8;
const END_AT: usize = KEY_AT + WRAPPED_KEY_BYTES;
const CRC_AT: usize = PAGE_BYTES - 4;
const _: () = assert!(KEY_AT == 72 && END_AT == 144);

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Counts segments from 1, without gaps.
    pub number: u64,
    /// Bytes of the file.
    pub length: u64,
    /// Random in each incarnation.
    pub nonce: [u8; NONCE_BYTES],
    /// The lsn of its first commit.
    pub first_lsn: u64,
    /// The lowest segment that was still needed when this one began. Lower ones are left-overs.
    pub floor: u64,
    /// Where the previous segment's commits end (0 when there is none).
    pub previous_end: u64,
    /// The data key of its commits, when they are sealed.
    pub key: Option<WrappedKey>,
}

/// Why a page is not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Its check failed, or its content makes no sense.
    Damaged,
    /// It is of a later version.
    LaterVersion(u16),
}

impl SegmentHeader {
    /// What the crcs of this incarnation are seeded with.
    pub fn seed(&self) -> u32 {
        crc32fast::hash(&self.nonce)
    }

    /// What the wrapped key of a segment is bound to.
    pub fn key_context(number: u64, nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
        [SEGMENT_NONCE_CONTEXT, &number.to_le_bytes(), nonce].concat()
    }

    /// As it stands in the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let flags = match self.key {
            Some(_) => FLAG_SEALED,
            None => 0,
        };
        put(&mut page, 0, &MAGIC);
        put(&mut page, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut page, FLAGS_AT, &flags.to_le_bytes());
        put(&mut page, NUMBER_AT, &self.number.to_le_bytes());
        put(&mut page, LENGTH_AT, &self.length.to_le_bytes());
        put(&mut page, NONCE_AT, &self.nonce);
        put(&mut page, FIRST_LSN_AT, &self.first_lsn.to_le_bytes());
        put(&mut page, FLOOR_AT, &self.floor.to_le_bytes());
        put(&mut page, PREVIOUS_END_AT, &self.previous_end.to_le_bytes());
        if let Some(key) = &self.key {
            put(&mut page, KEY_AT, &key.encode());
        }
        let crc = crc32fast::hash(page.get(..CRC_AT).unwrap_or_default());
        put(&mut page, CRC_AT, &crc.to_le_bytes());
        page
    }

    /// Reads a header page.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderError> {
        let body = page.get(..CRC_AT).ok_or(HeaderError::Damaged)?;
        if !body.starts_with(&MAGIC) || u32_at(page, CRC_AT) != Some(crc32fast::hash(body)) {
            return Err(HeaderError::Damaged);
        }
        let version = array_at(body, VERSION_AT).map(u16::from_le_bytes);
        match version {
            Some(VERSION) => Self::decode_body(body).ok_or(HeaderError::Damaged),
            Some(later) if later > VERSION => Err(HeaderError::LaterVersion(later)),
            _ => Err(HeaderError::Damaged),
        }
    }

    fn decode_body(body: &[u8]) -> Option<Self> {
        let key = match array_at(body, FLAGS_AT).map(u16::from_le_bytes)? {
            0 => None,
            FLAG_SEALED => Some(WrappedKey::decode(body.get(KEY_AT..END_AT)?)?),
            _ => return None,
        };
        let header = Self {
            number: u64_at(body, NUMBER_AT)?,
            length: u64_at(body, LENGTH_AT)?,
            nonce: array_at(body, NONCE_AT)?,
            first_lsn: u64_at(body, FIRST_LSN_AT)?,
            floor: u64_at(body, FLOOR_AT)?,
            previous_end: u64_at(body, PREVIOUS_END_AT)?,
            key,
        };
        let page = PAGE_BYTES as u64;
        let sensible = header.number > 0
            && header.length.is_multiple_of(page)
            && header.length >= 3 * page
            && header.floor <= header.number
            && header.previous_end.is_multiple_of(page);
        sensible.then_some(header)
    }
}
