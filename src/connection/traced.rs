//! A client's messages that ask for reports of their way (ADR-41).

use std::sync::Arc;

use super::session::Session;
use crate::broker::message_trace::{Asked, ConnectionKind, Ingress, disabled};
use crate::broker::{MessageTrace, Owner};
use crate::protocol::quote::quoted;
use crate::protocol::trace::TraceRequest;
use crate::protocol::{Publish, parser};

/// What the report on a message says that is too large.
const TOO_LARGE: &str = "maximum payload exceeded";

impl Session {
    /// A message asks: it goes on, traced or not, or is dropped.
    #[cold]
    pub(super) fn publish_asking(
        &mut self,
        publish: &Publish<'_>,
        request: TraceRequest,
        owner: Owner<'_>,
    ) {
        let bytes = publish.headers.len() + publish.payload.len();
        match self.begin_trace(request, publish.subject, bytes, None) {
            Asked::Untraced => self.publish_on(publish, owner, None),
            Asked::Dropped => {}
            Asked::Denied(destination) => self.report_violation(format!(
                "Permissions Violation for Publish to {}",
                quoted(destination.as_bytes())
            )),
            Asked::Disabled => {
                let headers = disabled(publish.headers);
                let publish = Publish {
                    headers: &headers,
                    ..*publish
                };
                self.publish_on(&publish, Owner::Buffer, None);
            }
            // Receivers of what goes through more hands share no frame: other servers get other headers.
            Asked::Traced(trace) => self.publish_on(publish, Owner::Buffer, Some(&trace)),
        }
    }

    /// A message is refused before it has come in whole: it is reported, when as much of its headers has come as asks for that.
    #[cold]
    pub(super) fn report_too_large(&mut self, input: &[u8]) {
        let Some(begun) = parser::begun(input) else {
            return;
        };
        if let Some(request) = TraceRequest::find(begun.headers) {
            // Dropped at once, which sends it.
            let _ = self.begin_trace(request, begun.subject, begun.bytes, Some(TOO_LARGE));
        }
    }

    fn begin_trace(
        &mut self,
        request: TraceRequest,
        subject: &[u8],
        message_bytes: usize,
        refused: Option<&str>,
    ) -> Asked {
        let clients = Arc::clone(&self.clients);
        let ingress = Ingress {
            kind: ConnectionKind::Client,
            client: &self.client,
            name: &self.info.name,
            account: &self.account,
            subject,
            message_bytes,
        };
        let sink = clients.broker.trace_sink();
        let is_system = Arc::ptr_eq(&self.account, clients.broker.system());
        let check = &mut self.publish_check;
        let may_publish = |destination: &str| check.may_report(destination.as_bytes(), is_system);
        let delivery = &mut self.delivery;
        let random = || delivery.random();
        MessageTrace::begin(request, ingress, sink, may_publish, random, refused)
    }
}
