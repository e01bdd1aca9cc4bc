//! The accounts that have JetStream. A reload gives it to others and takes it away.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::limits::{AccountLimits, AccountTiers};
use super::registry::{AccountStreams, Found};

/// All of them, by name.
#[derive(Default)]
pub(crate) struct Accounts {
    with: RwLock<HashMap<String, Arc<AccountStreams>>>,
    /// Streams of accounts that have none, as a start found them or as they were left when an account lost it: they wait until it has.
    unlisted: Mutex<HashMap<String, Vec<Found>>>,
}

impl Accounts {
    /// Those that have it from the start, and what was found then.
    pub(crate) fn new(enabled: &[(String, AccountTiers)], recovered: Vec<(String, Found)>) -> Self {
        let accounts = Self::default();
        for (name, limits) in enabled {
            accounts.enable(name, limits.clone());
        }
        for (name, found) in recovered {
            match accounts.get(&name) {
                Some(account) => account.found(found),
                None => {
                    let stream = found.name();
                    tracing::warn!(
                        "JetStream stream '{name} > {stream}' belongs to an account without JetStream"
                    );
                    accounts.unlist(&name, vec![found]);
                }
            }
        }
        accounts
    }

    /// The streams of an account that has it.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<AccountStreams>> {
        self.with.read().get(name).cloned()
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<AccountStreams>> {
        self.with.read().values().cloned().collect()
    }

    /// Their names, in no order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.with.read().keys().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.with.read().len()
    }

    /// An account has it from now on, with what a start has found of it.
    pub(crate) fn enable(&self, name: &str, limits: AccountTiers) -> Arc<AccountStreams> {
        let account = Arc::new(AccountStreams::new(name, limits));
        for found in self.unlisted.lock().remove(name).unwrap_or_default() {
            account.found(found);
        }
        let known = Arc::clone(&account);
        self.with.write().insert(name.to_owned(), known);
        account
    }

    /// Streams of an account that has no JetStream, which cannot run when it has.
    pub(crate) fn unlist(&self, name: &str, found: Vec<Found>) {
        if !found.is_empty() {
            let mut unlisted = self.unlisted.lock();
            unlisted.entry(name.to_owned()).or_default().extend(found);
        }
    }

    /// The streams that a start found of accounts that have none, and let run; nobody waits for them here any more.
    pub(crate) fn take_unlisted(&self) -> Vec<AccountStreams> {
        let mut unlisted = self.unlisted.lock();
        let streams = unlisted.iter_mut().map(|(name, all)| {
            let account = AccountStreams::new(name, AccountTiers::of_all(AccountLimits::UNLIMITED));
            let runs = |found: &mut Found| matches!(found, Found::Running(_));
            for found in all.extract_if(.., runs) {
                account.found(found);
            }
            account
        });
        streams.collect()
    }

    /// An account has it no more. Which of its streams could not be brought back is known again when it has.
    pub(crate) fn disable(&self, name: &str) -> Option<Arc<AccountStreams>> {
        let account = self.with.write().remove(name)?;
        let offline = account.all_offline().into_iter();
        let offline: Vec<_> = offline
            .map(|(stream, reason)| Found::Offline {
                consumers: account.unsupported_consumers(&stream).unwrap_or_default(),
                name: stream,
                reason,
            })
            .collect();
        self.unlist(name, offline);
        Some(account)
    }
}
