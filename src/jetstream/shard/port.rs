//! How the rest of the server reaches one stream on its shard.

use std::sync::Arc;

use super::bench::Bench;
use super::copying::is_for_origin;
use super::faults::Faults;
use super::inbox::{Answer, Done, Gauge, Inbox, Item, measure};
use super::light::Light;
use super::slot::Surrendered;
use crate::broker::{Inbound, InterestTarget, InternalTarget, Offer, TracedAs};
use crate::jetstream::core::{StreamReply, StreamRequest};
use crate::jetstream::intake::Purpose;
use crate::jetstream::registry::StreamPort;

/// A stream as others reach it. Clones reach the same one.
#[derive(Clone)]
pub(crate) struct Port {
    /// The stream's name.
    pub(super) stream: Arc<str>,
    pub(super) inbox: Arc<Inbox>,
    /// Where who brings a little work may do it, and what counts as little. Absent for a shard without a thread.
    pub(super) offers: Option<(Arc<Bench>, Light)>,
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

    /// Lets the stream leave its shard, when everything that it has decided is applied; nothing when it is gone already, or offline, when it stays. Of what
    /// comes meanwhile it takes nothing: its subscriptions should be gone before.
    pub(crate) async fn surrender(&self) -> Option<Surrendered> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.surrender_to(Box::new(move |surrendered| {
            // Who asked and does not wait any more lets it go.
            let _ = answer.send(surrendered);
        }));
        answered.await.ok()
    }

    /// The same, for `taker`, which is dropped when the stream is not to be had.
    pub(super) fn surrender_to(&self, taker: Box<dyn FnOnce(Surrendered) + Send>) {
        self.inbox.push(Item::Surrender {
            slot: self.slot,
            taker,
        });
    }

    /// Why it is offline, if it is.
    pub(super) fn fault(&self) -> Option<String> {
        self.faults.of(self.slot)
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
        if !self.gauge.admit(messages, bytes) {
            return self.overrun(batch);
        }
        let (slot, is_light) = (self.slot, false);
        self.inbox.push(Item::Inbound {
            slot,
            batch,
            is_light,
        });
    }

    fn deliver_offering(&self, batch: Vec<Inbound>) -> Option<Offer> {
        let offers = self.offers.as_ref();
        let Some((bench, _)) = offers.filter(|(_, light)| light.holds(&batch)) else {
            self.deliver(batch);
            return None;
        };
        let (messages, bytes) = measure(&batch);
        if !self.gauge.admit(messages, bytes) {
            self.overrun(batch);
            return None;
        }
        let (slot, is_light) = (self.slot, true);
        let is_first = self.inbox.put(Item::Inbound {
            slot,
            batch,
            is_light,
        });
        // Otherwise somebody is about to do what came before, and this with it.
        is_first.then(|| Offer::new(Arc::<Bench>::clone(bench)))
    }

    fn traced_as(&self, tag: u64) -> TracedAs<'_> {
        match tag == Purpose::Publish as u64 {
            true => TracedAs::Stream(&self.stream),
            false => TracedAs::Nothing,
        }
    }
}

impl Port {
    /// Too much waits: who published and wants to know is told.
    fn overrun(&self, batch: Vec<Inbound>) {
        let slot = self.slot;
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
