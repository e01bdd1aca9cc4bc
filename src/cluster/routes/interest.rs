//! What the other server of one connection listens to, in accounts that are here and in such as are not here yet.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::broker::{Account, Subscription, Target};
use crate::protocol::route::parser::Interest;

/// Interest in accounts that are not here, for each connection; what comes beyond that is not remembered.
const WAITING_MAX: usize = 64 * 1024;

/// All of it. Each is known by account, subject and queue group, as one text.
#[derive(Default)]
pub(super) struct RemoteInterest {
    held: HashMap<Box<[u8]>, Held>,
    /// In accounts that are not here.
    waiting: HashMap<Box<[u8]>, Waiting>,
    key: Vec<u8>,
}

/// A subscription of the other server, and the account that it is in.
type Held = (Arc<Account>, Arc<Subscription>);

/// Interest in an account that is not here.
pub(super) struct Waiting {
    account: Bytes,
    subject: Bytes,
    queue: Option<Bytes>,
    weight: u32,
}

impl Waiting {
    fn new(interest: &Interest<'_>) -> Self {
        Self {
            account: Bytes::copy_from_slice(interest.account),
            subject: Bytes::copy_from_slice(interest.subject),
            queue: interest.queue.map(Bytes::copy_from_slice),
            weight: interest.weight,
        }
    }

    /// As it was told.
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest {
            account: &self.account,
            subject: &self.subject,
            queue: self.queue.as_deref(),
            weight: self.weight,
        }
    }
}

impl RemoteInterest {
    fn key_of(&mut self, interest: &Interest<'_>) {
        self.key.clear();
        for part in [interest.account, interest.subject] {
            self.key.extend_from_slice(part);
            self.key.push(b' ');
        }
        if let Some(queue) = interest.queue {
            self.key.extend_from_slice(queue);
        }
    }

    /// What it is told of in accounts that are here.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The subscription that stands for it already, with its account.
    pub(super) fn get(&mut self, interest: &Interest<'_>) -> Option<&Held> {
        self.key_of(interest);
        self.held.get(&*self.key)
    }

    /// A subscription stands for it from now on.
    pub(super) fn put(
        &mut self,
        interest: &Interest<'_>,
        account: Arc<Account>,
        subscription: Arc<Subscription>,
    ) {
        self.key_of(interest);
        let key = self.key.as_slice().into();
        self.held.insert(key, (account, subscription));
    }

    /// Its account is not here: it is remembered until that is.
    pub(super) fn wait(&mut self, interest: &Interest<'_>) {
        self.key_of(interest);
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&*self.key) {
            let key = self.key.as_slice().into();
            self.waiting.insert(key, Waiting::new(interest));
        }
    }

    /// Nothing of these accounts counts any more.
    pub(super) fn forget(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.held.retain(|_, (account, subscription)| {
            let is_meant = is_meant(account.name());
            if is_meant {
                account.remove(subscription);
            }
            !is_meant
        });
        self.waiting.retain(|_, waiting| {
            let name = std::str::from_utf8(&waiting.account);
            !name.is_ok_and(&is_meant)
        });
    }

    /// Looks at all of it again: `again` says what is to stand for it, the same, another subscription or nothing.
    pub(super) fn renew(
        &mut self,
        again: impl Fn(&Interest<'_>, &Arc<Subscription>) -> Option<Arc<Subscription>>,
    ) {
        self.held.retain(|key, (account, subscription)| {
            let interest = Interest {
                account: named(key),
                subject: &subscription.subject,
                queue: subscription.queue.as_deref(),
                weight: weight(subscription),
            };
            match again(&interest, subscription) {
                None => {
                    account.remove(subscription);
                    false
                }
                Some(same) if Arc::ptr_eq(&same, subscription) => true,
                Some(other) => {
                    // The new one first: no message may find neither, and one that finds both is sent once.
                    if account.insert(&other).is_ok() {
                        account.remove(subscription);
                        *subscription = other;
                    }
                    true
                }
            }
        });
    }

    /// It is over. What stood for it is given back.
    pub(super) fn remove(&mut self, interest: &Interest<'_>) -> Option<Held> {
        self.key_of(interest);
        self.waiting.remove(&*self.key);
        self.held.remove(&*self.key)
    }

    /// All is over.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Held> + '_ {
        self.waiting.clear();
        self.held.drain().map(|(_, held)| held)
    }

    /// Accounts have come or gone: gives back all that waits for one, for another look, and what is in accounts that `is_here` does not know any more.
    pub(super) fn review(&mut self, is_here: impl Fn(&Arc<Account>) -> bool) -> Vec<Waiting> {
        let mut waiting: Vec<_> = std::mem::take(&mut self.waiting).into_values().collect();
        let gone = self.held.extract_if(|_, (account, _)| !is_here(account));
        for (key, (account, subscription)) in gone {
            account.remove(&subscription);
            waiting.push(Waiting {
                account: Bytes::copy_from_slice(named(&key)),
                subject: subscription.subject.clone(),
                queue: subscription.queue.clone(),
                weight: weight(&subscription),
            });
        }
        waiting
    }
}

/// The account as the other server named it, which a key begins with.
fn named(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == b' ').next().unwrap_or_default()
}

fn weight(subscription: &Subscription) -> u32 {
    match &subscription.target {
        Target::Route { weight, .. } => weight.get(),
        _ => 1,
    }
}
