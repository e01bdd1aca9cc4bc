//! Other servers of the cluster as the broker sees them: where a message for them is staged, and who is told of local interest.
//!
//! # Invariant
//! What came from another server is never staged for one: a message makes one hop.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::account::Account;
use super::client::Client;
use super::subscription::{Subscription, Target};
use crate::subject::Matches;

/// A route's connection as a receiver of messages.
#[derive(Debug)]
pub struct RouteSink {
    /// The connection and its outbox.
    pub client: Arc<Client>,
    /// Whether lines on it name the account.
    pub names_account: bool,
    /// Whether the server behind it knows of traced messages.
    pub traces: bool,
}

/// The weight of a queue group on another server: how many members it has there.
#[derive(Debug)]
pub struct Weight(AtomicU32);

impl Weight {
    /// At least one.
    pub fn new(weight: u32) -> Self {
        Self(AtomicU32::new(weight.max(1)))
    }

    /// How many members there are.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, weight: u32) {
        self.0.store(weight.max(1), Ordering::Relaxed);
    }
}

/// Is told which interest there is on this server, so that other servers can be told.
pub trait InterestSink: Send + Sync {
    /// So many local subscriptions of this pattern and queue group are there now. Called with the account's interest locked: it must not
    /// block, and not subscribe.
    fn interest_is(&self, account: &Account, subject: &[u8], queue: Option<&[u8]>, count: u32);
}

/// How many subscriptions of a pattern there are in each queue group, and in none.
type Groups = HashMap<Option<Box<[u8]>>, u32>;

/// The local interest of an account that other servers are told of.
#[derive(Default)]
pub(super) struct LocalInterest {
    sink: Option<Arc<dyn InterestSink>>,
    counts: Mutex<HashMap<Box<[u8]>, Groups>>,
}

impl LocalInterest {
    pub(super) fn told_to(sink: Option<Arc<dyn InterestSink>>) -> Self {
        Self {
            sink,
            counts: Mutex::default(),
        }
    }
}

impl Account {
    /// Counts a local subscription that came (1) or went (-1).
    pub(super) fn count_local(&self, subscription: &Subscription, came: bool) {
        let Some(sink) = &self.local.sink else {
            return;
        };
        if !subscription.is_told() {
            return;
        }
        let (subject, queue) = (&*subscription.subject, subscription.queue.as_deref());
        let mut counts = self.local.counts.lock();
        let groups = match counts.get_mut(subject) {
            Some(groups) => groups,
            None => counts.entry(subject.into()).or_default(),
        };
        let count = groups.entry(queue.map(Box::from)).or_insert(0);
        *count = match came {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        let now = *count;
        if now == 0 {
            groups.retain(|_, count| *count > 0);
            if groups.is_empty() {
                counts.remove(subject);
            }
        }
        // Of plain subscriptions only the first and the last matter to others; of groups, the weight.
        if queue.is_some() || now == 0 || (came && now == 1) {
            sink.interest_is(self, subject, queue, now);
        }
    }

    /// Shows all local interest that other servers are told of, with nothing changing until `tell` returns.
    pub fn tell_local_interest(
        &self,
        tell: impl FnOnce(&mut dyn Iterator<Item = (&[u8], Option<&[u8]>, u32)>),
    ) {
        let counts = self.local.counts.lock();
        tell(&mut counts.iter().flat_map(|(subject, groups)| {
            groups
                .iter()
                .map(|(queue, count)| (&**subject, queue.as_deref(), *count))
        }));
    }

    /// Another weight of a queue group of another server.
    pub fn set_weight(&self, subscription: &Subscription, weight: u32) {
        if let Target::Route { weight: known, .. } = &subscription.target
            && known.get() != weight
        {
            known.set(weight);
            self.matches_changed();
        }
    }
}

/// What other servers are to get of a subject, found once and kept with the other matches.
#[derive(Debug, Default)]
pub(super) struct RouteMatches {
    /// Every connection that has any interest.
    pub(super) routes: Vec<RouteMatch>,
    /// Queue groups with members on other servers.
    pub(super) groups: Vec<RemoteGroup>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct RouteMatch {
    pub(super) sink: Arc<RouteSink>,
    /// Whether it gets every message.
    pub(super) plain: bool,
}

/// A queue group's members on other servers.
#[derive(Debug)]
pub(super) struct RemoteGroup {
    pub(super) name: Box<[u8]>,
    /// The group among the local ones, if it has members here.
    pub(super) local: Option<usize>,
    /// Which connection, and its weight.
    pub(super) members: Vec<(usize, u32)>,
    pub(super) weight: u64,
}

impl RouteMatches {
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.groups.clear();
    }

    /// Takes what is for other servers out of the matches.
    pub(super) fn split_off(&mut self, subject: &[u8], found: &mut Matches<Arc<Subscription>>) {
        self.clear();
        found
            .plain
            .retain(|subscription| match &subscription.target {
                Target::Route { sink, .. } => {
                    if !is_denied(subscription, subject) {
                        let at = self.index_of(sink);
                        self.routes[at].plain = true;
                    }
                    false
                }
                _ => true,
            });
        let mut local = 0;
        found.queues.retain_mut(|group| {
            let mut members = Vec::new();
            group
                .members
                .retain(|subscription| match &subscription.target {
                    Target::Route { sink, weight } => {
                        if !is_denied(subscription, subject) {
                            members.push((self.index_of(sink), weight.get()));
                        }
                        false
                    }
                    _ => true,
                });
            let is_here = !group.members.is_empty();
            if !members.is_empty() {
                self.groups.push(RemoteGroup {
                    name: group.name.clone(),
                    local: is_here.then_some(local),
                    weight: members.iter().map(|(_, weight)| u64::from(*weight)).sum(),
                    members,
                });
            }
            local += usize::from(is_here);
            is_here
        });
    }

    fn index_of(&mut self, sink: &Arc<RouteSink>) -> usize {
        let known = self
            .routes
            .iter()
            .position(|route| Arc::ptr_eq(&route.sink, sink));
        known.unwrap_or_else(|| {
            self.routes.push(RouteMatch {
                sink: Arc::clone(sink),
                plain: false,
            });
            self.routes.len() - 1
        })
    }
}

/// Whether the other server may not see this although its pattern covers it.
fn is_denied(subscription: &Subscription, subject: &[u8]) -> bool {
    let deny = subscription.deny.as_ref();
    deny.is_some_and(|deny| deny.denies(subject, subscription.queue.as_deref()))
}

impl RemoteGroup {
    /// The connection that a random number picks, by weight.
    pub(super) fn pick(&self, random: u64) -> usize {
        let mut at = random % self.weight.max(1);
        for (route, weight) in &self.members {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return *route,
            }
        }
        self.members.first().map_or(0, |(route, _)| *route)
    }
}
