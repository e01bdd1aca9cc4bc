//! Everything that changes a ledger.

use super::*;
use crate::store::shelf::{Facts, Neighbors};
use crate::store::{Discard, Expiry, Removal};

impl<S: Shelf> Ledger<S> {
    pub(super) fn append_message(
        &mut self,
        message: &NewMessage<'_>,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.begin()?;
        let last = self.totals.last_sequence;
        if message.sequence != last + 1 {
            return Err(ChangeError::OutOfOrder {
                given: message.sequence,
                last,
            });
        }
        let id = self.put(message);
        if let Some(max) = self.limits.per_subject_max {
            self.keep_newest(message.subject, id, max, removals);
        }
        self.keep_within_totals(removals);
        Ok(())
    }

    /// Whether a change may be made; what goes on beside changes is seen to first.
    pub(super) fn begin(&mut self) -> Result<(), ChangeError> {
        self.shelf.upkeep(&self.limits, &self.expiry);
        self.shelf.check()
    }

    /// Stores a message without looking at limits.
    pub(in crate::store) fn put(&mut self, message: &NewMessage<'_>) -> SubjectId {
        let id = self.index.insert(message.subject);
        let span = self.index.value_mut(id);
        let previous = if span.messages == 0 { 0 } else { span.last };
        if span.messages == 0 {
            span.first = message.sequence;
        }
        span.messages += 1;
        span.last = message.sequence;
        self.shelf.push(message, id, previous);
        self.expiry.insert(message.sequence, message.expiry);

        let totals = &mut self.totals;
        if totals.messages == 0 {
            totals.first_sequence = message.sequence;
            self.first_time_ns.set(Some(message.time_ns));
        }
        totals.messages += 1;
        totals.bytes += self.shelf.accounting().bytes(
            message.subject.len(),
            message.headers.len(),
            message.payload.len(),
        );
        totals.last_sequence = message.sequence;
        totals.last_time_ns = message.time_ns;
        id
    }

    /// Removes the oldest on a subject until `max` are left.
    fn keep_newest(
        &mut self,
        subject: &[u8],
        id: SubjectId,
        max: u64,
        removals: &mut dyn Removals,
    ) {
        let max = max.max(1);
        loop {
            let topic = self.topic(subject, id);
            if topic.span.messages <= max {
                return;
            }
            let first = self.exact_first(&topic);
            self.index.value_mut(id).first = first;
            if !self.remove(first, Deletion::Unlink, removals) {
                return;
            }
        }
    }

    fn keep_within_totals(&mut self, removals: &mut dyn Removals) {
        if self.limits.discard == Discard::New {
            return;
        }
        let messages_max = self.limits.messages_max.unwrap_or(u64::MAX);
        let bytes_max = self.limits.bytes_max.unwrap_or(u64::MAX);
        while self.totals.messages > messages_max || self.totals.bytes > bytes_max {
            if !self.remove(self.totals.first_sequence, Deletion::Unlink, removals) {
                return;
            }
        }
    }

    pub(super) fn skip_to(&mut self, last_sequence: u64, time_ns: i64) -> Result<(), ChangeError> {
        self.begin()?;
        let last = self.totals.last_sequence;
        if last_sequence <= last {
            return Err(ChangeError::OutOfOrder {
                given: last_sequence,
                last,
            });
        }
        self.totals.last_sequence = last_sequence;
        self.totals.last_time_ns = time_ns;
        if self.totals.messages == 0 {
            self.set_first(last_sequence + 1);
        }
        Ok(())
    }

