//! The index of subscriptions by subject pattern: a tree of tokens with a branch for each wildcard.
//!
//! - `node`: the tree; `literals`: the tokens that may stand in one place of it.
//! - `shared`: two trees in turn, so that readers never wait for a change.
//!
//! # Invariant
//! A node without subscriptions and without children does not exist: whatever is inserted and removed
//! again leaves nothing behind.

mod literals;
mod node;
mod shared;

use node::Level;
pub use shared::{Listening, SharedIndex};

/// The most tokens of a pattern. The tree is walked by recursion, so that its depth must have a limit;
/// no line of the default length holds more.
pub const TOKENS_MAX: usize = 2048;

/// What can be kept in a [`SubjectIndex`].
pub trait Indexed: Clone {
    /// A number that no other entry of the index has.
    fn id(&self) -> u64;
}

/// A pattern that is not a valid subject, or has more than [`TOKENS_MAX`] tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid subject")]
pub struct InvalidSubject;

/// One queue group among the matches of a subject.
#[derive(Debug, Clone)]
pub struct QueueGroup<T> {
    /// The group's name.
    pub name: Box<[u8]>,
    /// Its members whose pattern matches; never empty.
    pub members: Vec<T>,
}

/// Everything that matches one subject.
#[derive(Debug, Clone)]
pub struct Matches<T> {
    /// Each of these gets the message.
    pub plain: Vec<T>,
    /// One member of each of these gets the message.
    pub queues: Vec<QueueGroup<T>>,
}

impl<T> Default for Matches<T> {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            queues: Vec::new(),
        }
    }
}

impl<T> Matches<T> {
    /// Whether nothing matches.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.queues.clear();
    }
}

/// Subscriptions by the pattern they listen on.
#[derive(Debug)]
pub struct SubjectIndex<T> {
    root: Level<T>,
    count: usize,
}

impl<T> Default for SubjectIndex<T> {
    fn default() -> Self {
        Self {
            root: Level::default(),
            count: 0,
        }
    }
}

impl<T: Indexed> SubjectIndex<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry under a pattern, as a member of a queue group when one is named.
    pub fn insert(
        &mut self,
        pattern: &[u8],
        queue: Option<&[u8]>,
        entry: T,
    ) -> Result<(), InvalidSubject> {
        if !super::validate::is_valid_subject(pattern)
            || super::validate::token_count(pattern) > TOKENS_MAX
        {
            return Err(InvalidSubject);
        }
        self.root.insert(pattern, queue, entry);
        self.count += 1;
        Ok(())
    }

    /// Removes the entry with this id from under a pattern; whether it was there.
    pub fn remove(&mut self, pattern: &[u8], queue: Option<&[u8]>, id: u64) -> bool {
        let removed = self.root.remove(pattern, queue, id);
        self.count -= usize::from(removed);
        removed
    }

    /// Collects all that matches a subject. A subject with an empty token matches nothing.
    pub fn matches(&self, subject: &[u8], found: &mut Matches<T>) {
        found.clear();
        if !has_empty_token(subject) {
            self.root.visit(subject, &mut |node| {
                node.collect(found);
                false
            });
        }
    }

    /// Shows every entry to `seen`, in no order.
    pub fn for_each(&self, seen: &mut impl FnMut(&T)) {
        self.root.for_each(seen);
    }

    /// Shows every entry to `seen` whose pattern overlaps with this one: some subject matches both. For a literal subject these are its matches.
    pub fn for_each_overlapping(&self, pattern: &[u8], seen: &mut impl FnMut(&T)) {
        if super::validate::is_valid_subject(pattern)
            && super::validate::token_count(pattern) <= TOKENS_MAX
        {
            self.root.for_each_overlapping(pattern, seen);
        }
    }

    /// Whether anything matches a subject.
    pub fn has_match(&self, subject: &[u8]) -> bool {
        !has_empty_token(subject) && self.root.visit(subject, &mut |_| true)
    }

    /// Whether a plain entry, or a member of this queue group, stands under exactly this pattern.
    pub fn holds(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        self.root.holds(pattern, queue)
    }
}

fn has_empty_token(subject: &[u8]) -> bool {
    subject.is_empty() || super::validate::tokens(subject).any(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests;
