//! One message within a chunk's body.
//!
//! ```text
//! 4       crc32 of what follows the length, then the subject's text; seeded (see `record_seed`)
//! varint  length of what follows
//! varint  sequence - the chunk's first sequence
//! varint  zigzag(time - the chunk's base time)
//! varint  number of the subject in the chunk's dictionary << 3 | flags
//!         flags: 1 has headers; 2 has an expiry of its own; 4 never expires
//! varint  zigzag(expiry - time)       with flag 2
//! varint  length of the headers       with flag 1
//! …       headers, then payload up to the end
//! ```

use std::ops::Range;

use super::seeded_crc;
use crate::block::varint::{Malformed, Reader, put_varint, unzigzag, varint_length, zigzag};
use crate::store::{Expiry, NewMessage};

const HAS_HEADERS: u64 = 1;
const EXPIRES_AT: u64 = 2;
const EXPIRES_NEVER: u64 = 4;
const FLAG_BITS: u32 = 3;

/// What a record's checksum starts from: a stale or misplaced record does not pass.
#[inline]
pub(in crate::block) fn record_seed(stream: u64, sequence: u64, time_ns: i64) -> u32 {
    let mixed = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ sequence.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ (time_ns as u64).wrapping_mul(0x1656_67b1_9e37_79f9);
    (mixed ^ (mixed >> 32)) as u32
}

/// What the fields of a record are relative to.
#[derive(Debug, Clone, Copy)]
pub(in crate::block) struct Base {
    pub stream: u64,
    pub first_sequence: u64,
    pub time_ns: i64,
}

/// An upper bound of what one message adds to a chunk's records.
pub(in crate::block) fn record_bytes_max(message: &NewMessage<'_>) -> usize {
    4 + 6 * 10 + message.headers.len() + message.payload.len()
}

/// Appends a record.
pub(in crate::block) fn encode(
    out: &mut Vec<u8>,
    base: Base,
    subject: u32,
    message: &NewMessage<'_>,
) {
    let relative = message.sequence.wrapping_sub(base.first_sequence);
    let time = zigzag(message.time_ns.wrapping_sub(base.time_ns));
    let (expiry_flag, expiry) = match message.expiry {
        Expiry::ByAge => (0, None),
        Expiry::At(at) => (EXPIRES_AT, Some(zigzag(at.wrapping_sub(message.time_ns)))),
        Expiry::Never => (EXPIRES_NEVER, None),
    };
    let headers = (!message.headers.is_empty()).then_some(message.headers.len() as u64);
    let flags = expiry_flag | if headers.is_some() { HAS_HEADERS } else { 0 };
    let subject_and_flags = u64::from(subject) << FLAG_BITS | flags;
    let fields = [
        Some(relative),
        Some(time),
        Some(subject_and_flags),
        expiry,
        headers,
    ];
    let length = fields
        .iter()
        .flatten()
        .copied()
        .map(varint_length)
        .sum::<usize>()
        + message.headers.len()
        + message.payload.len();

    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_varint(out, length as u64);
    let body_at = out.len();
    for field in fields.into_iter().flatten() {
        put_varint(out, field);
    }
    out.extend_from_slice(message.headers);
    out.extend_from_slice(message.payload);
    let seed = record_seed(base.stream, message.sequence, message.time_ns);
    let crc = seeded_crc(
        seed,
        &[out.get(body_at..).unwrap_or_default(), message.subject],
    );
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Where the parts of a record stand in its chunk's plain body. Not yet checked against its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::block) struct RawRecord {
    pub crc: u32,
    pub sequence: u64,
    pub time_ns: i64,
    pub subject: u32,
    pub expiry: Expiry,
    /// Everything after the length.
    pub content: Range<usize>,
    pub headers: Range<usize>,
    pub payload: Range<usize>,
}

