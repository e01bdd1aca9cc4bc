//! Answers in a smaller form, for those who say that they can read it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::protocol::headers;

/// What who asks can read, besides plain bytes.
pub(super) const ACCEPTED: &str = "Accept-Encoding";
/// How the answer is written.
const ENCODED: &str = "Content-Encoding";

/// How an answer can be made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Snappy,
    Gzip,
    /// What who asks can read is nothing that is known here.
    Identity,
}

impl Encoding {
    /// The reference looks for the faster one first, and lets S2 stand for it.
    fn accepted(header: &str) -> Option<Self> {
        let accepted = header.to_ascii_lowercase();
        Some(match accepted.as_str() {
            "" => return None,
            some if some.contains("snappy") || some.contains("s2") => Self::Snappy,
            some if some.contains("gzip") => Self::Gzip,
            _ => Self::Identity,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }
}

/// The header block and the payload of an answer to a question with these headers.
pub(super) fn for_asker(question_headers: &[u8], payload: Vec<u8>) -> (Bytes, Bytes) {
    let accepted = headers::get_str(question_headers, ACCEPTED).unwrap_or_default();
    as_accepted(accepted, payload)
}

/// The header block and the payload of what is for somebody who can read this.
pub(super) fn as_accepted(accepted: &str, payload: Vec<u8>) -> (Bytes, Bytes) {
    let Some(encoding) = Encoding::accepted(accepted) else {
        return (Bytes::new(), payload.into());
    };
    let small = match encoding {
        Encoding::Snappy => snappy(&payload),
        Encoding::Identity => payload,
        Encoding::Gzip => match gzip(&payload) {
            Ok(small) => small,
            // Memory does not fail to be written to; if it did, the plain bytes would still do.
            Err(_) => return (Bytes::new(), payload.into()),
        },
    };
    let mut block = b"NATS/1.0\r\n\r\n".to_vec();
    headers::set(&mut block, ENCODED, encoding.name().as_bytes());
    (block.into(), small.into())
}

/// How a stream of Snappy frames begins.
const SNAPPY_BEGIN: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// A frame holds no more than this.
const SNAPPY_FRAME_BYTES_MAX: usize = 64 * 1024;

/// A stream in Snappy's framing format, every frame compressed.
fn snappy(payload: &[u8]) -> Vec<u8> {
    let mut stream = SNAPPY_BEGIN.to_vec();
    for part in payload.chunks(SNAPPY_FRAME_BYTES_MAX) {
        let block = minlz::encode_snappy(part);
        // A type, of compressed data, and three bytes of length in front of the check and the block.
        let length = u32::try_from(block.len() + 4).unwrap_or(u32::MAX);
        stream.push(0);
        stream.extend(length.to_le_bytes().iter().take(3));
        stream.extend(minlz::crc::crc(part).to_le_bytes());
        stream.extend(block);
    }
    stream
}

fn gzip(payload: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(payload)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn answers_are_compressed_for_those_who_ask_for_it_only() {
        let payload = b"{\"data\":\"data data data data\"}".repeat(5000);
        let asked = b"NATS/1.0\r\nAccept-Encoding: deflate, GZIP\r\n\r\n";
        let (block, small) = for_asker(asked, payload.clone());
        assert_eq!(headers::get_str(&block, ENCODED), Some("gzip"));
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&small[..]);
        decoder.read_to_end(&mut plain).unwrap();
        assert_eq!(plain, payload);

        for asked in [
            &b"NATS/1.0\r\nAccept-Encoding: gzip, snappy\r\n\r\n"[..],
            b"NATS/1.0\r\nAccept-Encoding: S2\r\n\r\n",
        ] {
            let (block, small) = for_asker(asked, payload.clone());
            assert_eq!(headers::get_str(&block, ENCODED), Some("snappy"));
            assert!(small.len() < payload.len() / 4);
            let mut plain = Vec::new();
            let mut decoder = snap::read::FrameDecoder::new(&small[..]);
            decoder.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, payload);
        }

        let (block, same) = for_asker(b"NATS/1.0\r\nAccept-Encoding: br\r\n\r\n", payload.clone());
        assert_eq!(headers::get_str(&block, ENCODED), Some("identity"));
        assert_eq!(same, payload);
        let (block, same) = for_asker(b"", payload.clone());
        assert!(block.is_empty());
        assert_eq!(same, payload);
    }
}
