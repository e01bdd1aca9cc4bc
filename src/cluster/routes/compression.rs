//! Compression of what travels on a route: which mode two servers agree on, and streams of S2 blocks.
//!
//! # Invariant
//! A block is believed only up to [`BLOCK_BYTES_MAX`], whatever it says of itself.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use minlz::s2;
use parking_lot::Mutex;

use crate::broker::Wire;
use crate::config::options::Compression;

/// The largest block that is taken; the largest that the reference writes.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// The blocks that are written.
const BLOCK_BYTES: usize = 64 << 10;
/// What one write takes before it is compressed.
const WRITE_BYTES_MAX: usize = 256 << 10;
const IDENTIFIER: &[u8] = b"\xff\x06\x00\x00S2sTwO";
const SNAPPY_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const CHUNK_COMPRESSED: u8 = 0x00;
const CHUNK_PLAIN: u8 = 0x01;
const CHUNK_SKIPPED_FROM: u8 = 0x80;
const CHUNK_IDENTIFIER: u8 = 0xff;

/// How much effort is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Level {
    Uncompressed,
    Fast,
    Better,
    Best,
}

impl Level {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Uncompressed,
            1 => Self::Fast,
            2 => Self::Better,
            _ => Self::Best,
        }
    }

    /// As an `INFO` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "s2_uncompressed",
            Self::Fast => "s2_fast",
            Self::Better => "s2_better",
            Self::Best => "s2_best",
        }
    }

    /// The level for a round trip: thresholds stand between the levels, and one of zero leaves the level below it out.
    pub(super) fn for_round_trip(round_trip: Duration, thresholds: &[Duration]) -> Self {
        let at = thresholds
            .iter()
            .position(|threshold| round_trip <= *threshold)
            .unwrap_or(match thresholds.len() {
                3.. => 3,
                fewer => fewer.saturating_sub(1),
            });
        Self::from_number(u8::try_from(at).unwrap_or(3))
    }
}

/// The level of a connection, which may change while it lives.
#[derive(Debug)]
pub(super) struct SharedLevel(AtomicU8);

impl SharedLevel {
    pub(super) fn new(level: Level) -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(level as u8)))
    }

    pub(super) fn get(&self) -> Level {
        Level::from_number(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

/// The mode as an `INFO` names it.
pub(super) fn mode_name(mode: &Compression) -> &'static str {
    match mode {
        Compression::NotSupported => "not supported",
        Compression::Off => "off",
        Compression::Accept => "accept",
        Compression::Fast => "s2_fast",
        Compression::Better => "s2_better",
        Compression::Best => "s2_best",
        Compression::Auto(_) => "s2_auto",
    }
}

/// Whether this mode has to be negotiated.
pub(super) fn is_negotiated(mode: &Compression) -> bool {
    !matches!(mode, Compression::NotSupported | Compression::Off)
}

/// The other side names a mode that is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported route compression mode {0:?}")]
pub struct UnknownMode(String);

/// What becomes of our mode and theirs; `None` is no compression.
pub(super) fn agree(
    ours: &Compression,
    theirs: &str,
    round_trip: Duration,
) -> Result<Option<Level>, UnknownMode> {
    let own = || match ours {
        Compression::NotSupported | Compression::Off | Compression::Accept => None,
        Compression::Fast => Some(Level::Fast),
        Compression::Better => Some(Level::Better),
        Compression::Best => Some(Level::Best),
        Compression::Auto(thresholds) => Some(Level::for_round_trip(round_trip, thresholds)),
    };
    let follows = *ours == Compression::Accept;
    Ok(match theirs {
        "" | "not supported" | "off" => None,
        "accept" => own(),
        "s2_auto" | "s2_fast" if follows => Some(Level::Fast),
        "s2_uncompressed" if follows => Some(Level::Uncompressed),
        "s2_better" if follows => Some(Level::Better),
        "s2_best" if follows => Some(Level::Best),
        "s2_auto" | "s2_uncompressed" | "s2_fast" | "s2_better" | "s2_best" => own(),
        other => return Err(UnknownMode(other.chars().take(64).collect())),
    })
}

/// Makes blocks of what is to be sent.
pub(super) struct Encoder {
    level: Arc<SharedLevel>,
    begun: bool,
}

impl Encoder {
    pub(super) fn new(level: Arc<SharedLevel>) -> Self {
        Self {
            level,
            begun: false,
        }
    }

    /// Appends the blocks of a text.
    pub(super) fn encode(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(IDENTIFIER);
        }
        for block in text.chunks(BLOCK_BYTES) {
            let sum = minlz::crc::crc(block).to_le_bytes();
            let compressed = match self.level.get() {
                Level::Uncompressed => None,
                Level::Fast => Some(s2::encode(block)),
                Level::Better => Some(s2::encode_better(block)),
                Level::Best => Some(s2::encode_best(block)),
            };
            let (kind, body) = match &compressed {
                Some(compressed) if compressed.len() < block.len() => {
                    (CHUNK_COMPRESSED, compressed.as_slice())
                }
                _ => (CHUNK_PLAIN, block),
            };
            // A block is far smaller than what three bytes count.
            let length = (body.len() + sum.len()) as u32;
            out.push(kind);
            out.extend_from_slice(&length.to_le_bytes()[..3]);
            out.extend_from_slice(&sum);
            out.extend_from_slice(body);
        }
    }
}

