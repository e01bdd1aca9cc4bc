//! Blocks: a stream's messages, in order, in files of up to 64 MiB that say by themselves what they hold.
//!
//! A block is a header, chunks of whole records, and once it is sealed a footer with the index of all its records. In reading
//! order:
//!
//! - `format`: the bytes, part by part.
//! - `body`, `chunk`: the records of a chunk, and the chunk compressed and sealed.
//! - `writer`: [`BlockWriter`] turns records into bytes for a file, [`encode_block`] into a whole block.
//! - `index`: where records are and which subjects they are on; `packed`, `postings` and `subjects` are what it is made of.
//! - `open`, `sealed`: [`OpenBlock`] and [`SealedBlock`] read; `read` is what they share, `cache` what bounds their memory.
//! - `scan`: chunks found without a footer.
//! - `verify`: everything a block promises, checked.
//!
//! # Invariant
//! A block never depends on another file. Every record has a checksum of its own that is checked at each load, every chunk is
//! self-contained: damage costs the chunk it is in and nothing else, and an error names the sequences.

mod body;
mod cache;
mod chunk;
mod error;
pub mod format;
pub(crate) mod fuzz;
mod index;
mod keys;
mod open;
mod packed;
mod postings;
mod read;
mod scan;
mod sealed;
mod source;
mod subjects;
#[cfg(test)]
mod tests;
mod varint;
pub mod verify;
mod writer;

pub use body::Record;
pub use cache::{BlockCache, CacheFigures};
pub use chunk::PlacedChunk;
pub use error::{BlockOpenError, BlockReadError, Damage};
pub use format::BlockIdentity;
pub use keys::BlockKeys;
pub use open::OpenBlock;
pub use scan::Lost;
pub use sealed::SealedBlock;
pub use writer::{BlockWriter, EncodedChunk, PlacedBytes, encode_block, rewrap_keys};
