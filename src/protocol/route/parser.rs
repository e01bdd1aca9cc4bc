//! The parser of what a route's other side sends: one operation at a time, out of whatever has arrived so far.
//!
//! It keeps no state and allocates nothing, as the clients' parser does. Whether lines name an account depends on the route, so
//! the caller says it with the bytes.

use memchr::memchr;

use super::super::parser::{ProtocolViolation, parse_size};

/// The most subjects, replies and groups that one line may name, and so how far its words are counted.
const QUEUES_MAX: usize = 4096;

/// What is allowed on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRules {
    /// The longest line.
    pub line_bytes_max: usize,
    /// The most bytes of headers and payload together.
    pub payload_bytes_max: usize,
    /// Whether lines name an account: they do not on an account's own route.
    pub names_account: bool,
}

/// One operation, borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteOp<'a> {
    /// `INFO` with its JSON.
    Info(&'a [u8]),
    /// `CONNECT` with its JSON.
    Connect(&'a [u8]),
    /// A `LINK` line, whole: the connection is no route but a link.
    Link(&'a [u8]),
    /// `RS+`.
    Subscribe(Interest<'a>),
    /// `RS-`; the weight means nothing.
    Unsubscribe(Interest<'a>),
    /// `LS+` or `LS-` : interest of a leaf node that names its cluster.
    OriginInterest,
    /// `RMSG`, `HMSG` or `LMSG`.
    Message(RouteMessage<'a>),
    /// `A+` or `A-`: an account without any interest; only gateways act on it.
    AccountInterest,
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`.
    Ok,
    /// `-ERR` with its text.
    Error(&'a [u8]),
}

/// A subscription of another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest<'a> {
    /// The account, empty on an account's own route.
    pub account: &'a [u8],
    /// The pattern; not checked yet.
    pub subject: &'a [u8],
    /// The queue group.
    pub queue: Option<&'a [u8]>,
    /// How many members the group has there.
    pub weight: u32,
}

/// A message of another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteMessage<'a> {
    /// The account, empty on an account's own route.
    pub account: &'a [u8],
    /// Where to; not checked yet.
    pub subject: &'a [u8],
    /// The reply subject, empty when there is none.
    pub reply: &'a [u8],
    /// The queue groups that one member each of gets it.
    pub queues: Queues<'a>,
    /// The raw header block, empty when there is none.
    pub headers: &'a [u8],
    /// The payload without headers.
    pub payload: &'a [u8],
}

/// Words with blanks between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queues<'a>(&'a [u8]);

impl<'a> Queues<'a> {
    /// The groups of a text, one after the other.
    pub fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .split(|byte| is_white(*byte))
            .filter(|word| !word.is_empty())
    }

    /// Whether this one is among them.
    pub fn contains(self, name: &[u8]) -> bool {
        self.iter().any(|queue| queue == name)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// How far the input reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedRoute<'a> {
    /// A whole operation stood at the start of the input.
    Complete {
        /// What it says.
        op: RouteOp<'a>,
        /// How many bytes of the input it took.
        consumed: usize,
    },
    /// More bytes are needed.
    Incomplete {
        /// How many bytes the operation takes in all, as far as that is known; 0 while its line has not ended.
        bytes_in_all: usize,
    },
}

/// Parses the operation at the start of `input`.
pub fn parse<'a>(
    input: &'a [u8],
    rules: &RouteRules,
) -> Result<ParsedRoute<'a>, ProtocolViolation> {
    let Some(end) = memchr(b'\n', input) else {
        return match input.len() > rules.line_bytes_max || !may_begin(input) {
            true if may_begin(input) => Err(too_long(rules)),
            true => Err(ProtocolViolation::UnknownOperation),
            false => Ok(ParsedRoute::Incomplete { bytes_in_all: 0 }),
        };
    };
    if end > rules.line_bytes_max {
        return Err(too_long(rules));
    }
    let text = input.get(..end).unwrap_or_default();
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let verb_end = text
        .iter()
        .position(|byte| is_white(*byte))
        .unwrap_or(text.len());
    let (verb, rest) = text.split_at(verb_end);
    let argument = trim(rest);
    let line_bytes = end + 1;
    let op = match verb {
        b"RMSG" => return message(input, line_bytes, argument, Form::Plain, rules),
        b"HMSG" => return message(input, line_bytes, argument, Form::Headers, rules),
        b"LMSG" => return message(input, line_bytes, argument, Form::Origin, rules),
        b"RS+" => RouteOp::Subscribe(interest(argument, rules, Weight::Stands)?),
        b"RS-" => RouteOp::Unsubscribe(interest(argument, rules, Weight::Absent)?),
        b"LS+" | b"LS-" => RouteOp::OriginInterest,
        b"A+" | b"A-" => RouteOp::AccountInterest,
        b"LINK" => RouteOp::Link(text),
        _ => control(verb, argument)?,
    };
    Ok(ParsedRoute::Complete {
        op,
        consumed: line_bytes,
    })
}

/// The verbs that clients know too, in any case.
fn control<'a>(verb: &[u8], argument: &'a [u8]) -> Result<RouteOp<'a>, ProtocolViolation> {
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    Ok(if is("PING") {
        RouteOp::Ping
    } else if is("PONG") {
        RouteOp::Pong
    } else if is("INFO") {
        RouteOp::Info(argument)
    } else if is("CONNECT") {
        RouteOp::Connect(argument)
    } else if is("+OK") {
        RouteOp::Ok
    } else if is("-ERR") {
        RouteOp::Error(argument)
    } else {
        return Err(ProtocolViolation::UnknownOperation);
    })
}

/// Whether some operation begins like this: so that what is none is refused before its line ends.
fn may_begin(input: &[u8]) -> bool {
    const VERBS: [&[u8]; 15] = [
        b"RMSG", b"HMSG", b"LMSG", b"RS+", b"RS-", b"LS+", b"LS-", b"A+", b"A-", b"LINK", b"PING",
        b"PONG", b"INFO", b"CONNECT", b"+OK",
    ];
    let begins = |verb: &[u8]| {
        let known = input.len().min(verb.len());
        match (input.get(..known), verb.get(..known)) {
            (Some(have), Some(want)) => have.eq_ignore_ascii_case(want),
            _ => false,
        }
    };
    VERBS.iter().any(|verb| begins(verb)) || begins(b"-ERR")
}

/// Whether a queue group is followed by its weight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Stands,
    Absent,
}

fn interest<'a>(
    argument: &'a [u8],
    rules: &RouteRules,
    weight: Weight,
) -> Result<Interest<'a>, ProtocolViolation> {
    let verb = match weight {
        Weight::Stands => "RS+",
        Weight::Absent => "RS-",
    };
    let bad = ProtocolViolation::BadArguments { verb };
    let mut words = Words(argument);
    let account = match rules.names_account {
        true => words.next().ok_or(bad)?,
        false => b"",
    };
    let subject = words.next().ok_or(bad)?;
    let queue = words.next();
    let weight = match (queue, weight) {
        (Some(_), Weight::Stands) => {
            let digits = words.next().ok_or(bad)?;
            u32::try_from(parse_size(digits).ok_or(bad)?).map_err(|_| bad)?
        }
        _ => 1,
    };
    if words.next().is_some() {
        return Err(bad);
    }
    Ok(Interest {
        account,
        subject,
        queue,
        weight,
    })
}

/// Which sizes a message's line ends with, and what it begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Headers,
    Origin,
}

impl Form {
    fn verb(self) -> &'static str {
        match self {
            Form::Plain => "RMSG",
            Form::Headers => "HMSG",
            Form::Origin => "LMSG",
        }
    }
}

fn message<'a>(
    input: &'a [u8],
    line_bytes: usize,
    argument: &'a [u8],
    form: Form,
    rules: &RouteRules,
) -> Result<ParsedRoute<'a>, ProtocolViolation> {
    let bad = ProtocolViolation::BadArguments { verb: form.verb() };
    let (rest, size) = cut_last(argument).ok_or(bad)?;
    let size = parse_size(size).ok_or(bad)?;
    let (rest, header_size) = match form {
        Form::Plain => (rest, 0),
        Form::Headers | Form::Origin => {
            let (rest, digits) = cut_last(rest).ok_or(bad)?;
            (rest, parse_size(digits).ok_or(bad)?)
        }
    };
    if header_size > size {
        return Err(bad);
    }
    if size > rules.payload_bytes_max {
        return Err(ProtocolViolation::PayloadTooLarge {
            bytes: size,
            bytes_max: rules.payload_bytes_max,
        });
    }
    let mut words = Words(rest);
    if form == Form::Origin {
        words.next().ok_or(bad)?;
    }
    let account = match rules.names_account {
        true => words.next().ok_or(bad)?,
        false => b"",
    };
    let subject = words.next().ok_or(bad)?;
    let (reply, queues) = reply_and_queues(words).ok_or(bad)?;
    let body = input.get(line_bytes..).unwrap_or_default();
    let bytes_in_all = line_bytes + size + 2;
    match (body.get(size), body.get(size + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (None, _) | (Some(b'\r'), None) => return Ok(ParsedRoute::Incomplete { bytes_in_all }),
        _ => return Err(ProtocolViolation::UnknownOperation),
    }
    Ok(ParsedRoute::Complete {
        op: RouteOp::Message(RouteMessage {
            account,
            subject,
            reply,
            queues,
            headers: body.get(..header_size).unwrap_or_default(),
            payload: body.get(header_size..size).unwrap_or_default(),
        }),
        consumed: bytes_in_all,
    })
}

/// What stands between subject and sizes: nothing, a reply, `+ reply queues` or `| queues`.
fn reply_and_queues<'a>(mut words: Words<'a>) -> Option<(&'a [u8], Queues<'a>)> {
    let Some(first) = words.next() else {
        return Some((b"", Queues::default()));
    };
    let after = trim(words.0);
    if after.is_empty() {
        return Some((first, Queues::default()));
    }
    let (reply, queues) = match first {
        b"+" => {
            let reply = words.next()?;
            (reply, trim(words.0))
        }
        b"|" => (&b""[..], after),
        _ => return None,
    };
    let within = Queues(queues).iter().take(QUEUES_MAX + 1).count() <= QUEUES_MAX;
    (within && !queues.is_empty()).then_some((reply, Queues(queues)))
}

/// Words of a line, one after the other.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = trim(self.0);
        if text.is_empty() {
            self.0 = text;
            return None;
        }
        let end = text
            .iter()
            .position(|byte| is_white(*byte))
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

/// The text before the last word, and that word.
fn cut_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = trim(text);
    let blank = text.iter().rposition(|byte| is_white(*byte))?;
    Some((text.get(..blank)?, text.get(blank + 1..)?))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [blank, rest @ ..] = text
        && is_white(*blank)
    {
        text = rest;
    }
    while let [rest @ .., blank] = text
        && is_white(*blank)
    {
        text = rest;
    }
    text
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn too_long(rules: &RouteRules) -> ProtocolViolation {
    ProtocolViolation::ControlLineTooLong {
        bytes_max: rules.line_bytes_max,
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;

    const RULES: RouteRules = RouteRules {
        line_bytes_max: 4096,
        payload_bytes_max: 1024,
        names_account: true,
    };

    fn whole<'a>(input: &'a [u8], rules: &RouteRules) -> RouteOp<'a> {
        for cut in 0..input.len() {
            let parsed = parse(&input[..cut], rules).unwrap();
            assert!(matches!(parsed, ParsedRoute::Incomplete { .. }), "{cut}");
        }
        match parse(input, rules).unwrap() {
            ParsedRoute::Complete { op, consumed } if consumed == input.len() => op,
            other => panic!("{other:?}"),
        }
    }

    fn message<'a>(input: &'a [u8], rules: &RouteRules) -> RouteMessage<'a> {
        match whole(input, rules) {
            RouteOp::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn interest_names_account_subject_queue_and_weight() {
        let RouteOp::Subscribe(plain) = whole(b"RS+ ACME orders.*\r\n", &RULES) else {
            panic!()
        };
        assert_eq!(
            (plain.account, plain.subject, plain.queue),
            (&b"ACME"[..], &b"orders.*"[..], None)
        );
        let RouteOp::Subscribe(queue) = whole(b"RS+ ACME orders.* workers 12\r\n", &RULES) else {
            panic!()
        };
        assert_eq!((queue.queue, queue.weight), (Some(&b"workers"[..]), 12));
        let RouteOp::Unsubscribe(gone) = whole(b"RS- ACME orders.* workers\r\n", &RULES) else {
            panic!()
        };
        assert_eq!(gone.queue, Some(&b"workers"[..]));
        let own = RouteRules {
            names_account: false,
            ..RULES
        };
        let RouteOp::Subscribe(own) = whole(b"RS+ orders.* workers 1\r\n", &own) else {
            panic!()
        };
        assert_eq!((own.account, own.queue), (&b""[..], Some(&b"workers"[..])));
    }

    #[test]
    fn messages_name_a_reply_queues_or_both() {
        let plain = message(b"RMSG $G a.b 5\r\nhello\r\n", &RULES);
        assert_eq!(
            (plain.account, plain.subject, plain.payload),
            (&b"$G"[..], &b"a.b"[..], &b"hello"[..])
        );
        assert!(plain.reply.is_empty() && plain.queues.is_empty());
        let reply = message(b"RMSG $G a.b _INBOX.1 0\r\n\r\n", &RULES);
        assert_eq!(reply.reply, b"_INBOX.1");
        let both = message(
            b"HMSG $G a + r q1 q2 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            &RULES,
        );
        assert_eq!(
            (both.reply, both.headers, both.payload),
            (&b"r"[..], &b"NATS/1.0\r\n\r\n"[..], &b"hi"[..])
        );
        assert_eq!(both.queues.iter().collect::<Vec<_>>(), [b"q1", b"q2"]);
        let queues = message(b"RMSG $G a | q1 0\r\n\r\n", &RULES);
        assert!(queues.queues.contains(b"q1") && queues.reply.is_empty());
        let own = RouteRules {
            names_account: false,
            ..RULES
        };
        assert_eq!(message(b"RMSG a 0\r\n\r\n", &own).subject, b"a");
        assert_eq!(message(b"LMSG O $G a 0 0\r\n\r\n", &RULES).subject, b"a");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut out = Vec::new();
        encode::subscribe(&mut out, Some("A"), b"x.>", Some((b"q", 3)));
        assert_eq!(out, b"RS+ A x.> q 3\r\n");
        out.clear();
        let line = encode::RoutedLine {
            account: Some("A"),
            subject: b"x",
            reply: b"r",
            shown: Some(b"y"),
            header_bytes: 0,
            total_bytes: 2,
        };
        line.begin(&mut out, true);
        encode::RoutedLine::queue(&mut out, b"q");
        line.end(&mut out);
        assert_eq!(out, b"RMSG A x + r@y q 2\r\n");
        assert!(out.len() <= line.bytes_max());
        out.clear();
        encode::unsubscribe(&mut out, None, b"x", None);
        assert_eq!(out, b"RS- x\r\n");
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        for bad in [
            &b"RMSG $G a\r\n"[..],
            b"RMSG $G a x\r\n",
            b"RMSG $G a b c 1\r\n",
            b"RMSG $G a + r 1\r\n",
            b"RMSG $G a | 99999999999\r\n",
            b"HMSG $G a 5 4\r\nabcd\r\n",
            b"RS+ A\r\n",
            b"RS+ A b q\r\n",
            b"RS+ A b q x\r\n",
            b"RS- A b q 1 2\r\n",
            b"PUB a 1\r\n",
            b"GET /",
        ] {
            assert!(
                parse(bad, &RULES).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(parse(b"RMSG $G a 2000\r\n", &RULES).is_err());
        assert!(parse(&[b"INFO ".to_vec(), vec![b'x'; 5000]].concat(), &RULES).is_err());
    }
}
