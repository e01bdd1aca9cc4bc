//! `PUB` and `HPUB`: whether a client may publish, and what it is told.

use std::sync::Arc;

use hashbrown::HashMap;

use super::session::Session;
use crate::broker::permissions::Permissions;
use crate::broker::{Message, MessageTrace, Origin, Owner};
use crate::protocol::trace::TraceRequest;
use crate::protocol::{Publish, encode, quote::quoted};
use crate::subject;
use crate::subject::transform::Mapped;

/// How many subjects are remembered as allowed or denied.
const REMEMBERED_MAX: usize = 128;

/// Replies that cross clusters come in under this prefix; no client may publish there.
const GATEWAY_REPLY_PREFIX: &[u8] = b"_GR_.";
/// Replication's own subjects, for the system account only.
const REPLICATION_PREFIX: &[u8] = b"$NRG.";
/// Prefixes that no client may name as its reply.
const RESERVED_REPLY_PREFIXES: [&[u8]; 2] = [b"_R_.", b"$JS.ACK."];

/// Whether a client's subjects are allowed, remembered for the subjects it uses.
#[derive(Debug, Default)]
pub(super) struct PublishCheck {
    permissions: Option<Arc<Permissions>>,
    remembered: HashMap<Box<[u8]>, bool>,
}

impl PublishCheck {
    pub(super) fn new(permissions: Option<&Arc<Permissions>>) -> Self {
        Self {
            permissions: permissions
                .filter(|permissions| permissions.restricts_publishing())
                .cloned(),
            remembered: HashMap::new(),
        }
    }

    fn allows(&mut self, subject: &[u8]) -> bool {
        let Some(permissions) = &self.permissions else {
            return true;
        };
        if let Some(allowed) = self.remembered.get(subject) {
            return *allowed;
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        let allowed = permissions.may_publish(subject);
        self.remembered.insert(subject.into(), allowed);
        allowed
    }

    /// Whether reports on a message may go to this subject.
    pub(super) fn may_report(&mut self, destination: &[u8], is_system: bool) -> bool {
        !is_reserved(destination, is_system) && self.allows(destination)
    }

    pub(super) fn rest(&mut self) {
        self.remembered = HashMap::new();
    }
}

/// Whether only the server itself publishes there.
fn is_reserved(subject: &[u8], is_system: bool) -> bool {
    // Subjects of the server itself begin with one of these two.
    match subject.first() {
        Some(b'_') => subject.starts_with(GATEWAY_REPLY_PREFIX),
        Some(b'$') => subject.starts_with(REPLICATION_PREFIX) && !is_system,
        _ => false,
    }
}

fn is_reserved_reply(reply: &[u8]) -> bool {
    RESERVED_REPLY_PREFIXES
        .iter()
        .any(|prefix| reply.starts_with(prefix))
        || (reply.len() > GATEWAY_REPLY_PREFIX.len() && reply.starts_with(GATEWAY_REPLY_PREFIX))
}

impl Session {
    pub(super) fn publish(&mut self, publish: &Publish<'_>, owner: Owner<'_>) {
        self.trace.publish(publish);
        if self.request.is_pedantic_about(publish.subject) {
            self.send_error("Invalid Publish Subject");
        }
        if !publish.headers.is_empty()
            && let Some(request) = TraceRequest::find(publish.headers)
        {
            return self.publish_asking(publish, request, owner);
        }
        self.publish_on(publish, owner, None);
    }

    /// A message goes on its way.
    pub(super) fn publish_on(
        &mut self,
        publish: &Publish<'_>,
        owner: Owner<'_>,
        trace: Option<&Arc<MessageTrace>>,
    ) {
        self.counted_in.0 += 1;
        self.counted_in.1 += (publish.headers.len() + publish.payload.len()) as u64;
        if self.account.has_mappings() {
            let mut mapped = std::mem::take(&mut self.mapped);
            let subject = self.map(publish.subject, &mut mapped, trace);
            self.deliver(
                &Publish {
                    subject,
                    ..*publish
                },
                owner,
                trace,
            );
            self.mapped = mapped;
        } else {
            self.deliver(publish, owner, trace);
        }
    }

