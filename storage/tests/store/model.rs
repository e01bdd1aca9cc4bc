//! The store as a plain list: slow, and obviously right.

use std::collections::BTreeMap;

use storage::filter::Filter;
use storage::store::{
    Accounting, ChangeError, Counting, Deletion, Discard, Expiry, Limits, Message, NewMessage,
    Purge, ReadError, Removal, Removals, State, Store, SubjectState,
};

#[derive(Clone)]
struct Held {
    message: Message,
    expiry: Expiry,
}

impl Held {
    fn bytes(&self, accounting: Accounting) -> u64 {
        let Message {
            subject,
            headers,
            payload,
            ..
        } = &self.message;
        accounting.bytes(subject.len(), headers.len(), payload.len())
    }
}

/// A list of messages with the meaning of a store.
#[derive(Clone, Default)]
pub struct ModelStore {
    held: Vec<Held>,
    limits: Limits,
    accounting: Accounting,
    first: u64,
    last: u64,
    last_time_ns: i64,
}

impl ModelStore {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// A model of another store: it counts as that one does.
    pub fn of(limits: Limits, store: &dyn Store) -> Self {
        Self {
            accounting: store.accounting(),
            ..Self::new(limits)
        }
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl DoubleEndedIterator<Item = &'a Held> {
        self.held
            .iter()
            .filter(|held| filter.matches(&held.message.subject))
    }

    fn remove_where(
        &mut self,
        removals: &mut dyn Removals,
        mut dead: impl FnMut(&Held) -> bool,
    ) -> u64 {
        let mut removed = 0;
        let accounting = self.accounting;
        self.held.retain(|held| {
            let gone = dead(held);
            if gone {
                removed += 1;
                removals.removed(Removal {
                    sequence: held.message.sequence,
                    subject: &held.message.subject,
                    bytes: held.bytes(accounting),
                });
            }
            !gone
        });
        if removed > 0 {
            self.settle();
        }
        removed
    }

    fn settle(&mut self) {
        self.first = match self.held.first() {
            Some(held) => held.message.sequence,
            None => self.last + 1,
        };
    }

    fn remove_sequence(&mut self, sequence: u64, removals: &mut dyn Removals) -> u64 {
        self.remove_where(removals, |held| held.message.sequence == sequence)
    }

    fn totals(&self) -> (u64, u64) {
        let bytes = self
            .held
            .iter()
            .map(|held| held.bytes(self.accounting))
            .sum();
        (self.held.len() as u64, bytes)
    }

    fn enforce_totals(&mut self, removals: &mut dyn Removals) {
        if self.limits.discard == Discard::New {
            return;
        }
        loop {
            let (messages, bytes) = self.totals();
            if messages <= self.limits.messages_max.unwrap_or(u64::MAX)
                && bytes <= self.limits.bytes_max.unwrap_or(u64::MAX)
            {
                return;
            }
            self.remove_sequence(self.first, removals);
        }
    }

    fn enforce_subject(&mut self, subject: &[u8], removals: &mut dyn Removals) {
        let Some(max) = self.limits.per_subject_max else {
            return;
        };
        let on: Vec<u64> = self
            .held
            .iter()
            .filter(|held| held.message.subject == subject)
            .map(|held| held.message.sequence)
            .collect();
        for sequence in on.iter().take(on.len().saturating_sub(max.max(1) as usize)) {
            self.remove_sequence(*sequence, removals);
        }
    }

    fn clear(&mut self, first: u64, removals: &mut dyn Removals) -> u64 {
        let removed = self.remove_where(removals, |_| true);
        self.first = first;
        self.last = first - 1;
        removed
    }
}

