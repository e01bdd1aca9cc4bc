//! The tar around the files of an archive: regular files with names of any length.

use std::io::{self, ErrorKind, Read, Write};

const BLOCK: usize = 512;
/// The longest extended header that is believed.
const EXTENDED_BYTES_MAX: u64 = 64 << 10;
const NAME_BYTES: usize = 100;

/// What cannot be read as a tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes do not come.
    #[error("the archive cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It ends in the middle.
    #[error("the archive is cut off after {0} bytes")]
    Cut(u64),
    /// A header is damaged.
    #[error("the archive is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it stands there.
    pub name: String,
    /// How long it says it is.
    pub size: u64,
    /// Whether it is an ordinary file.
    pub is_file: bool,
}

/// Reads an archive; its own bytes are those of the entry that was last asked for.
pub struct TarReader<R> {
    source: R,
    offset: u64,
    left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    /// Of an archive from its beginning.
    pub fn new(source: R) -> Self {
        Self {
            source,
            offset: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; `None` at the mark that ends the archive, which must be there.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let rest = self.left + std::mem::take(&mut self.padding);
        self.left = 0;
        self.pass(rest)?;
        let mut extended = Extended::default();
        loop {
            let offset = self.offset;
            let damaged = |reason| TarError::Damaged { offset, reason };
            let mut header = [0; BLOCK];
            self.fill(&mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = Header(&header);
            header
                .check()
                .ok_or(damaged("a header fails its checksum"))?;
            let size = header.number(124, 12);
            let size = size.ok_or(damaged("a size that is no number"))?;
            let kind = header.kind();
            if matches!(kind, b'x' | b'g' | b'L' | b'K') {
                if size > EXTENDED_BYTES_MAX {
                    return Err(damaged("an extended header is too long"));
                }
                let mut body = Vec::new();
                self.source.by_ref().take(size).read_to_end(&mut body)?;
                self.offset += body.len() as u64;
                if body.len() as u64 != size {
                    return Err(TarError::Cut(self.offset));
                }
                self.pass(padding(size))?;
                match kind {
                    b'x' => extended
                        .read(&body)
                        .ok_or(damaged("an extended header cannot be read"))?,
                    b'L' => {
                        let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
                        extended.path = Some(text(name).ok_or(damaged("a name is no text"))?);
                    }
                    _ => {}
                }
                continue;
            }
            let name = match extended.path.take() {
                Some(path) => path,
                None => header.name().ok_or(damaged("a name is no text"))?,
            };
            let size = extended.size.unwrap_or(size);
            // Blocks are counted in bytes below: nothing may overflow there.
            if size > i64::MAX as u64 {
                return Err(damaged("a size that cannot be"));
            }
            let is_file = matches!(kind, b'0' | 0 | b'7');
            self.left = if is_file { size } else { 0 };
            self.padding = if is_file { padding(size) } else { 0 };
            return Ok(Some(Entry {
                name,
                size,
                is_file,
            }));
        }
    }

    /// All of the entry that was last asked for, when it is not longer than allowed.
    pub fn whole(&mut self, bytes_max: u64) -> Result<Vec<u8>, TarError> {
        let size = self.left;
        if size > bytes_max {
            return Err(TarError::Damaged {
                offset: self.offset,
                reason: "a file is longer than it may be",
            });
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        match self.source.read_exact(buffer) {
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(TarError::Cut(self.offset))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn pass(&mut self, bytes: u64) -> Result<(), TarError> {
        let passed = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        self.offset += passed;
        match passed == bytes {
            true => Ok(()),
            false => Err(TarError::Cut(self.offset)),
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = (buffer.len() as u64).min(self.left) as usize;
        let Some(buffer) = buffer.get_mut(..room).filter(|room| !room.is_empty()) else {
            return Ok(0);
        };
        let count = self.source.read(buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64).saturating_sub(size)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// What an extended header says of the entry after it.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    size: Option<u64>,
}

impl Extended {
    /// Records, each `length key=value\n`, the length being that of all of it.
    fn read(&mut self, mut body: &[u8]) -> Option<()> {
        while !body.is_empty() {
            let space = body.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(body.get(..space)?).ok()?.parse().ok()?;
            let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
            body = body.get(length..)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let value = record.get(equals + 1..)?;
            match record.get(..equals)? {
                b"path" => self.path = Some(text(value)?),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(())
    }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn field(&self, at: usize, length: usize) -> &[u8] {
        let field = self.0.get(at..at + length).unwrap_or_default();
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    fn number(&self, at: usize, length: usize) -> Option<u64> {
        let raw = self.0.get(at..at + length)?;
        let (first, rest) = raw.split_first()?;
        if first & 0x80 != 0 {
            let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
            let is_small = first & 0x7f == 0 && high.iter().all(|byte| *byte == 0);
            return is_small.then(|| {
                low.iter()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            });
        }
        let digits = self.field(at, length).trim_ascii();
        if digits.is_empty() {
            return Some(0);
        }
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
    }

    fn check(&self) -> Option<()> {
        let sum = sum_of(self.0);
        (self.number(148, 8)? == sum).then_some(())
    }

    fn name(&self) -> Option<String> {
        let name = self.field(0, NAME_BYTES);
        let prefix = match self.field(257, 5) {
            b"ustar" => self.field(345, 155),
            _ => b"",
        };
        match prefix {
            b"" => text(name),
            prefix => text(&[prefix, b"/", name].concat()),
        }
    }
}

/// The sum of a header's bytes, its own field taken as blanks.
fn sum_of(header: &[u8; BLOCK]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    };
    header.iter().enumerate().map(byte).sum()
}

/// Writes an archive.
pub struct TarWriter<W> {
    sink: W,
    seconds: u64,
}

impl<W: Write> TarWriter<W> {
    /// To a sink that is at the archive's beginning; the files are of that time, in seconds since the epoch.
    pub fn new(sink: W, seconds: u64) -> Self {
        Self { sink, seconds }
    }

    /// Writes a file.
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut short = name;
        if name.len() > NAME_BYTES {
            let record = extended_record("path", name);
            self.entry(b'x', "PaxHeaders.0/long", record.as_bytes())?;
            short = "long";
        }
        self.entry(b'0', short, content)
    }

    /// Writes the mark that ends it and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        Ok(self.sink)
    }

    fn entry(&mut self, kind: u8, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = header.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, name.as_bytes());
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", self.seconds).as_bytes());
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        put(265, b"nats");
        put(297, b"nats");
        let sum = format!("{:06o}\0 ", sum_of(&header));
        if let Some(field) = header.get_mut(148..156) {
            field.copy_from_slice(sum.as_bytes());
        }
        self.sink.write_all(&header)?;
        self.sink.write_all(content)?;
        let zeros = [0; BLOCK];
        let padding = padding(content.len() as u64) as usize;
        self.sink
            .write_all(zeros.get(..padding).unwrap_or_default())
    }
}

/// The length in front counts itself.
fn extended_record(key: &str, value: &str) -> String {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length += 1;
    }
    format!("{length} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new(), 1_800_000_000);
        let long = format!("obs/{}/meta.inf", "n".repeat(200));
        for (name, length) in [("meta.inf", 5), ("msgs/1.blk", 512), (&long, 0), ("e", 700)] {
            let content = vec![b'c'; length];
            writer.file(name, &content).expect("a vector takes it");
        }
        writer.finish().expect("a vector takes it")
    }

    fn names(bytes: &[u8]) -> Result<Vec<(String, usize)>, TarError> {
        let mut reader = TarReader::new(bytes);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            assert!(entry.is_file);
            names.push((entry.name, reader.whole(1000)?.len()));
        }
        Ok(names)
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let read = names(&sample()).expect("it reads");
        let lengths: Vec<usize> = read.iter().map(|(_, length)| *length).collect();
        assert_eq!(lengths, [5, 512, 0, 700]);
        assert_eq!(read[2].0.len(), 213);
        let whole = sample();
        let mut reader = TarReader::new(&whole[..]);
        while reader
            .next_entry()
            .expect("unread files are passed over")
            .is_some()
        {}
    }

    #[test]
    fn what_is_cut_or_damaged_is_told() {
        let whole = sample();
        for cut in 0..whole.len() - BLOCK {
            assert!(names(&whole[..cut]).is_err(), "{cut} bytes");
        }
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        assert!(matches!(
            names(&flipped),
            Err(TarError::Damaged { offset: 0, .. })
        ));
        let mut reader = TarReader::new(&whole[..]);
        reader.next_entry().expect("reads");
        assert!(reader.whole(4).is_err(), "longer than allowed");
    }
}