    /// Where a mapping of the account sends what is published to this subject; nowhere is the empty subject.
    fn map<'a>(
        &mut self,
        subject: &'a [u8],
        mapped: &'a mut Vec<u8>,
        trace: Option<&Arc<MessageTrace>>,
    ) -> &'a [u8] {
        let cluster = self.clients.info();
        let delivery = &mut self.delivery;
        let random = &mut || delivery.random();
        match self.account.map(subject, &cluster.cluster, random, mapped) {
            Mapped::Unchanged => return subject,
            Mapped::To => {}
            Mapped::Lost => mapped.clear(),
        }
        self.trace.mapping(subject, mapped);
        if let Some(trace) = trace {
            trace.mapped(mapped);
        }
        mapped
    }

    fn deliver(
        &mut self,
        publish: &Publish<'_>,
        owner: Owner<'_>,
        trace: Option<&Arc<MessageTrace>>,
    ) {
        if let Err(violation) = self.check_publish(publish) {
            if let Some(trace) = trace {
                trace.refused(&violation);
            }
            self.report_violation(violation);
            return;
        }
        self.send_ok_when_verbose();
        let message = Message {
            subject: publish.subject,
            reply: publish.reply,
            headers: publish.headers,
            payload: publish.payload,
            owner,
            trace,
        };
        let origin = Origin {
            client: &self.client,
            info: &self.info,
            echo: self.request.wants_echo(),
            passes_over_pressed: self.terms.options.no_fast_producer_stall,
        };
        let delivered = self.delivery.publish(
            &self.account,
            &message,
            Some(&origin),
            self.clients.broker.traffic(),
        );
        if delivered == 0 && !publish.reply.is_empty() && self.request.wants_no_responders() {
            self.tell_that_nobody_listens(publish.subject, publish.reply);
        }
    }

    /// Whether the client may publish this, or what it is told when it may not.
    fn check_publish(&mut self, publish: &Publish<'_>) -> Result<(), String> {
        let subject = publish.subject;
        let is_system = || Arc::ptr_eq(&self.account, self.clients.broker.system());
        // Few subjects begin so that it matters who publishes.
        let is_reserved =
            matches!(subject.first(), Some(b'_' | b'$')) && is_reserved(subject, is_system());
        if is_reserved || !(self.publish_check.allows(subject) || self.may_respond(subject)) {
            return Err(format!(
                "Permissions Violation for Publish to {}",
                quoted(subject)
            ));
        }
        if !publish.reply.is_empty() && is_reserved_reply(publish.reply) {
            return Err(format!(
                "Permissions Violation for Publish with Reply of {}",
                quoted(publish.reply)
            ));
        }
        Ok(())
    }

    /// Whether the client was asked and may answer here.
    fn may_respond(&self, subject: &[u8]) -> bool {
        (**self.client.responses())
            .as_ref()
            .is_some_and(|responses| responses.take(subject))
    }

    pub(super) fn report_violation(&mut self, text: String) {
        tracing::error!("{} - cid:{} - {text}", self.info.address, self.client.id);
        self.send_error(&text);
    }

    /// Tells a requester that listens for the reply on this very connection.
    fn tell_that_nobody_listens(&mut self, subject: &[u8], reply: &[u8]) {
        let Some(sid) = self
            .delivery
            .subscription_of(&self.account, reply, &self.client)
        else {
            return;
        };
        let bytes_max = 96 + 2 * subject.len() + reply.len() + sid.len();
        self.delivery.write_to(&self.client, bytes_max, |out| {
            encode::no_responders(out, subject, &sid, reply);
        });
    }
}

impl crate::protocol::ConnectRequest {
    /// Whether the client wants to hear that it cannot publish there.
    fn is_pedantic_about(&self, subject: &[u8]) -> bool {
        self.is_pedantic() && !subject::is_valid_literal(subject)
    }
}
