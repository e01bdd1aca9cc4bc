//! How the rest of the server reaches one stream on its shard.

use std::sync::Arc;

use super::copying::is_for_origin;
use super::faults::Faults;
use super::inbox::{Answer, Done, Gauge, Inbox, Item, measure};
use super::slot::Surrendered;
use crate::broker::{Inbound, InterestTarget, InternalTarget};
use crate::jetstream::core::{StreamReply, StreamRequest};
use crate::jetstream::registry::StreamPort;

/// A stream as others reach it. Clones reach the same one.
#[derive(Clone)]
pub(crate) struct Port {
    pub(super) inbox: Arc<Inbox>,
    pub(super) slot: u64,
    pub(super) gauge: Arc<Gauge>,
    pub(super) faults: Arc<Faults>,
}

impl Port {
    /// Lets the stream go; `done` is called when it is gone from its shard.
    pub(crate) fn remove(&self, done: Done) {
        self.inbox.push(Item::Remove {
            slot: self.slot,
            done,
        });
    }

    /// Lets the stream leave its shard, when everything that it has decided is applied; nothing when it is gone already. Of what comes
    /// meanwhile it takes nothing: its subscriptions should be gone before.
    pub(crate) async fn surrender(&self) -> Option<Surrendered> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.inbox.push(Item::Surrender {
            slot: self.slot,
            taker: Box::new(move |surrendered| {
                // Who asked and does not wait any more lets it go.
                let _ = answer.send(surrendered);
            }),
        });
        answered.await.ok()
    }

    /// Has a request answered.
    pub(crate) fn request(&self, request: StreamRequest, answer: Answer) {
        self.inbox.push(Item::Request {
            slot: self.slot,
            request,
            answer,
        });
    }
}

impl StreamPort for Port {
    fn ask(&self, request: StreamRequest, answer: Box<dyn FnOnce(StreamReply) + Send>) {
        self.request(request, answer);
    }
}

impl InternalTarget for Port {
    fn deliver(&self, batch: Vec<Inbound>) {
        let (messages, bytes) = measure(&batch);
        let slot = self.slot;
        if self.gauge.admit(messages, bytes) {
            self.inbox.push(Item::Inbound { slot, batch });
            return;
        }
        let replies = batch
            .into_iter()
            .filter(|inbound| !is_for_origin(inbound.tag))
            .map(|inbound| inbound.reply)
            .filter(|reply| !reply.is_empty())
            .collect();
        self.inbox.push(Item::Overrun { slot, replies });
    }
}

/// Hears of the interest in a push consumer's deliver subject.
impl InterestTarget for Port {
    fn interest_changed(&self, tag: u64, interested: bool) {
        self.inbox.push(Item::Interest {
            slot: self.slot,
            consumer: tag,
            active: interested,
        });
    }
}
