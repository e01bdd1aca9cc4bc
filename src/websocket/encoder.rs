//! Bytes into frames.

use bytes::BytesMut;

use super::deflate::Deflater;
use super::frame::{Head, Kind};

/// Messages up to this are not worth compressing.
const COMPRESS_ABOVE_BYTES: usize = 64;
/// Browsers get frames of at most this.
const BROWSER_FRAME_BYTES_MAX: usize = 4096;

/// How frames for a peer look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Compression was agreed on.
    pub compression: bool,
    /// The peer is a browser: short frames.
    pub browser: bool,
    /// The peer takes a compressed message in one frame only.
    pub whole_when_compressed: bool,
}

/// Puts bytes into frames, each call's into a message of its own.
pub struct Encoder {
    shape: Shape,
    deflater: Option<Deflater>,
}

impl Encoder {
    /// For a new connection.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            deflater: None,
        }
    }

    /// Appends one message with that content.
    pub fn encode(&mut self, message: &[u8], out: &mut BytesMut) {
        let compresses = self.shape.compression && message.len() > COMPRESS_ABOVE_BYTES;
        if !compresses {
            return self.put(message, false, self.shape.browser, out);
        }
        let deflater = self.deflater.get_or_insert_with(Deflater::new);
        let compressed = deflater.deflate(message);
        let in_parts = self.shape.browser && !self.shape.whole_when_compressed;
        self.put(&compressed, true, in_parts, out);
    }

    fn put(&self, payload: &[u8], is_compressed: bool, in_parts: bool, out: &mut BytesMut) {
        let part_bytes_max = match in_parts {
            true => BROWSER_FRAME_BYTES_MAX,
            false => payload.len().max(1),
        };
        let parts = payload.len().div_ceil(part_bytes_max).max(1);
        let mut chunks = payload.chunks(part_bytes_max);
        for at in 0..parts {
            let part = chunks.next().unwrap_or_default();
            let head = Head {
                kind: if at == 0 {
                    Kind::Binary
                } else {
                    Kind::Continuation
                },
                is_final: at + 1 == parts,
                is_compressed: is_compressed && at == 0,
                length: part.len() as u64,
                mask: None,
            };
            head.encode(out);
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decoder::{Decoder, Limits};
    use super::*;

    #[test]
    fn what_is_encoded_for_any_peer_is_what_it_decodes() {
        let decoded = |bytes: &BytesMut| {
            let mut decoder = Decoder::new(Limits {
                compressed_bytes_max: 100_000,
                compression: true,
                masked: false,
            });
            let mut out = BytesMut::new();
            decoder.feed(bytes, &mut out, &mut Vec::new()).unwrap();
            out
        };
        for flags in 0..8 {
            let mut encoder = Encoder::new(Shape {
                compression: flags & 1 != 0,
                browser: flags & 2 != 0,
                whole_when_compressed: flags & 4 != 0,
            });
            for length in [0, 1, 64, 65, 4096, 4097, 50_000] {
                let message: Vec<u8> = (0..length).map(|at: u32| (at * 7919 % 256) as u8).collect();
                let mut out = BytesMut::new();
                encoder.encode(&message, &mut out);
                assert_eq!(decoded(&out), message, "{flags} {length}");
            }
        }
    }

    #[test]
    fn a_browser_gets_short_frames() {
        let mut out = BytesMut::new();
        let shape = Shape {
            browser: true,
            ..Shape::default()
        };
        Encoder::new(shape).encode(&[1; 10_000], &mut out);
        assert_eq!(&out[..4], &[0x02, 126, 0x10, 0x00]);
        assert_eq!(out.len(), 10_000 + 3 * 4);
    }
}
