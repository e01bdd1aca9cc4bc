//! Which work is so little that who brings it may do it on a thread that others wait for: it reads or decides a few messages, and walks over nothing.

use crate::broker::Inbound;
use crate::jetstream::intake::Purpose;

/// More messages than this keep a thread of their own busy, which then works beside the one that reads them.
const MESSAGES_MAX: usize = 4;
/// And more bytes.
const BYTES_MAX: usize = 16 * 1024;
/// The longest block of headers that is looked through.
const HEADERS_MAX: usize = 512;
/// Headers of publishes that may want more than a decision: the last message of a batch brings all of it, others read what is stored or remove some of it.
const WEIGHTY: [&[u8]; 5] = [
    b"Nats-Batch-",
    b"Nats-Incr",
    b"Nats-Schedule",
    b"Nats-Rollup",
    b"Nats-Expected-Last-Subject-Sequence-Subject",
];
/// The longest question that is read twice, to see whether it can be answered at once.
const QUESTION_MAX: usize = 256;

/// What a stream counts as little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Light {
    /// Reading a message.
    Reads,
    /// Reading one, or taking one in.
    Everything,
}

impl Light {
    /// Whether a batch is little.
    pub(super) fn holds(self, batch: &[Inbound]) -> bool {
        batch.len() <= MESSAGES_MAX && batch.iter().all(|inbound| self.is_little(inbound))
    }

    fn is_little(self, inbound: &Inbound) -> bool {
        let Inbound {
            tag,
            headers,
            payload,
            ..
        } = inbound;
        match *tag {
            tag if tag == Purpose::DirectBySubject as u64 => payload.is_empty(),
            // What it asks for is looked at where the stream is.
            tag if tag == Purpose::Direct as u64 => payload.len() <= QUESTION_MAX,
            tag if tag == Purpose::Publish as u64 => {
                self == Self::Everything
                    && headers.len() + payload.len() <= BYTES_MAX
                    && headers.len() <= HEADERS_MAX
                    && !WEIGHTY.iter().any(|header| holds(headers, header))
            }
            _ => false,
        }
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::broker::Broker;

    fn inbound(purpose: Purpose, headers: &str, payload: &str) -> Inbound {
        Inbound {
            account: Arc::clone(Broker::new().global()),
            tag: purpose as u64,
            subject: Bytes::new(),
            reply: Bytes::new(),
            headers: Bytes::copy_from_slice(headers.as_bytes()),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            client: None,
            trace: None,
        }
    }

    #[test]
    fn one_message_is_little_to_read() {
        for (purpose, payload, is_little) in [
            (Purpose::DirectBySubject, "", true),
            (Purpose::DirectBySubject, r#"{"batch":10}"#, false),
            (Purpose::Direct, r#"{"seq":7}"#, true),
            (Purpose::Direct, r#"{"last_by_subj":"a"}"#, true),
            (Purpose::Direct, &"x".repeat(QUESTION_MAX + 1), false),
            (Purpose::Pull, "1", false),
            (Purpose::Ack, "+ACK", false),
        ] {
            let batch = [inbound(purpose, "", payload)];
            assert_eq!(Light::Reads.holds(&batch), is_little, "{payload}");
        }
    }

    #[test]
    fn few_small_messages_are_little_to_take_in() {
        let one = || inbound(Purpose::Publish, "", "x");
        let batch_of = |count: usize| (0..count).map(|_| one()).collect::<Vec<_>>();
        assert!(Light::Everything.holds(&batch_of(4)));
        assert!(!Light::Everything.holds(&batch_of(5)));
        assert!(!Light::Reads.holds(&batch_of(1)));
        let large = "x".repeat(BYTES_MAX + 1);
        for (headers, payload) in [
            ("NATS/1.0\r\nNats-Batch-Id: a\r\n\r\n", "x"),
            (
                "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence-Subject: a.>\r\n\r\n",
                "x",
            ),
            ("", large.as_str()),
        ] {
            let batch = [inbound(Purpose::Publish, headers, payload)];
            assert!(!Light::Everything.holds(&batch));
        }
    }
}
