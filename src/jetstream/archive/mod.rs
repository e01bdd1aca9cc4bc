//! The reference's own formats, as far as streams move between it and us: its store's files and its backups.
//!
//! - `hash`, `bytes`: checksums and numbers; `record`: messages in a block; `index`: what is live in the blocks.
//! - `meta`, `consumer`: configurations, and how far consumers have come.
//! - `frame`, `tar`: what a backup is wrapped in.
//! - `builder`: from files to a stream; `landing`: the stream on its way into an engine.
//! - `read`, `write`: a backup as a whole.
//!
//! # Invariant
//! Everything that is read here comes from outside: sizes are checked before they are believed, and nothing is taken that fails its checksum. No clock
//! is read, no broker is known.

mod builder;
mod bytes;
mod consumer;
mod frame;
pub(crate) mod fuzz;
mod hash;
mod index;
mod landing;
mod meta;
mod read;
mod record;
mod tar;
#[cfg(test)]
mod tests;
mod write;

pub use builder::{BuildError, Findings, OnDamage, Passed, StreamBuilder};
pub use bytes::NumberError;
pub use consumer::{ConsumerStateError, read_consumer_state, write_consumer_state};
pub use frame::{FrameReader, FrameWriter};
pub use hash::Sums;
pub use index::{Index, IndexError};
pub use landing::{Landing, LandingError, is_unborn, store_options};
pub use meta::{ConsumerMeta, MetaError, StreamMeta};
pub use read::{ArchiveError, ArchiveReader};
pub use record::{Record, RecordError, RecordKind, RecordReader, write_record};
pub use tar::{Entry, TarError, TarReader, TarWriter};
pub use write::{ArchiveWriter, WriteError};

/// The longest configuration that is believed.
pub const META_BYTES_MAX: u64 = 4 << 20;
/// The longest state of a consumer that is believed.
pub const CONSUMER_BYTES_MAX: u64 = 256 << 20;
/// The longest index that is believed.
pub const INDEX_BYTES_MAX: u64 = 1 << 30;
