//! Header blocks: looking up, setting and removing headers in the raw bytes of a message.
//!
//! A block is `NATS/1.0`, an optional status, a line per header and a blank line, all ended by CRLF.
//! Names are compared byte by byte; the first match counts. An empty block means: no headers.

use memchr::memmem;

/// The first line of a block without status.
pub const VERSION_LINE: &[u8] = b"NATS/1.0\r\n";
/// The version that every block begins with.
pub const VERSION: &[u8] = b"NATS/1.0";
/// A block that holds nothing.
pub const EMPTY_BLOCK: &[u8] = b"NATS/1.0\r\n\r\n";

const CRLF: &[u8] = b"\r\n";

/// The value of the first header of this name, leading spaces skipped.
pub fn get<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let line = find(block, name)?;
    block.get(line.value..line.end)
}

/// The value as text, `None` also where it is not UTF-8.
pub fn get_str<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    get(block, name).and_then(|value| std::str::from_utf8(value).ok())
}

/// The status code and description of the block's first line, when it has one.
pub fn status(block: &[u8]) -> Option<(u16, &[u8])> {
    let line = block.get(..memmem::find(block, CRLF)?)?;
    let text = line.strip_prefix(VERSION)?.trim_ascii_start();
    let (code, description) = match text.iter().position(|byte| *byte == b' ') {
        Some(end) => text.split_at(end),
        None => (text, &b""[..]),
    };
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    Some((code, description.trim_ascii()))
}

/// All headers in order: name and value. A line without a colon is skipped.
pub fn iter(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let body = memmem::find(block, CRLF)
        .and_then(|end| block.get(end + CRLF.len()..))
        .unwrap_or_default();
    Lines { rest: body }.filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        Some((name, trim_spaces(value)))
    })
}

/// Appends a header at the end, starting a block when there is none.
pub fn append(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    if block.is_empty() {
        block.extend_from_slice(VERSION_LINE);
    } else if block.ends_with(CRLF) {
        block.truncate(block.len() - CRLF.len());
    }
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(b": ");
    block.extend_from_slice(value);
    block.extend_from_slice(CRLF);
    block.extend_from_slice(CRLF);
}

/// Replaces the value of the first header of this name, or appends it.
pub fn set(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    match find(block, name) {
        Some(line) => {
            block.splice(line.value..line.end, value.iter().copied());
        }
        None => append(block, name, value),
    }
}

/// Removes every header of this name; a block that holds nothing any more becomes empty.
pub fn remove(block: &mut Vec<u8>, name: &str) {
    while let Some(line) = find(block, name) {
        let end = (line.end + CRLF.len()).min(block.len());
        block.drain(line.start..end);
    }
    clear_when_bare(block);
}

/// Removes every header whose name begins so; a block that holds nothing any more becomes empty.
pub fn remove_prefixed(block: &mut Vec<u8>, prefix: &str) {
    let mut from = 0;
    while let Some(found) = block
        .get(from..)
        .and_then(|rest| memmem::find(rest, prefix.as_bytes()))
    {
        let start = from + found;
        if !starts_line(block, start) {
            from = start + prefix.len();
            continue;
        }
        let Some(length) = block.get(start..).and_then(|rest| memmem::find(rest, CRLF)) else {
            return;
        };
        block.drain(start..start + length + CRLF.len());
        from = start;
    }
    clear_when_bare(block);
}

/// Removes the status of the first line; a block that holds nothing any more becomes empty.
pub fn remove_status(block: &mut Vec<u8>) {
    let Some(end) = memmem::find(block, CRLF) else {
        return;
    };
    if block.starts_with(VERSION) && end > VERSION.len() {
        block.drain(VERSION.len()..end);
        clear_when_bare(block);
    }
}

/// Where a header stands in its block.
struct HeaderLine {
    start: usize,
    value: usize,
    end: usize,
}

