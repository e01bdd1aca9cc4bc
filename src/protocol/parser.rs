//! The parser of what clients send: one operation at a time, out of whatever has arrived so far.
//!
//! [`parse`] is a function of the bytes alone. It keeps no state between calls: an operation that has
//! not arrived completely is looked at again when more bytes are there, and the answer never depends
//! on how the bytes were cut. Lines are short (a limit says how short) and payloads are skipped by
//! their size, so looking again costs next to nothing.

use memchr::{memchr, memchr2};

/// Bytes of verb and blanks that a line may carry on top of the longest argument.
pub const LINE_SLACK_BYTES: usize = 64;

/// The most digits a size may have; anything longer is not a number.
const SIZE_DIGITS_MAX: usize = 9;

/// What is allowed on the connection whose bytes are parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The longest argument of one line, `max_control_line`.
    pub control_line_bytes_max: usize,
    /// The most bytes of headers and payload together, `max_payload`.
    pub payload_bytes_max: usize,
    /// Whether both sides agreed on headers, so that `HPUB` may be used.
    pub headers: bool,
}

/// One operation of a client, borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// `CONNECT` with its JSON.
    Connect(&'a [u8]),
    /// `PUB` or `HPUB` with everything that belongs to it.
    Publish(Publish<'a>),
    /// `SUB`.
    Subscribe {
        /// The subject, wildcards allowed; not checked yet.
        subject: &'a [u8],
        /// The queue group, when one is named.
        queue: Option<&'a [u8]>,
        /// The client's own name for the subscription.
        sid: &'a [u8],
    },
    /// `UNSUB`; a `max` of 0 means at once.
    Unsubscribe {
        /// The subscription to end.
        sid: &'a [u8],
        /// End it after this many deliveries, counted from its start.
        max: u64,
    },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`.
    Ok,
    /// `-ERR` with its text.
    Error(&'a [u8]),
    /// `INFO` with its JSON; clients may send it and it means nothing.
    Info(&'a [u8]),
}

/// A published message, borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Where to; not checked yet.
    pub subject: &'a [u8],
    /// The reply subject, empty when there is none.
    pub reply: &'a [u8],
    /// The raw header block including its blank line, empty when there is none.
    pub headers: &'a [u8],
    /// The payload without headers.
    pub payload: &'a [u8],
}

/// How far the input reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole operation stood at the start of the input.
    Complete {
        /// What it says.
        op: Op<'a>,
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// More bytes are needed.
    Incomplete {
        /// How many bytes the operation takes in all, counted from the start of the input, as far
        /// as that is known; 0 while its line has not ended.
        bytes_in_all: usize,
    },
}

/// Why a connection's bytes were refused. All of these end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// A byte that no operation has in that place.
    #[error("unknown protocol operation")]
    UnknownOperation,
    /// A line longer than allowed.
    #[error("control line longer than {bytes_max} bytes")]
    ControlLineTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// A message larger than allowed.
    #[error("payload of {bytes} bytes is larger than {bytes_max}")]
    PayloadTooLarge {
        /// What was announced.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Too few, too many or malformed arguments.
    #[error("bad arguments of {verb}")]
    BadArguments {
        /// The operation they were given to.
        verb: &'static str,
    },
    /// `HPUB` on a connection without headers.
    #[error("message headers not supported")]
    HeadersNotSupported,
}

impl ProtocolViolation {
    /// The `-ERR` text that goes with it, or `None` where the connection closes without a word.
    pub fn error_text(&self) -> Option<&'static str> {
        match self {
            Self::UnknownOperation => Some("Unknown Protocol Operation"),
            Self::ControlLineTooLong { .. } => Some("maximum control line exceeded"),
            Self::PayloadTooLarge { .. } => Some("Maximum Payload Violation"),
            Self::BadArguments { .. } | Self::HeadersNotSupported => None,
        }
    }
}

/// Parses the operation at the start of `input`.
pub fn parse<'a>(input: &'a [u8], rules: &Rules) -> Result<Parsed<'a>, ProtocolViolation> {
    let Some(first) = input.first() else {
        return Ok(INCOMPLETE);
    };
    match first.to_ascii_uppercase() {
        b'P' => match input.get(1).map(u8::to_ascii_uppercase) {
            Some(b'U') => publish(input, rules),
            Some(b'I') => bare(input, "PING", Op::Ping, rules),
            Some(b'O') => bare(input, "PONG", Op::Pong, rules),
            Some(_) => Err(ProtocolViolation::UnknownOperation),
            None => Ok(INCOMPLETE),
        },
        b'H' => publish_with_headers(input, rules),
        b'S' => subscribe(input, rules),
        b'U' => unsubscribe(input, rules),
        b'C' => with_argument(input, "CONNECT", Blank::Optional, rules, Op::Connect),
        b'I' => with_argument(input, "INFO", Blank::Optional, rules, Op::Info),
        b'+' => bare(input, "+OK", Op::Ok, rules),
        b'-' => with_argument(input, "-ERR", Blank::Required, rules, Op::Error),
        _ => Err(ProtocolViolation::UnknownOperation),
    }
}

const INCOMPLETE: Parsed<'static> = Parsed::Incomplete { bytes_in_all: 0 };

/// Whether a blank must stand between a verb and its argument.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    Required,
    Optional,
}

/// A line's argument and where the line ends.
struct Line<'a> {
    argument: &'a [u8],
    bytes: usize,
}

fn publish<'a>(input: &'a [u8], rules: &Rules) -> Result<Parsed<'a>, ProtocolViolation> {
    const BAD: ProtocolViolation = ProtocolViolation::BadArguments { verb: "PUB" };
    let Some(line) = line(input, "PUB", Blank::Required, rules)? else {
        return Ok(INCOMPLETE);
    };
    // The busiest line of all is cut from its end: the size is short, and what is left is nearly
    // always the subject alone.
    let (head, size) = cut_last_word(line.argument).ok_or(BAD)?;
    let (subject, reply) = match memchr2(b' ', b'\t', head) {
        None => (head, &b""[..]),
        Some(blank) => {
            let (subject, rest) = head.split_at(blank);
            let reply = trim_start(rest);
            if reply.iter().any(|byte| is_blank(*byte)) {
                return Err(BAD);
            }
            (subject, reply)
        }
    };
    let size = parse_size(size).ok_or(BAD)?;
    message(input, line.bytes, subject, reply, 0, size, rules)
}

fn publish_with_headers<'a>(
    input: &'a [u8],
    rules: &Rules,
) -> Result<Parsed<'a>, ProtocolViolation> {
    const BAD: ProtocolViolation = ProtocolViolation::BadArguments { verb: "HPUB" };
    let Some(line) = line(input, "HPUB", Blank::Required, rules)? else {
        return Ok(INCOMPLETE);
    };
    if !rules.headers {
        return Err(ProtocolViolation::HeadersNotSupported);
    }
    let ([a, b, c, d], count) = words::<4>(line.argument, is_blank);
    let (subject, reply, header_size, size) = match count {
        3 => (a, &b""[..], b, c),
        4 => (a, b, c, d),
        _ => return Err(BAD),
    };
    let header_size = parse_size(header_size).ok_or(BAD)?;
    let size = parse_size(size).ok_or(BAD)?;
    if header_size > size {
        return Err(BAD);
    }
    message(input, line.bytes, subject, reply, header_size, size, rules)
}

/// The part behind the line of a `PUB` or `HPUB`.
fn message<'a>(
    input: &'a [u8],
    line_bytes: usize,
    subject: &'a [u8],
    reply: &'a [u8],
    header_size: usize,
    size: usize,
    rules: &Rules,
) -> Result<Parsed<'a>, ProtocolViolation> {
    if size > rules.payload_bytes_max {
        return Err(ProtocolViolation::PayloadTooLarge {
            bytes: size,
            bytes_max: rules.payload_bytes_max,
        });
    }
    let rest = input.get(line_bytes..).unwrap_or_default();
    let bytes_in_all = line_bytes + size + 2;
    match (rest.get(size), rest.get(size + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (None, _) | (Some(b'\r'), None) => return Ok(Parsed::Incomplete { bytes_in_all }),
        _ => return Err(ProtocolViolation::UnknownOperation),
    }
    Ok(Parsed::Complete {
        op: Op::Publish(Publish {
            subject,
            reply,
            headers: rest.get(..header_size).unwrap_or_default(),
            payload: rest.get(header_size..size).unwrap_or_default(),
        }),
        consumed: bytes_in_all,
    })
}

/// A message with headers of which not all bytes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun<'a> {
    /// Its subject.
    pub subject: &'a [u8],
    /// As much of its headers as is there.
    pub headers: &'a [u8],
    /// How large headers and payload are together.
    pub bytes: usize,
}

/// What is there of a message with headers that is not taken, at the start of `input`.
pub fn begun(input: &[u8]) -> Option<Begun<'_>> {
    let end = memchr::memchr(b'\n', input)?;
    let line = input.get(..end)?.trim_ascii_end();
    let verb = line.get(..4)?;
    if !verb.eq_ignore_ascii_case(b"HPUB") {
        return None;
    }
    let ([subject, second, third, fourth], count) = words::<4>(line.get(4..)?, is_blank);
    let (header_bytes, bytes) = match count {
        3 => (second, third),
        4 => (third, fourth),
        _ => return None,
    };
    let header_bytes = parse_size(header_bytes)?;
    let rest = input.get(end + 1..)?;
    Some(Begun {
        subject,
        headers: rest.get(..header_bytes).unwrap_or(rest),
        bytes: parse_size(bytes)?,
    })
}

fn subscribe<'a>(input: &'a [u8], rules: &Rules) -> Result<Parsed<'a>, ProtocolViolation> {
    let Some(line) = line(input, "SUB", Blank::Required, rules)? else {
        return Ok(INCOMPLETE);
    };
    let ([a, b, c], count) = words::<3>(line.argument, is_white);
    let (queue, sid) = match count {
        2 => (None, b),
        3 => (Some(b), c),
        _ => return Err(ProtocolViolation::BadArguments { verb: "SUB" }),
    };
    Ok(Parsed::Complete {
        op: Op::Subscribe {
            subject: a,
            queue,
            sid,
        },
        consumed: line.bytes,
    })
}

fn unsubscribe<'a>(input: &'a [u8], rules: &Rules) -> Result<Parsed<'a>, ProtocolViolation> {
    let Some(line) = line(input, "UNSUB", Blank::Required, rules)? else {
        return Ok(INCOMPLETE);
    };
    let ([sid, max], count) = words::<2>(line.argument, is_white);
    let max = match count {
        1 => 0,
        // What is not a number ends the subscription at once.
        2 => parse_size(max).unwrap_or(0) as u64,
        _ => return Err(ProtocolViolation::BadArguments { verb: "UNSUB" }),
    };
    Ok(Parsed::Complete {
        op: Op::Unsubscribe { sid, max },
        consumed: line.bytes,
    })
}

fn with_argument<'a>(
    input: &'a [u8],
    verb: &'static str,
    blank: Blank,
    rules: &Rules,
    op: impl FnOnce(&'a [u8]) -> Op<'a>,
) -> Result<Parsed<'a>, ProtocolViolation> {
    Ok(match line(input, verb, blank, rules)? {
        Some(line) => Parsed::Complete {
            op: op(line.argument),
            consumed: line.bytes,
        },
        None => INCOMPLETE,
    })
}

/// A verb without argument: whatever follows it on its line is ignored.
fn bare<'a>(
    input: &'a [u8],
    verb: &'static str,
    op: Op<'a>,
    rules: &Rules,
) -> Result<Parsed<'a>, ProtocolViolation> {
    if !begins_with(input, verb)? {
        return Ok(INCOMPLETE);
    }
    let end = memchr(b'\n', input);
    check_line(end.unwrap_or(input.len()), rules)?;
    Ok(match end {
        Some(end) => Parsed::Complete {
            op,
            consumed: end + 1,
        },
        None => INCOMPLETE,
    })
}

/// Splits the verb's line off the input, `None` while it has not ended.
#[inline(always)]
fn line<'a>(
    input: &'a [u8],
    verb: &'static str,
    blank: Blank,
    rules: &Rules,
) -> Result<Option<Line<'a>>, ProtocolViolation> {
    if !begins_with(input, verb)? {
        return Ok(None);
    }
    let rest = input.get(verb.len()..).unwrap_or_default();
    if blank == Blank::Required && rest.first().is_some_and(|byte| !is_blank(*byte)) {
        return Err(ProtocolViolation::UnknownOperation);
    }
    let Some(start) = rest.iter().position(|byte| !is_blank(*byte)) else {
        check_line(input.len(), rules)?;
        return Ok(None);
    };
    let argument = rest.get(start..).unwrap_or_default();
    // The first byte belongs to the argument whatever it is; only a later line feed ends the line.
    let end = memchr(b'\n', argument.get(1..).unwrap_or_default()).map(|end| end + 1);
    let text = argument
        .get(..end.unwrap_or(argument.len()))
        .unwrap_or_default();
    let text = match text {
        [head @ .., b'\r'] if !head.is_empty() || end.is_none() => head,
        _ => text,
    };
    if text.len() > rules.control_line_bytes_max {
        return Err(too_long(rules));
    }
    let bytes = verb.len() + start + end.unwrap_or(argument.len());
    check_line(bytes, rules)?;
    Ok(end.map(|_| Line {
        argument: text,
        bytes: bytes + 1,
    }))
}

/// Whether the input begins with the verb; `false` while it is a mere beginning of it.
#[inline(always)]
fn begins_with(input: &[u8], verb: &'static str) -> Result<bool, ProtocolViolation> {
    // Nearly every client shouts.
    if input.starts_with(verb.as_bytes()) {
        return Ok(true);
    }
    begins_with_in_any_case(input, verb)
}

fn begins_with_in_any_case(input: &[u8], verb: &'static str) -> Result<bool, ProtocolViolation> {
    let verb = verb.as_bytes();
    let known = input.len().min(verb.len());
    let (Some(have), Some(want)) = (input.get(..known), verb.get(..known)) else {
        return Ok(false);
    };
    if have.eq_ignore_ascii_case(want) {
        Ok(known == verb.len())
    } else {
        Err(ProtocolViolation::UnknownOperation)
    }
}

fn check_line(bytes: usize, rules: &Rules) -> Result<(), ProtocolViolation> {
    if bytes > rules.control_line_bytes_max + LINE_SLACK_BYTES {
        return Err(too_long(rules));
    }
    Ok(())
}

fn too_long(rules: &Rules) -> ProtocolViolation {
    ProtocolViolation::ControlLineTooLong {
        bytes_max: rules.control_line_bytes_max,
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The first `N` words and how many there are in all (counting stops at `N + 1`).
#[inline]
fn words<const N: usize>(text: &[u8], is_separator: impl Fn(u8) -> bool) -> ([&[u8]; N], usize) {
    let mut found = [&b""[..]; N];
    let mut count = 0;
    let mut rest = text;
    loop {
        while let [byte, tail @ ..] = rest
            && is_separator(*byte)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return (found, count);
        }
        let end = rest
            .iter()
            .position(|byte| is_separator(*byte))
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let Some(slot) = found.get_mut(count) else {
            return (found, N + 1);
        };
        *slot = word;
        count += 1;
        rest = tail;
    }
}

/// Splits the last word off a text that does not begin with a blank, `None` when it is the only one.
#[inline]
fn cut_last_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = trim_end(text);
    let blank = text.iter().rposition(|byte| is_blank(*byte))?;
    let (head, word) = text.split_at(blank + 1);
    Some((trim_end(head), word))
}

#[inline]
fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [blank, rest @ ..] = text
        && is_blank(*blank)
    {
        text = rest;
    }
    text
}

#[inline]
fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., blank] = text
        && is_blank(*blank)
    {
        text = rest;
    }
    text
}

/// A decimal number of at most nine digits.
pub(super) fn parse_size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0usize, |size, digit| {
        digit
            .is_ascii_digit()
            .then(|| size * 10 + usize::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests;
