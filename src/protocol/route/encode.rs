//! What is said on a route, written into a growing buffer.

use serde::Serialize;

/// Appends a line of a verb and JSON.
pub fn json(out: &mut Vec<u8>, verb: &str, value: &impl Serialize) {
    out.extend_from_slice(verb.as_bytes());
    out.push(b' ');
    // Writing plain strings and numbers into a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends `RS+`; a queue group has a weight. The account is left out where the route is that account's own.
pub fn subscribe(
    out: &mut Vec<u8>,
    account: Option<&str>,
    subject: &[u8],
    queue: Option<(&[u8], u32)>,
) {
    out.extend_from_slice(b"RS+ ");
    names(out, account, subject);
    if let Some((queue, weight)) = queue {
        out.push(b' ');
        out.extend_from_slice(queue);
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(weight).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `RS-`.
pub fn unsubscribe(out: &mut Vec<u8>, account: Option<&str>, subject: &[u8], queue: Option<&[u8]>) {
    out.extend_from_slice(b"RS- ");
    names(out, account, subject);
    if let Some(queue) = queue {
        out.push(b' ');
        out.extend_from_slice(queue);
    }
    out.extend_from_slice(b"\r\n");
}

fn names(out: &mut Vec<u8>, account: Option<&str>, subject: &[u8]) {
    if let Some(account) = account {
        out.extend_from_slice(account.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(subject);
}

/// The line in front of a routed message. It is written in two halves, with the queue groups between them.
#[derive(Debug, Clone, Copy)]
pub struct RoutedLine<'a> {
    /// The account, where the line has to name it.
    pub account: Option<&'a str>,
    /// The subject that listeners are found by.
    pub subject: &'a [u8],
    /// The reply subject, empty when there is none.
    pub reply: &'a [u8],
    /// The subject that receivers read, when it is another one: it travels behind the reply.
    pub shown: Option<&'a [u8]>,
    /// The size of the header block; 0 makes it an `RMSG`.
    pub header_bytes: usize,
    /// The size of headers and payload together.
    pub total_bytes: usize,
}

impl RoutedLine<'_> {
    /// Never less than what is appended, the queue groups aside.
    pub fn bytes_max(&self) -> usize {
        64 + self.account.map_or(0, str::len)
            + self.subject.len()
            + self.reply.len()
            + self.shown.map_or(0, |shown| shown.len() + 1)
    }

    /// Appends what stands before the queue groups, or before the sizes when there are none.
    pub fn begin(&self, out: &mut Vec<u8>, has_queues: bool) {
        let verb: &[u8] = match self.header_bytes {
            0 => b"RMSG ",
            _ => b"HMSG ",
        };
        out.extend_from_slice(verb);
        names(out, self.account, self.subject);
        out.push(b' ');
        if has_queues {
            let mark: &[u8] = match self.reply.is_empty() {
                true => b"| ",
                false => b"+ ",
            };
            out.extend_from_slice(mark);
        }
        if !self.reply.is_empty() {
            out.extend_from_slice(self.reply);
            if let Some(shown) = self.shown {
                out.push(b'@');
                out.extend_from_slice(shown);
            }
            out.push(b' ');
        }
    }

    /// Appends a queue group that one member of is to get the message.
    pub fn queue(out: &mut Vec<u8>, name: &[u8]) {
        out.extend_from_slice(name);
        out.push(b' ');
    }

    /// Appends the sizes and the end of the line.
    pub fn end(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        if self.header_bytes > 0 {
            out.extend_from_slice(digits.format(self.header_bytes).as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(digits.format(self.total_bytes).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
