//! What a peer sends, back to the bytes that it means.

use bytes::BytesMut;

use super::deflate::{NotInflated, inflate};
use super::frame::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Head, Kind, NoHead, mask};

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest compressed message, before and after.
    pub compressed_bytes_max: usize,
    /// Compression was agreed on.
    pub compression: bool,
    /// Frames must be masked, as those of clients are.
    pub masked: bool,
}

/// Something between the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// To be answered by a pong with the same content.
    Ping(Vec<u8>),
    /// The peer answers a ping.
    Pong,
    /// The peer says goodbye; nothing comes after. The status is 1005 when it gave none.
    Close(u16),
}

/// What breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame that cannot be.
    #[error("invalid frame")]
    Frame,
    /// A frame that has to be masked and is not.
    #[error("mask bit missing")]
    NotMasked,
    /// A control frame in parts, or one that is too long.
    #[error("invalid control frame")]
    Control,
    /// A part of a message that never began, or a message within a message.
    #[error("invalid continuation frame")]
    Continuation,
    /// Compression that was not agreed on, or that is damaged.
    #[error("compression not negotiated or invalid")]
    Compression,
    /// A compressed message that is longer than allowed.
    #[error("message too long")]
    TooLong,
}

/// The message that is being received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    None,
    Plain,
    Compressed,
}

/// Where in a frame the next byte stands.
struct Inside {
    head: Head,
    /// How much of the payload came.
    at: u64,
}

/// Takes frames apart. Whatever is fed is taken.
pub struct Decoder {
    limits: Limits,
    /// The beginning of a head that is not whole yet.
    partial: Vec<u8>,
    inside: Option<Inside>,
    message: Message,
    control: Vec<u8>,
    compressed: Vec<u8>,
    closed: bool,
}

