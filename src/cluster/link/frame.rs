//! What travels on a link after its first lines, as bytes.
//!
//! ```text
//! frame:  length u32, of what follows | kind u8 | the fields of the kind | body, to the end
//!
//! 1 raft     body: a frame of the groups
//! 2 request  id u64 | kind u16 | deadline u32, in ms | window u32, in bytes; 0 asks for one answer | body
//! 3 answer   id u64 | status u8 | body; the end of slices too
//! 4 slice    id u64 | body
//! 5 credit   id u64 | u32: so many bytes of slices more may be sent
//! 6 cancel   id u64: nobody waits for the answer any more
//! 7 ping     u64
//! 8 pong     u64: what the ping said
//! ```
//!
//! All numbers are little-endian. The ids of requests are the asker's.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes of a frame before its body, at most.
pub(super) const HEAD_BYTES_MAX: usize = LENGTH_BYTES + 1 + 8 + 2 + 4 + 4;
const LENGTH_BYTES: usize = 4;

const RAFT: u8 = 1;
const REQUEST: u8 = 2;
const ANSWER: u8 = 3;
const SLICE: u8 = 4;
const CREDIT: u8 = 5;
const CANCEL: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;

/// How an answer is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The body is the answer.
    Done,
    /// The handler does not do it; the body is its reason, as text.
    Refused,
    /// Nobody handles requests of that kind.
    NoHandler,
    /// Too many requests are being handled, or the answer did not fit into the queue.
    Busy,
    /// The handler gave up without an answer.
    Dropped,
    /// The answer is longer than a frame may be.
    TooLong,
}

impl Status {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::NoHandler => 2,
            Self::Busy => 3,
            Self::Dropped => 4,
            Self::TooLong => 5,
        }
    }

    fn of(code: u8) -> Option<Self> {
        let all = [
            Self::Done,
            Self::Refused,
            Self::NoHandler,
            Self::Busy,
            Self::Dropped,
            Self::TooLong,
        ];
        all.into_iter().find(|status| status.code() == code)
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Raft(Bytes),
    Request {
        id: u64,
        kind: u16,
        deadline_ms: u32,
        window_bytes: u32,
        body: Bytes,
    },
    Answer {
        id: u64,
        status: Status,
        body: Bytes,
    },
    Slice {
        id: u64,
        body: Bytes,
    },
    Credit {
        id: u64,
        bytes: u32,
    },
    Cancel {
        id: u64,
    },
    Ping(u64),
    Pong(u64),
}

/// Bytes that are no frame. The connection cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// Longer than a frame may be.
    #[error("a frame of {length} bytes, where {max} are the most")]
    TooLong { length: usize, max: usize },
    /// Shorter than its fields.
    #[error("a frame of kind {kind} ends too early")]
    Truncated { kind: u8 },
    /// Nothing at all.
    #[error("a frame without a kind")]
    Empty,
    /// Bytes after the fields of a kind without a body.
    #[error("a frame of kind {kind} is longer than its fields")]
    Trailing { kind: u8 },
    /// No such kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// No such status.
    #[error("an answer with the unknown status {0}")]
    Status(u8),
}

/// A frame as it is written: its head, and its body where it was.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    pub body: Bytes,
}

impl Encoded {
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.head_bytes).unwrap_or(&self.head)
    }

    pub fn bytes(&self) -> usize {
        self.head_bytes + self.body.len()
    }
}

impl Frame {
    /// The frame as it is written. A body must not be longer than `u32` can say, which the limits of a link see to.
    pub fn encode(self) -> Encoded {
        let mut head = [0; HEAD_BYTES_MAX];
        let mut out = head.get_mut(LENGTH_BYTES..).unwrap_or_default();
        let room = out.remaining_mut();
        let body = match self {
            Self::Raft(body) => {
                out.put_u8(RAFT);
                body
            }
            Self::Request {
                id,
                kind,
                deadline_ms,
                window_bytes,
                body,
            } => {
                out.put_u8(REQUEST);
                out.put_u64_le(id);
                out.put_u16_le(kind);
                out.put_u32_le(deadline_ms);
                out.put_u32_le(window_bytes);
                body
            }
            Self::Answer { id, status, body } => {
                out.put_u8(ANSWER);
                out.put_u64_le(id);
                out.put_u8(status.code());
                body
            }
            Self::Slice { id, body } => {
                out.put_u8(SLICE);
                out.put_u64_le(id);
                body
            }
            Self::Credit { id, bytes } => {
                out.put_u8(CREDIT);
                out.put_u64_le(id);
                out.put_u32_le(bytes);
                Bytes::new()
            }
            Self::Cancel { id } => {
                out.put_u8(CANCEL);
                out.put_u64_le(id);
                Bytes::new()
            }
            Self::Ping(said) => {
                out.put_u8(PING);
                out.put_u64_le(said);
                Bytes::new()
            }
            Self::Pong(said) => {
                out.put_u8(PONG);
                out.put_u64_le(said);
                Bytes::new()
            }
        };
        let fields = room - out.remaining_mut();
        let length = u32::try_from(fields + body.len()).unwrap_or(u32::MAX);
        if let Some(place) = head.first_chunk_mut::<LENGTH_BYTES>() {
            *place = length.to_le_bytes();
        }
        Encoded {
            head,
            head_bytes: LENGTH_BYTES + fields,
            body,
        }
    }

