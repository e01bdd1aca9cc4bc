//! The wrapped data keys of an encrypted block: two slots of 4 KiB after the header page.
//!
//! ```text
//!    0  8  magic "NBKEYS" 0x1a 0x0a
//!    8  8  revision
//!   16  2  count of keys, 1 to 56
//!   18  6  zero
//!   24  72 × count  wrapped keys; key number e seals the chunks of key epoch e
//!      zero up to 4092
//! 4092  4  crc32 of bytes 0 to 4091, seeded with the block's seed
//! ```
//!
//! The slot with the higher revision counts; a change writes the other one, so that a torn write leaves
//! the old keys readable. The keys stand outside the authenticated identity: a new master key rewraps
//! them without touching data. Each is wrapped for this block and its epoch and opens nowhere else.

use super::header::{BlockIdentity, HEADER_PAGE_BYTES};
use super::seeded_crc;
use crate::block::varint::Reader;
use crate::seal::{WRAPPED_KEY_BYTES, WrappedKey};

/// Bytes of one slot.
pub const KEY_SLOT_BYTES: usize = 4096;
/// How many data keys a block can have: one, and one more for each time it is continued.
pub const KEY_EPOCHS_MAX: usize = 56;
/// Where chunks of an encrypted block begin.
pub const KEY_SLOTS_END: usize = HEADER_PAGE_BYTES + 2 * KEY_SLOT_BYTES;

const MAGIC: [u8; 8] = *b"NBKEYS\x1a\n";
const KEYS_AT: usize = 24;
const CRC_AT: usize = KEY_SLOT_BYTES - 4;
const _: () = assert!(KEYS_AT + KEY_EPOCHS_MAX * WRAPPED_KEY_BYTES <= CRC_AT);

/// The content of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Grows with every change.
    pub revision: u64,
    /// The wrapped key of each epoch.
    pub keys: Vec<WrappedKey>,
}

impl KeySlot {
    /// Where the slot with this revision is written.
    pub fn offset(&self) -> u64 {
        (HEADER_PAGE_BYTES + (self.revision % 2) as usize * KEY_SLOT_BYTES) as u64
    }

    /// What is authenticated with the key of `epoch`.
    pub fn context(identity: &BlockIdentity, epoch: u16) -> Vec<u8> {
        let mut context = identity.encode().to_vec();
        context.extend_from_slice(&epoch.to_le_bytes());
        context
    }

    /// As it stands in the file. Keys beyond [`KEY_EPOCHS_MAX`] are refused by whoever adds them.
    pub fn encode(&self, identity: &BlockIdentity) -> Vec<u8> {
        debug_assert!((1..=KEY_EPOCHS_MAX).contains(&self.keys.len()));
        let mut bytes = Vec::with_capacity(KEY_SLOT_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&(self.keys.len() as u16).to_le_bytes());
        bytes.resize(KEYS_AT, 0);
        for key in self.keys.iter().take(KEY_EPOCHS_MAX) {
            bytes.extend_from_slice(&key.encode());
        }
        bytes.resize(CRC_AT, 0);
        let crc = seeded_crc(identity.seed(), &[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads one slot; `None` when it is damaged, was never written or belongs to another block.
    pub fn decode(bytes: &[u8], identity: &BlockIdentity) -> Option<Self> {
        let bytes = bytes.get(..KEY_SLOT_BYTES)?;
        let (body, crc) = bytes.split_at(CRC_AT);
        if !body.starts_with(&MAGIC) || crc != seeded_crc(identity.seed(), &[body]).to_le_bytes() {
            return None;
        }
        let mut reader = Reader::at(body, MAGIC.len());
        let revision = reader.u64().ok()?;
        let count = usize::from(reader.u16().ok()?);
        if !(1..=KEY_EPOCHS_MAX).contains(&count) {
            return None;
        }
        let mut reader = Reader::at(body, KEYS_AT);
        let keys = (0..count)
            .map(|_| WrappedKey::decode(reader.take(WRAPPED_KEY_BYTES).ok()?))
            .collect::<Option<_>>()?;
        Some(Self { revision, keys })
    }

    /// The slot that counts, of the two after the header page; `None` when both are unreadable.
    pub fn newest(file_start: &[u8], identity: &BlockIdentity) -> Option<Self> {
        [HEADER_PAGE_BYTES, HEADER_PAGE_BYTES + KEY_SLOT_BYTES]
            .into_iter()
            .filter_map(|at| Self::decode(file_start.get(at..)?, identity))
            .max_by_key(|slot| slot.revision)
    }
}
