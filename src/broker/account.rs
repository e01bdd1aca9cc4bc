//! An account: a space of subjects of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::interest::Watches;
use super::internal::{InternalSubscription, InternalTarget};
use super::mapping::AccountMappings;
use super::members::Members;
use super::route::{InterestSink, LocalInterest};
use super::statistics::{IndexFigures, IndexStatistics};
use super::subscription::{Subscription, Target};
use crate::subject::{InvalidSubject, Matches, SubjectIndex};

/// An account and the subscriptions in it.
pub struct Account {
    name: String,
    pub(super) index: RwLock<SubjectIndex<Arc<Subscription>>>,
    /// Rises with every change of the index; whoever keeps matches drops them when it has moved.
    generation: AtomicU64,
    pub(super) watches: Watches,
    pub(super) members: Members,
    pub(super) mappings: AccountMappings,
    /// What other servers are told of.
    pub(super) local: LocalInterest,
    /// How many subscriptions are other servers'.
    remote_count: AtomicU64,
    pub(super) statistics: IndexStatistics,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish()
    }
}

impl Account {
    pub(super) fn new(name: &str, interest: Option<Arc<dyn InterestSink>>) -> Self {
        Self {
            name: name.to_owned(),
            index: RwLock::default(),
            generation: AtomicU64::new(1),
            watches: Watches::default(),
            members: Members::default(),
            mappings: AccountMappings::default(),
            local: LocalInterest::told_to(interest),
            remote_count: AtomicU64::new(0),
            statistics: IndexStatistics::default(),
        }
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many subscriptions there are on this server.
    pub fn subscription_count(&self) -> usize {
        let remote = usize::try_from(self.remote_count.load(Ordering::Relaxed));
        self.index
            .read()
            .len()
            .saturating_sub(remote.unwrap_or(usize::MAX))
    }

    /// How many subscriptions other servers have told of.
    pub fn remote_subscription_count(&self) -> u64 {
        self.remote_count.load(Ordering::Relaxed)
    }

    /// What was found before may be different now.
    pub(super) fn matches_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Subscribes a part of the server. The batches it gets carry the tag.
    pub fn subscribe(
        self: &Arc<Self>,
        pattern: &str,
        queue: Option<&str>,
        target: Arc<dyn InternalTarget>,
        tag: u64,
    ) -> Result<InternalSubscription, InvalidSubject> {
        let subscription = Arc::new(Subscription::new(
            Bytes::copy_from_slice(pattern.as_bytes()),
            queue.map(|queue| Bytes::copy_from_slice(queue.as_bytes())),
            Target::Internal { target, tag },
            None,
        ));
        self.insert(&subscription)?;
        Ok(InternalSubscription {
            account: Arc::clone(self),
            subscription,
        })
    }

    /// As [`Account::subscribe`], but other servers are not told: what is published there does not come here.
    pub fn subscribe_here(
        self: &Arc<Self>,
        pattern: &str,
        queue: Option<&str>,
        target: Arc<dyn InternalTarget>,
        tag: u64,
    ) -> Result<InternalSubscription, InvalidSubject> {
        let subscription = Arc::new(
            Subscription::new(
                Bytes::copy_from_slice(pattern.as_bytes()),
                queue.map(|queue| Bytes::copy_from_slice(queue.as_bytes())),
                Target::Internal { target, tag },
                None,
            )
            .only_here(),
        );
        self.insert(&subscription)?;
        Ok(InternalSubscription {
            account: Arc::clone(self),
            subscription,
        })
    }

    /// Adds a subscription.
    pub fn insert(&self, subscription: &Arc<Subscription>) -> Result<(), InvalidSubject> {
        let mut index = self.index.write();
        index.insert(
            &subscription.subject,
            subscription.queue.as_deref(),
            Arc::clone(subscription),
        )?;
        if subscription.is_remote() {
            self.remote_count.fetch_add(1, Ordering::Relaxed);
        }
        self.statistics.inserted();
        self.generation.fetch_add(1, Ordering::Release);
        drop(index);
        self.count_local(subscription, true);
        self.interest_may_have_changed(&subscription.subject);
        Ok(())
    }

    /// Ends a subscription; whether it was there.
    pub fn remove(&self, subscription: &Subscription) -> bool {
        subscription.close();
        let mut index = self.index.write();
        let removed = index.remove(
            &subscription.subject,
            subscription.queue.as_deref(),
            subscription.id,
        );
        if removed {
            self.statistics.removed();
            if subscription.is_remote() {
                self.remote_count.fetch_sub(1, Ordering::Relaxed);
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
        drop(index);
        if removed {
            self.count_local(subscription, false);
            self.interest_may_have_changed(&subscription.subject);
        }
        removed
    }

    /// Changes whenever a subscription comes or goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How the index of subscriptions is used.
    pub fn index_figures(&self) -> IndexFigures {
        self.statistics.figures()
    }

    /// All subscriptions, also other servers', in the order they came. Holds the index while it collects them: not for hot
    /// paths.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let index = self.index.read();
        let mut all = Vec::with_capacity(index.len());
        index.for_each(&mut |subscription| all.push(Arc::clone(subscription)));
        drop(index);
        all.sort_unstable_by_key(|subscription| subscription.id);
        all
    }

    /// Collects the subscriptions that match a subject.
    pub fn matches(&self, subject: &[u8], found: &mut Matches<Arc<Subscription>>) {
        self.index.read().matches(subject, found);
    }
}
