//! The headers with which a message asks for a report of its way through the servers (ADR-41), and the W3C trace context.

use std::collections::BTreeMap;

use super::headers::{self, VERSION_LINE};

/// Where the reports go.
pub const DESTINATION: &str = "Nats-Trace-Dest";
/// As a destination: nobody reports on this message any more. No subject looks like this.
pub const DISABLED: &str = "trace disabled";
/// Which of the hops of the server before this one is.
pub const HOP: &str = "Nats-Trace-Hop";
/// What servers of old said of the publisher; it is not trusted.
pub const ORIGIN_ACCOUNT: &str = "Nats-Trace-Origin-Account";
/// Whether the message is reported on and delivered to nobody.
pub const ONLY: &str = "Nats-Trace-Only";
/// The W3C header, in any case.
const CONTEXT: &[u8] = b"traceparent";

/// All headers of a message by name, with their values in order.
pub type HeaderMap = BTreeMap<String, Vec<String>>;

/// A message that asks for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// All its headers.
    pub headers: HeaderMap,
    /// Where the reports go; without one it carries a W3C context only, and its account says where.
    pub destination: Option<String>,
}

impl TraceRequest {
    /// The request in a header block; `None` when it asks for nothing.
    pub fn find(block: &[u8]) -> Option<Self> {
        if !may_ask(block) {
            return None;
        }
        let mut named = false;
        let mut sampled = false;
        let mut headers = HeaderMap::new();
        for (name, value) in headers::iter(block) {
            let value = value.trim_ascii();
            if name.is_empty() || value.is_empty() {
                continue;
            }
            if name == DESTINATION.as_bytes() {
                if !named && value == DISABLED.as_bytes() {
                    return None;
                }
                named = true;
            } else if name.eq_ignore_ascii_case(CONTEXT) {
                sampled |= is_sampled(value);
            }
            headers.entry(text(name)).or_default().push(text(value));
        }
        if !named && !sampled {
            return None;
        }
        let mut request = Self {
            headers,
            destination: None,
        };
        if named {
            request.destination = request.first(DESTINATION).map(str::to_owned);
        }
        Some(request)
    }

    /// The first value of a header.
    pub fn first(&self, name: &str) -> Option<&str> {
        let values = self.headers.get(name)?;
        values.first().map(String::as_str)
    }

    /// Whether the message is delivered to nobody.
    pub fn is_only(&self) -> bool {
        let value = self
            .first(ONLY)
            .filter(|_| self.destination.is_some())
            .unwrap_or_default();
        ["1", "true", "on"]
            .iter()
            .any(|yes| value.eq_ignore_ascii_case(yes))
    }
}

/// Whether a line begins with one of the two names: most messages with headers ask for nothing, and pay a look at each line only.
fn may_ask(block: &[u8]) -> bool {
    block.starts_with(VERSION_LINE)
        && memchr::memchr_iter(b'\n', block).any(|end| {
            let line = block.get(end + 1..).unwrap_or_default();
            match line.first() {
                Some(b'N') => line.starts_with(DESTINATION.as_bytes()),
                Some(b't' | b'T') => line
                    .get(..CONTEXT.len())
                    .is_some_and(|name| name.eq_ignore_ascii_case(CONTEXT)),
                _ => false,
            }
        })
}

/// Whether the flags of a W3C context say that the caller records the trace.
fn is_sampled(context: &[u8]) -> bool {
    let mut parts = context.split(|byte| *byte == b'-');
    let flags = parts.nth(3);
    let Some(flags) = flags.filter(|flags| flags.len() == 2 && parts.next().is_none()) else {
        return false;
    };
    // As the reference reads it: a number with a sign, so that what is beyond 7f is none.
    let flags = std::str::from_utf8(flags).map(|flags| i8::from_str_radix(flags, 16));
    matches!(flags, Ok(Ok(flags)) if flags & 1 == 1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(lines: &str) -> Option<TraceRequest> {
        TraceRequest::find(format!("NATS/1.0\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn a_destination_asks_and_all_headers_are_kept() {
        let request = find("A: 1\r\nA: 2\r\nNats-Trace-Dest: to.here \r\nB:\r\n").unwrap();
        assert_eq!(request.destination.as_deref(), Some("to.here"));
        assert_eq!(request.headers["A"], ["1", "2"]);
        assert!(!request.headers.contains_key("B") && !request.is_only());
        assert!(find("A: 1\r\nX-Nats-Trace-Dest: no\r\n").is_none());
        assert!(find("nats-trace-dest: no\r\n").is_none());
    }

    #[test]
    fn only_is_read_with_a_destination() {
        for (value, only) in [("1", true), ("TRUE", true), ("on", true), ("yes", false)] {
            let lines = format!("Nats-Trace-Dest: a\r\nNats-Trace-Only: {value}\r\n");
            assert_eq!(find(&lines).unwrap().is_only(), only, "{value}");
        }
    }

    #[test]
    fn what_is_disabled_asks_for_nothing() {
        assert!(find("Nats-Trace-Dest: trace disabled\r\n").is_none());
        let both = "traceparent: 00-a-b-01\r\nNats-Trace-Dest: trace disabled\r\n";
        assert!(find(both).is_none());
    }

    #[test]
    fn a_sampled_context_asks_without_a_destination() {
        let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let request = find(&format!("TraceParent: {context}-01\r\n")).unwrap();
        assert!(request.destination.is_none() && !request.is_only());
        for rest in ["-00", "", "-01-02", "-1", "-zz", "-81", "-ff"] {
            assert!(
                find(&format!("traceparent: {context}{rest}\r\n")).is_none(),
                "{rest}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_blocks_never_panic(lines in "(traceparent|Nats-Trace-Dest)?[ :a\\-0-9\r\n]{0,40}") {
            let _ = find(&lines).map(|request| request.is_only());
        }
    }
}
