//! An account: a space of subjects of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::interest::Watches;
use super::internal::{InternalSubscription, InternalTarget};
use super::mapping::AccountMappings;
use super::members::Members;
use super::message_trace::TraceDestination;
use super::route::{InterestSink, LocalInterest};
use super::sharing::Sharing;
use super::statistics::{IndexFigures, IndexStatistics};
use super::subscription::{Subscription, Target};
use crate::subject::{InvalidSubject, Matches, SharedIndex, SubjectIndex};

/// An account and the subscriptions in it.
pub struct Account {
    name: String,
    pub(super) index: SharedIndex<Arc<Subscription>>,
    /// Rises with every change of the index; whoever keeps matches drops them when it has moved.
    generation: AtomicU64,
    pub(super) watches: Watches,
    pub(super) members: Members,
    pub(super) mappings: AccountMappings,
    /// Where reports on messages with a W3C context go.
    trace: ArcSwapOption<TraceDestination>,
    /// What other servers are told of.
    pub(super) local: LocalInterest,
    /// How many subscriptions are other servers'.
    remote_count: AtomicU64,
    pub(super) statistics: IndexStatistics,
    pub(super) sharing: Sharing,
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
            index: SharedIndex::default(),
            generation: AtomicU64::new(1),
            watches: Watches::default(),
            members: Members::default(),
            mappings: AccountMappings::default(),
            trace: ArcSwapOption::empty(),
            local: LocalInterest::told_to(interest),
            remote_count: AtomicU64::new(0),
            statistics: IndexStatistics::default(),
            sharing: Sharing::default(),
        }
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From now on reports on messages with a W3C context go here, or nowhere.
    pub fn set_trace_destination(&self, destination: Option<TraceDestination>) {
        self.trace.store(destination.map(Arc::new));
    }

    /// Where reports on messages with a W3C context go.
    pub fn trace_destination(&self) -> Option<Arc<TraceDestination>> {
        self.trace.load_full()
    }

    /// How many subscriptions there are on this server.
    pub fn subscription_count(&self) -> usize {
        let remote = usize::try_from(self.remote_count.load(Ordering::Relaxed));
        self.index
            .read(SubjectIndex::len)
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

    /// Adds a subscription, which hears from now on also what the account imports.
    pub fn insert(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
    ) -> Result<(), InvalidSubject> {
        self.insert_alone(subscription)?;
        self.cast_shadows(subscription);
        Ok(())
    }

    /// Adds a subscription that hears this account only.
    pub(super) fn insert_alone(
        &self,
        subscription: &Arc<Subscription>,
    ) -> Result<(), InvalidSubject> {
        // Counted first, so that whoever finds it in the index knows that there are some of other servers.
        let is_remote = subscription.is_remote();
        if is_remote {
            self.remote_count.fetch_add(1, Ordering::Relaxed);
        }
        let inserted = self.index.insert(subscription);
        if inserted.is_err() {
            if is_remote {
                self.remote_count.fetch_sub(1, Ordering::Relaxed);
            }
            return inserted;
        }
        self.statistics.inserted();
        self.matches_changed();
        self.count_local(subscription, true);
        self.interest_may_have_changed(&subscription.subject);
        Ok(())
    }

    /// Ends a subscription; whether it was there.
    pub fn remove(&self, subscription: &Arc<Subscription>) -> bool {
        self.remove_all(std::slice::from_ref(subscription)) == 1
    }

    /// Ends subscriptions, as one change of the index; how many of them were there.
    pub fn remove_all(&self, subscriptions: &[Arc<Subscription>]) -> usize {
        let removed = self.remove_alone(subscriptions);
        self.lift_shadows(subscriptions);
        removed
    }

    /// Ends subscriptions that hear this account only.
    pub(super) fn remove_alone(&self, subscriptions: &[Arc<Subscription>]) -> usize {
        for subscription in subscriptions {
            subscription.close();
        }
        let mut removed = Vec::new();
        self.index
            .remove_all(subscriptions, |gone| removed.push(Arc::clone(gone)));
        if removed.is_empty() {
            return 0;
        }
        self.matches_changed();
        for subscription in &removed {
            self.statistics.removed();
            if subscription.is_remote() {
                self.remote_count.fetch_sub(1, Ordering::Relaxed);
            }
            self.count_local(subscription, false);
            self.interest_may_have_changed(&subscription.subject);
        }
        removed.len()
    }

    /// Changes whenever a subscription comes or goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How the index of subscriptions is used.
    pub fn index_figures(&self) -> IndexFigures {
        self.statistics.figures()
    }

    /// All subscriptions, also other servers', in the order they came. Whoever subscribes
    /// meanwhile may have to wait: not for hot paths.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let mut all = self.index.read(|index| {
            let mut all = Vec::with_capacity(index.len());
            index.for_each(&mut |subscription| all.push(Arc::clone(subscription)));
            all
        });
        all.sort_unstable_by_key(|subscription| subscription.id);
        all
    }

    /// Collects the subscriptions that match a subject.
    pub fn matches(&self, subject: &[u8], found: &mut Matches<Arc<Subscription>>) {
        self.index.matches(subject, found);
    }
}
