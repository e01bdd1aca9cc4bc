//! Records of a message block.
//!
//! ```text
//! length u32 le (bit 31: it has headers) | sequence u64 le (bit 63: erased, bit 62: tombstone) | time i64 le
//! subject length u16 le | subject | headers length u32 le, headers, if it has any | payload | checksum
//! ```
//!
//! The length counts all of it. The checksum is of sequence and time as they stand there, subject, headers and payload.

use std::io::{self, Read};

use super::hash::{SUM_BYTES, Sums};

const HEAD_BYTES: usize = 22;
const HAS_HEADERS: u32 = 1 << 31;
const ERASED: u64 = 1 << 63;
const TOMBSTONE: u64 = 1 << 62;
/// The longest record there is.
const RECORD_BYTES_MAX: usize = 32 << 20;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A message.
    Message,
    /// A sequence that was used and holds no message.
    Erased,
    /// Says that the message of that sequence was removed.
    Tombstone,
}

/// A record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The sequence it is about.
    pub sequence: u64,
    /// Its time, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// The message's subject.
    pub subject: &'a [u8],
    /// The message's header block, empty when it has none.
    pub headers: &'a [u8],
    /// The message's payload.
    pub payload: &'a [u8],
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The block ends in the middle of it.
    #[error("the record at byte {0} is cut off")]
    Cut(u64),
    /// No record begins here. Nothing after it can be found.
    #[error("no record begins at byte {0}")]
    Shape(u64),
    /// It is not what was written. The next one may well be.
    #[error("the record at byte {offset}, of sequence {sequence}, fails its checksum")]
    Checksum {
        /// Where it begins.
        offset: u64,
        /// The sequence that it says it is of.
        sequence: u64,
    },
    /// The bytes do not come.
    #[error("what follows byte {offset} cannot be read: {reason}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// Why.
        reason: String,
    },
}

/// Reads the records of a block one after another.
pub struct RecordReader<R> {
    source: R,
    sums: Sums,
    body: Vec<u8>,
    offset: u64,
    last_sum: Option<[u8; SUM_BYTES]>,
    ended: bool,
}

impl<R: Read> RecordReader<R> {
    /// Of a plain block.
    pub fn new(source: R, sums: Sums) -> Self {
        Self {
            source,
            sums,
            body: Vec::new(),
            offset: 0,
            last_sum: None,
            ended: false,
        }
    }

    /// The checksum of the last record that was read, whatever it is.
    pub fn last_sum(&self) -> Option<[u8; SUM_BYTES]> {
        self.last_sum
    }

    /// The next record. After an error it goes on where that is possible, and otherwise there are no more.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        // What fails from here on leaves nothing to go on from.
        self.ended = true;
        let mut head = [0; HEAD_BYTES];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            HEAD_BYTES => {}
            _ => return Err(RecordError::Cut(offset)),
        }
        let (length, sequence, time, subject_length) = take_head(&head);
        let has_headers = length & HAS_HEADERS != 0;
        let length = (length & !HAS_HEADERS) as usize;
        let headers_field = if has_headers { 4 } else { 0 };
        let least = HEAD_BYTES + subject_length + headers_field + SUM_BYTES;
        if length < least || length > RECORD_BYTES_MAX {
            return Err(RecordError::Shape(offset));
        }
        let body_length = length - HEAD_BYTES;
        self.body.clear();
        let read = self
            .source
            .by_ref()
            .take(body_length as u64)
            .read_to_end(&mut self.body)
            .map_err(|error| self.read_error(&error))?;
        if read != body_length {
            return Err(RecordError::Cut(offset));
        }
        self.offset += length as u64;
        let Some((content, sum)) = self.body.split_last_chunk::<SUM_BYTES>() else {
            return Err(RecordError::Shape(offset));
        };
        let parts = take_content(content, subject_length, has_headers);
        let (subject, headers, payload) = parts.ok_or(RecordError::Shape(offset))?;
        self.ended = false;
        let stamp = head.get(4..20).unwrap_or_default();
        let plain_sequence = sequence & !(ERASED | TOMBSTONE);
        self.last_sum = Some(*sum);
        if self.sums.sum(&[stamp, subject, headers, payload]) != *sum {
            return Err(RecordError::Checksum {
                offset,
                sequence: plain_sequence,
            });
        }
        let kind = match sequence {
            _ if sequence & TOMBSTONE != 0 => RecordKind::Tombstone,
            _ if sequence & ERASED != 0 || sequence == 0 => RecordKind::Erased,
            _ => RecordKind::Message,
        };
        Ok(Some(Record {
            kind,
            sequence: plain_sequence,
            time_ns: time,
            subject,
            headers,
            payload,
        }))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, RecordError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(&error)),
            }
        }
        Ok(filled)
    }

    fn read_error(&self, error: &io::Error) -> RecordError {
        RecordError::Read {
            offset: self.offset,
            reason: error.to_string(),
        }
    }
}

