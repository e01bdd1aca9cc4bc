//! Everything that only looks at a ledger.
//!
//! A filter is answered in the cheapest way that the index offers: frequent matches are just ahead, rare
//! subjects are looked up one by one, and what lies between is left to the shelf, within the bounds that
//! the index knows.

use super::*;
use crate::filter::Pattern;
use crate::store::shelf::Ahead;

/// Subjects that are looked up one by one; more are left to the shelf.
const TOPICS_MAX: usize = 64;

/// What a filter is about, as far as it is worth knowing.
struct Scope {
    /// The subjects that can have a match, when they are few.
    few: Option<Vec<(Vec<u8>, SubjectId, Span)>>,
}

impl<S: Shelf> Ledger<S> {
    pub(super) fn read_state(&self) -> State {
        let totals = &self.totals;
        let first_time_ns = match (totals.messages, self.first_time_ns.get()) {
            (0, _) => 0,
            (_, Some(time_ns)) => time_ns,
            (_, None) => {
                let time_ns = self.shelf.time_ns(totals.first_sequence);
                self.first_time_ns.set(time_ns);
                time_ns.unwrap_or_default()
            }
        };
        let deleted = match totals.messages {
            0 => 0,
            messages => (totals.last_sequence + 1 - totals.first_sequence).saturating_sub(messages),
        };
        State {
            messages: totals.messages,
            bytes: totals.bytes,
            first_sequence: totals.first_sequence,
            first_time_ns,
            last_sequence: totals.last_sequence,
            last_time_ns: totals.last_time_ns,
            subjects: self.index.len() as u64,
            deleted,
            lost: self.shelf.lost(),
        }
    }

    pub(super) fn subject_state(&self, topic: &Topic<'_>) -> SubjectState {
        SubjectState {
            messages: topic.span.messages,
            first_sequence: self.exact_first(topic),
            last_sequence: topic.span.last,
        }
    }

    /// The matching subjects whose span is wanted, if they are few.
    fn scope(&self, filter: &Filter, wanted: impl Fn(&Span) -> bool) -> Scope {
        let mut few = Some(Vec::new());
        self.index.matching(filter, |subject, id, span| {
            let Some(found) = &mut few else {
                return false;
            };
            if wanted(span) {
                if found.len() == TOPICS_MAX {
                    few = None;
                    return false;
                }
                found.push((subject.to_vec(), id, *span));
            }
            true
        });
        Scope { few }
    }

    pub(super) fn find_next(&self, from: u64, filter: &Filter) -> Option<u64> {
        let from = from.max(self.totals.first_sequence);
        if self.totals.messages == 0 || from > self.totals.last_sequence {
            return None;
        }
        if filter.is_everything() {
            return self.shelf.next_live(from);
        }
        let literal = filter.patterns().iter().all(Pattern::is_literal);
        let indexed_below = match literal {
            true => from,
            false => self.shelf.indexed_below(),
        };
        let mut from = from;
        if from < indexed_below {
            let upto = self.totals.last_sequence.min(indexed_below - 1);
            if let Some(sequence) = self.shelf.next_matching(from, upto, filter) {
                return Some(sequence);
            }
            from = indexed_below;
        }
        if from > self.totals.last_sequence {
            return None;
        }
        let from = match self.shelf.ahead(from, filter) {
            Ahead::Found(sequence) => return Some(sequence),
            Ahead::Unknown(from) => from,
        };
        let Some(few) = self.scope(filter, |span| span.last >= from).few else {
            return self
                .shelf
                .next_matching(from, self.totals.last_sequence, filter);
        };
        let mut best = None;
        for (subject, id, span) in &few {
            let topic = Topic {
                subject,
                id: *id,
                span: *span,
            };
            let start = span.first.max(from);
            if best.is_some_and(|best| start >= best) {
                continue;
            }
            let found = if span.messages == 1 {
                Some(span.last)
            } else if start == span.first && self.shelf.is_live(start) {
                Some(start)
            } else {
                self.shelf.next_on(&topic, start)
            };
            best = match (best, found) {
                (Some(best), Some(found)) => Some(found.min(best)),
                (best, found) => found.or(best),
            };
        }
        best
    }

