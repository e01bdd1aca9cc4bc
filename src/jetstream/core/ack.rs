//! Acks: the subjects they are sent to and the bodies they carry.

use super::duration;

/// What an ack says about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckKind {
    /// It is done.
    Ack,
    /// It is done, and here is the next pull request's body.
    Next(Vec<u8>),
    /// It shall come again, at once or after so many nanoseconds.
    Nak(Option<i64>),
    /// It is still worked on.
    Progress,
    /// It shall not come again, for this reason.
    Terminate(String),
    /// Nothing we know.
    Unknown,
}

impl AckKind {
    /// Reads the body of an ack.
    pub fn parse(body: &[u8]) -> Self {
        match body {
            b"" | b"+ACK" | b"+OK" => return Self::Ack,
            b"+WPI" => return Self::Progress,
            _ => {}
        }
        if let Some(request) = body.strip_prefix(b"+NXT") {
            return Self::Next(request.to_vec());
        }
        if let Some(argument) = body.strip_prefix(b"-NAK") {
            return Self::Nak(parse_delay(argument.trim_ascii()));
        }
        if let Some(reason) = body.strip_prefix(b"+TERM") {
            let reason = String::from_utf8_lossy(reason.trim_ascii());
            return Self::Terminate(reason.into_owned());
        }
        Self::Unknown
    }
}

/// A delay that cannot be read is none.
fn parse_delay(argument: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Options {
        #[serde(default)]
        delay: i64,
    }
    match argument.first()? {
        b'{' => {
            let options: Options = serde_json::from_slice(argument).ok()?;
            Some(options.delay)
        }
        _ => duration::parse(std::str::from_utf8(argument).ok()?),
    }
}

/// Which delivery an ack is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The consumer's name.
    pub consumer: &'a str,
    /// How often the message had been delivered.
    pub deliveries: u64,
    /// Which message.
    pub stream_sequence: u64,
    /// Which delivery.
    pub consumer_sequence: u64,
    /// When the message was stored, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// How many messages were still to be delivered then.
    pub pending: u64,
}

impl<'a> AckSubject<'a> {
    /// Reads `$JS.ACK.…` in either of its forms. A subject with bad numbers has stream sequence 0.
    pub fn parse(subject: &'a [u8]) -> Option<Self> {
        let rest = std::str::from_utf8(subject.strip_prefix(b"$JS.ACK.")?).ok()?;
        let tokens = rest.split('.').count();
        let mut rest = rest.split('.');
        if tokens >= 9 {
            // The longer form begins with a domain and an account.
            rest.nth(1)?;
        } else if tokens != 7 {
            return None;
        }
        let (stream, consumer) = (rest.next()?, rest.next()?);
        let mut number = || {
            rest.next()
                .and_then(|token| token.parse().ok())
                .unwrap_or(0)
        };
        Some(Self {
            stream,
            consumer,
            deliveries: number(),
            stream_sequence: number(),
            consumer_sequence: number(),
            time_ns: i64::try_from(number()).unwrap_or(0),
            pending: number(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_matched_as_a_whole_or_by_prefix() {
        for (body, kind) in [
            ("", AckKind::Ack),
            ("+ACK", AckKind::Ack),
            ("+OK", AckKind::Ack),
            ("+WPI", AckKind::Progress),
            ("+WPI ", AckKind::Unknown),
            ("+ACKS", AckKind::Unknown),
            ("-NAK", AckKind::Nak(None)),
            ("-NAK {\"delay\": 100}", AckKind::Nak(Some(100))),
            ("-NAK 1s", AckKind::Nak(Some(1_000_000_000))),
            ("-NAK bogus", AckKind::Nak(None)),
            ("+NXT 5", AckKind::Next(b" 5".to_vec())),
            ("+TERM", AckKind::Terminate(String::new())),
            (
                "+TERM for a reason",
                AckKind::Terminate("for a reason".to_owned()),
            ),
        ] {
            assert_eq!(AckKind::parse(body.as_bytes()), kind, "{body:?}");
        }
    }

    #[test]
    fn both_forms_of_the_subject_name_the_same_delivery() {
        let expected = AckSubject {
            stream: "S",
            consumer: "C",
            deliveries: 1,
            stream_sequence: 3,
            consumer_sequence: 2,
            time_ns: 1_795_423_022_664_657_571,
            pending: 2,
        };
        for subject in [
            "$JS.ACK.S.C.1.3.2.1795423022664657571.2",
            "$JS.ACK._.abcdefgh.S.C.1.3.2.1795423022664657571.2",
            "$JS.ACK.hub.abcdefgh.S.C.1.3.2.1795423022664657571.2.more",
        ] {
            assert_eq!(
                AckSubject::parse(subject.as_bytes()),
                Some(expected),
                "{subject}"
            );
        }
        assert_eq!(AckSubject::parse(b"$JS.ACK.S.C.1"), None);
        let bad = AckSubject::parse(b"$JS.ACK.S.C.x.y.z.0.0").expect("parses");
        assert_eq!(bad.stream_sequence, 0);
    }
}
