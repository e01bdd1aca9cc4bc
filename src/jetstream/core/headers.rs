//! Header blocks: finding what the core acts on in one pass, and appending to what is delivered.

/// The first line of a header block without a status.
pub(crate) const LINE: &[u8] = b"NATS/1.0\r\n";
/// The longest header block that is stored.
pub(crate) const HEADER_BYTES_MAX: usize = 65_535;

/// The headers of a publish that decide what happens to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PublishHeaders<'a> {
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) expected_stream: Option<&'a [u8]>,
    pub(crate) expected_last_sequence: Option<&'a [u8]>,
    pub(crate) expected_last_subject_sequence: Option<&'a [u8]>,
    pub(crate) expected_last_subject_sequence_subject: Option<&'a [u8]>,
    pub(crate) expected_last_id: Option<&'a [u8]>,
    pub(crate) rollup: Option<&'a [u8]>,
    pub(crate) ttl: Option<&'a [u8]>,
    pub(crate) increment: Option<&'a [u8]>,
    pub(crate) batch_id: Option<&'a [u8]>,
    pub(crate) batch_sequence: Option<&'a [u8]>,
    pub(crate) batch_commit: Option<&'a [u8]>,
    pub(crate) schedule: Option<&'a [u8]>,
    pub(crate) scheduler: Option<&'a [u8]>,
    pub(crate) request_info: bool,
}

/// Calls `visit` with the name and value of every header line, in order.
pub(crate) fn each<'a>(block: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) {
    let mut lines = Lines { rest: block };
    lines.next();
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        visit(name, value.get(1..).unwrap_or_default().trim_ascii());
    }
}

/// The value of the first header with this name.
#[cfg(test)]
pub(crate) fn get<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    each(block, |candidate, value| {
        if found.is_none() && candidate == name.as_bytes() {
            found = Some(value);
        }
    });
    found
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let line = self.rest.get(..end).unwrap_or_default();
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

impl<'a> PublishHeaders<'a> {
    /// Reads a header block; the first of several headers of one name counts. Empty values are as good as none.
    pub(crate) fn parse(block: &'a [u8]) -> Self {
        let mut found = Self::default();
        if block.is_empty() {
            return found;
        }
        each(block, |name, value| {
            let Some(rest) = name.strip_prefix(b"Nats-") else {
                return;
            };
            let field = match rest {
                b"Msg-Id" => &mut found.id,
                b"Expected-Stream" => &mut found.expected_stream,
                b"Expected-Last-Sequence" => &mut found.expected_last_sequence,
                b"Expected-Last-Subject-Sequence" => &mut found.expected_last_subject_sequence,
                b"Expected-Last-Subject-Sequence-Subject" => {
                    &mut found.expected_last_subject_sequence_subject
                }
                b"Expected-Last-Msg-Id" => &mut found.expected_last_id,
                b"Rollup" => &mut found.rollup,
                b"TTL" => &mut found.ttl,
                b"Incr" => &mut found.increment,
                b"Batch-Id" => &mut found.batch_id,
                b"Batch-Sequence" => &mut found.batch_sequence,
                b"Batch-Commit" => &mut found.batch_commit,
                b"Schedule" => &mut found.schedule,
                b"Scheduler" => &mut found.scheduler,
                b"Request-Info" => {
                    found.request_info = true;
                    return;
                }
                _ => return,
            };
            if field.is_none() && !value.is_empty() {
                *field = Some(value);
            }
        });
        found
    }
}

/// The block without the headers of this name; empty when none is left.
pub(crate) fn without(block: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(block.len());
    let mut lines = Lines { rest: block };
    let mut headers = 0;
    if let Some(first) = lines.next() {
        kept.extend_from_slice(first);
        kept.extend_from_slice(b"\r\n");
    }
    for line in lines {
        let is_it = line
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'));
        if is_it || line.is_empty() {
            continue;
        }
        headers += 1;
        kept.extend_from_slice(line);
        kept.extend_from_slice(b"\r\n");
    }
    if headers == 0 {
        return Vec::new();
    }
    kept.extend_from_slice(b"\r\n");
    kept
}

/// Starts a header block that continues `block`: everything but the closing empty line.
pub(crate) fn reopen(block: &[u8], into: &mut Vec<u8>) {
    if block.is_empty() {
        into.extend_from_slice(LINE);
    } else {
        into.extend_from_slice(block.strip_suffix(b"\r\n").unwrap_or(block));
    }
}

/// Adds a header line.
pub(crate) fn line(into: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    use std::io::Write;
    // Writing to a vector cannot fail.
    let _ = write!(into, "{name}: {value}\r\n");
}

/// Adds a header line with bytes as they are.
pub(crate) fn line_bytes(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_is_found_in_one_pass() {
        let block = b"NATS/1.0\r\nX: y\r\nNats-Msg-Id: a\r\nNats-Rollup:sub\r\nNats-Msg-Id: b\r\nNats-TTL: \r\n\r\n";
        let headers = PublishHeaders::parse(block);
        assert_eq!(headers.id, Some(&b"a"[..]));
        assert_eq!(headers.rollup, Some(&b"sub"[..]));
        assert_eq!(headers.ttl, None);
        assert_eq!(get(block, "X"), Some(&b"y"[..]));
    }

    #[test]
    fn a_header_is_taken_out_and_the_rest_stays() {
        let block = b"NATS/1.0\r\nA: 1\r\nNats-Request-Info: {}\r\nB: 2\r\n\r\n";
        assert_eq!(
            without(block, "Nats-Request-Info"),
            b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n"
        );
        assert!(
            without(
                b"NATS/1.0\r\nNats-Request-Info: {}\r\n\r\n",
                "Nats-Request-Info"
            )
            .is_empty()
        );
    }

    #[test]
    fn garbage_is_no_header() {
        for block in [
            &b""[..],
            b"NATS/1.0",
            b"\r\n\r\n",
            b"NATS/1.0\r\n:\r\n:x",
            b"\n\n\n",
        ] {
            assert_eq!(PublishHeaders::parse(block), PublishHeaders::default());
        }
    }
}
