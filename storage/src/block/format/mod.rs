//! The bytes of a block file, as docs/format.md describes them.
//!
//! - `header`: what the block is: the identity that authenticates everything else.
//! - `keys`: the wrapped data keys of an encrypted block, in two alternating slots.
//! - `chunk`: the header in front of every chunk.
//! - `record`: one message within a chunk's body.
//! - `footer`: what seals a block: its header, and the trailer that ends the file.
//!
//! All integers are little-endian. These modules turn bytes into values and values into bytes; they read
//! no file and keep no state.

pub mod chunk;
pub mod footer;
pub mod header;
pub mod keys;
pub mod record;

pub use chunk::{CHUNK_BYTES_TARGET, CHUNK_HEADER_BYTES, ChunkHeader};
pub use footer::{FOOTER_HEADER_BYTES, FooterHeader, TRAILER_BYTES, Trailer};
pub use header::{BlockIdentity, FORMAT_VERSION, HEADER_BYTES, HEADER_PAGE_BYTES, HeaderError};
pub use keys::{KEY_EPOCHS_MAX, KEY_SLOT_BYTES, KEY_SLOTS_END, KeySlot};

/// A checksum over `parts` that starts from `seed`, so that bytes which belong elsewhere do not pass.
pub(super) fn seeded_crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
