//! Answers in a smaller form, for those who say that they can read it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::protocol::headers;

/// What who asks can read, besides plain bytes.
const ACCEPTED: &str = "Accept-Encoding";
/// How the answer is written.
const ENCODED: &str = "Content-Encoding";

/// The header block and the payload of an answer to a question with these headers.
pub(super) fn for_asker(question_headers: &[u8], payload: Vec<u8>) -> (Bytes, Bytes) {
    let accepted = headers::get_str(question_headers, ACCEPTED).unwrap_or_default();
    if !accepted.to_ascii_lowercase().contains("gzip") {
        return (Bytes::new(), payload.into());
    }
    match gzip(&payload) {
        Ok(small) => {
            let mut block = b"NATS/1.0\r\n\r\n".to_vec();
            headers::set(&mut block, ENCODED, b"gzip");
            (block.into(), small.into())
        }
        // Memory does not fail to be written to; if it did, the plain bytes would still do.
        Err(_) => (Bytes::new(), payload.into()),
    }
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
        let payload = b"{\"data\":\"data data data data\"}".to_vec();
        let asked = b"NATS/1.0\r\nAccept-Encoding: deflate, GZIP\r\n\r\n";
        let (block, small) = for_asker(asked, payload.clone());
        assert_eq!(headers::get_str(&block, ENCODED), Some("gzip"));
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&small[..]);
        decoder.read_to_end(&mut plain).unwrap();
        assert_eq!(plain, payload);
        for other in [&b""[..], b"NATS/1.0\r\nAccept-Encoding: br\r\n\r\n"] {
            let (block, same) = for_asker(other, payload.clone());
            assert!(block.is_empty());
            assert_eq!(same, payload);
        }
    }
}