/// Reads blocks.
#[derive(Default)]
pub(super) struct Decoder {
    raw: BytesMut,
}

impl Decoder {
    /// What came and is not decoded yet; to be appended to.
    pub(super) fn raw(&mut self) -> &mut BytesMut {
        &mut self.raw
    }

    /// Appends the text of the blocks that are there; how many bytes that were. A few bytes may stand for a block of the largest
    /// size: what one call makes is limited, and the next call goes on.
    pub(super) fn decode(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        let before = out.len();
        while let Some(head) = self.raw.first_chunk::<4>() {
            if out.len() - before >= BLOCK_BYTES_MAX {
                break;
            }
            let [kind, a, b, c] = *head;
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            let is_skipped = (CHUNK_SKIPPED_FROM..CHUNK_IDENTIFIER).contains(&kind);
            if length > BLOCK_BYTES_MAX + (64 << 10) {
                return Err(corrupt("a block is too long"));
            }
            if self.raw.len() < 4 + length {
                break;
            }
            let chunk = self.raw.split_to(4 + length);
            if is_skipped {
                continue;
            }
            if kind == CHUNK_IDENTIFIER {
                if &*chunk != IDENTIFIER && &*chunk != SNAPPY_IDENTIFIER {
                    return Err(corrupt("this is no S2 stream"));
                }
                continue;
            }
            let Some((sum, body)) = chunk
                .get(4..)
                .and_then(|rest| rest.split_first_chunk::<4>())
            else {
                return Err(corrupt("a block is too short"));
            };
            let start = out.len();
            match kind {
                CHUNK_PLAIN => out.extend_from_slice(body),
                CHUNK_COMPRESSED => append_block(body, out)?,
                _ => return Err(corrupt("a block of an unknown kind")),
            }
            let text = out.get(start..).unwrap_or_default();
            if minlz::crc::crc(text) != u32::from_le_bytes(*sum) {
                return Err(corrupt("a block's checksum is wrong"));
            }
        }
        Ok(out.len() - before)
    }
}