fn find(block: &[u8], name: &str) -> Option<HeaderLine> {
    let mut from = 0;
    loop {
        let start = from + memmem::find(block.get(from..)?, name.as_bytes())?;
        let colon = start + name.len();
        if !name.is_empty() && starts_line(block, start) && block.get(colon) == Some(&b':') {
            let rest = block.get(colon + 1..)?;
            let value = colon + 1 + (rest.len() - trim_spaces(rest).len());
            let rest = block.get(value..)?;
            let end = value + memmem::find(rest, CRLF).unwrap_or(rest.len());
            return Some(HeaderLine { start, value, end });
        }
        from = start + name.len().max(1);
    }
}

fn starts_line(block: &[u8], at: usize) -> bool {
    at >= CRLF.len() && block.get(at - CRLF.len()..at) == Some(CRLF)
}

fn trim_spaces(value: &[u8]) -> &[u8] {
    let skip = value.iter().take_while(|byte| **byte == b' ').count();
    value.get(skip..).unwrap_or_default()
}

fn clear_when_bare(block: &mut Vec<u8>) {
    if block.len() <= EMPTY_BLOCK.len() {
        block.clear();
    }
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memmem::find(self.rest, CRLF)?;
        let line = self.rest.get(..end)?;
        self.rest = self.rest.get(end + CRLF.len()..)?;
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: &[u8] =
        b"NATS/1.0\r\nNats-Msg-Id:   one\r\nX-Nats-Msg-Id: no\r\nNats-Msg-Id: two\r\nA:\r\n\r\n";

    #[test]
    fn the_first_exact_name_at_a_line_start_is_found() {
        assert_eq!(get(BLOCK, "Nats-Msg-Id"), Some(&b"one"[..]));
        assert_eq!(get(BLOCK, "A"), Some(&b""[..]));
        assert_eq!(get(BLOCK, "nats-msg-id"), None);
        assert_eq!(get(BLOCK, "Nats-Msg"), None);
        assert_eq!(get(BLOCK, "NATS/1.0"), None);
        assert_eq!(get(b"", "A"), None);
    }

    #[test]
    fn status_lines_are_read() {
        assert_eq!(
            status(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
            Some((100, &b"Idle Heartbeat"[..]))
        );
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Some((503, &b""[..])));
        assert_eq!(status(EMPTY_BLOCK), None);
    }

    #[test]
    fn all_headers_come_in_order() {
        let all: Vec<_> = iter(BLOCK).map(|(name, _)| name).collect();
        assert_eq!(
            all,
            [&b"Nats-Msg-Id"[..], b"X-Nats-Msg-Id", b"Nats-Msg-Id", b"A"]
        );
    }

    #[test]
    fn headers_are_appended_set_and_removed() {
        let mut block = Vec::new();
        append(&mut block, "A", b"1");
        assert_eq!(block, b"NATS/1.0\r\nA: 1\r\n\r\n");
        append(&mut block, "B", b"2");
        set(&mut block, "A", b"longer");
        set(&mut block, "C", b"3");
        assert_eq!(block, b"NATS/1.0\r\nA: longer\r\nB: 2\r\nC: 3\r\n\r\n");
        remove(&mut block, "B");
        assert_eq!(block, b"NATS/1.0\r\nA: longer\r\nC: 3\r\n\r\n");
        remove(&mut block, "A");
        remove(&mut block, "C");
        assert!(block.is_empty());
    }

    #[test]
    fn prefixed_headers_and_the_status_are_removed() {
        let mut block = b"NATS/1.0 100 X\r\nNats-A: 1\r\nB: Nats-A\r\nNats-C: 2\r\n\r\n".to_vec();
        remove_prefixed(&mut block, "Nats-");
        assert_eq!(block, b"NATS/1.0 100 X\r\nB: Nats-A\r\n\r\n");
        remove_status(&mut block);
        assert_eq!(block, b"NATS/1.0\r\nB: Nats-A\r\n\r\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn arbitrary_blocks_never_panic(
            block in "(NATS/1.0)?[ A:\r\n0-9b]{0,40}",
            name in "[Ab:]{0,2}",
        ) {
            let block = block.into_bytes();
            let _ = (get(&block, &name), status(&block), iter(&block).count());
            for change in [remove, remove_prefixed] {
                let mut copy = block.clone();
                if !name.is_empty() {
                    change(&mut copy, &name);
                }
                remove_status(&mut copy);
                set(&mut copy, "A", b"x");
            }
        }
    }
}
