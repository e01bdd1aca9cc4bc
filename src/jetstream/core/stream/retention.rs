//! Interest and work-queue retention: messages leave when nobody needs them any more.

use storage::filter::Filter;
use storage::store::{ChangeError, Deletion, Removal, Removals};

use super::StreamCore;
use crate::jetstream::core::consumer::Rules;
use crate::jetstream::core::digest::mix;
use crate::jetstream::types::Retention;

/// Collects what a change removes, with the subjects.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Sequence, and where its subject begins and ends in `subjects`.
    items: Vec<(u64, usize, usize)>,
    subjects: Vec<u8>,
    /// Nobody asks which ones: only their sum is kept.
    only_sum: bool,
    /// The sequences, mixed and summed.
    pub(super) sum: u64,
}

impl Removals for Gone {
    fn removed(&mut self, removal: Removal<'_>) {
        self.sum = self.sum.wrapping_add(mix(removal.sequence));
        if self.only_sum {
            return;
        }
        let begin = self.subjects.len();
        self.subjects.extend_from_slice(removal.subject);
        self.items
            .push((removal.sequence, begin, self.subjects.len()));
    }

    fn cleared(&mut self, messages: u64, bytes: u64, last_sequence: u64) -> bool {
        if self.only_sum {
            self.sum = self
                .sum
                .wrapping_add(mix(messages ^ mix(bytes ^ mix(last_sequence))));
        }
        self.only_sum
    }
}

impl Gone {
    /// Keeps no more than the sum.
    pub(super) fn only_sum() -> Self {
        Self {
            only_sum: true,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Goes through what is gone in the order of sequences, which stores do not promise and consumers may notice.
    pub(super) fn each_in_order(&mut self, mut visit: impl FnMut(u64, &[u8])) {
        if !self.items.is_sorted() {
            self.items.sort_unstable();
        }
        for (sequence, begin, end) in &self.items {
            let subject = self.subjects.get(*begin..*end).unwrap_or_default();
            visit(*sequence, subject);
        }
    }
}

impl StreamCore {
    /// Whether an interest stream has a consumer for a subject.
    pub(super) fn is_wanted(&self, subject: &[u8]) -> bool {
        self.config.retention != Retention::Interest
            || self
                .consumers
                .values()
                .any(|consumer| consumer.rules.matches(subject))
    }

    /// A consumer is done with a message: it leaves unless somebody else needs it.
    pub(super) fn release(&mut self, sequence: u64, gone: &mut Gone) -> Result<(), ChangeError> {
        if self.config.retention == Retention::Limits {
            return Ok(());
        }
        // In a work queue filters do not overlap: whoever acknowledges a message is the only one who wanted it.
        let alone = self.config.retention == Retention::Workqueue || self.consumers.len() == 1;
        if !alone && self.is_needed(sequence) {
            return Ok(());
        }
        self.store.delete(sequence, Deletion::Unlink, gone)?;
        Ok(())
    }

    fn is_needed(&self, sequence: u64) -> bool {
        let mut subject = None;
        self.consumers.values().any(|consumer| {
            if !consumer.progress.needs(consumer.rules.ack, sequence) {
                return false;
            }
            if consumer.rules.everything {
                return true;
            }
            let subject = subject.get_or_insert_with(|| match self.store.load(sequence) {
                Ok(Some(message)) => Some(message.subject),
                _ => None,
            });
            match subject {
                Some(subject) => consumer.rules.matches(subject),
                // Damage here must not decide what stays: the index knows the subject still.
                None => {
                    let filter = &consumer.rules.filter;
                    self.store.next_sequence(sequence, filter) == Some(sequence)
                }
            }
        })
    }

    /// Removes what consumers have wanted and none needs any more, after the retention has changed. What nobody has ever wanted stays:
    /// a stream without consumers loses nothing.
    pub(super) fn sweep_finished(&mut self, gone: &mut Gone) -> Result<(), ChangeError> {
        if self.config.retention != Retention::Interest {
            return Ok(());
        }
        let mut from = self.store.state().first_sequence;
        while let Some(sequence) = self.next_wanted(from) {
            if !self.is_needed(sequence) {
                self.store.delete(sequence, Deletion::Unlink, gone)?;
            }
            from = sequence + 1;
        }
        Ok(())
    }

    /// The first message at or after `from` that any consumer is for.
    fn next_wanted(&self, from: u64) -> Option<u64> {
        let consumers = self.consumers.values();
        let next = |rules: &Rules| self.store.next_sequence(from, &rules.filter);
        consumers.filter_map(|consumer| next(&consumer.rules)).min()
    }

    /// Removes what no consumer needs, after consumers or filters have changed.
    pub(super) fn sweep(&mut self, gone: &mut Gone) -> Result<(), ChangeError> {
        if self.config.retention != Retention::Interest {
            return Ok(());
        }
        let everything = Filter::everything();
        let mut from = self.store.state().first_sequence;
        while let Some(sequence) = self.store.next_sequence(from, &everything) {
            if !self.is_needed(sequence) {
                self.store.delete(sequence, Deletion::Unlink, gone)?;
            }
            from = sequence + 1;
        }
        Ok(())
    }
}
