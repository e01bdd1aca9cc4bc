//! One message compressed or inflated, without anything kept from the one before.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a flush ends with, and the extension leaves out on the wire.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Compresses messages.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Self {
        Self(Compress::new(Compression::fast(), false))
    }

    /// The message as it goes on the wire.
    pub fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.reset();
        let mut out = Vec::with_capacity(message.len() / 2 + 64);
        loop {
            let taken = self.0.total_in() as usize;
            let rest = message.get(taken..).unwrap_or_default();
            // Fails only where the stream was finished, which this never does.
            let _ = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            let is_done = self.0.total_in() as usize == message.len() && out.len() < out.capacity();
            if is_done {
                break;
            }
            out.reserve(out.len().max(64));
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        out
    }
}

/// Why a message could not be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotInflated {
    /// It is longer than allowed.
    TooLong,
    /// It is not compressed as the standard says.
    Damaged,
}

/// Inflates a whole message to at most that many bytes.
pub(super) fn inflate(message: &mut Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, NotInflated> {
    message.extend_from_slice(&TAIL);
    let mut inflater = Decompress::new(false);
    let mut out = Vec::with_capacity((message.len() * 2).min(bytes_max + 1));
    loop {
        let taken = inflater.total_in() as usize;
        let rest = message.get(taken..).unwrap_or_default();
        let before = (taken, out.len());
        let status = inflater
            .decompress_vec(rest, &mut out, FlushDecompress::Sync)
            .map_err(|_| NotInflated::Damaged)?;
        if out.len() > bytes_max {
            return Err(NotInflated::TooLong);
        }
        let all_taken = inflater.total_in() as usize == message.len();
        if status == Status::StreamEnd || all_taken && out.len() < out.capacity() {
            return Ok(out);
        }
        let stands_still = before == (inflater.total_in() as usize, out.len());
        if out.len() == out.capacity() {
            // One byte beyond the limit tells that it is exceeded.
            let room = (bytes_max + 1).saturating_sub(out.len());
            out.reserve_exact(out.len().max(256).min(room.max(1)));
        } else if stands_still {
            return Err(NotInflated::Damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_whatever_came_before() {
        let mut deflater = Deflater::new();
        for length in [0, 1, 10, 1000, 70_000] {
            let message: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
            let mut compressed = deflater.deflate(&message);
            let inflated = inflate(&mut compressed, message.len());
            assert_eq!(inflated, Ok(message));
        }
    }

    #[test]
    fn a_message_that_grows_too_much_is_refused() {
        let mut compressed = Deflater::new().deflate(&vec![7; 1 << 20]);
        assert!(compressed.len() < 10_000);
        let inflated = inflate(&mut compressed.clone(), (1 << 20) - 1);
        assert_eq!(inflated, Err(NotInflated::TooLong));
        assert!(inflate(&mut compressed, 1 << 20).is_ok());
    }

    #[test]
    fn the_example_of_the_standard_is_inflated() {
        // RFC 7692, section 7.2.3.1.
        let mut hello = vec![0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&mut hello, 100), Ok(b"Hello".to_vec()));
    }
}
