//! One subscription: a pattern, perhaps a queue group, and who gets what matches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::client::Client;
use super::internal::InternalTarget;
use super::permissions::DenyFilter;
use super::route::{RouteSink, Weight};
use super::sharing::{ServiceImport, Shadow};
use crate::subject::{Indexed, Listening};

static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Who receives what a subscription matches.
pub enum Target {
    /// A client's connection, which calls the subscription by this sid.
    Client {
        /// The connection.
        client: Arc<Client>,
        /// The client's own name for the subscription.
        sid: Bytes,
    },
    /// A part of the server.
    Internal {
        /// Who is handed the batches.
        target: Arc<dyn InternalTarget>,
        /// What tells the target's subscriptions apart.
        tag: u64,
    },
    /// Another server of the cluster.
    Route {
        /// The connection that told of it.
        sink: Arc<RouteSink>,
        /// How many members the queue group has there.
        weight: Weight,
    },
    /// A subscription of an account that imports this.
    Shadow(Box<Shadow>),
    /// The account that an imported service is asked in.
    Service(Arc<ServiceImport>),
    /// The accounts that asked this one, each for its own answers.
    Replies,
}

/// One subscription of an account.
pub struct Subscription {
    /// Never given out twice in a process.
    pub id: u64,
    /// The pattern it listens on.
    pub subject: Bytes,
    /// Its queue group.
    pub queue: Option<Bytes>,
    /// Who receives.
    pub target: Target,
    /// What its user may not see although the pattern covers it.
    pub deny: Option<Arc<DenyFilter>>,
    delivered: AtomicU64,
    /// How many deliveries end it; 0 for no end.
    max: AtomicU64,
    closed: AtomicBool,
    /// Other servers are not told of it.
    only_here: bool,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .field("subject", &self.subject)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Indexed for Arc<Subscription> {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Listening for Arc<Subscription> {
    fn pattern(&self) -> &[u8] {
        &self.subject
    }

    fn queue(&self) -> Option<&[u8]> {
        self.queue.as_deref()
    }
}

/// Whether a subscription takes one more message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has ended.
    Refused,
    /// It takes it.
    Taken,
    /// It takes it and ends with it.
    TakenAsLast,
}

impl Subscription {
    /// A subscription that no account knows yet.
    pub fn new(
        subject: Bytes,
        queue: Option<Bytes>,
        target: Target,
        deny: Option<Arc<DenyFilter>>,
    ) -> Self {
        Self {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            subject,
            queue,
            target,
            deny,
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            only_here: false,
        }
    }

    /// The same with another filter, as if it had been so from the beginning; for a user whose permissions changed.
    #[must_use]
    pub fn with_deny(&self, target: Target, deny: Option<Arc<DenyFilter>>) -> Self {
        let new = Self::new(self.subject.clone(), self.queue.clone(), target, deny);
        new.delivered.store(self.delivered(), Ordering::SeqCst);
        new.max
            .store(self.max.load(Ordering::SeqCst), Ordering::SeqCst);
        new
    }

    /// As it is, and other servers are not told of it.
    #[must_use]
    pub fn only_here(mut self) -> Self {
        self.only_here = true;
        self
    }

    /// Whether it is another server's.
    pub fn is_remote(&self) -> bool {
        matches!(self.target, Target::Route { .. })
    }

    /// Whether it is kept from other servers.
    pub(super) fn is_only_here(&self) -> bool {
        self.only_here
    }

    /// Whether it leads into another account.
    pub(super) fn is_exit(&self) -> bool {
        matches!(self.target, Target::Service(_) | Target::Replies)
    }

    /// Whether other servers are told of it.
    pub(super) fn is_told(&self) -> bool {
        !self.only_here && !self.is_remote()
    }

    /// How many messages it was given.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// How many messages end it; 0 for no end.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Lets it end after `max` deliveries in all; `false` when that many have happened already.
    pub fn end_after(&self, max: u64) -> bool {
        self.max.store(max, Ordering::SeqCst);
        max > self.delivered.load(Ordering::SeqCst)
    }

    /// Takes no more messages from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Counts one delivery, and never one more than the end allows, whoever else delivers now.
    pub(super) fn admit(&self) -> Admission {
        if self.closed.load(Ordering::Acquire) {
            return Admission::Refused;
        }
        let count = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
        match self.max.load(Ordering::SeqCst) {
            0 => Admission::Taken,
            max if count < max => Admission::Taken,
            max if count == max => Admission::TakenAsLast,
            _ => Admission::Refused,
        }
    }
}