impl RawRecord {
    /// Reads the record that begins at `at`.
    #[inline]
    pub fn decode(body: &[u8], at: usize, base: Base) -> Result<Self, Malformed> {
        let mut reader = Reader::at(body, at);
        let crc = reader.u32()?;
        let length = usize::try_from(reader.varint()?).map_err(|_| Malformed)?;
        let start = reader.position();
        let end = start.checked_add(length).ok_or(Malformed)?;
        if end > body.len() {
            return Err(Malformed);
        }
        let sequence = reader.varint()?;
        let sequence = base.first_sequence.checked_add(sequence).ok_or(Malformed)?;
        let time_ns = base.time_ns.wrapping_add(unzigzag(reader.varint()?));
        let subject_and_flags = reader.varint()?;
        let expiry = match subject_and_flags & (EXPIRES_AT | EXPIRES_NEVER) {
            0 => Expiry::ByAge,
            EXPIRES_AT => Expiry::At(time_ns.wrapping_add(unzigzag(reader.varint()?))),
            EXPIRES_NEVER => Expiry::Never,
            _ => return Err(Malformed),
        };
        let headers = match subject_and_flags & HAS_HEADERS {
            0 => 0,
            _ => usize::try_from(reader.varint()?).map_err(|_| Malformed)?,
        };
        let headers_at = reader.position();
        let payload_at = headers_at.checked_add(headers).ok_or(Malformed)?;
        if payload_at > end {
            return Err(Malformed);
        }
        Ok(Self {
            crc,
            sequence,
            time_ns,
            subject: (subject_and_flags >> FLAG_BITS)
                .try_into()
                .map_err(|_| Malformed)?,
            expiry,
            content: start..end,
            headers: headers_at..payload_at,
            payload: payload_at..end,
        })
    }

    /// Whether the record is what was written for this stream.
    #[inline]
    pub fn is_intact(&self, body: &[u8], stream: u64, subject: &[u8]) -> bool {
        let content = body.get(self.content.clone()).unwrap_or_default();
        let seed = record_seed(stream, self.sequence, self.time_ns);
        seeded_crc(seed, &[content, subject]) == self.crc
    }

    /// Where the next record begins.
    pub fn end(&self) -> usize {
        self.content.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Base = Base {
        stream: 7,
        first_sequence: 1000,
        time_ns: 5_000_000_000,
    };

    fn message<'a>() -> NewMessage<'a> {
        NewMessage {
            sequence: 1001,
            time_ns: 5_000_000_300,
            subject: b"a.b",
            headers: b"",
            payload: b"hi",
            expiry: Expiry::ByAge,
        }
    }

    #[test]
    fn the_record_in_the_document_is_the_record_we_write() {
        let mut out = Vec::new();
        encode(&mut out, BASE, 2, &message());
        // length 6: sequence +1, time +300 as zigzag 600 = 0xd8 0x04, subject 2 without flags, "hi"
        assert_eq!(out[4..], [6, 1, 0xd8, 0x04, 0x10, b'h', b'i']);
        let record = RawRecord::decode(&out, 0, BASE).unwrap();
        assert_eq!((record.sequence, record.time_ns), (1001, 5_000_000_300));
        assert_eq!((record.subject, record.expiry), (2, Expiry::ByAge));
        assert_eq!(&out[record.payload.clone()], b"hi");
        assert!(record.is_intact(&out, 7, b"a.b"));
        assert!(!record.is_intact(&out, 8, b"a.b"), "another stream's");
        assert!(!record.is_intact(&out, 7, b"a.c"), "another subject's");
    }

    #[test]
    fn headers_and_expiry_come_back() {
        for expiry in [
            Expiry::ByAge,
            Expiry::Never,
            Expiry::At(5_000_000_100),
            Expiry::At(i64::MAX),
        ] {
            let message = NewMessage {
                headers: b"NATS/1.0\r\nA: b\r\n\r\n",
                expiry,
                ..message()
            };
            let mut out = vec![0xee; 5];
            encode(&mut out, BASE, 0, &message);
            let record = RawRecord::decode(&out, 5, BASE).unwrap();
            assert_eq!(record.expiry, expiry);
            assert_eq!(&out[record.headers.clone()], message.headers);
            assert_eq!(&out[record.payload.clone()], message.payload);
            assert!(record.is_intact(&out, 7, b"a.b"));
            assert_eq!(record.end(), out.len());
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let mut out = Vec::new();
        encode(&mut out, BASE, 2, &message());
        for at in 0..out.len() {
            for bit in 0..8 {
                let mut changed = out.clone();
                changed[at] ^= 1 << bit;
                let intact = RawRecord::decode(&changed, 0, BASE)
                    .is_ok_and(|record| record.is_intact(&changed, 7, b"a.b"));
                assert!(!intact, "bit {bit} of byte {at}");
            }
            assert!(RawRecord::decode(&out[..at], 0, BASE).is_err());
        }
    }
}