    /// Removes one message; `false` when it is not live.
    pub(super) fn remove(
        &mut self,
        sequence: u64,
        deletion: Deletion,
        removals: &mut dyn Removals,
    ) -> bool {
        if sequence < self.totals.first_sequence {
            return false;
        }
        let Some(facts) = self.shelf.facts(sequence) else {
            return false;
        };
        let neighbors = self.shelf.remove(sequence, deletion);
        if !self.expiry.is_empty() {
            self.expiry.remove(sequence);
        }
        self.totals.messages = self.totals.messages.saturating_sub(1);
        self.totals.bytes = self.totals.bytes.saturating_sub(facts.bytes);
        self.forget_on_subject(&facts, sequence, neighbors);
        if sequence == self.totals.first_sequence {
            let next = match self.totals.messages {
                0 => None,
                _ => self.shelf.next_live(sequence + 1),
            };
            self.set_first(next.unwrap_or(self.totals.last_sequence + 1));
        }
        removals.removed(Removal {
            sequence,
            subject: &facts.subject,
            bytes: facts.bytes,
        });
        true
    }

    /// The time of the first message is to be looked up again.
    pub(in crate::store) fn forget_first_time(&mut self) {
        self.first_time_ns.set(None);
    }

    fn set_first(&mut self, first: u64) {
        self.totals.first_sequence = first;
        self.first_time_ns.set(None);
        self.shelf.first_moved(first);
    }

    fn forget_on_subject(&mut self, facts: &Facts, sequence: u64, neighbors: Neighbors) {
        let Some(id) = facts.id.or_else(|| self.index.find(&facts.subject)) else {
            return;
        };
        let span = self.index.value_mut(id);
        span.messages = span.messages.saturating_sub(1);
        if span.messages == 0 {
            self.index.remove(&facts.subject);
            return;
        }
        if sequence == span.last {
            // A neighbour may itself be gone by now, when it lies where links are not kept up.
            let upto = neighbors.previous.unwrap_or(sequence - 1);
            let topic = self.topic(&facts.subject, id);
            let last = if neighbors.previous.is_some() && self.shelf.is_live(upto) {
                Some(upto)
            } else {
                self.shelf.previous_on(&topic, upto)
            };
            let span = self.index.value_mut(id);
            span.last = last.unwrap_or(span.first);
        } else if sequence == span.first {
            // What the stream's own beginning removes is skipped by that beginning; what is removed behind it would be walked
            // over with every search for the first one.
            let behind = sequence > self.totals.first_sequence;
            let next = neighbors.next.or_else(|| {
                let topic = self.topic(&facts.subject, id);
                behind.then(|| self.shelf.next_on(&topic, sequence + 1))?
            });
            if let Some(next) = next {
                self.index.value_mut(id).first = next;
            }
        }
        let span = self.index.value_mut(id);
        if span.messages == 1 {
            span.first = span.last;
        }
    }

    pub(super) fn purge_matching(
        &mut self,
        purge: &Purge,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        self.begin()?;
        if purge.filter.is_everything() && purge.keep == 0 {
            return match purge.below_sequence {
                None => Ok(self.clear(self.totals.last_sequence + 1, removals)),
                Some(below) => self.compact_below(below, removals),
            };
        }
        let matching = self.count_every(0, &purge.filter);
        let removed_max = matching.saturating_sub(purge.keep);
        let below = purge.below_sequence.unwrap_or(u64::MAX);
        let mut removed = 0;
        let mut from = 0;
        while removed < removed_max {
            let Some(sequence) = self.find_next(from, &purge.filter) else {
                break;
            };
            if sequence >= below || !self.remove(sequence, Deletion::Unlink, removals) {
                break;
            }
            removed += 1;
            from = sequence + 1;
        }
        Ok(removed)
    }

    /// Removes everything; the next sequence is `first`.
    fn clear(&mut self, first: u64, removals: &mut dyn Removals) -> u64 {
        let Totals {
            messages,
            bytes,
            last_sequence,
            ..
        } = self.totals;
        if messages > 0 && !removals.cleared(messages, bytes, last_sequence) {
            let mut from = self.totals.first_sequence;
            while let Some(sequence) = self.shelf.next_live(from) {
                if let Some(facts) = self.shelf.facts(sequence) {
                    removals.removed(Removal {
                        sequence,
                        subject: &facts.subject,
                        bytes: facts.bytes,
                    });
                }
                from = sequence + 1;
            }
        }
        self.shelf.clear();
        self.index.clear();
        self.expiry = ExpiryQueue::default();
        self.totals.messages = 0;
        self.totals.bytes = 0;
        self.totals.last_sequence = first.saturating_sub(1);
        self.set_first(first);
        messages
    }

