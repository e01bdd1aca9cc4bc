//! When messages die by themselves: those with a time of their own, and those that never do.
//!
//! Messages that die by the stream's `max_age` are not listed here: they die in the order of their
//! sequences.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringTreemap;

use crate::store::Expiry;

/// The messages that do not simply die by age.
#[derive(Debug, Default, Clone)]
pub struct ExpiryQueue {
    deadlines: BTreeSet<(i64, u64)>,
    by_sequence: BTreeMap<u64, i64>,
    never: RoaringTreemap,
}

impl ExpiryQueue {
    /// Notes when a message dies.
    pub fn insert(&mut self, sequence: u64, expiry: Expiry) {
        match expiry {
            Expiry::ByAge => {}
            Expiry::At(deadline_ns) => {
                self.by_sequence.insert(sequence, deadline_ns);
                self.deadlines.insert((deadline_ns, sequence));
            }
            Expiry::Never => {
                self.never.insert(sequence);
            }
        }
    }

    /// Forgets a message that is gone.
    pub fn remove(&mut self, sequence: u64) {
        if let Some(deadline_ns) = self.by_sequence.remove(&sequence) {
            self.deadlines.remove(&(deadline_ns, sequence));
        }
        if !self.never.is_empty() {
            self.never.remove(sequence);
        }
    }

    /// How a message dies.
    pub fn get(&self, sequence: u64) -> Expiry {
        if let Some(&deadline_ns) = self.by_sequence.get(&sequence) {
            Expiry::At(deadline_ns)
        } else if self.never.contains(sequence) {
            Expiry::Never
        } else {
            Expiry::ByAge
        }
    }

    /// The message that dies next by a time of its own: its deadline and sequence.
    pub fn first(&self) -> Option<(i64, u64)> {
        self.deadlines.first().copied()
    }

    /// The messages whose time has come, in the order of deadline and sequence.
    pub fn due(&self, now_ns: i64) -> impl Iterator<Item = u64> + '_ {
        let due = self.deadlines.range(..=(now_ns, u64::MAX));
        due.map(|(_, sequence)| *sequence)
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.by_sequence.is_empty() && self.never.is_empty()
    }

    /// Every message with a time of its own, by sequence.
    pub fn deadlines(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.by_sequence
            .iter()
            .map(|(&sequence, &deadline_ns)| (sequence, deadline_ns))
    }

    /// Every message that never dies by age.
    pub fn never(&self) -> &RoaringTreemap {
        &self.never
    }
}
