//! What the reply subject of a message says about its fast batch.

/// What a message means for its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It is the first one.
    Start,
    /// It is another one.
    Append,
    /// It is the last one.
    CommitWith,
    /// The one before it was the last; this one is not stored.
    CommitBefore,
    /// It asks how far the batch is.
    Ping,
}

/// `<inbox>.<id>.<every>.<gap>.<sequence>.<operation>.$FI`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FastReply<'a> {
    pub(crate) id: &'a str,
    /// For how many messages the publisher wants one ack, at most.
    pub(crate) every: u16,
    /// Whether messages may be missing.
    pub(crate) gap_ok: bool,
    /// Its place in the batch, from 1.
    pub(crate) sequence: u64,
    pub(crate) operation: Operation,
}

/// For how many messages there is an ack when the publisher does not say.
const EVERY_DEFAULT: u16 = 10;

impl<'a> FastReply<'a> {
    pub(crate) fn parse(reply: &'a [u8]) -> Option<Self> {
        let reply = std::str::from_utf8(reply).ok()?.strip_suffix(".$FI")?;
        let mut tokens = reply.rsplitn(6, '.');
        let operation = match tokens.next()? {
            "0" => Operation::Start,
            "1" => Operation::Append,
            "2" => Operation::CommitWith,
            "3" => Operation::CommitBefore,
            "4" => Operation::Ping,
            _ => return None,
        };
        let sequence: u64 = tokens.next()?.parse().ok()?;
        let gap_ok = match tokens.next()? {
            "ok" => true,
            "fail" => false,
            _ => return None,
        };
        let every = tokens.next()?;
        let every = match every.parse::<u64>() {
            Ok(0) | Err(_) => EVERY_DEFAULT,
            Ok(every) => u16::try_from(every).unwrap_or(u16::MAX),
        };
        let id = tokens.next()?;
        // Something must be left of the inbox.
        tokens.next()?;
        let is_possible = match (operation, sequence) {
            (_, 0 | u64::MAX) => false,
            (Operation::Start, sequence) => sequence == 1,
            (Operation::Append | Operation::CommitBefore, sequence) => sequence > 1,
            _ => true,
        };
        is_possible.then_some(Self {
            id,
            every,
            gap_ok,
            sequence,
            operation,
        })
    }

    /// Whether the message is one to store.
    pub(crate) fn stores(&self) -> bool {
        matches!(
            self.operation,
            Operation::Start | Operation::Append | Operation::CommitWith
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_says_what_the_message_is() {
        let read = FastReply::parse(b"_INBOX.x.uuid.100.ok.7.1.$FI");
        let expected = FastReply {
            id: "uuid",
            every: 100,
            gap_ok: true,
            sequence: 7,
            operation: Operation::Append,
        };
        assert_eq!(read, Some(expected));
        let every = |reply: &[u8]| FastReply::parse(reply).map(|reply| reply.every);
        assert_eq!(every(b"i.u.0.fail.1.0.$FI"), Some(10));
        assert_eq!(every(b"i.u.x.fail.1.0.$FI"), Some(10));
        assert_eq!(every(b"i.u.99999.fail.1.0.$FI"), Some(u16::MAX));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for reply in [
            &b"i.u.10.ok.2.0.$FI"[..],
            b"i.u.10.ok.1.1.$FI",
            b"i.u.10.ok.1.3.$FI",
            b"i.u.10.ok.0.0.$FI",
            b"i.u.10.ok.18446744073709551615.1.$FI",
            b"i.u.10.maybe.1.0.$FI",
            b"i.u.10.ok.1.5.$FI",
            b"i.u.10.ok.x.1.$FI",
            b"u.10.ok.1.0.$FI",
            b"$FI",
            b".$FI",
            b"\xff.u.10.ok.1.0.$FI",
        ] {
            assert_eq!(FastReply::parse(reply), None, "{reply:?}");
        }
    }
}
