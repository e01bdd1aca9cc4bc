//! Entry points for fuzzers: every decoder of bytes that come from a disk, with inputs that our own encoders write.
//!
//! Checksums keep random bytes away from what lies behind them, so that the parts behind a checksum have targets of their own,
//! which are fed what the checksum would have let through.
//!
//! # Invariant
//! A target returns on any input: it does not panic, does not hang, and asks for no more memory than a small multiple of the
//! input. What it decodes is used as the store would use it.

mod files;

use crate::{block, engine, store};

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of its corpus.
    pub name: &'static str,
    /// Decodes any bytes and uses the result.
    pub run: fn(&[u8]),
    /// Sound inputs, fresh from our encoders: what mutations start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All decoders of this crate.
pub fn targets() -> Vec<Target> {
    let rooms: [&[Target]; 4] = [
        files::TARGETS,
        block::fuzz::TARGETS,
        store::fuzz::TARGETS,
        engine::fuzz::TARGETS,
    ];
    rooms.concat()
}
