//! What a replica that lacks a state asks of one that has it, and the answers.
//!
//! ```text
//! request: version u8 | group u64 | kind u8 | its numbers
//!   0, manifest: the last sequence that is there | bytes of records that may come along
//!   1, piece:    number of the manifest | offset | bytes at most
//!   2, records:  first sequence | last sequence | bytes at most
//!   3, mark:     index | the digest there of the replica that asks
//! answer: 0 u8 | manifest: its number and length as numbers; piece: its bytes; records: themselves;
//!                mark: u8 (0 not applied yet, 1 the digest u64 follows, 2 forgotten)
//!         1 u8 | why not, as text
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use raft::group::GroupNumber;

use crate::jetstream::core::codec::{DecodeError, Reader, Writer};
use crate::jetstream::core::{Mark, Recollection};

const VERSION: u8 = 1;
const OK: u8 = 0;
const REFUSED: u8 = 1;

mod recollection {
    pub(super) const NOT_YET: u8 = 0;
    pub(super) const WAS: u8 = 1;
    pub(super) const FORGOTTEN: u8 = 2;
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// To describe the state.
    Manifest {
        /// The last sequence that is there.
        after: u64,
        /// Bytes of records after it that may come along.
        records_max: u64,
    },
    /// A piece of a description.
    Piece {
        number: u64,
        offset: u64,
        bytes_max: u64,
    },
    /// Records.
    Records {
        from: u64,
        upto: u64,
        bytes_max: u64,
    },
    /// What the digest was at an entry, with that of the replica that asks.
    Mark(Mark),
}

/// Writes a request to the replica of a group.
pub(super) fn encode(group: GroupNumber, request: Request) -> Bytes {
    let mut writer = Writer::default();
    writer.u8(VERSION);
    writer.u64(group.0);
    let (kind, numbers) = match request {
        Request::Manifest { after, records_max } => (0, vec![after, records_max]),
        Request::Piece {
            number,
            offset,
            bytes_max,
        } => (1, vec![number, offset, bytes_max]),
        Request::Records {
            from,
            upto,
            bytes_max,
        } => (2, vec![from, upto, bytes_max]),
        Request::Mark(mark) => (3, vec![mark.index, mark.digest]),
    };
    writer.u8(kind);
    for number in numbers {
        writer.number(number);
    }
    Bytes::from(writer.bytes)
}

/// Reads a request.
pub(super) fn decode(bytes: &[u8]) -> Result<(GroupNumber, Request), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let group = GroupNumber(reader.u64()?);
    let request = match reader.u8()? {
        0 => Request::Manifest {
            after: reader.number()?,
            records_max: reader.number()?,
        },
        1 => Request::Piece {
            number: reader.number()?,
            offset: reader.number()?,
            bytes_max: reader.number()?,
        },
        2 => Request::Records {
            from: reader.number()?,
            upto: reader.number()?,
            bytes_max: reader.number()?,
        },
        3 => Request::Mark(Mark {
            index: reader.number()?,
            digest: reader.number()?,
        }),
        _ => return Err(DecodeError::Range { what: "request" }),
    };
    Ok((group, request))
}

/// An answer as bytes.
pub(super) fn answer(result: Result<Bytes, String>) -> Bytes {
    let (first, rest) = match &result {
        Ok(bytes) => (OK, bytes.as_ref()),
        Err(reason) => (REFUSED, reason.as_bytes()),
    };
    let mut bytes = BytesMut::with_capacity(rest.len() + 1);
    bytes.put_u8(first);
    bytes.put_slice(rest);
    bytes.freeze()
}

/// Reads an answer.
pub(super) fn read_answer(answer: &Bytes) -> Result<Bytes, String> {
    match answer.first() {
        Some(&OK) => Ok(answer.slice(1..)),
        Some(&REFUSED) => Err(String::from_utf8_lossy(&answer.slice(1..)).into_owned()),
        _ => Err("an answer that is none".to_owned()),
    }
}

/// The number and the length of a prepared manifest.
pub(super) fn prepared(number: u64, length: u64) -> Bytes {
    let mut writer = Writer::default();
    writer.number(number);
    writer.number(length);
    Bytes::from(writer.bytes)
}

/// Reads what [`prepared`] wrote.
pub(super) fn read_prepared(bytes: &[u8]) -> Result<(u64, u64), DecodeError> {
    let mut reader = Reader::new(bytes);
    Ok((reader.number()?, reader.number()?))
}

/// What a replica knows of its digest.
pub(super) fn recollection(known: Recollection) -> Bytes {
    let mut writer = Writer::default();
    match known {
        Recollection::NotYet => writer.u8(recollection::NOT_YET),
        Recollection::Was(digest) => {
            writer.u8(recollection::WAS);
            writer.u64(digest);
        }
        Recollection::Forgotten => writer.u8(recollection::FORGOTTEN),
    }
    Bytes::from(writer.bytes)
}

/// Reads what [`recollection`] wrote.
pub(super) fn read_recollection(bytes: &[u8]) -> Result<Recollection, DecodeError> {
    let mut reader = Reader::new(bytes);
    Ok(match reader.u8()? {
        recollection::NOT_YET => Recollection::NotYet,
        recollection::WAS => Recollection::Was(reader.u64()?),
        recollection::FORGOTTEN => Recollection::Forgotten,
        _ => return Err(DecodeError::Range { what: "mark" }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_read_back_as_written() {
        for request in [
            Request::Manifest {
                after: 5,
                records_max: 1000,
            },
            Request::Piece {
                number: 1,
                offset: 2,
                bytes_max: u64::MAX,
            },
            Request::Records {
                from: 300,
                upto: 400,
                bytes_max: 5,
            },
            Request::Mark(Mark {
                index: 1024,
                digest: u64::MAX,
            }),
        ] {
            let bytes = encode(GroupNumber(7), request);
            assert_eq!(decode(&bytes), Ok((GroupNumber(7), request)));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err());
            }
        }
        for result in [Ok(Bytes::from_static(b"x")), Err("no".to_owned())] {
            assert_eq!(read_answer(&answer(result.clone())), result);
        }
        assert!(read_answer(&Bytes::new()).is_err());
        assert_eq!(read_prepared(&prepared(3, 900)), Ok((3, 900)));
        for known in [
            Recollection::NotYet,
            Recollection::Was(u64::MAX),
            Recollection::Forgotten,
        ] {
            assert_eq!(read_recollection(&recollection(known)), Ok(known));
        }
        assert!(read_recollection(&[1, 0]).is_err());
    }
}
