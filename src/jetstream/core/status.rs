//! Status replies: messages without payload whose first header line says what is the matter.

use bytes::Bytes;

use super::headers::{line, line_bytes};
use super::request::Outgoing;

/// A status message to `to`.
pub(crate) fn status(to: &Bytes, text: &str) -> Outgoing {
    build(to, text, |_| {})
}

/// A status message that says what a pull request still asks for.
pub(crate) fn remaining(to: &Bytes, text: &str, messages: i64, bytes: i64) -> Outgoing {
    build(to, text, |block| {
        line(block, "Nats-Pending-Messages", messages);
        line(block, "Nats-Pending-Bytes", bytes);
    })
}

/// An idle heartbeat; `stalled` names the flow control request that is not answered yet.
pub(crate) fn heartbeat(to: &Bytes, consumer: u64, stream: u64, stalled: &[u8]) -> Outgoing {
    build(to, "100 Idle Heartbeat", |block| {
        line(block, "Nats-Last-Consumer", consumer);
        line(block, "Nats-Last-Stream", stream);
        if !stalled.is_empty() {
            line_bytes(block, "Nats-Consumer-Stalled", stalled);
        }
    })
}

/// A request to answer on `reply` once everything before it has been taken.
pub(crate) fn flow_control(to: &Bytes, reply: Bytes) -> Outgoing {
    Outgoing {
        reply,
        ..status(to, "100 FlowControl Request")
    }
}

/// The end of a batch of direct gets.
pub(crate) fn end_of_batch(
    to: &Bytes,
    pending: u64,
    last_sequence: u64,
    upto_sequence: Option<u64>,
) -> Outgoing {
    build(to, "204 EOB", |block| {
        line(block, "Nats-Num-Pending", pending);
        line(block, "Nats-Last-Sequence", last_sequence);
        if let Some(upto) = upto_sequence {
            line(block, "Nats-UpTo-Sequence", upto);
        }
    })
}

fn build(to: &Bytes, text: &str, more: impl FnOnce(&mut Vec<u8>)) -> Outgoing {
    let mut block = Vec::with_capacity(96);
    block.extend_from_slice(b"NATS/1.0 ");
    block.extend_from_slice(text.as_bytes());
    block.extend_from_slice(b"\r\n");
    more(&mut block);
    block.extend_from_slice(b"\r\n");
    Outgoing {
        to: to.clone(),
        subject: to.clone(),
        reply: Bytes::new(),
        headers: Bytes::from(block),
        payload: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outgoing: &Outgoing) -> &str {
        std::str::from_utf8(&outgoing.headers).expect("text")
    }

    #[test]
    fn statuses_are_the_lines_clients_parse() {
        let to = Bytes::from_static(b"inbox");
        assert_eq!(
            text(&status(&to, "404 No Messages")),
            "NATS/1.0 404 No Messages\r\n\r\n"
        );
        assert_eq!(
            text(&remaining(&to, "408 Request Timeout", 49, 0)),
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 49\r\nNats-Pending-Bytes: 0\r\n\r\n"
        );
        assert_eq!(
            text(&heartbeat(&to, 4, 5, b"")),
            "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 4\r\nNats-Last-Stream: 5\r\n\r\n"
        );
        assert_eq!(
            text(&heartbeat(&to, 4, 5, b"$JS.FC.S.C.abcd")),
            "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 4\r\nNats-Last-Stream: 5\r\nNats-Consumer-Stalled: $JS.FC.S.C.abcd\r\n\r\n"
        );
        assert_eq!(
            text(&end_of_batch(&to, 0, 8, Some(8))),
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 8\r\nNats-UpTo-Sequence: 8\r\n\r\n"
        );
    }
}
