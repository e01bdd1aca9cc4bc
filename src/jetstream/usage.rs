//! How much streams hold, by server and by account, and when that is too much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::core::StreamTerms;
use super::limits::{AccountLimits, AccountTiers};
use super::types::{ErrorCode, Storage};

/// Accounted bytes in one place, with a limit. Counted while streams run, from nothing at each start.
#[derive(Debug)]
struct Counter {
    bytes: AtomicU64,
    /// What other servers say that they hold.
    elsewhere: AtomicU64,
    bytes_max: AtomicU64,
}

/// No limit.
const UNLIMITED: u64 = u64::MAX;

impl Default for Counter {
    fn default() -> Self {
        Self::limited(None)
    }
}

impl Counter {
    fn limited(bytes_max: Option<u64>) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            bytes_max: AtomicU64::new(bytes_max.unwrap_or(UNLIMITED)),
        }
    }

    fn is_exceeded(&self) -> bool {
        self.would_exceed(0)
    }

    /// Whether it is too much with that many bytes more.
    fn would_exceed(&self, more: u64) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        let all = self.bytes.load(Ordering::Relaxed).saturating_add(elsewhere);
        bytes_max != UNLIMITED && all.saturating_add(more) > bytes_max
    }

    fn is_limited(&self) -> bool {
        self.bytes_max.load(Ordering::Relaxed) != UNLIMITED
    }

    fn limit(&self, bytes_max: Option<u64>) {
        let bytes_max = bytes_max.unwrap_or(UNLIMITED);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }
}

/// What all streams of a server, or of an account, hold together.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    memory: Counter,
    storage: Counter,
    /// Of a tier that the account has no limits for: nothing may be stored in it.
    is_closed: AtomicBool,
}

