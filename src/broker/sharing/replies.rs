//! Answers on their way back to whoever asked from another account.
//!
//! # Invariant
//! What waits is bounded by number and by time: an answer that does not come within its service's threshold is not let through any more,
//! and forgotten when somebody asks again or [`Broker::expire_replies`] is called next. With [`PENDING_MAX`] of them in an account the
//! one that would end first makes room for the next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::service::ServiceImport;
use crate::broker::Broker;
use crate::broker::account::Account;
use crate::broker::subscription::{Subscription, Target};
use crate::config::options::sharing::ResponseType;
use crate::protocol::base62::{BASE, digit};

/// What all of them begin with.
const PREFIX: &[u8] = b"_R_.";
/// Characters of the part that tells servers and accounts apart, and of the one that tells answers apart.
const PART_BYTES: usize = 6;
/// Answers that one account may owe at one time.
const PENDING_MAX: usize = 256 * 1024;

type Key = [u8; PART_BYTES];

/// An answer that is waited for.
#[derive(Clone)]
pub struct PendingReply {
    /// The account that it goes to.
    pub(in crate::broker) to: Arc<Account>,
    /// The subject there.
    pub(in crate::broker) reply: Bytes,
    /// What was asked.
    pub(in crate::broker) import: Arc<ServiceImport>,
    until: Instant,
}

impl PendingReply {
    /// The account that it goes to.
    pub fn account(&self) -> &str {
        self.to.name()
    }

    /// The subject there.
    pub fn reply(&self) -> &Bytes {
        &self.reply
    }

    /// What was asked.
    pub fn import(&self) -> &ServiceImport {
        &self.import
    }
}

/// The answers that one account owes others.
pub(in crate::broker) struct Replies {
    /// `_R_.xxxxxx.`
    prefix: Vec<u8>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    by_key: HashMap<Key, PendingReply>,
    by_end: BTreeSet<(Instant, Key)>,
}

impl Pending {
    fn insert(&mut self, key: Key, reply: PendingReply) {
        self.by_end.insert((reply.until, key));
        self.by_key.insert(key, reply);
    }

    fn remove(&mut self, key: &Key) -> Option<PendingReply> {
        let reply = self.by_key.remove(key)?;
        self.by_end.remove(&(reply.until, *key));
        Some(reply)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, key)) = self.by_end.first().copied() {
            if until > now && self.by_key.len() < PENDING_MAX {
                return;
            }
            self.remove(&key);
        }
    }
}

/// An answer that was begun.
pub(in crate::broker) struct Opened {
    key: Key,
    /// The subject that the asked account sees.
    pub(in crate::broker) subject: Vec<u8>,
}

/// A random part of a subject.
fn part(random: &mut dyn FnMut() -> u32) -> Key {
    let mut left = u64::from(random()) << 32 | u64::from(random());
    let mut part = [0; PART_BYTES];
    for byte in &mut part {
        *byte = digit(left);
        left /= BASE;
    }
    part
}

impl Replies {
    /// Opens a way back for one answer.
    fn open(&self, reply: PendingReply, random: &mut dyn FnMut() -> u32) -> Opened {
        let mut pending = self.pending.lock();
        pending.expire(Instant::now());
        let key = loop {
            let key = part(random);
            if !pending.by_key.contains_key(&key) {
                break key;
            }
        };
        pending.insert(key, reply);
        let subject = [self.prefix.as_slice(), &key].concat();
        Opened { key, subject }
    }

    fn key(&self, subject: &[u8]) -> Option<Key> {
        subject
            .strip_prefix(self.prefix.as_slice())?
            .try_into()
            .ok()
    }

    /// The answer that this subject belongs to. The way of a single one is closed with that.
    pub(in crate::broker) fn take(&self, subject: &[u8]) -> Option<PendingReply> {
        let key = self.key(subject)?;
        let mut pending = self.pending.lock();
        let reply = pending.by_key.get(&key)?;
        if reply.until <= Instant::now() {
            pending.remove(&key);
            return None;
        }
        match reply.import.options.terms.response {
            ResponseType::Singleton => pending.remove(&key),
            ResponseType::Streamed | ResponseType::Chunked => Some(reply.clone()),
        }
    }

    /// A piece of an answer came through: the next may take as long again.
    pub(in crate::broker) fn prolong(&self, subject: &[u8]) {
        let Some(key) = self.key(subject) else {
            return;
        };
        let mut pending = self.pending.lock();
        if let Some(reply) = pending.remove(&key) {
            let until = Instant::now() + reply.import.options.terms.threshold;
            pending.insert(key, PendingReply { until, ..reply });
        }
    }

    /// No more of an answer comes, or is wanted.
    pub(in crate::broker) fn close(&self, subject: &[u8]) {
        if let Some(key) = self.key(subject) {
            self.pending.lock().remove(&key);
        }
    }

    /// The same for one that was just opened.
    pub(in crate::broker) fn take_back(&self, opened: &Opened) {
        self.pending.lock().remove(&opened.key);
    }
}

impl Account {
    /// The way back of this account's answers, once there is one.
    pub(in crate::broker) fn replies(&self) -> Option<&Replies> {
        self.sharing.replies.get()
    }

    /// Opens a way back for the answer to what was asked here from another account.
    pub(in crate::broker) fn open_reply(
        self: &Arc<Self>,
        to: &Arc<Account>,
        reply: Bytes,
        import: &Arc<ServiceImport>,
        random: &mut dyn FnMut() -> u32,
    ) -> Opened {
        let replies = self.sharing.replies.get_or_init(|| {
            let prefix = [PREFIX, &part(random), b"."].concat();
            // Other servers are told, so that whoever answers there is heard here.
            let pattern = Bytes::from([&prefix, &b">"[..]].concat());
            let subscription = Subscription::new(pattern, None, Target::Replies, None);
            self.insert_exit(&Arc::new(subscription));
            Replies {
                prefix,
                pending: Mutex::default(),
            }
        });
        let until = Instant::now() + import.options.terms.threshold;
        replies.open(
            PendingReply {
                to: Arc::clone(to),
                reply,
                import: Arc::clone(import),
                until,
            },
            random,
        )
    }

    /// Where what is published to a reply subject of another account's question goes: the account, and the subject there. Nothing for
    /// other subjects; `None` inside for one that nobody waits for any more.
    pub(in crate::broker) fn behind_reply(
        &self,
        subject: &[u8],
    ) -> Option<Option<(Arc<Account>, Bytes)>> {
        let replies = self.sharing.replies.get()?;
        let key = replies.key(subject)?;
        let pending = replies.pending.lock();
        let reply = pending.by_key.get(&key);
        let reply = reply.filter(|reply| reply.until > Instant::now());
        Some(reply.map(|reply| (Arc::clone(&reply.to), reply.reply.clone())))
    }

    /// The answers that others wait for, by the subject that they are published to here.
    pub fn pending_replies(&self) -> Vec<(Vec<u8>, PendingReply)> {
        let Some(replies) = self.sharing.replies.get() else {
            return Vec::new();
        };
        let pending = replies.pending.lock();
        let all = pending.by_key.iter();
        all.map(|(key, reply)| ([replies.prefix.as_slice(), key].concat(), reply.clone()))
            .collect()
    }
}

impl Broker {
    /// Forgets the answers that did not come in time.
    pub fn expire_replies(&self) {
        let now = Instant::now();
        for account in self.accounts() {
            if let Some(replies) = account.sharing.replies.get() {
                replies.pending.lock().expire(now);
            }
        }
    }
}
