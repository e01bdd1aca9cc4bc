//! What the server itself says in the system account and listens to there, in the log: only for who asks for all of the protocol.
//!
//! The log knows the lines of this module by its name ([`crate::logging`]).

use tracing::Level;

use crate::broker::Outgoing;
use crate::monitor::observed::Observed;
use crate::protocol::quote::quoted;

/// It listens to a subject.
pub(super) fn listens(subject: &str, number: usize) {
    tracing::trace!("SYSTEM - <<- [SUB {subject}  {number}]");
}

/// It publishes a message.
pub(super) fn says(server: &dyn Observed, message: &Outgoing) {
    if tracing::enabled!(Level::TRACE) {
        show(server, message);
    }
}

#[cold]
fn show(server: &dyn Observed, message: &Outgoing) {
    let options = server.options();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (subject, reply) = (text(&message.subject), text(&message.reply));
    let total = message.headers.len() + message.payload.len();
    match message.headers.len() {
        0 => tracing::trace!("SYSTEM - <<- [PUB {subject} {reply} {total}]"),
        headers => tracing::trace!("SYSTEM - <<- [HPUB {subject} {reply} {headers} {total}]"),
    }
    let (label, content) = match options.log.trace_headers {
        true => ("MSG_HEADERS", &message.headers),
        false => ("MSG_PAYLOAD", &message.payload),
    };
    let shown = match options.log.traced_message_bytes_max {
        0 => content,
        max => content.get(..max).unwrap_or(content),
    };
    let dots = if shown.len() < content.len() {
        "..."
    } else {
        ""
    };
    tracing::trace!("SYSTEM - <<- {label}: [{}{dots}]", quoted(shown));
}