fn take_head(head: &[u8; HEAD_BYTES]) -> (u32, u64, i64, usize) {
    let [
        a,
        b,
        c,
        d, //
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7, //
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        t7, //
        n0,
        n1,
    ] = *head;
    (
        u32::from_le_bytes([a, b, c, d]),
        u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        usize::from(u16::from_le_bytes([n0, n1])),
    )
}

fn take_content(
    content: &[u8],
    subject_length: usize,
    has_headers: bool,
) -> Option<(&[u8], &[u8], &[u8])> {
    let (subject, rest) = content.split_at_checked(subject_length)?;
    if !has_headers {
        return Some((subject, &[], rest));
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (headers, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((subject, headers, payload))
}

/// Appends a record to a block that is being written.
pub fn write_record(block: &mut Vec<u8>, sums: &Sums, record: &Record<'_>) {
    let Record {
        subject,
        headers,
        payload,
        ..
    } = *record;
    let (headers_field, flag) = match headers.len() {
        0 => (0, 0),
        length => (4 + length, HAS_HEADERS),
    };
    // A subject is a line of the protocol, and a message is smaller than its limits.
    let length = HEAD_BYTES + subject.len() + headers_field + payload.len() + SUM_BYTES;
    let mark = match record.kind {
        RecordKind::Message => 0,
        RecordKind::Erased => ERASED,
        RecordKind::Tombstone => TOMBSTONE,
    };
    let mut stamp = [0; 16];
    let (sequence, time) = stamp.split_at_mut(8);
    sequence.copy_from_slice(&(record.sequence | mark).to_le_bytes());
    time.copy_from_slice(&record.time_ns.to_le_bytes());
    block.extend_from_slice(&(length as u32 | flag).to_le_bytes());
    block.extend_from_slice(&stamp);
    block.extend_from_slice(&(subject.len() as u16).to_le_bytes());
    block.extend_from_slice(subject);
    if !headers.is_empty() {
        block.extend_from_slice(&(headers.len() as u32).to_le_bytes());
        block.extend_from_slice(headers);
    }
    block.extend_from_slice(payload);
    block.extend_from_slice(&sums.sum(&[&stamp, subject, headers, payload]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Sums {
        Sums::of_block("S", 1)
    }

    fn message(sequence: u64) -> Record<'static> {
        Record {
            kind: RecordKind::Message,
            sequence,
            time_ns: 7,
            subject: b"orders.1",
            headers: b"",
            payload: b"hello",
        }
    }

    fn all() -> Vec<Record<'static>> {
        let empty = Record {
            subject: b"",
            payload: b"",
            ..message(3)
        };
        vec![
            message(1),
            Record {
                headers: b"NATS/1.0\r\nA: b\r\n\r\n",
                ..message(2)
            },
            Record {
                kind: RecordKind::Erased,
                ..empty
            },
            Record {
                kind: RecordKind::Tombstone,
                sequence: 1,
                ..empty
            },
        ]
    }

    fn block() -> Vec<u8> {
        let mut block = Vec::new();
        for record in all() {
            write_record(&mut block, &sums(), &record);
        }
        block
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let block = block();
        let mut reader = RecordReader::new(&block[..], sums());
        for record in all() {
            assert_eq!(reader.next_record(), Ok(Some(record)));
        }
        assert_eq!(reader.next_record(), Ok(None));
        let sum = block.last_chunk().copied();
        assert_eq!(reader.last_sum(), sum);
    }

    #[test]
    fn a_damaged_record_costs_itself_and_a_damaged_length_the_rest() {
        let whole = block();
        let mut flipped = whole.clone();
        flipped[30] ^= 1;
        let mut reader = RecordReader::new(&flipped[..], sums());
        let error = RecordError::Checksum {
            offset: 0,
            sequence: 1,
        };
        assert_eq!(reader.next_record(), Err(error));
        assert!(matches!(reader.next_record(), Ok(Some(next)) if next.sequence == 2));
        for (at, byte) in [(3, 0x7f), (0, 3)] {
            let mut flipped = whole.clone();
            flipped[at] = byte;
            let mut reader = RecordReader::new(&flipped[..], sums());
            assert_eq!(reader.next_record(), Err(RecordError::Shape(0)));
            assert_eq!(reader.next_record(), Ok(None));
        }
        let mut reader = RecordReader::new(&whole[..whole.len() - 1], sums());
        for _ in 0..3 {
            assert!(matches!(reader.next_record(), Ok(Some(_))));
        }
        assert!(matches!(reader.next_record(), Err(RecordError::Cut(_))));
    }
}
