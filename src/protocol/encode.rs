//! What the server says, written into a growing buffer.

use super::info::ServerInfo;

/// The reply to `PING`.
pub const PONG: &[u8] = b"PONG\r\n";
/// Asks a client whether it is still there.
pub const PING: &[u8] = b"PING\r\n";
/// Confirms an operation to a verbose client.
pub const OK: &[u8] = b"+OK\r\n";

/// Appends `-ERR '<text>'`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

/// Appends the `INFO` line.
pub fn info(out: &mut Vec<u8>, info: &ServerInfo) {
    out.extend_from_slice(b"INFO ");
    // Writing plain strings and numbers into a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, info);
    out.extend_from_slice(b" \r\n");
}

/// What stands in front of a message: the whole `MSG` or `HMSG` line.
#[derive(Debug, Clone, Copy)]
pub struct MessageLine<'a> {
    /// The subject it was published to.
    pub subject: &'a [u8],
    /// The receiver's name for its subscription.
    pub sid: &'a [u8],
    /// The reply subject, empty when there is none.
    pub reply: &'a [u8],
    /// The size of the header block; 0 makes it a `MSG`.
    pub header_bytes: usize,
    /// The size of headers and payload together.
    pub total_bytes: usize,
}

impl MessageLine<'_> {
    /// Never less than what [`MessageLine::write`] appends.
    pub fn bytes_max(&self) -> usize {
        48 + self.subject.len() + self.sid.len() + self.reply.len()
    }

    /// Appends the line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let verb: &[u8] = if self.header_bytes > 0 {
            b"HMSG "
        } else {
            b"MSG "
        };
        out.extend_from_slice(verb);
        out.extend_from_slice(self.subject);
        out.push(b' ');
        out.extend_from_slice(self.sid);
        out.push(b' ');
        if !self.reply.is_empty() {
            out.extend_from_slice(self.reply);
            out.push(b' ');
        }
        if self.header_bytes > 0 {
            number(out, self.header_bytes);
            out.push(b' ');
        }
        number(out, self.total_bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the message that tells a requester that nobody listens on `subject`.
pub fn no_responders(out: &mut Vec<u8>, subject: &[u8], sid: &[u8], reply: &[u8]) {
    const STATUS: &[u8] = b"NATS/1.0 503\r\nNats-Subject: ";
    let bytes = STATUS.len() + subject.len() + 4;
    MessageLine {
        subject: reply,
        sid,
        reply: b"",
        header_bytes: bytes,
        total_bytes: bytes,
    }
    .write(out);
    out.extend_from_slice(STATUS);
    out.extend_from_slice(subject);
    out.extend_from_slice(b"\r\n\r\n\r\n");
}

fn number(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn message_lines_name_subject_sid_reply_and_sizes() {
        let line = MessageLine {
            subject: b"a.b",
            sid: b"9",
            reply: b"",
            header_bytes: 0,
            total_bytes: 5,
        };
        assert_eq!(written(|out| line.write(out)), "MSG a.b 9 5\r\n");
        let line = MessageLine {
            reply: b"r",
            header_bytes: 12,
            total_bytes: 17,
            ..line
        };
        assert_eq!(written(|out| line.write(out)), "HMSG a.b 9 r 12 17\r\n");
        assert!(written(|out| line.write(out)).len() <= line.bytes_max());
    }

    #[test]
    fn no_responders_names_the_subject_nobody_listens_on() {
        assert_eq!(
            written(|out| no_responders(out, b"nobody", b"1", b"_INBOX.a")),
            "HMSG _INBOX.a 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"
        );
    }

    #[test]
    fn errors_are_quoted() {
        assert_eq!(
            written(|out| error(out, "Stale Connection")),
            "-ERR 'Stale Connection'\r\n"
        );
    }
}
