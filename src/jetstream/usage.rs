//! How much streams hold, by server and by account, and when that is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::AccountLimits;
use super::types::{ErrorCode, Storage};

/// Accounted bytes in one place, with a limit. Counted while streams run, from nothing at each start.
#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    /// `None` is no limit.
    bytes_max: Option<u64>,
}

impl Counter {
    fn limited(bytes_max: Option<u64>) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            bytes_max,
        }
    }

    fn is_exceeded(&self) -> bool {
        self.bytes_max
            .is_some_and(|max| self.bytes.load(Ordering::Relaxed) > max)
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

    /// Bytes that are held now.
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

/// One stream's part in what its server and its account hold; the part goes with the stream.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    server: Arc<Usage>,
    account: Arc<Usage>,
    storage: Storage,
    counted: u64,
}

impl Meter {
    /// A stream that holds nothing yet.
    pub(crate) fn new(server: &Arc<Usage>, account: &Arc<Usage>, storage: Storage) -> Self {
        Self {
            server: Arc::clone(server),
            account: Arc::clone(account),
            storage,
            counted: 0,
        }
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
}
