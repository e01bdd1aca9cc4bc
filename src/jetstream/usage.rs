//! How much streams hold, by server and by account, and when that is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::core::StreamTerms;
use super::limits::AccountLimits;
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
}

impl Usage {
    /// Of a server that has this much.
    pub(crate) fn of_server(memory_max: u64, storage_max: u64) -> Self {
        Self {
            memory: Counter::limited(Some(memory_max)),
            storage: Counter::limited(Some(storage_max)),
        }
    }

    /// Of an account that may use this much.
    pub(crate) fn of_account(limits: &AccountLimits) -> Self {
        Self {
            memory: Counter::limited(limits.bytes_max(Storage::Memory)),
            storage: Counter::limited(limits.bytes_max(Storage::File)),
        }
    }

    /// The server has this much from now on. What is held already stays.
    pub(crate) fn set_server_limits(&self, memory_max: u64, storage_max: u64) {
        self.memory.limit(Some(memory_max));
        self.storage.limit(Some(storage_max));
    }

    /// The account may use this much from now on.
    pub(crate) fn set_account_limits(&self, limits: &AccountLimits) {
        self.memory.limit(limits.bytes_max(Storage::Memory));
        self.storage.limit(limits.bytes_max(Storage::File));
    }

    /// What the account's streams hold on all other servers together.
    pub(crate) fn set_elsewhere(&self, memory: u64, storage: u64) {
        self.memory.elsewhere.store(memory, Ordering::Relaxed);
        self.storage.elsewhere.store(storage, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.memory.is_limited() || self.storage.is_limited()
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

/// One stream's part in what its server and its account hold, which goes with the stream, and what the server's settings mean for it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    server: Arc<Usage>,
    account: Arc<Usage>,
    terms: StreamTerms,
    storage: Storage,
    counted: u64,
}

impl Meter {
    /// A stream that holds nothing yet.
    pub(crate) fn new(server: &Arc<Usage>, account: &Arc<Usage>, storage: Storage) -> Self {
        Self {
            server: Arc::clone(server),
            account: Arc::clone(account),
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

    /// Notes what the stream holds now.
    pub(crate) fn note(&mut self, bytes: u64) {
        if bytes == self.counted {
            return;
        }
        for usage in [&self.server, &self.account] {
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
        self.account.counter(self.storage).is_limited()
    }

    /// Whether the account would hold too much with so many bytes more, on all servers together.
    pub(crate) fn would_exceed_account(&self, more: u64) -> bool {
        self.account.counter(self.storage).would_exceed(more)
    }

    /// Why nothing more may be stored, if so.
    pub(crate) fn refusal(&self) -> Option<ErrorCode> {
        if self.server.counter(self.storage).is_exceeded() {
            return Some(ErrorCode::InsufficientResources);
        }
        let exceeded = self.account.counter(self.storage).is_exceeded();
        exceeded.then_some(ErrorCode::AccountResourcesExceeded)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.note(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_fill_their_server_and_their_account_and_empty_them_again() {
        let server = Arc::new(Usage::of_server(u64::MAX, 100));
        let limits = AccountLimits {
            max_storage: 60,
            ..AccountLimits::default()
        };
        let tight = Arc::new(Usage::of_account(&limits));
        let wide = Arc::new(Usage::of_account(&AccountLimits::default()));
        let mut first = Meter::new(&server, &tight, Storage::File);
        let mut second = Meter::new(&server, &wide, Storage::File);
        let memory = Meter::new(&server, &tight, Storage::Memory);
        first.note(60);
        assert_eq!((first.refusal(), second.refusal()), (None, None));
        first.note(61);
        assert_eq!(first.refusal(), Some(ErrorCode::AccountResourcesExceeded));
        assert_eq!((second.refusal(), memory.refusal()), (None, None));
        second.note(40);
        assert_eq!(second.refusal(), Some(ErrorCode::InsufficientResources));
        drop(first);
        assert_eq!(second.refusal(), None);
    }

    #[test]
    fn what_an_account_holds_on_other_servers_counts() {
        let server = Arc::new(Usage::of_server(100, 100));
        let limits = AccountLimits {
            max_storage: 60,
            ..AccountLimits::default()
        };
        let account = Arc::new(Usage::of_account(&limits));
        assert!(account.is_limited());
        let mut meter = Meter::new(&server, &account, Storage::File);
        meter.note(20);
        assert!(!meter.would_exceed_account(40) && meter.would_exceed_account(41));
        account.set_elsewhere(1000, 30);
        assert!(!meter.would_exceed_account(10) && meter.would_exceed_account(11));
        assert_eq!(meter.refusal(), None);
        account.set_elsewhere(0, 41);
        assert_eq!(meter.refusal(), Some(ErrorCode::AccountResourcesExceeded));
        assert_eq!(account.bytes(Storage::File), 20, "what is here");
    }
}