    /// Takes the next frame out of what was read; `None` when it is not there as a whole.
    pub fn decode(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Self>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > bytes_max {
            return Err(FrameError::TooLong {
                length,
                max: bytes_max,
            });
        }
        if buffer.len() - LENGTH_BYTES < length {
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        Self::of(buffer.split_to(length).freeze()).map(Some)
    }

    fn of(mut bytes: Bytes) -> Result<Self, FrameError> {
        let kind = bytes.try_get_u8().map_err(|_| FrameError::Empty)?;
        let frame = Self::fields(kind, &mut bytes)?;
        match frame {
            Self::Credit { .. } | Self::Cancel { .. } | Self::Ping(_) | Self::Pong(_)
                if bytes.has_remaining() =>
            {
                Err(FrameError::Trailing { kind })
            }
            frame => Ok(frame),
        }
    }

    fn fields(kind: u8, bytes: &mut Bytes) -> Result<Self, FrameError> {
        let truncated = |_| FrameError::Truncated { kind };
        let body = |bytes: &mut Bytes| bytes.split_to(bytes.len());
        Ok(match kind {
            RAFT => Self::Raft(body(bytes)),
            REQUEST => Self::Request {
                id: bytes.try_get_u64_le().map_err(truncated)?,
                kind: bytes.try_get_u16_le().map_err(truncated)?,
                deadline_ms: bytes.try_get_u32_le().map_err(truncated)?,
                window_bytes: bytes.try_get_u32_le().map_err(truncated)?,
                body: body(bytes),
            },
            ANSWER => {
                let id = bytes.try_get_u64_le().map_err(truncated)?;
                let code = bytes.try_get_u8().map_err(truncated)?;
                let status = Status::of(code).ok_or(FrameError::Status(code))?;
                let body = body(bytes);
                Self::Answer { id, status, body }
            }
            SLICE => Self::Slice {
                id: bytes.try_get_u64_le().map_err(truncated)?,
                body: body(bytes),
            },
            CREDIT => Self::Credit {
                id: bytes.try_get_u64_le().map_err(truncated)?,
                bytes: bytes.try_get_u32_le().map_err(truncated)?,
            },
            CANCEL => Self::Cancel {
                id: bytes.try_get_u64_le().map_err(truncated)?,
            },
            PING => Self::Ping(bytes.try_get_u64_le().map_err(truncated)?),
            PONG => Self::Pong(bytes.try_get_u64_le().map_err(truncated)?),
            other => return Err(FrameError::Kind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: &Frame) -> BytesMut {
        let encoded = frame.clone().encode();
        let mut bytes = BytesMut::from(encoded.head());
        bytes.extend_from_slice(&encoded.body);
        assert_eq!(bytes.len(), encoded.bytes());
        bytes
    }

    fn frames() -> Vec<Frame> {
        let body = Bytes::from_static(b"body");
        vec![
            Frame::Raft(body.clone()),
            Frame::Request {
                id: 1,
                kind: 2,
                deadline_ms: 3,
                window_bytes: 4,
                body: body.clone(),
            },
            Frame::Answer {
                id: 5,
                status: Status::TooLong,
                body: body.clone(),
            },
            Frame::Slice { id: 6, body },
            Frame::Credit { id: 7, bytes: 8 },
            Frame::Cancel { id: 9 },
            Frame::Ping(10),
            Frame::Pong(11),
            Frame::Raft(Bytes::new()),
        ]
    }

    #[test]
    fn every_frame_comes_back_as_it_was_and_only_when_all_of_it_is_there() {
        for frame in frames() {
            let whole = written(&frame);
            for cut in 0..whole.len() {
                let mut part = BytesMut::from(&whole[..cut]);
                assert_eq!(Frame::decode(&mut part, 100), Ok(None));
                assert_eq!(part.len(), cut, "nothing is taken of a part");
            }
            let mut two = whole.clone();
            two.extend_from_slice(&whole);
            assert_eq!(Frame::decode(&mut two, 100), Ok(Some(frame)));
            assert_eq!(two, whole);
        }
    }

    #[test]
    fn a_length_is_refused_before_anything_is_kept_for_it() {
        let mut bytes = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        let refused = Frame::decode(&mut bytes, 1000);
        assert!(matches!(refused, Err(FrameError::TooLong { .. })));
        let mut bytes = BytesMut::from(&[0, 0, 0, 0][..]);
        assert_eq!(Frame::decode(&mut bytes, 1000), Err(FrameError::Empty));
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let decode = |bytes: &[u8]| Frame::decode(&mut BytesMut::from(bytes), 1000);
        let kind = PING;
        assert_eq!(
            decode(&[2, 0, 0, 0, PING, 1]),
            Err(FrameError::Truncated { kind })
        );
        let trailing = [10, 0, 0, 0, PING, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(decode(&trailing), Err(FrameError::Trailing { kind }));
        assert_eq!(decode(&[1, 0, 0, 0, 99]), Err(FrameError::Kind(99)));
        let status = [10, 0, 0, 0, ANSWER, 1, 2, 3, 4, 5, 6, 7, 8, 77];
        assert_eq!(decode(&status), Err(FrameError::Status(77)));
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let encoded = written(&Frame::Request {
            id: 0x0102,
            kind: 0x0304,
            deadline_ms: 0x0506,
            window_bytes: 0x0708,
            body: Bytes::from_static(b"x"),
        });
        let expected = [
            20, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 6, 5, 0, 0, 8, 7, 0, 0, b'x',
        ];
        assert_eq!(encoded.as_ref(), expected);
    }
}