impl Usage {
    /// Of a server that has this much.
    pub(crate) fn of_server(memory_max: u64, storage_max: u64) -> Self {
        Self {
            memory: Counter::limited(Some(memory_max)),
            storage: Counter::limited(Some(storage_max)),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The server has this much from now on. What is held already stays.
    pub(crate) fn set_server_limits(&self, memory_max: u64, storage_max: u64) {
        self.memory.limit(Some(memory_max));
        self.storage.limit(Some(storage_max));
    }

    /// So many times these limits hold from now on, or none.
    fn limit(&self, limits: Option<&AccountLimits>, times: u64) {
        for storage in [Storage::Memory, Storage::File] {
            let bytes_max = limits.and_then(|limits| limits.bytes_max(storage));
            let bytes_max = bytes_max.map(|bytes| bytes.saturating_mul(times));
            self.counter(storage).limit(bytes_max);
        }
    }

    /// What is held on all other servers together.
    fn set_elsewhere(&self, (memory, storage): Held) {
        self.memory.elsewhere.store(memory, Ordering::Relaxed);
        self.storage.elsewhere.store(storage, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    fn is_limited(&self) -> bool {
        self.memory.is_limited() || self.storage.is_limited()
    }

    fn held(&self) -> Held {
        (self.bytes(Storage::Memory), self.bytes(Storage::File))
    }

    /// Bytes that are held now, here.
    pub(crate) fn bytes(&self, storage: Storage) -> u64 {
        self.counter(storage).bytes.load(Ordering::Relaxed)
    }

    fn counter(&self, storage: Storage) -> &Counter {
        match storage {
            Storage::Memory => &self.memory,
            Storage::File => &self.storage,
        }
    }
}

/// Bytes in memory and on disk.
pub(crate) type Held = (u64, u64);

/// What streams of an account hold: all together, and by how many replicas they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldByTier {
    /// All of them.
    pub(crate) all: Held,
    /// Those with so many replicas.
    pub(crate) tiers: BTreeMap<usize, Held>,
}

impl HeldByTier {
    /// And what is held in another place.
    pub(crate) fn add(&mut self, other: &Self) {
        let sum = |one: Held, two: Held| (one.0.saturating_add(two.0), one.1.saturating_add(two.1));
        self.all = sum(self.all, other.all);
        for (replicas, held) in &other.tiers {
            let own = self.tiers.entry(*replicas).or_default();
            *own = sum(*own, *held);
        }
    }
}

/// What the streams of an account hold here together, by tier.
#[derive(Debug, Default)]
pub(crate) struct AccountUsage {
    all: Usage,
    tiers: RwLock<Tiers>,
}

#[derive(Debug, Default)]
struct Tiers {
    /// By the number of replicas: each of them counts.
    usage: BTreeMap<usize, Arc<Usage>>,
    /// Where limits are by tier.
    limits: Option<BTreeMap<usize, AccountLimits>>,
}

impl Tiers {
    fn set_limit(&self, replicas: usize, usage: &Usage) {
        let tiers = self.limits.as_ref();
        let limits = tiers.and_then(|tiers| tiers.get(&replicas));
        usage.limit(limits, replicas as u64);
        let is_closed = tiers.is_some() && limits.is_none();
        usage.is_closed.store(is_closed, Ordering::Relaxed);
    }
}

impl AccountUsage {
    /// Of an account that may use this much.
    pub(crate) fn new(limits: &AccountTiers) -> Self {
        let usage = Self::default();
        usage.set_limits(limits);
        usage
    }

    /// It may use this much from now on.
    pub(crate) fn set_limits(&self, limits: &AccountTiers) {
        self.all.limit(limits.all.as_ref(), 1);
        let mut tiers = self.tiers.write();
        tiers.limits = (!limits.tiers.is_empty()).then(|| limits.tiers.clone());
        for (replicas, usage) in &tiers.usage {
            tiers.set_limit(*replicas, usage);
        }
    }

    /// What its streams hold on all other servers together.
    pub(crate) fn set_elsewhere(&self, held: &HeldByTier) {
        self.all.set_elsewhere(held.all);
        let known: Vec<usize> = self.tiers.read().usage.keys().copied().collect();
        for replicas in known.iter().chain(held.tiers.keys()) {
            let held = held.tiers.get(replicas).copied().unwrap_or_default();
            self.tier(*replicas).set_elsewhere(held);
        }
    }

    /// Whether there is a limit, of all or by tier.
    pub(crate) fn is_limited(&self) -> bool {
        self.all.is_limited() || self.tiers.read().limits.is_some()
    }

    /// Bytes that its streams hold here now.
    pub(crate) fn held(&self) -> HeldByTier {
        let tiers = self.tiers.read();
        let held = tiers.usage.iter();
        HeldByTier {
            all: self.all.held(),
            tiers: held
                .map(|(replicas, usage)| (*replicas, usage.held()))
                .collect(),
        }
    }

    fn tier(&self, replicas: usize) -> Arc<Usage> {
        if let Some(usage) = self.tiers.read().usage.get(&replicas) {
            return Arc::clone(usage);
        }
        let mut tiers = self.tiers.write();
        let usage = Arc::clone(tiers.usage.entry(replicas).or_default());
        tiers.set_limit(replicas, &usage);
        usage
    }
}

/// One stream's part in what its server and its account hold, which goes with the stream, and what the server's settings mean for it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    server: Arc<Usage>,
    account: Arc<AccountUsage>,
    tier: Arc<Usage>,
    replicas: usize,
    terms: StreamTerms,
    storage: Storage,
    counted: u64,
}

impl Meter {
    /// A stream with so many replicas that holds nothing yet.
    pub(crate) fn new(
        server: &Arc<Usage>,
        account: &Arc<AccountUsage>,
        storage: Storage,
        replicas: usize,
    ) -> Self {
        Self {
            server: Arc::clone(server),
            account: Arc::clone(account),
            tier: account.tier(replicas),
            replicas,
            terms: StreamTerms::default(),
            storage,
            counted: 0,
        }
    }

    /// The same for a stream of a server with such settings.
    pub(crate) fn under(mut self, terms: &StreamTerms) -> Self {
        self.terms = terms.clone();
        self
    }

    /// What the server's settings mean for the stream.
    pub(crate) fn terms(&self) -> StreamTerms {
        self.terms.clone()
    }

    /// Notes what the stream, with so many replicas, holds now.
    pub(crate) fn note(&mut self, bytes: u64, replicas: usize) {
        if replicas != self.replicas {
            self.count(0);
            self.replicas = replicas;
            self.tier = self.account.tier(replicas);
        }
        self.count(bytes);
    }

    fn count(&mut self, bytes: u64) {
        if bytes == self.counted {
            return;
        }
        for usage in [&self.server, &self.account.all, &self.tier] {
            let counter = &usage.counter(self.storage).bytes;
            if bytes > self.counted {
                counter.fetch_add(bytes - self.counted, Ordering::Relaxed);
            } else {
                counter.fetch_sub(self.counted - bytes, Ordering::Relaxed);
            }
        }
        self.counted = bytes;
    }

    /// Whether the account may hold so much.
    pub(crate) fn is_account_limited(&self) -> bool {
        self.in_account().any(Counter::is_limited)
    }

    /// What the account's limits are for: all its streams, and those of the tier.
    fn in_account(&self) -> impl Iterator<Item = &Counter> {
        let usages = [&self.account.all, self.tier.as_ref()].into_iter();
        usages.map(|usage| usage.counter(self.storage))
    }

    /// Whether the account would hold too much with so many bytes more, on all servers together.
    pub(crate) fn would_exceed_account(&self, more: u64) -> bool {
        self.in_account().any(|counter| counter.would_exceed(more))
    }

    /// Why nothing more may be stored, if so.
    pub(crate) fn refusal(&self) -> Option<ErrorCode> {
        if self.server.counter(self.storage).is_exceeded() {
            return Some(ErrorCode::InsufficientResources);
        }
        if self.tier.is_closed.load(Ordering::Relaxed) {
            return Some(ErrorCode::NoLimits);
        }
        let exceeded = self.in_account().any(Counter::is_exceeded);
        exceeded.then_some(ErrorCode::AccountResourcesExceeded)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.count(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AccountLimits = AccountLimits {
        max_storage: 60,
        ..AccountLimits::UNLIMITED
    };

    fn meter(server: &Arc<Usage>, account: &Arc<AccountUsage>, replicas: usize) -> Meter {
        Meter::new(server, account, Storage::File, replicas)
    }

    #[test]
    fn streams_fill_their_server_and_their_account_and_empty_them_again() {
        let server = Arc::new(Usage::of_server(u64::MAX, 100));
        let tight = Arc::new(AccountUsage::new(&AccountTiers::of_all(LIMITS)));
        let wide = Arc::new(AccountUsage::default());
        let mut first = meter(&server, &tight, 1);
        let mut second = meter(&server, &wide, 1);
        let memory = Meter::new(&server, &tight, Storage::Memory, 1);
        first.note(60, 1);
        assert_eq!((first.refusal(), second.refusal()), (None, None));
        first.note(61, 1);
        assert_eq!(first.refusal(), Some(ErrorCode::AccountResourcesExceeded));
        assert_eq!((second.refusal(), memory.refusal()), (None, None));
        second.note(40, 1);
        assert_eq!(second.refusal(), Some(ErrorCode::InsufficientResources));
        drop(first);
        assert_eq!(second.refusal(), None);
    }

    #[test]
    fn what_an_account_holds_on_other_servers_counts() {
        let server = Arc::new(Usage::of_server(100, 100));
        let account = Arc::new(AccountUsage::new(&AccountTiers::of_all(LIMITS)));
        assert!(account.is_limited());
        let mut meter = meter(&server, &account, 1);
        meter.note(20, 1);
        assert!(!meter.would_exceed_account(40) && meter.would_exceed_account(41));
        let elsewhere = |all| HeldByTier {
            all,
            ..HeldByTier::default()
        };
        account.set_elsewhere(&elsewhere((1000, 30)));
        assert!(!meter.would_exceed_account(10) && meter.would_exceed_account(11));
        assert_eq!(meter.refusal(), None);
        account.set_elsewhere(&elsewhere((0, 41)));
        assert_eq!(meter.refusal(), Some(ErrorCode::AccountResourcesExceeded));
        assert_eq!(account.held().all, (0, 20), "what is here");
    }

    #[test]
    fn each_tier_has_limits_of_its_own_and_those_count_once_for_all_replicas() {
        let server = Arc::new(Usage::default());
        let limits = AccountTiers {
            all: None,
            tiers: [(1, LIMITS), (3, LIMITS)].into(),
        };
        let account = Arc::new(AccountUsage::new(&limits));
        let (mut one, mut three) = (meter(&server, &account, 1), meter(&server, &account, 3));
        one.note(60, 1);
        three.note(60, 3);
        assert!(one.would_exceed_account(1) && !three.would_exceed_account(120));
        // What the other two replicas hold is elsewhere.
        let tiers = [(3, (0, 120))].into();
        account.set_elsewhere(&HeldByTier {
            all: (0, 120),
            tiers,
        });
        assert!(three.would_exceed_account(3));
        assert_eq!(account.held().tiers, [(1, (0, 60)), (3, (0, 60))].into());
        // One that gets more replicas counts with those.
        one.note(60, 3);
        assert_eq!(account.held().tiers, [(1, (0, 0)), (3, (0, 120))].into());
        assert_eq!(three.refusal(), Some(ErrorCode::AccountResourcesExceeded));
        let stranger = meter(&server, &account, 5);
        assert_eq!(stranger.refusal(), Some(ErrorCode::NoLimits));
        account.set_limits(&AccountTiers::of_all(AccountLimits::UNLIMITED));
        assert!(!account.is_limited());
        assert_eq!((three.refusal(), stranger.refusal()), (None, None));
    }
}
