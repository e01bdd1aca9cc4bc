//! The framed stream around an archive and around compressed blocks: S2, which also reads Snappy's.
//!
//! ```text
//! identifier: ff 06 00 00 "S2sTwO" | frames, each: kind u8, length u24 le, content
//! kind 0: masked crc32c of the plain bytes u32 le, S2 block | kind 1: crc, plain bytes | 80 and above: passed over
//! ```

use std::io::{self, ErrorKind, Read, Write};

use minlz::crc::crc;
use minlz::s2;

const IDENTIFIER: &[u8; 10] = b"\xff\x06\x00\x00S2sTwO";
const SNAPPY_IDENTIFIER: &[u8; 10] = b"\xff\x06\x00\x00sNaPpY";
const COMPRESSED: u8 = 0;
const PLAIN: u8 = 1;
/// From here on frames may be passed over by who does not know them.
const SKIPPABLE: u8 = 0x80;
const SUM_BYTES: usize = 4;
/// The most plain bytes in one frame that any writer makes.
const PLAIN_BYTES_MAX: usize = 4 << 20;
/// The plain bytes in one frame that we make.
const FRAME_BYTES: usize = 256 << 10;

/// Reads the plain bytes of a framed stream.
pub struct FrameReader<R> {
    source: R,
    frame: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    begun: bool,
}

impl<R: Read> FrameReader<R> {
    /// Of a stream from its beginning.
    pub fn new(source: R) -> Self {
        Self {
            source,
            frame: Vec::new(),
            plain: Vec::new(),
            at: 0,
            begun: false,
        }
    }

    /// `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        if !self.begun {
            let mut identifier = [0; IDENTIFIER.len()];
            self.source.read_exact(&mut identifier)?;
            if identifier != *IDENTIFIER && identifier != *SNAPPY_IDENTIFIER {
                return Err(damaged("it does not begin as an S2 stream does"));
            }
            self.begun = true;
        }
        let mut head = [0; 4];
        if !fill_or_end(&mut self.source, &mut head)? {
            return Ok(false);
        }
        let [kind, low, middle, high] = head;
        let length = u32::from_le_bytes([low, middle, high, 0]);
        if kind >= SKIPPABLE {
            let passed = io::copy(
                &mut self.source.by_ref().take(length.into()),
                &mut io::sink(),
            )?;
            return match passed == u64::from(length) {
                true => Ok(true),
                false => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
        self.frame.clear();
        self.source
            .by_ref()
            .take(length.into())
            .read_to_end(&mut self.frame)?;
        if self.frame.len() != length as usize {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((sum, content)) = self.frame.split_first_chunk::<SUM_BYTES>() else {
            return Err(damaged("a frame of an S2 stream is too short"));
        };
        match kind {
            COMPRESSED => unpack(content, &mut self.plain)?,
            PLAIN if content.len() <= PLAIN_BYTES_MAX => {
                self.plain.clear();
                self.plain.extend_from_slice(content);
            }
            PLAIN => return Err(damaged("a frame of an S2 stream is too long")),
            _ => return Err(damaged("a frame of an S2 stream is of an unknown kind")),
        }
        if crc(&self.plain) != u32::from_le_bytes(*sum) {
            return Err(damaged("a frame of an S2 stream fails its checksum"));
        }
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.plain.len() {
            if !self.next_frame()? {
                return Ok(0);
            }
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

fn unpack(content: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    let bad = || damaged("a frame of an S2 stream cannot be decompressed");
    let (length, _) = s2::decode_len(content).map_err(|_| bad())?;
    if length > PLAIN_BYTES_MAX {
        return Err(damaged("a frame of an S2 stream is too long"));
    }
    plain.clear();
    plain.resize(length, 0);
    match s2::decode_into(plain, content) {
        Ok(written) if written == length => Ok(()),
        _ => Err(bad()),
    }
}

/// Fills the buffer; `false` when nothing at all is left.
fn fill_or_end(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// Writes a framed stream.
pub struct FrameWriter<W> {
    sink: W,
    plain: Vec<u8>,
    begun: bool,
}

impl<W: Write> FrameWriter<W> {
    /// To a sink that is at the stream's beginning.
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            plain: Vec::new(),
            begun: false,
        }
    }

    /// Writes what is left and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_frame()?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if !self.begun {
            self.sink.write_all(IDENTIFIER)?;
            self.begun = true;
        }
        if self.plain.is_empty() {
            return Ok(());
        }
        let packed = s2::encode(&self.plain);
        let (kind, content) = match packed.len() < self.plain.len() {
            true => (COMPRESSED, &packed),
            false => (PLAIN, &self.plain),
        };
        let length = (content.len() + SUM_BYTES) as u32;
        let [low, middle, high, _] = length.to_le_bytes();
        self.sink.write_all(&[kind, low, middle, high])?;
        self.sink.write_all(&crc(&self.plain).to_le_bytes())?;
        self.sink.write_all(content)?;
        self.plain.clear();
        Ok(())
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME_BYTES - self.plain.len());
        self.plain
            .extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.plain.len() >= FRAME_BYTES {
            self.end_frame()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.end_frame()?;
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(plain: &[u8]) -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write_all(plain).expect("a vector takes everything");
        writer.finish().expect("a vector takes everything")
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        FrameReader::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut plain: Vec<u8> = (0..600_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for length in [0, 1, FRAME_BYTES, FRAME_BYTES + 1, plain.len()] {
            plain.truncate(length.max(1));
            assert_eq!(read(&framed(&plain)).expect("it reads"), plain);
        }
        assert_eq!(read(&framed(b"")).expect("it reads"), b"");
    }

    #[test]
    fn another_program_reads_what_we_write_and_we_what_it_writes() {
        let plain = b"as the reference's library frames it ".repeat(40_000);
        let mut other = Vec::new();
        s2::Reader::new(&framed(&plain)[..])
            .read_to_end(&mut other)
            .expect("it reads");
        assert_eq!(other, plain);
        let mut writer = s2::Writer::new(Vec::new());
        writer.write_all(&plain).expect("a vector takes everything");
        writer.flush().expect("a vector takes everything");
        assert_eq!(read(writer.get_ref()).expect("it reads"), plain);
    }

    #[test]
    fn damage_is_found() {
        let whole = framed(&b"some text that repeats, some text that repeats".repeat(9));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            // A frame whose kind became one that is passed over, or whose length grew, has no content or no end.
            if let Ok(plain) = read(&flipped) {
                assert!(plain.is_empty(), "byte {at}");
            }
        }
        for cut in 1..whole.len() {
            assert!(
                cut == IDENTIFIER.len() || read(&whole[..cut]).is_err(),
                "{cut}"
            );
        }
        assert!(read(b"").is_err());
        // Frames that say more than they hold.
        let mut huge = IDENTIFIER.to_vec();
        huge.extend_from_slice(&[0, 9, 0, 0, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(read(&huge).is_err());
    }
}