fn append_block(body: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let (length, _) = s2::decode_len(body).map_err(|_| corrupt("a block is malformed"))?;
    if length > BLOCK_BYTES_MAX {
        return Err(corrupt("a block is too large"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    match s2::decode_into(room, body) {
        Ok(written) if written == length => Ok(()),
        _ => Err(corrupt("a block is malformed")),
    }
}

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A wire that compresses what is written to it. What the socket does not take stays here until a later write or flush.
pub(super) struct CompressingWire {
    inner: Box<dyn Wire>,
    state: Mutex<Waiting>,
}

struct Waiting {
    encoder: Encoder,
    plain: Vec<u8>,
    blocks: BytesMut,
}

impl CompressingWire {
    pub(super) fn new(inner: Box<dyn Wire>, encoder: Encoder) -> Self {
        Self {
            inner,
            state: Mutex::new(Waiting {
                encoder,
                plain: Vec::new(),
                blocks: BytesMut::new(),
            }),
        }
    }

    fn write_blocks(&self, blocks: &mut BytesMut) -> io::Result<()> {
        while !blocks.is_empty() {
            match self.inner.try_write(&[IoSlice::new(blocks)])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => blocks.advance(written),
            }
        }
        Ok(())
    }
}

impl Wire for CompressingWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let Waiting {
            encoder,
            plain,
            blocks,
        } = &mut *state;
        self.write_blocks(blocks)?;
        plain.clear();
        for slice in slices {
            let room = WRITE_BYTES_MAX - plain.len();
            plain.extend_from_slice(slice.get(..slice.len().min(room)).unwrap_or_default());
        }
        let mut made = Vec::new();
        encoder.encode(plain, &mut made);
        blocks.extend_from_slice(&made);
        match self.write_blocks(blocks) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(plain.len()),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        self.write_blocks(&mut self.state.lock().blocks)?;
        self.inner.try_flush()
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_writable(context)
    }

    fn shutdown(&self) {
        self.inner.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for level in [Level::Uncompressed, Level::Fast, Level::Better, Level::Best] {
            let mut blocks = Vec::new();
            Encoder::new(SharedLevel::new(level)).encode(&text, &mut blocks);
            assert_eq!(level == Level::Uncompressed, blocks.len() > text.len());
            let mut decoder = Decoder::default();
            let mut out = BytesMut::new();
            for piece in blocks.chunks(1000) {
                decoder.raw().extend_from_slice(piece);
                decoder.decode(&mut out).unwrap();
            }
            assert!(out == text, "{level:?}");
        }
    }

    #[test]
    fn one_call_makes_no_more_than_a_block_beyond_the_limit() {
        let text = vec![7u8; 3 * BLOCK_BYTES_MAX];
        let mut blocks = Vec::new();
        Encoder::new(SharedLevel::new(Level::Fast)).encode(&text, &mut blocks);
        let mut decoder = Decoder::default();
        decoder.raw().extend_from_slice(&blocks);
        let mut out = BytesMut::new();
        for call in 1..=3 {
            assert_eq!(decoder.decode(&mut out).unwrap(), BLOCK_BYTES_MAX);
            assert_eq!(out.len(), call * BLOCK_BYTES_MAX);
        }
        assert!(out == text);
    }

    #[test]
    fn damage_is_found() {
        let mut blocks = Vec::new();
        Encoder::new(SharedLevel::new(Level::Fast)).encode(&[7; 1000], &mut blocks);
        let last = blocks.len() - 1;
        blocks[last] ^= 1;
        let mut decoder = Decoder::default();
        decoder.raw().extend_from_slice(&blocks);
        assert!(decoder.decode(&mut BytesMut::new()).is_err());
        let mut decoder = Decoder::default();
        decoder.raw().extend_from_slice(b"\x00\xff\xff\xff");
        assert!(decoder.decode(&mut BytesMut::new()).is_err());
    }

    #[test]
    fn two_modes_become_one() {
        let auto = Compression::Auto(vec![10 * MS, 50 * MS, 100 * MS]);
        let agreed = |ours: &Compression, theirs| agree(ours, theirs, 60 * MS).unwrap();
        assert_eq!(agreed(&Compression::Accept, "accept"), None);
        assert_eq!(agreed(&Compression::Accept, "s2_auto"), Some(Level::Fast));
        assert_eq!(agreed(&Compression::Accept, "s2_best"), Some(Level::Best));
        assert_eq!(agreed(&Compression::Better, "s2_best"), Some(Level::Better));
        assert_eq!(agreed(&auto, "accept"), Some(Level::Better));
        assert_eq!(agreed(&Compression::Fast, "off"), None);
        assert_eq!(agreed(&Compression::Fast, ""), None);
        assert!(agree(&Compression::Fast, "zip", MS).is_err());
    }

    #[test]
    fn the_longer_the_round_trip_the_more_effort() {
        let level = |ms: u32, thresholds: &[u32]| {
            let thresholds: Vec<_> = thresholds.iter().map(|t| *t * MS).collect();
            Level::for_round_trip(ms * MS, &thresholds)
        };
        assert_eq!(level(5, &[10, 50, 100]), Level::Uncompressed);
        assert_eq!(level(11, &[10, 50, 100]), Level::Fast);
        assert_eq!(level(500, &[10, 50, 100]), Level::Best);
        assert_eq!(level(1, &[0, 0, 20]), Level::Better);
        assert_eq!(level(500, &[10]), Level::Uncompressed);
    }
}
