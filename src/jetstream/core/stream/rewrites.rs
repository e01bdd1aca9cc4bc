//! What a stream does to subjects: a transform before messages are stored, and another name under which they are published again.

use bytes::Bytes;

use super::StreamCore;
use crate::jetstream::core::effects::{Effects, World};
use crate::jetstream::core::entry::MessageOp;
use crate::jetstream::core::headers;
use crate::jetstream::core::request::Outgoing;
use crate::jetstream::types::{StreamConfig, Time};
use crate::subject::is_valid_literal;
use crate::subject::transform::Transform;

/// A configuration's rewrites, ready to be used.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    before: Option<Transform>,
    again: Option<Transform>,
    headers_only: bool,
}

impl Rewrites {
    /// Those of a configuration. One that is none was refused before it came here.
    pub(super) fn of(config: &StreamConfig) -> Self {
        let new = |source: &str, destination: &str| Transform::new(source, destination).ok();
        let before = config.subject_transform.as_ref();
        let again = config.republish.as_ref();
        Self {
            before: before.and_then(|it| new(&it.src, &it.dest)),
            again: again.and_then(|it| new(&it.src, &it.dest)),
            headers_only: again.is_some_and(|it| it.headers_only),
        }
    }
}

/// What a subject becomes, when it is one that is transformed.
fn rewritten(transform: Option<&Transform>, subject: &[u8], world: &dyn World) -> Option<Bytes> {
    let transform = transform.filter(|transform| transform.matches(subject))?;
    let mut out = Vec::with_capacity(subject.len());
    let mut random = || world.random() as u32;
    transform.apply(subject, &mut random, &mut out).ok()?;
    Some(Bytes::from(out))
}

impl StreamCore {
    /// The subject under which a message is stored.
    pub(super) fn stored_subject(&self, subject: Bytes, world: &dyn World) -> Bytes {
        let before = self.rewrites.before.as_ref();
        rewritten(before, &subject, world).unwrap_or(subject)
    }

    /// Where a message that is about to be stored is published again, and the last sequence on its subject. Only the leader does that.
    pub(super) fn republished(
        &self,
        subject: &[u8],
        world: Option<&dyn World>,
    ) -> Option<(Bytes, u64)> {
        self.lead.as_ref()?;
        let to = rewritten(self.rewrites.again.as_ref(), subject, world?)?;
        let last = self.store.subject(subject);
        let last = last.map_or(0, |last| last.last_sequence);
        is_valid_literal(&to).then_some((to, last))
    }

    /// Publishes a stored message again.
    pub(super) fn republish(
        &self,
        (to, last): (Bytes, u64),
        message: &MessageOp<'_>,
        sequence: u64,
        time_ns: i64,
        effects: &mut Effects,
    ) {
        let headers_only = self.rewrites.headers_only;
        let mut block = Vec::with_capacity(message.headers.len() + message.subject.len() + 192);
        headers::reopen(message.headers, &mut block);
        headers::line(&mut block, "Nats-Stream", &self.name);
        headers::line_bytes(&mut block, "Nats-Subject", message.subject);
        headers::line(&mut block, "Nats-Sequence", sequence);
        let time = Time::from_nanoseconds(time_ns);
        headers::line(&mut block, "Nats-Time-Stamp", time);
        headers::line(&mut block, "Nats-Last-Sequence", last);
        let payload = if headers_only {
            headers::line(&mut block, "Nats-Msg-Size", message.payload.len());
            Bytes::new()
        } else {
            Bytes::copy_from_slice(message.payload)
        };
        block.extend_from_slice(b"\r\n");
        effects.outgoing.push(Outgoing {
            subject: to.clone(),
            to,
            headers: Bytes::from(block),
            payload,
            ..Outgoing::default()
        });
    }
}
