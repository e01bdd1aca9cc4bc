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
    pub(crate) source: Option<&'a [u8]>,
    pub(crate) required_level: Option<&'a [u8]>,
    /// Whether something is said of schedules; [`ScheduleHeaders`] says what.
    pub(crate) schedules: bool,
    pub(crate) request_info: bool,
}

/// What a publish says of schedules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScheduleHeaders<'a> {
    pub(crate) pattern: Option<&'a [u8]>,
    /// Also when it is empty, which is no time zone.
    pub(crate) time_zone: Option<&'a [u8]>,
    pub(crate) target: Option<&'a [u8]>,
    pub(crate) source: Option<&'a [u8]>,
    pub(crate) ttl: Option<&'a [u8]>,
    pub(crate) rollup: Option<&'a [u8]>,
    pub(crate) next: Option<&'a [u8]>,
    pub(crate) scheduler: Option<&'a [u8]>,
}

impl<'a> ScheduleHeaders<'a> {
    /// Reads a header block; the first of several headers of one name counts.
    pub(crate) fn parse(block: &'a [u8]) -> Self {
        let mut found = Self::default();
        each(block, |name, value| {
            let field = match name {
                b"Nats-Schedule" => &mut found.pattern,
                b"Nats-Schedule-Time-Zone" => {
                    found.time_zone.get_or_insert(value);
                    return;
                }
                b"Nats-Schedule-Target" => &mut found.target,
                b"Nats-Schedule-Source" => &mut found.source,
                b"Nats-Schedule-TTL" => &mut found.ttl,
                b"Nats-Schedule-Rollup" => &mut found.rollup,
                b"Nats-Schedule-Next" => &mut found.next,
                b"Nats-Scheduler" => &mut found.scheduler,
                _ => return,
            };
            if field.is_none() && !value.is_empty() {
                *field = Some(value);
            }
        });
        found
    }
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
                b"Stream-Source" => &mut found.source,
                b"Required-Api-Level" => &mut found.required_level,
                rest if rest.starts_with(b"Schedule") => {
                    found.schedules = true;
                    return;
                }
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
    without_those(block, |candidate| candidate == name.as_bytes())
}

/// The block without the headers whose names are chosen; empty when none is left.
pub(crate) fn without_those(block: &[u8], chosen: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(block.len());
    let mut lines = Lines { rest: block };
    let mut headers = 0;
    if let Some(first) = lines.next() {
        kept.extend_from_slice(first);
        kept.extend_from_slice(b"\r\n");
    }
    for line in lines {
        let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon));
        if line.is_empty() || name.is_some_and(&chosen) {
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

/// The block with one more header.
pub(crate) fn with(block: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut longer = Vec::with_capacity(block.len() + name.len() + value.len() + 16);
    reopen(block, &mut longer);
    line_bytes(&mut longer, name, value);
    longer.extend_from_slice(b"\r\n");
    longer
}

/// The block with another value for a header, which is added when it is not there.
pub(crate) fn set(block: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(block.len() + value.len() + name.len() + 4);
    let mut lines = Lines { rest: block };
    let mut is_set = false;
    changed.extend_from_slice(lines.next().unwrap_or_default());
    changed.extend_from_slice(b"\r\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let is_it = line
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'));
        if is_it && !is_set {
            is_set = true;
            line_bytes(&mut changed, name, value);
        } else {
            changed.extend_from_slice(line);
            changed.extend_from_slice(b"\r\n");
        }
    }
    if !is_set {
        return with(block, name, value);
    }
    changed.extend_from_slice(b"\r\n");
    changed
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
    fn a_header_is_set_where_it_stands_or_added() {
        let block = b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n";
        assert_eq!(set(block, "A", b"9"), b"NATS/1.0\r\nA: 9\r\nB: 2\r\n\r\n");
        assert_eq!(
            set(block, "C", b"3"),
            b"NATS/1.0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"
        );
        assert_eq!(set(b"", "C", b"3"), b"NATS/1.0\r\nC: 3\r\n\r\n");
    }

    #[test]
    fn an_empty_time_zone_is_not_the_same_as_none() {
        let block = b"NATS/1.0\r\nNats-Schedule: @hourly\r\nNats-Schedule-Time-Zone:\r\n\r\n";
        let headers = ScheduleHeaders::parse(block);
        assert_eq!(headers.pattern, Some(&b"@hourly"[..]));
        assert_eq!(headers.time_zone, Some(&b""[..]));
        assert!(PublishHeaders::parse(block).schedules);
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
