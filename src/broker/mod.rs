//! The broker: who listens in which account, and how a message gets from its publisher to each of them.
//!
//! A producer (a connection's task, a shard's thread) owns a [`Delivery`]: it finds the subscriptions
//! of a subject, stages what each target is to get, and hands everything over once per batch: one
//! lock per client's outbox, one call per internal target.
//!
//! # Invariant
//! Nothing here waits: not for a socket, not for a subscriber. A receiver that does not keep up is
//! found by the bytes that wait in its outbox and is closed.

pub mod account;
pub mod client;
pub mod close;
pub mod delivery;
pub mod interest;
pub mod internal;
mod mapping;
pub mod members;
pub mod message_trace;
pub mod outbox;
pub mod permissions;
pub mod route;
pub mod sharing;
pub mod statistics;
pub mod subscription;
pub mod traffic;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::RwLock;

pub use account::Account;
pub use client::{Carrier, Client, ClientInfo, RoundTrip, coarse_unix_ns};
pub use close::CloseReason;
pub use delivery::{Delivery, Flow, Message, Origin, Owner};
pub use interest::{InterestTarget, InterestWatch};
pub use internal::{
    Inbound, InternalSubscription, InternalTarget, Offer, Offered, Outgoing, TracedAs,
};
pub use members::{AccountFull, ConnectionLimits, ConnectionTraffic, Membership};
pub use message_trace::{MessageTrace, TraceDestination, TraceReport, TraceSink};
pub use outbox::{Outbox, OutboxLimits, Wire};
pub use route::{InterestSink, RouteSink, Weight};
pub use sharing::{ServerNames, Shadow};
pub use statistics::IndexFigures;
pub use subscription::{Subscription, Target};
pub use traffic::{Traffic, TrafficSnapshot};

/// The account of everyone who is in no other.
pub const GLOBAL_ACCOUNT: &str = "$G";
/// The account of the server itself.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

/// All accounts of a server and what they have in common.
pub struct Broker {
    accounts: RwLock<HashMap<String, Arc<Account>>>,
    global: Arc<Account>,
    system: Arc<Account>,
    traffic: Arc<Traffic>,
    /// Who is told of local interest.
    interest: Option<Arc<dyn InterestSink>>,
    /// Who sends reports on traced messages.
    trace_sink: OnceLock<Arc<dyn TraceSink>>,
    /// What this server is called.
    names: Arc<ArcSwap<ServerNames>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("accounts", &self.accounts)
            .finish_non_exhaustive()
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

impl Broker {
    /// A broker with the global and the system account.
    pub fn new() -> Self {
        Self::with_interest(None)
    }

    /// The same, for a server of a cluster: this one is told of all local interest.
    pub fn telling(interest: Arc<dyn InterestSink>) -> Self {
        Self::with_interest(Some(interest))
    }

    fn with_interest(interest: Option<Arc<dyn InterestSink>>) -> Self {
        let global = Arc::new(Account::new(GLOBAL_ACCOUNT, interest.clone()));
        let system = Arc::new(Account::new(SYSTEM_ACCOUNT, interest.clone()));
        let accounts = [&global, &system]
            .map(|account| (account.name().to_owned(), Arc::clone(account)))
            .into();
        Self {
            accounts: RwLock::new(accounts),
            global,
            system,
            traffic: Arc::default(),
            interest,
            trace_sink: OnceLock::new(),
            names: Arc::default(),
        }
    }

    /// As it is, with the account of this name as the server's own; for a broker that nobody uses yet.
    #[must_use]
    pub fn with_system_account(mut self, name: &str) -> Self {
        let default = self.system.name().to_owned();
        if name != default {
            self.system = self.ensure_account(name);
            self.accounts.write().remove(&default);
        }
        self
    }

    /// The account of everyone who is in no other.
    pub fn global(&self) -> &Arc<Account> {
        &self.global
    }

    /// The account of the server itself.
    pub fn system(&self) -> &Arc<Account> {
        &self.system
    }

    /// The account of this name.
    pub fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.accounts.read().get(name).cloned()
    }

    /// The account of this name, created when there is none.
    pub fn ensure_account(&self, name: &str) -> Arc<Account> {
        let mut accounts = self.accounts.write();
        if let Some(account) = accounts.get(name) {
            return Arc::clone(account);
        }
        let account = Arc::new(Account::new(name, self.interest.clone()));
        accounts.insert(name.to_owned(), Arc::clone(&account));
        account
    }

    /// Forgets the accounts that `is_gone` names; never the global one nor the server's own. Whoever is in one keeps it to the end.
    pub fn forget_accounts(&self, is_gone: impl Fn(&str) -> bool) {
        let (global, system) = (self.global.name(), self.system.name());
        let mut accounts = self.accounts.write();
        accounts.retain(|name, _| name == global || name == system || !is_gone(name));
    }

    /// All accounts, in no order.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.read().values().cloned().collect()
    }

    /// How many subscriptions there are in all accounts.
    pub fn subscription_count(&self) -> usize {
        self.accounts
            .read()
            .values()
            .map(|account| account.subscription_count())
            .sum()
    }

    /// From now on the server is called so.
    pub fn set_names(&self, names: ServerNames) {
        self.names.store(Arc::new(names));
    }

    /// From now on its cluster is called so.
    pub fn set_cluster_name(&self, cluster: &str) {
        self.names.rcu(|names| ServerNames {
            server: names.server.clone(),
            cluster: cluster.to_owned(),
        });
    }

    /// From now on this one sends the reports on traced messages. The first stays.
    pub fn set_trace_sink(&self, sink: Arc<dyn TraceSink>) {
        let _ = self.trace_sink.set(sink);
    }

    /// Who sends the reports on traced messages; nobody before the services of the system account run.
    pub fn trace_sink(&self) -> Option<&Arc<dyn TraceSink>> {
        self.trace_sink.get()
    }

    /// What has passed through this server.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Publishes messages in an account, from any thread, and says to how many receivers each of
    /// them went. Never blocks; every touched receiver is flushed once.
    pub fn publish<'a>(
        &self,
        account: &Arc<Account>,
        messages: &[Outgoing],
        cache: &'a mut PublishCache,
    ) -> &'a [u32] {
        cache.counts.clear();
        for outgoing in messages {
            let message = Message::from_outgoing(outgoing);
            let to = match outgoing.to.is_empty() {
                true => &outgoing.subject,
                false => &outgoing.to,
            };
            let delivered = cache
                .delivery
                .publish_to(account, to, &message, None, &self.traffic);
            cache.counts.push(delivered);
            if cache.delivery.is_full() {
                cache.delivery.hand_over(&self.traffic);
            }
        }
        cache.delivery.hand_over(&self.traffic);
        &cache.counts
    }
}

/// What a publishing part of the server keeps between its calls of [`Broker::publish`].
#[derive(Debug, Default)]
pub struct PublishCache {
    delivery: Delivery,
    counts: Vec<u32>,
}

impl PublishCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests;