impl Decoder {
    /// For a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            partial: Vec::new(),
            inside: None,
            message: Message::None,
            control: Vec::new(),
            compressed: Vec::new(),
            closed: false,
        }
    }

    /// Takes what came, appends the data that it means to `out` and notes what is to be done beside.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut BytesMut,
        controls: &mut Vec<Control>,
    ) -> Result<(), Violation> {
        while !self.closed {
            let Some(mut inside) = self.inside.take() else {
                if input.is_empty() {
                    return Ok(());
                }
                let Some(rest) = self.take_head(input)? else {
                    return Ok(());
                };
                input = rest;
                continue;
            };
            let left = inside.head.length - inside.at;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = input.split_at(count);
            input = rest;
            self.take_payload(&inside, payload, out)?;
            inside.at += count as u64;
            if inside.at < inside.head.length {
                self.inside = Some(inside);
                return Ok(());
            }
            self.end_frame(inside.head, out, controls)?;
        }
        Ok(())
    }

    /// Takes a head; what follows it, or none when it is not whole.
    fn take_head<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Violation> {
        let known = self.partial.len();
        let more = input.get(..HEAD_BYTES_MAX - known).unwrap_or(input);
        self.partial.extend_from_slice(more);
        match Head::decode(&self.partial) {
            Ok((head, length)) => {
                self.partial.clear();
                self.check(&head)?;
                self.inside = Some(Inside { head, at: 0 });
                Ok(input.get(length - known..))
            }
            Err(NoHead::Short) => Ok(None),
            Err(NoHead::Malformed) => Err(Violation::Frame),
        }
    }

    fn check(&mut self, head: &Head) -> Result<(), Violation> {
        if self.limits.masked && head.mask.is_none() {
            return Err(Violation::NotMasked);
        }
        if head.kind.is_control() {
            let fits = head.is_final && head.length <= CONTROL_BYTES_MAX as u64;
            return match fits && !head.is_compressed {
                true => Ok(()),
                false => Err(Violation::Control),
            };
        }
        if head.is_compressed && (!self.limits.compression || head.kind == Kind::Continuation) {
            return Err(Violation::Compression);
        }
        match (head.kind, self.message) {
            (Kind::Continuation, Message::None) => Err(Violation::Continuation),
            (Kind::Continuation, _) => Ok(()),
            (_, Message::None) => {
                self.message = match head.is_compressed {
                    true => Message::Compressed,
                    false => Message::Plain,
                };
                Ok(())
            }
            _ => Err(Violation::Continuation),
        }
    }

    fn take_payload(
        &mut self,
        inside: &Inside,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), Violation> {
        let key = inside.head.mask.unwrap_or_default();
        if !inside.head.kind.is_control() && self.message == Message::Plain {
            let begin = out.len();
            out.extend_from_slice(payload);
            mask(out.get_mut(begin..).unwrap_or_default(), key, inside.at);
            return Ok(());
        }
        let held = match inside.head.kind.is_control() {
            true => &mut self.control,
            false => &mut self.compressed,
        };
        if held.len() + payload.len() > self.limits.compressed_bytes_max.max(CONTROL_BYTES_MAX) {
            return Err(Violation::TooLong);
        }
        let begin = held.len();
        held.extend_from_slice(payload);
        mask(held.get_mut(begin..).unwrap_or_default(), key, inside.at);
        Ok(())
    }

    fn end_frame(
        &mut self,
        head: Head,
        out: &mut BytesMut,
        controls: &mut Vec<Control>,
    ) -> Result<(), Violation> {
        match head.kind {
            Kind::Ping => controls.push(Control::Ping(std::mem::take(&mut self.control))),
            Kind::Pong => {
                self.control.clear();
                controls.push(Control::Pong);
            }
            Kind::Close => {
                let status = match self.control.first_chunk() {
                    Some(status) => u16::from_be_bytes(*status),
                    None => 1005,
                };
                self.closed = true;
                controls.push(Control::Close(status));
            }
            Kind::Continuation | Kind::Text | Kind::Binary if head.is_final => {
                let message = std::mem::replace(&mut self.message, Message::None);
                if message == Message::Compressed {
                    let mut whole = std::mem::take(&mut self.compressed);
                    let inflated = inflate(&mut whole, self.limits.compressed_bytes_max);
                    let inflated = inflated.map_err(|error| match error {
                        NotInflated::TooLong => Violation::TooLong,
                        NotInflated::Damaged => Violation::Compression,
                    })?;
                    out.extend_from_slice(&inflated);
                }
            }
            Kind::Continuation | Kind::Text | Kind::Binary => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::Deflater;
    use super::*;

    const LIMITS: Limits = Limits {
        compressed_bytes_max: 10_000,
        compression: true,
        masked: true,
    };

    fn frame(kind: Kind, is_final: bool, is_compressed: bool, payload: &[u8]) -> Vec<u8> {
        let key = [1, 2, 3, 4];
        let head = Head {
            kind,
            is_final,
            is_compressed,
            length: payload.len() as u64,
            mask: Some(key),
        };
        let mut out = BytesMut::new();
        head.encode(&mut out);
        let begin = out.len();
        out.extend_from_slice(payload);
        mask(&mut out[begin..], key, 0);
        out.to_vec()
    }

    fn decode(bytes: &[u8], at_a_time: usize) -> Result<(Vec<u8>, Vec<Control>), Violation> {
        let mut decoder = Decoder::new(LIMITS);
        let (mut out, mut controls) = (BytesMut::new(), Vec::new());
        for part in bytes.chunks(at_a_time) {
            decoder.feed(part, &mut out, &mut controls)?;
        }
        Ok((out.to_vec(), controls))
    }

    #[test]
    fn frames_of_all_kinds_come_apart_however_they_are_cut() {
        let text = b"PUB a 5\r\nhello\r\n".repeat(30);
        let compressed = Deflater::new().deflate(&text);
        let (first, second) = compressed.split_at(compressed.len() / 2);
        let bytes = [
            frame(Kind::Binary, true, false, b"one "),
            frame(Kind::Binary, false, false, b"t"),
            frame(Kind::Ping, true, false, b"are you there"),
            frame(Kind::Continuation, true, false, b"wo "),
            frame(Kind::Binary, false, true, first),
            frame(Kind::Pong, true, false, b""),
            frame(Kind::Continuation, true, false, second),
            frame(Kind::Text, true, false, b" three"),
            frame(Kind::Close, true, false, &[0x03, 0xe9]),
            frame(Kind::Binary, true, false, b"after the end"),
        ]
        .concat();
        let data = [&b"one two "[..], &text, b" three"].concat();
        let controls = vec![
            Control::Ping(b"are you there".to_vec()),
            Control::Pong,
            Control::Close(1001),
        ];
        for at_a_time in [1, 2, 3, 7, 64, 10_000] {
            let decoded = decode(&bytes, at_a_time);
            assert_eq!(decoded, Ok((data.clone(), controls.clone())), "{at_a_time}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_named() {
        let unmasked = vec![0x82, 1, b'x'];
        let cases = [
            (unmasked, Violation::NotMasked),
            (vec![0x92, 0x80, 0, 0, 0, 0], Violation::Frame),
            (vec![0x83, 0x80, 0, 0, 0, 0], Violation::Frame),
            (
                frame(Kind::Ping, true, false, &[0; 126]),
                Violation::Control,
            ),
            (frame(Kind::Ping, false, false, b""), Violation::Control),
            (
                frame(Kind::Continuation, true, false, b"x"),
                Violation::Continuation,
            ),
            (
                [
                    frame(Kind::Binary, false, false, b"x"),
                    frame(Kind::Binary, true, false, b"x"),
                ]
                .concat(),
                Violation::Continuation,
            ),
            (
                frame(Kind::Binary, true, true, &[0xff; 30]),
                Violation::Compression,
            ),
            (
                frame(Kind::Binary, true, true, &[0; 20_000]),
                Violation::TooLong,
            ),
            (
                frame(
                    Kind::Binary,
                    true,
                    true,
                    &Deflater::new().deflate(&[0; 20_000]),
                ),
                Violation::TooLong,
            ),
        ];
        for (bytes, violation) in cases {
            assert_eq!(decode(&bytes, 5), Err(violation));
        }
        let mut decoder = Decoder::new(Limits {
            compression: false,
            ..LIMITS
        });
        let compressed = frame(Kind::Binary, true, true, b"x");
        let fed = decoder.feed(&compressed, &mut BytesMut::new(), &mut Vec::new());
        assert_eq!(fed, Err(Violation::Compression));
    }

    #[test]
    fn a_length_of_four_gibibytes_is_only_a_number() {
        let mut bytes = vec![0x82, 0xff];
        bytes.extend_from_slice(&(4u64 << 30).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(b"a beginning");
        let (data, _) = decode(&bytes, 100).unwrap();
        assert_eq!(data, b"a beginning");
    }
}
