//! What each part of the server is to get of the current batch.
//!
//! Small messages of a batch are copied into one buffer that all of them share, so that a message
//! costs no allocation of its own and does not pin the socket's read buffer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Message, Owner};
use crate::broker::account::Account;
use crate::broker::client::ClientInfo;
use crate::broker::internal::{Inbound, InternalTarget, Offer};
use crate::broker::message_trace::MessageTrace;

/// A message whose parts are in the batch's buffer or shared already.
struct Staged {
    tag: u64,
    account: Arc<Account>,
    client: Option<Arc<ClientInfo>>,
    trace: Option<Arc<MessageTrace>>,
    parts: Parts,
}

enum Parts {
    Buffer {
        subject: Range<usize>,
        reply: Range<usize>,
        headers: Range<usize>,
        payload: Range<usize>,
    },
    Shared {
        subject: Bytes,
        reply: Bytes,
        headers: Bytes,
        payload: Bytes,
    },
}

/// The batches of all internal targets that the current batch touches.
#[derive(Default)]
pub(super) struct InternalBatches {
    batches: Vec<(Arc<dyn InternalTarget>, Vec<Staged>)>,
    buffer: Vec<u8>,
    /// What the last batches needed, so that the next buffer is allocated once.
    buffer_bytes: usize,
    shared_bytes: usize,
}

impl std::fmt::Debug for InternalBatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalBatches")
            .field("targets", &self.batches.len())
            .finish_non_exhaustive()
    }
}

impl InternalBatches {
    /// How many bytes are staged.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() + self.shared_bytes
    }

    /// Stages a message for a target.
    pub(super) fn stage(
        &mut self,
        target: &Arc<dyn InternalTarget>,
        tag: u64,
        account: &Arc<Account>,
        message: &Message<'_>,
        client: Option<&Arc<ClientInfo>>,
    ) {
        let parts = self.parts_of(message);
        let staged = Staged {
            tag,
            account: Arc::clone(account),
            client: client.cloned(),
            trace: message.trace.cloned(),
            parts,
        };
        let known = self
            .batches
            .iter_mut()
            .rev()
            .find(|(known, _)| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(target)));
        match known {
            Some((_, batch)) => batch.push(staged),
            None => self.batches.push((Arc::clone(target), vec![staged])),
        }
    }

    fn parts_of(&mut self, message: &Message<'_>) -> Parts {
        match message.owner {
            Owner::Outgoing(outgoing) => {
                self.shared_bytes += outgoing.headers.len() + outgoing.payload.len();
                Parts::Shared {
                    // An import has put another in its place.
                    subject: match std::ptr::eq(&*outgoing.subject, message.subject) {
                        true => outgoing.subject.clone(),
                        false => Bytes::copy_from_slice(message.subject),
                    },
                    reply: outgoing.reply.clone(),
                    headers: outgoing.headers.clone(),
                    payload: outgoing.payload.clone(),
                }
            }
            Owner::Frame(frame) => {
                self.shared_bytes += frame.len();
                let slice = |part: &[u8]| {
                    if part.is_empty() {
                        Bytes::new()
                    } else {
                        frame.slice_ref(part)
                    }
                };
                Parts::Shared {
                    // A mapping has put another in its place.
                    subject: match is_within(frame, message.subject) {
                        true => slice(message.subject),
                        false => Bytes::copy_from_slice(message.subject),
                    },
                    reply: slice(message.reply),
                    headers: slice(message.headers),
                    payload: slice(message.payload),
                }
            }
            Owner::Buffer => {
                if self.buffer.capacity() == 0 {
                    self.buffer.reserve(self.buffer_bytes);
                }
                Parts::Buffer {
                    subject: self.copy(message.subject),
                    reply: self.copy(message.reply),
                    headers: self.copy(message.headers),
                    payload: self.copy(message.payload),
                }
            }
        }
    }

    fn copy(&mut self, part: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(part);
        start..self.buffer.len()
    }

    /// Calls every target once with all that is staged for it. What the only one of them offers comes back, if the caller takes offers.
    pub(super) fn hand_over(&mut self, takes_offers: bool) -> Option<Offer> {
        if self.batches.is_empty() {
            return None;
        }
        // With more of them, their threads work beside each other.
        let takes_offers = takes_offers && self.batches.len() == 1;
        let mut offer = None;
        // Follows the need of recent batches up at once and down slowly.
        self.buffer_bytes = self.buffer.len().max(self.buffer_bytes / 2);
        let buffer = Bytes::from(std::mem::take(&mut self.buffer));
        self.shared_bytes = 0;
        for (target, batch) in self.batches.drain(..) {
            let batch = batch.into_iter();
            let batch = batch.map(|staged| staged.unpack(&buffer)).collect();
            match takes_offers {
                true => offer = target.deliver_offering(batch),
                false => target.deliver(batch),
            }
        }
        offer
    }

    /// Gives back what is kept for the next batch, unless there is one.
    pub(super) fn rest(&mut self) {
        if self.batches.is_empty() {
            *self = Self::default();
        }
    }
}

impl Staged {
    fn unpack(self, buffer: &Bytes) -> Inbound {
        let slice = |part: Range<usize>| {
            if part.is_empty() {
                Bytes::new()
            } else {
                buffer.slice(part)
            }
        };
        let (subject, reply, headers, payload) = match self.parts {
            Parts::Buffer {
                subject,
                reply,
                headers,
                payload,
            } => (slice(subject), slice(reply), slice(headers), slice(payload)),
            Parts::Shared {
                subject,
                reply,
                headers,
                payload,
            } => (subject, reply, headers, payload),
        };
        Inbound {
            account: self.account,
            tag: self.tag,
            subject,
            reply,
            headers,
            payload,
            client: self.client,
            trace: self.trace,
        }
    }
}

/// Whether a part of a message lies in its frame.
fn is_within(frame: &Bytes, part: &[u8]) -> bool {
    let (outer, inner) = (frame.as_ptr_range(), part.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}
