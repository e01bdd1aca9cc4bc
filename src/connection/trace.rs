//! The protocol in the log, when the operator asks for it.

use std::sync::Arc;

use super::options::ConnectionOptions;
use crate::broker::Client;
use crate::protocol::Publish;
use crate::protocol::quote::quoted;

/// Fields of a `CONNECT` whose values are never logged.
const SECRET_FIELDS: [&str; 4] = ["pass", "auth_token", "jwt", "sig"];

/// Logs what one client says and hears, or does nothing.
#[derive(Debug)]
pub(super) struct Trace {
    /// Where the client is, as log lines begin; `None` when nothing is to be logged.
    who: Option<String>,
    message_bytes_max: usize,
    headers_only: bool,
}

impl Trace {
    pub(super) fn new(options: &ConnectionOptions, client: &Arc<Client>) -> Self {
        Self {
            who: client.traced_as(),
            message_bytes_max: options.traced_message_bytes_max,
            headers_only: options.trace_headers,
        }
    }

    pub(super) fn incoming(&self, verb: &str, argument: &[u8]) {
        if let Some(who) = &self.who {
            let argument = String::from_utf8_lossy(argument);
            let blank = if argument.is_empty() { "" } else { " " };
            tracing::trace!("{who} - <<- [{verb}{blank}{argument}]");
        }
    }

    pub(super) fn outgoing(&self, line: &[u8]) {
        if let Some(who) = &self.who {
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            tracing::trace!("{who} - ->> [{line}]");
        }
    }

    pub(super) fn connect(&self, json: &[u8]) {
        if self.who.is_some() {
            self.incoming("CONNECT", redacted(json).as_bytes());
        }
    }

    pub(super) fn subscribe(&self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        if self.who.is_some() {
            let words: Vec<&[u8]> = [Some(subject), queue, Some(sid)]
                .into_iter()
                .flatten()
                .collect();
            self.incoming("SUB", &words.join(&b' '));
        }
    }

    pub(super) fn unsubscribe(&self, sid: &[u8], max: u64) {
        if self.who.is_some() {
            let sid = String::from_utf8_lossy(sid);
            let argument = match max {
                0 => sid.into_owned(),
                max => format!("{sid} {max}"),
            };
            self.incoming("UNSUB", argument.as_bytes());
        }
    }

    /// A mapping sends a message elsewhere.
    pub(super) fn mapping(&self, from: &[u8], to: &[u8]) {
        if self.who.is_some() {
            let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
            self.incoming("MAPPING", format!("{from} -> {to}").as_bytes());
        }
    }

    #[inline]
    pub(super) fn publish(&self, publish: &Publish<'_>) {
        if let Some(who) = &self.who {
            self.show_publish(who, publish);
        }
    }

    #[cold]
    fn show_publish(&self, who: &str, publish: &Publish<'_>) {
        let total = publish.headers.len() + publish.payload.len();
        let mut words = vec![String::from_utf8_lossy(publish.subject).into_owned()];
        if !publish.reply.is_empty() {
            words.push(String::from_utf8_lossy(publish.reply).into_owned());
        }
        let verb = if publish.headers.is_empty() {
            "PUB"
        } else {
            words.push(publish.headers.len().to_string());
            "HPUB"
        };
        words.push(total.to_string());
        self.incoming(verb, words.join(" ").as_bytes());
        let (label, text) = if self.headers_only {
            ("MSG_HEADERS", publish.headers)
        } else {
            ("MSG_PAYLOAD", publish.payload)
        };
        let shown = match self.message_bytes_max {
            0 => text,
            max => text.get(..max).unwrap_or(text),
        };
        let dots = if shown.len() < text.len() { "..." } else { "" };
        tracing::trace!("{who} - <<- {label}: [{}{dots}]", quoted(shown));
    }
}

/// The JSON with its secrets blanked out; nothing at all when it is not JSON.
fn redacted(json: &[u8]) -> String {
    let Ok(mut fields) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json)
    else {
        return "[REDACTED]".to_owned();
    };
    for name in SECRET_FIELDS {
        if let Some(value) = fields.get_mut(name) {
            *value = "[REDACTED]".into();
        }
    }
    serde_json::to_string(&fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn secrets_never_reach_the_log() {
        let line = redacted(br#"{"user":"a","pass":"p1","auth_token":"t1","jwt":"j1","sig":"s1"}"#);
        assert!(line.contains(r#""user":"a""#));
        for secret in ["p1", "t1", "j1", "s1"] {
            assert!(!line.contains(secret), "{line}");
        }
        assert_eq!(redacted(b"{nope"), "[REDACTED]");
    }
}
