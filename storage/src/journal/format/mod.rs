//! The journal's bytes, as docs/format.md describes them.
//!
//! A segment is a header page, commits that each begin on a page, and a copy of the header in its last page. A
//! commit is a header and frames, one directly after another.

mod commit;
mod frame;
mod header;

pub use commit::{COMMIT_HEADER_BYTES, CommitHeader};
pub use frame::{FRAME_HEADER_BYTES, FrameHeader, PAYLOAD_BYTES_MAX};
pub use header::{HeaderError, NONCE_BYTES, SEGMENT_NONCE_CONTEXT, SegmentHeader, VERSION};

/// What commits and headers are aligned to.
pub const PAGE_BYTES: usize = 4096;

/// The crc32 of `bytes` as if they followed bytes with the crc32 `seed`.
pub fn crc_seeded(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// `length` rounded up to whole pages.
pub fn whole_pages(length: usize) -> usize {
    length.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// Copies `value` to `at`. The layouts' offsets are constants and lie inside their arrays.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
