//! What the server's own parts use to listen and to publish: JetStream, services, edges.
//!
//! An internal target is handed whole batches: everything that one read of a socket (or one call of
//! [`Broker::publish`](super::Broker::publish)) brought for it, in order.

use std::sync::Arc;

use bytes::Bytes;

use super::account::Account;
use super::client::ClientInfo;
use super::message_trace::MessageTrace;
use super::subscription::Subscription;

/// A message on its way to an internal target.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The account it was published in.
    pub account: Arc<Account>,
    /// The tag of the subscription that matched.
    pub tag: u64,
    /// The literal subject it was published to.
    pub subject: Bytes,
    /// The reply subject, empty when there is none.
    pub reply: Bytes,
    /// The raw header block, empty when there is none.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// The client that published it; `None` when a part of the server did.
    pub client: Option<Arc<ClientInfo>>,
    /// Present when the message is traced and the target is a stream.
    pub trace: Option<Arc<MessageTrace>>,
}

/// What the report on a traced message says of a part of the server that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TracedAs<'a> {
    /// Nothing.
    Nothing,
    /// It is a stream of this name, and says itself what it did.
    Stream(&'a str),
    /// It is a service of the server's own account.
    Service,
}

/// A part of the server that receives messages.
pub trait InternalTarget: Send + Sync {
    /// Takes a batch over. Called on a connection's task or a shard's thread: it must not block and
    /// must not publish from within; put the batch into a queue and return. What is offered ([`Offer`]) is done afterwards.
    fn deliver(&self, batch: Vec<Inbound>);

    /// Takes a batch over in the same way, for a caller that is prepared to do itself what follows: what it is offered has not begun.
    fn deliver_offering(&self, batch: Vec<Inbound>) -> Option<Offer> {
        self.deliver(batch);
        None
    }

    /// What the report on a message says that comes for the subscription of this tag.
    fn traced_as(&self, _tag: u64) -> TracedAs<'_> {
        TracedAs::Nothing
    }
}

/// What a part of the server was handed and its own thread has not been woken for.
pub trait Offered: Send + Sync {
    /// Does it, on this thread.
    fn take(&self);
    /// Wakes the thread whose work it is.
    fn leave(&self);
}

/// Work that whoever brought it may do at once: a switch to another thread and back would cost more than the work. Nothing is lost when it is dropped: then the
/// thread whose work it is begins.
#[must_use = "it is taken only when it is asked to be"]
pub struct Offer(Option<Arc<dyn Offered>>);

impl Offer {
    /// An offer of this work.
    pub fn new(work: Arc<dyn Offered>) -> Self {
        Self(Some(work))
    }

    /// Does the work. Called where nothing is locked and nothing staged.
    pub fn take(mut self) {
        if let Some(work) = self.0.take() {
            work.take();
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work.leave();
        }
    }
}

/// A message that a part of the server publishes.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// The literal subject that receivers read.
    pub subject: Bytes,
    /// The literal subject whose listeners receive it, empty when that is `subject`: what is delivered from a stream keeps its
    /// own subject and goes to whoever asked for it.
    pub to: Bytes,
    /// The reply subject, empty when there is none.
    pub reply: Bytes,
    /// The raw header block, empty when there is none.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// An internal subscription; it ends when this is dropped.
#[must_use = "the subscription ends when this is dropped"]
#[derive(Debug)]
pub struct InternalSubscription {
    pub(super) account: Arc<Account>,
    pub(super) subscription: Arc<Subscription>,
}

impl InternalSubscription {
    /// The pattern it listens on.
    pub fn subject(&self) -> &Bytes {
        &self.subscription.subject
    }
}

impl Drop for InternalSubscription {
    fn drop(&mut self) {
        self.account.remove(&self.subscription);
    }
}