    pub(super) fn compact_below(
        &mut self,
        first_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        self.begin()?;
        if first_sequence > self.totals.last_sequence {
            return Ok(self.clear(first_sequence, removals));
        }
        let mut removed = 0;
        while self.totals.messages > 0 && self.totals.first_sequence < first_sequence {
            if !self.remove(self.totals.first_sequence, Deletion::Unlink, removals) {
                break;
            }
            removed += 1;
        }
        Ok(removed)
    }

    pub(super) fn truncate_above(
        &mut self,
        last_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.begin()?;
        if last_sequence >= self.totals.last_sequence {
            return Ok(());
        }
        while self.totals.messages > 0
            && let Some(sequence) = self.shelf.previous_live(self.totals.last_sequence)
            && sequence > last_sequence
            && self.remove(sequence, Deletion::Unlink, removals)
        {}
        self.totals.last_sequence = last_sequence;
        self.age_cursor = self.age_cursor.min(last_sequence);
        if last_sequence == 0 {
            self.totals = Totals::default();
            self.damage.take();
        } else if let Some(time_ns) = self.shelf.deciding_time_ns(last_sequence)
            && last_sequence >= self.totals.first_sequence
        {
            self.totals.last_time_ns = time_ns;
        }
        self.shelf.truncate(last_sequence);
        if self.totals.messages == 0 {
            self.set_first(match last_sequence {
                0 => 0,
                last => last + 1,
            });
        }
        Ok(())
    }

    pub(super) fn expire_at(
        &mut self,
        now_ns: i64,
        removals_max: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        self.begin()?;
        let mut removed = 0;
        if let Some(age_max_ns) = self.limits.age_max_ns {
            self.move_age_cursor();
            while removed < removals_max
                && let Some(sequence) = self.next_aging()
                && let Some(time_ns) = self.shelf.deciding_time_ns(sequence)
                && time_ns.saturating_add(age_max_ns) <= now_ns
                && self.remove(sequence, Deletion::Unlink, removals)
            {
                removed += 1;
                self.move_age_cursor();
            }
        }
        while removed < removals_max
            && let Some((deadline_ns, sequence)) = self.expiry.first()
            && deadline_ns <= now_ns
        {
            if self.remove(sequence, Deletion::Unlink, removals) {
                removed += 1;
            } else {
                self.expiry.remove(sequence);
            }
        }
        Ok(removed)
    }

    fn move_age_cursor(&mut self) {
        self.age_cursor = self.next_aging().unwrap_or(self.totals.last_sequence + 1);
    }

    /// The first live message that dies by age.
    pub(super) fn next_aging(&self) -> Option<u64> {
        if self.totals.messages == 0 {
            return None;
        }
        let mut from = self.age_cursor.max(self.totals.first_sequence);
        loop {
            let sequence = self.shelf.next_live(from)?;
            if self.expiry.get(sequence) != Expiry::Never {
                return Some(sequence);
            }
            from = sequence + 1;
        }
    }

    pub(super) fn apply_limits(
        &mut self,
        limits: Limits,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.begin()?;
        self.limits = limits;
        self.keep_within_totals(removals);
        let Some(max) = limits.per_subject_max else {
            return Ok(());
        };
        let mut crowded = Vec::new();
        self.index.iterate(|subject, id, span| {
            if span.messages > max {
                crowded.push((subject.to_vec(), id));
            }
            true
        });
        for (subject, id) in crowded {
            self.keep_newest(&subject, id, max, removals);
        }
        Ok(())
    }
}
