//! What the server's own parts use to listen and to publish: JetStream, services, edges.
//!
//! An internal target is handed whole batches: everything that one read of a socket (or one call of
//! [`Broker::publish`](super::Broker::publish)) brought for it, in order.

use std::sync::Arc;

use bytes::Bytes;

use super::account::Account;
use super::client::ClientInfo;
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
}

/// A part of the server that receives messages.
pub trait InternalTarget: Send + Sync {
    /// Takes a batch over. Called on a connection's task or a shard's thread: it must not block and
    /// must not publish from within; put the batch into a queue and return.
    fn deliver(&self, batch: Vec<Inbound>);
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
