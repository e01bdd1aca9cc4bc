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

/// How the reply subjects of fast batches end. What stands before that says what a message means to its batch, so that whoever answers has to see it.
const FAST_BATCH_SUFFIX: &[u8] = b".$FI";
/// So many words at the end of such a subject are not about where answers go: the batch, and what it wants.
const FAST_BATCH_WORDS: usize = 6;

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Awaited {
    /// The answer to a question.
    Answer,
    /// Whatever a stream has to say of a message of a fast batch: nothing, or more than one thing.
    BatchProgress,
    /// Reports on a traced message, one from each server that it goes to.
    Reports,
}

/// An answer that is waited for.
#[derive(Clone)]
pub struct PendingReply {
    /// The account that it goes to.
    pub(in crate::broker) to: Arc<Account>,
    /// The subject there.
    pub(in crate::broker) reply: Bytes,
    /// What was asked.
    pub(in crate::broker) import: Arc<ServiceImport>,
    pub(in crate::broker) awaited: Awaited,
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

    /// Whether nothing comes after the first.
    fn is_single(&self) -> bool {
        let response = self.import.options.terms.response;
        self.awaited == Awaited::Answer && response == ResponseType::Singleton
    }

    /// Whether it comes in pieces up to an empty one.
    pub(in crate::broker) fn has_pieces(&self) -> bool {
        self.awaited == Awaited::Answer && !self.is_single()
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

/// Whether this is the reply subject of a message of a fast batch.
pub(in crate::broker) fn is_of_fast_batch(reply: &[u8]) -> bool {
    reply.ends_with(FAST_BATCH_SUFFIX)
}

/// What a reply subject says of its fast batch, from the dot before it on.
fn fast_batch_words(reply: &[u8]) -> &[u8] {
    let dots = memchr::memrchr_iter(b'.', reply);
    let begin = dots.take(FAST_BATCH_WORDS).last().unwrap_or(reply.len());
    reply.get(begin..).unwrap_or_default()
}

impl Replies {
    /// Opens a way back for one answer.
    fn open(&self, reply: PendingReply, random: &mut dyn FnMut() -> u32) -> Opened {
        let shown = reply.reply.clone();
        let words = match reply.awaited {
            Awaited::BatchProgress => fast_batch_words(&shown),
            Awaited::Answer | Awaited::Reports => b"",
        };
        let mut pending = self.pending.lock();
        pending.expire(Instant::now());
        let key = loop {
            let key = part(random);
            if !pending.by_key.contains_key(&key) {
                break key;
            }
        };
        pending.insert(key, reply);
        let subject = [self.prefix.as_slice(), &key, words].concat();
        Opened { key, subject }
    }

    fn key(&self, subject: &[u8]) -> Option<Key> {
        let rest = subject.strip_prefix(self.prefix.as_slice())?;
        let (key, words) = rest.split_first_chunk()?;
        (words.is_empty() || words.starts_with(b".")).then_some(*key)
    }

    /// The answer that this subject belongs to; its way stays open.
    pub(in crate::broker) fn find(&self, subject: &[u8]) -> Option<PendingReply> {
        let key = self.key(subject)?;
        let pending = self.pending.lock();
        let reply = pending.by_key.get(&key)?;
        (reply.until > Instant::now()).then(|| reply.clone())
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
        match reply.is_single() {
            true => pending.remove(&key),
            false => Some(reply.clone()),
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
        awaited: Awaited,
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
                awaited,
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