    pub(super) fn find_previous(&self, upto: u64, filter: &Filter) -> Option<u64> {
        let first = self.totals.first_sequence;
        let upto = upto.min(self.totals.last_sequence);
        if self.totals.messages == 0 || upto < first {
            return None;
        }
        if filter.is_everything() {
            return self.shelf.previous_live(upto).filter(|&at| at >= first);
        }
        let Some(few) = self.scope(filter, |span| span.first <= upto).few else {
            return self.shelf.previous_matching(first, upto, filter);
        };
        few.iter()
            .filter_map(|(subject, id, span)| {
                if span.last <= upto {
                    return Some(span.last);
                }
                if span.messages == 1 {
                    return None;
                }
                let topic = Topic {
                    subject,
                    id: *id,
                    span: *span,
                };
                self.shelf
                    .previous_on(&topic, upto)
                    .filter(|&at| at >= first)
            })
            .max()
    }

    pub(super) fn count_newest(&self, from: u64, filter: &Filter) -> u64 {
        let mut count = 0;
        self.index.matching(filter, |_, _, span| {
            count += u64::from(span.last >= from);
            true
        });
        count
    }

    pub(super) fn count_every(&self, from: u64, filter: &Filter) -> u64 {
        let from = from.max(self.totals.first_sequence);
        if from > self.totals.last_sequence {
            return 0;
        }
        if filter.is_everything() {
            let first = self.totals.first_sequence;
            return self.totals.messages - self.shelf.count_live(first, from);
        }
        let mut count = 0;
        let mut partial = Some(Vec::new());
        self.index.matching(filter, |subject, id, span| {
            if span.first >= from || from <= self.totals.first_sequence {
                count += span.messages;
            } else if span.last >= from {
                match &mut partial {
                    Some(few) if few.len() < TOPICS_MAX => {
                        few.push((subject.to_vec(), id, *span));
                    }
                    _ => {
                        partial = None;
                        return false;
                    }
                }
            }
            true
        });
        let Some(partial) = partial else {
            return self.shelf.count_matching(from, filter);
        };
        for (subject, id, span) in &partial {
            count += if span.messages == 1 {
                1
            } else {
                self.shelf.count_on(
                    &Topic {
                        subject,
                        id: *id,
                        span: *span,
                    },
                    from,
                )
            };
        }
        count
    }

    pub(super) fn find_last_sequences(
        &self,
        filter: &Filter,
        upto: u64,
        results_max: usize,
    ) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        let mut fits = true;
        self.index.matching(filter, |subject, id, span| {
            let span = *span;
            let last = if span.last <= upto {
                Some(span.last)
            } else if span.messages > 1 && span.first <= upto {
                let topic = Topic { subject, id, span };
                self.shelf
                    .previous_on(&topic, upto)
                    .filter(|&at| at >= self.totals.first_sequence)
            } else {
                None
            };
            if let Some(last) = last {
                fits = found.len() < results_max;
                found.push(last);
            }
            fits
        });
        if !fits {
            return None;
        }
        found.sort_unstable();
        Some(found)
    }

    pub(super) fn find_due(&self, now_ns: i64, removals_max: u64) -> Vec<u64> {
        let most = usize::try_from(removals_max).unwrap_or(usize::MAX);
        let mut due = Vec::new();
        let mut from = self.age_cursor.max(self.totals.first_sequence);
        if let Some(age_max_ns) = self.limits.age_max_ns
            && self.totals.messages > 0
        {
            while due.len() < most
                && let Some(sequence) = self.shelf.next_live(from)
            {
                from = sequence + 1;
                if self.expiry.get(sequence) == Expiry::Never {
                    continue;
                }
                let time_ns = self.shelf.time_ns(sequence);
                if time_ns.is_none_or(|time_ns| time_ns.saturating_add(age_max_ns) > now_ns) {
                    break;
                }
                due.push(sequence);
            }
        }
        let aged = due.len();
        for sequence in self.expiry.due(now_ns) {
            if due.len() >= most {
                break;
            }
            let listed = due.get(..aged).unwrap_or_default();
            if listed.binary_search(&sequence).is_err() {
                due.push(sequence);
            }
        }
        due
    }

    pub(super) fn find_next_expiry(&self) -> Option<i64> {
        let own = self.expiry.first().map(|(deadline_ns, _)| deadline_ns);
        let aging = self.limits.age_max_ns.and_then(|age_max_ns| {
            let sequence = self.next_aging()?;
            Some(self.shelf.time_ns(sequence)?.saturating_add(age_max_ns))
        });
        match (own, aging) {
            (Some(own), Some(aging)) => Some(own.min(aging)),
            (own, aging) => own.or(aging),
        }
    }
}
