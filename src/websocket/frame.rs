//! Heads of frames.

use bytes::{BufMut, BytesMut};

/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The longest head.
pub(super) const HEAD_BYTES_MAX: usize = 14;

pub(super) const FINAL: u8 = 0x80;
pub(super) const COMPRESSED: u8 = 0x40;
pub(super) const RESERVED: u8 = 0x30;
pub(super) const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub is_final: bool,
    pub is_compressed: bool,
    pub length: u64,
    pub mask: Option<[u8; 4]>,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// More bytes are needed.
    Short,
    /// No frame begins like this.
    Malformed,
}

impl Head {
    /// Reads a head, and says how long it is.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), NoHead> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>().ok_or(NoHead::Short)?;
        if first & RESERVED != 0 {
            return Err(NoHead::Malformed);
        }
        let kind = Kind::of(first & 0x0f).ok_or(NoHead::Malformed)?;
        let (length, rest) = match second & !MASKED {
            126 => {
                let (length, rest) = rest.split_first_chunk().ok_or(NoHead::Short)?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk().ok_or(NoHead::Short)?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        if length >> 63 != 0 {
            return Err(NoHead::Malformed);
        }
        let (mask, rest) = match second & MASKED {
            0 => (None, rest),
            _ => {
                let (mask, rest) = rest.split_first_chunk().ok_or(NoHead::Short)?;
                (Some(*mask), rest)
            }
        };
        let head = Self {
            kind,
            is_final: first & FINAL != 0,
            is_compressed: first & COMPRESSED != 0,
            length,
            mask,
        };
        Ok((head, bytes.len() - rest.len()))
    }

    /// Appends the head.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut first = self.kind.code();
        if self.is_final {
            first |= FINAL;
        }
        if self.is_compressed {
            first |= COMPRESSED;
        }
        out.put_u8(first);
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        match self.length {
            length @ 0..=125 => out.put_u8(masked | length as u8),
            length @ 126..=0xffff => {
                out.put_u8(masked | 126);
                out.put_u16(length as u16);
            }
            length => {
                out.put_u8(masked | 127);
                out.put_u64(length);
            }
        }
        if let Some(mask) = self.mask {
            out.put_slice(&mask);
        }
    }
}

/// Masks or unmasks in place; `at` is how far into the payload the bytes begin.
pub(super) fn mask(bytes: &mut [u8], key: [u8; 4], at: u64) {
    let mut key = key;
    key.rotate_left((at % 4) as usize);
    let wide = u64::from_ne_bytes([
        key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3],
    ]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A pong or a ping with that payload, cut to what a control frame holds.
pub fn control_frame(out: &mut BytesMut, is_ping: bool, payload: &[u8]) {
    let payload = payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload);
    put_control(out, if is_ping { Kind::Ping } else { Kind::Pong }, payload);
}

/// A close frame with a status and a text.
pub fn close_frame(out: &mut BytesMut, status: u16, text: &str) {
    let mut end = text.len().min(CONTROL_BYTES_MAX - 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.put_u16(status);
    payload.put_slice(text.get(..end).unwrap_or_default().as_bytes());
    put_control(out, Kind::Close, &payload);
}

fn put_control(out: &mut BytesMut, kind: Kind, payload: &[u8]) {
    let head = Head {
        kind,
        is_final: true,
        is_compressed: false,
        length: payload.len() as u64,
        mask: None,
    };
    head.encode(out);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_lengths_come_back() {
        for length in [0, 125, 126, 0xffff, 0x1_0000, u64::MAX >> 1] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let head = Head {
                    kind: Kind::Binary,
                    is_final: length % 2 == 0,
                    is_compressed: mask.is_some(),
                    length,
                    mask,
                };
                let mut bytes = BytesMut::new();
                head.encode(&mut bytes);
                assert!(bytes.len() <= HEAD_BYTES_MAX);
                for cut in 0..bytes.len() {
                    assert_eq!(Head::decode(&bytes[..cut]), Err(NoHead::Short));
                }
                assert_eq!(Head::decode(&bytes), Ok((head, bytes.len())));
            }
        }
    }

    #[test]
    fn the_example_of_the_standard_is_unmasked() {
        // RFC 6455, section 5.7: a masked "Hello".
        let frame = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let (head, length) = Head::decode(&frame).unwrap();
        let mut payload = frame[length..].to_vec();
        mask(&mut payload[..2], head.mask.unwrap(), 0);
        mask(&mut payload[2..], head.mask.unwrap(), 2);
        assert_eq!(payload, b"Hello");
    }

    #[test]
    fn masking_in_parts_is_masking_the_whole() {
        let key = [9, 8, 7, 6];
        let plain: Vec<u8> = (0..100).collect();
        let mut whole = plain.clone();
        mask(&mut whole, key, 0);
        for cut in 0..plain.len() {
            let mut parts = plain.clone();
            let (first, second) = parts.split_at_mut(cut);
            mask(first, key, 0);
            mask(second, key, cut as u64);
            assert_eq!(parts, whole);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = BytesMut::new();
        close_frame(&mut out, 1002, &"ü".repeat(200));
        assert_eq!(out[0], 0x88);
        assert_eq!(&out[2..4], &1002u16.to_be_bytes());
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