impl Store for ModelStore {
    fn append(
        &mut self,
        message: &NewMessage<'_>,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        if message.sequence != self.last + 1 {
            return Err(ChangeError::OutOfOrder {
                given: message.sequence,
                last: self.last,
            });
        }
        self.last = message.sequence;
        self.last_time_ns = message.time_ns;
        self.held.push(Held {
            message: Message {
                sequence: message.sequence,
                time_ns: message.time_ns,
                subject: message.subject.to_vec().into(),
                headers: message.headers.to_vec().into(),
                payload: message.payload.to_vec().into(),
            },
            expiry: message.expiry,
        });
        self.settle();
        self.enforce_subject(message.subject, removals);
        self.enforce_totals(removals);
        Ok(())
    }

    fn skip(&mut self, last_sequence: u64, time_ns: i64) -> Result<(), ChangeError> {
        if last_sequence <= self.last {
            return Err(ChangeError::OutOfOrder {
                given: last_sequence,
                last: self.last,
            });
        }
        self.last = last_sequence;
        self.last_time_ns = time_ns;
        self.settle();
        Ok(())
    }

    fn delete(
        &mut self,
        sequence: u64,
        _deletion: Deletion,
        removals: &mut dyn Removals,
    ) -> Result<bool, ChangeError> {
        Ok(self.remove_sequence(sequence, removals) > 0)
    }

    fn purge(&mut self, purge: &Purge, removals: &mut dyn Removals) -> Result<u64, ChangeError> {
        if purge.filter.is_everything() && purge.keep == 0 {
            return match purge.below_sequence {
                None => Ok(self.clear(self.last + 1, removals)),
                Some(below) => self.compact(below, removals),
            };
        }
        let newest: Vec<u64> = self
            .matching(&purge.filter)
            .rev()
            .take(usize::try_from(purge.keep).unwrap())
            .map(|held| held.message.sequence)
            .collect();
        let below = purge.below_sequence.unwrap_or(u64::MAX);
        Ok(self.remove_where(removals, |held| {
            purge.filter.matches(&held.message.subject)
                && held.message.sequence < below
                && !newest.contains(&held.message.sequence)
        }))
    }

    fn compact(
        &mut self,
        first_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        if first_sequence > self.last {
            return Ok(self.clear(first_sequence, removals));
        }
        Ok(self.remove_where(removals, |held| held.message.sequence < first_sequence))
    }

    fn truncate(
        &mut self,
        last_sequence: u64,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        if last_sequence >= self.last {
            return Ok(());
        }
        self.remove_where(removals, |held| held.message.sequence > last_sequence);
        self.last = last_sequence;
        match self.held.last() {
            _ if last_sequence == 0 => self.last_time_ns = 0,
            Some(held) if held.message.sequence == last_sequence => {
                self.last_time_ns = held.message.time_ns;
            }
            _ => {}
        }
        self.settle();
        if last_sequence == 0 {
            self.first = 0;
        }
        Ok(())
    }

    fn expire(
        &mut self,
        now_ns: i64,
        removals_max: u64,
        removals: &mut dyn Removals,
    ) -> Result<u64, ChangeError> {
        let dead = self.due(now_ns, removals_max);
        Ok(self.remove_where(removals, |held| dead.contains(&held.message.sequence)))
    }

    fn set_limits(
        &mut self,
        limits: Limits,
        removals: &mut dyn Removals,
    ) -> Result<(), ChangeError> {
        self.limits = limits;
        self.enforce_totals(removals);
        let subjects: Vec<_> = self
            .held
            .iter()
            .map(|h| h.message.subject.clone())
            .collect();
        for subject in subjects {
            self.enforce_subject(&subject, removals);
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn state(&self) -> State {
        let (messages, bytes) = self.totals();
        let mut subjects: Vec<_> = self.held.iter().map(|h| &h.message.subject).collect();
        subjects.sort();
        subjects.dedup();
        State {
            messages,
            bytes,
            first_sequence: self.first,
            first_time_ns: self.held.first().map_or(0, |held| held.message.time_ns),
            last_sequence: self.last,
            last_time_ns: self.last_time_ns,
            subjects: subjects.len() as u64,
            deleted: match messages {
                0 => 0,
                _ => self.last + 1 - self.first - messages,
            },
            lost: 0,
        }
    }

    fn load(&self, sequence: u64) -> Result<Option<Message>, ReadError> {
        let found = self
            .held
            .iter()
            .find(|held| held.message.sequence == sequence);
        Ok(found.map(|held| held.message.clone()))
    }

    fn next(&self, from: u64, filter: &Filter) -> Result<Option<Message>, ReadError> {
        let found = self
            .matching(filter)
            .find(|held| held.message.sequence >= from);
        Ok(found.map(|held| held.message.clone()))
    }

    fn next_sequence(&self, from: u64, filter: &Filter) -> Option<u64> {
        self.next(from, filter)
            .unwrap()
            .map(|message| message.sequence)
    }

    fn previous_sequence(&self, upto: u64, filter: &Filter) -> Option<u64> {
        self.matching(filter)
            .rev()
            .map(|held| held.message.sequence)
            .find(|&sequence| sequence <= upto)
    }

    fn last_on(&self, subject: &[u8]) -> Result<Option<Message>, ReadError> {
        let found = self
            .held
            .iter()
            .rev()
            .find(|held| held.message.subject == subject);
        Ok(found.map(|held| held.message.clone()))
    }

    fn last_sequences(&self, filter: &Filter, upto: u64, results_max: usize) -> Option<Vec<u64>> {
        let mut newest = BTreeMap::new();
        for held in self.matching(filter) {
            if held.message.sequence <= upto {
                newest.insert(held.message.subject.clone(), held.message.sequence);
            }
        }
        let mut found: Vec<u64> = newest.into_values().collect();
        found.sort_unstable();
        (found.len() <= results_max).then_some(found)
    }

    fn count(&self, from: u64, filter: &Filter, counting: Counting) -> u64 {
        self.matching(filter)
            .filter(|held| held.message.sequence >= from)
            .filter(|held| match counting {
                Counting::Every => true,
                Counting::LastPerSubject => {
                    let state = self.subject(&held.message.subject).unwrap();
                    state.last_sequence == held.message.sequence
                }
            })
            .count() as u64
    }

    fn subject(&self, subject: &[u8]) -> Option<SubjectState> {
        let mut on = self
            .held
            .iter()
            .filter(|held| held.message.subject == subject)
            .map(|held| held.message.sequence);
        let first = on.next()?;
        let (count, last) = on.fold((1, first), |(count, _), sequence| (count + 1, sequence));
        Some(SubjectState {
            messages: count,
            first_sequence: first,
            last_sequence: last,
        })
    }

    fn subjects(&self, filter: &Filter, visit: &mut dyn FnMut(&[u8], SubjectState) -> bool) {
        let mut subjects: Vec<_> = self
            .matching(filter)
            .map(|held| held.message.subject.clone())
            .collect();
        subjects.sort();
        subjects.dedup();
        for subject in subjects {
            if !visit(&subject, self.subject(&subject).unwrap()) {
                return;
            }
        }
    }

    fn deleted(&self, visit: &mut dyn FnMut(u64, u64) -> bool) {
        if self.held.is_empty() {
            return;
        }
        let mut expected = self.first;
        for held in &self.held {
            let sequence = held.message.sequence;
            if sequence > expected && !visit(expected, sequence - 1) {
                return;
            }
            expected = sequence + 1;
        }
        if expected <= self.last {
            visit(expected, self.last);
        }
    }

    fn sequence_at(&self, time_ns: i64) -> Option<u64> {
        self.held
            .iter()
            .find(|held| held.message.time_ns >= time_ns)
            .map(|held| held.message.sequence)
    }

    fn expiry(&self, sequence: u64) -> Expiry {
        let mut held = self.held.iter();
        let found = held.find(|held| held.message.sequence == sequence);
        found.map_or(Expiry::ByAge, |held| held.expiry)
    }

    fn due(&self, now_ns: i64, removals_max: u64) -> Vec<u64> {
        let mut dead: Vec<u64> = Vec::new();
        if let Some(age_max_ns) = self.limits.age_max_ns {
            let aged = self
                .held
                .iter()
                .filter(|held| held.expiry != Expiry::Never)
                .take_while(|held| held.message.time_ns + age_max_ns <= now_ns);
            dead.extend(aged.map(|held| held.message.sequence));
        }
        let mut due: Vec<(i64, u64)> = self
            .held
            .iter()
            .filter_map(|held| match held.expiry {
                Expiry::At(at) if at <= now_ns => Some((at, held.message.sequence)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        for (_, sequence) in due {
            if !dead.contains(&sequence) {
                dead.push(sequence);
            }
        }
        dead.truncate(removals_max as usize);
        dead
    }

    fn next_expiry_ns(&self) -> Option<i64> {
        let own = self.held.iter().filter_map(|held| match held.expiry {
            Expiry::At(at) => Some(at),
            _ => None,
        });
        let aging = self.limits.age_max_ns.and_then(|age_max_ns| {
            let first = self.held.iter().find(|held| held.expiry != Expiry::Never)?;
            Some(first.message.time_ns + age_max_ns)
        });
        own.chain(aging).min()
    }
}
