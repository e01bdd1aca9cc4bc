//! Watching whether anybody has subscribed to a literal subject by its own name. A wildcard that would match it is not
//! counted, as in the reference: whoever only looks on must not set a push consumer going.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use parking_lot::Mutex;

use super::account::Account;

/// Learns about the interest in a subject.
pub trait InterestTarget: Send + Sync {
    /// Interest appeared (`true`) or disappeared. Called by whoever subscribed or unsubscribed, with
    /// the watch list locked: it must not block and must not touch subscriptions or watches.
    fn interest_changed(&self, tag: u64, interested: bool);
}

/// A watch on a subject; it ends when this is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct InterestWatch {
    account: Arc<Account>,
    subject: Box<str>,
    id: u64,
    interested: bool,
}

impl InterestWatch {
    /// Whether there was interest when the watch began.
    pub fn interested_at_start(&self) -> bool {
        self.interested
    }
}

impl Drop for InterestWatch {
    fn drop(&mut self) {
        self.account.watches.remove(&self.subject, self.id);
    }
}

struct Watch {
    id: u64,
    queue: Option<Box<[u8]>>,
    target: Arc<dyn InterestTarget>,
    tag: u64,
    interested: bool,
}

/// All watches of an account by the literal subject they look at.
#[derive(Default)]
pub(super) struct Watches {
    by_subject: Mutex<HashMap<Box<[u8]>, Vec<Watch>>>,
    /// Read without the lock, so that an account without watches pays nothing.
    count: AtomicUsize,
    last_id: AtomicU64,
}

impl Watches {
    fn remove(&self, subject: &str, id: u64) {
        let mut by_subject = self.by_subject.lock();
        let Some(watches) = by_subject.get_mut(subject.as_bytes()) else {
            return;
        };
        let before = watches.len();
        watches.retain(|watch| watch.id != id);
        self.count
            .fetch_sub(before - watches.len(), Ordering::SeqCst);
        if watches.is_empty() {
            by_subject.remove(subject.as_bytes());
        }
    }
}

impl Account {
    /// Whether anybody would receive what is published to a literal subject. Whoever waits for an answer in another account is looked
    /// for there.
    pub fn has_interest(&self, subject: &str) -> bool {
        match self.behind_reply(subject.as_bytes()) {
            Some(Some((account, reply))) => {
                std::str::from_utf8(&reply).is_ok_and(|reply| account.has_interest(reply))
            }
            Some(None) => false,
            None => self.index.read(|index| index.has_match(subject.as_bytes())),
        }
    }

    /// Whether a subscription names this very subject: a plain one, or one of that queue group.
    pub fn is_subscribed(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        self.index.read(|index| index.holds(subject, queue))
    }

    /// Reports from now on when subscriptions that name a literal subject appear or disappear: plain
    /// ones, or those of one queue group.
    pub fn watch_interest(
        self: &Arc<Self>,
        subject: &str,
        queue: Option<&str>,
        target: Arc<dyn InterestTarget>,
        tag: u64,
    ) -> InterestWatch {
        let id = self.watches.last_id.fetch_add(1, Ordering::Relaxed);
        let queue = queue.map(|name| Box::from(name.as_bytes()));
        let mut by_subject = self.watches.by_subject.lock();
        // Counted before the index is read: whoever subscribes after that sees the count and waits
        // for the lock, so that no change falls between. The fence stands against the one there.
        self.watches.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let interested = self
            .index
            .read(|index| index.holds(subject.as_bytes(), queue.as_deref()));
        by_subject
            .entry(subject.as_bytes().into())
            .or_default()
            .push(Watch {
                id,
                queue,
                target,
                tag,
                interested,
            });
        InterestWatch {
            account: Arc::clone(self),
            subject: subject.into(),
            id,
            interested,
        }
    }

    /// Looks again at all watches that a change under this pattern concerns.
    pub(super) fn interest_may_have_changed(&self, pattern: &[u8]) {
        fence(Ordering::SeqCst);
        if self.watches.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut by_subject = self.watches.by_subject.lock();
        if let Some(watches) = by_subject.get_mut(pattern) {
            self.look_again(pattern, watches);
        }
    }

    fn look_again(&self, subject: &[u8], watches: &mut [Watch]) {
        for watch in watches {
            let interested = self
                .index
                .read(|index| index.holds(subject, watch.queue.as_deref()));
            if interested != watch.interested {
                watch.interested = interested;
                watch.target.interest_changed(watch.tag, interested);
            }
        }
    }
}
