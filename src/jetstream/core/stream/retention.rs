//! Interest and work-queue retention: messages leave when nobody needs them any more.

use storage::filter::Filter;
use storage::store::{ChangeError, Deletion, Removal, Removals};

use super::StreamCore;
use crate::jetstream::types::Retention;

/// Collects what a change removes, with the subjects.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Sequence, and where its subject ends in `subjects`.
    items: Vec<(u64, usize)>,
    subjects: Vec<u8>,
}

impl Removals for Gone {
    fn removed(&mut self, removal: Removal<'_>) {
        self.subjects.extend_from_slice(removal.subject);
        self.items.push((removal.sequence, self.subjects.len()));
    }
}

impl Gone {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn each(&self, mut visit: impl FnMut(u64, &[u8])) {
        let mut start = 0;
        for (sequence, end) in &self.items {
            visit(
                *sequence,
                self.subjects.get(start..*end).unwrap_or_default(),
            );
            start = *end;
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
            subject
                .as_ref()
                .is_some_and(|subject| consumer.rules.matches(subject))
        })
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
