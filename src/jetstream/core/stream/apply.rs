//! Applying entries: the only way a stream's durable state changes.
//!
//! # Invariant
//! Depends on the entry and the state before it alone. What the leader knows beyond that follows along, but is never asked.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{ChangeError, Deletion, NewMessage, Purge};

use super::chain::LogPlace;
use super::consumers::is_there;
use super::copies::skip_to;
use super::overlay::remember_id;
use super::retention::Gone;
use super::rewrites::Rewrites;
use super::{ApplyError, Consumer, StreamCore, limits};
use crate::jetstream::core::codec::DecodeError;
use crate::jetstream::core::digest::Mark;
use crate::jetstream::core::draft::{Draft, Waiter};
use crate::jetstream::core::effects::{Advisory, Effects, World};
use crate::jetstream::core::entry::{EntryHeader, EntryReader, MessageOp, Op, Rollup, Scheduler};
use crate::jetstream::core::headers;
use crate::jetstream::core::sources::SOURCE_HEADER;
use crate::jetstream::types::{AckPolicy, ConsumerConfig, StreamConfig, Strictness, decode};
use crate::subject::{is_subset, overlap};

/// What an operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing to tell.
    Nothing,
    /// A message was stored, or counted without being stored.
    Sequence(u64),
    /// So many messages went.
    Removed(u64),
    /// What it was about is not there.
    Absent,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It has changed the stream.
    Changed,
    /// It had been applied before.
    Before,
    /// It was decided on a state that never came to be: it changes nothing, here and everywhere.
    Unfit,
}

pub(super) enum Failure {
    Decode(DecodeError),
    Store(ChangeError),
    /// A later version has written it.
    Unsupported,
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::Store(error)
    }
}

fn read_config<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    decode(json, Strictness::Lenient)
        .map_err(|error| Failure::Decode(DecodeError::Config(error.to_string())))
}

impl StreamCore {
    /// Applies an entry once; one that was applied before, or does not fit, changes nothing.
    pub(super) fn apply(
        &mut self,
        at: LogPlace,
        entry: &Bytes,
        waiters: Vec<Waiter>,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<Applied, ApplyError> {
        let index = at.index;
        if index <= self.applied_index {
            return Ok(Applied::Before);
        }
        let mut reader =
            EntryReader::new(entry).map_err(|source| ApplyError::Decode { index, source })?;
        let header = reader.header();
        self.applied_index = index;
        let last_sequence = self.store.state().last_sequence;
        if !self.chain.fits(at, &header) || header.base_sequence != last_sequence {
            if at.term.is_some() {
                self.digest.mark(index);
            }
            return Ok(Applied::Unfit);
        }
        self.chain.follow(index, &header);
        self.applied_ns = self.applied_ns.max(header.time_ns);
        self.removed_sum = 0;
        let mut waiters: VecDeque<Waiter> = waiters.into();
        let mut operation = 0u32;
        loop {
            let step = reader
                .next()
                .map_err(Failure::from)
                .and_then(|op| match op {
                    Some(op) if at.term.is_some() && self.is_beyond(&op) => {
                        Err(Failure::Unsupported)
                    }
                    Some(op) => self.apply_op(&op, header, world, effects).map(Some),
                    None => Ok(None),
                });
            let outcome = match step {
                Ok(Some(outcome)) => outcome,
                Ok(None) => break,
                Err(Failure::Decode(source)) => return Err(ApplyError::Decode { index, source }),
                Err(Failure::Unsupported) => return Err(ApplyError::Unsupported { index }),
                Err(Failure::Store(source)) => return Err(ApplyError::Store { index, source }),
            };
            while waiters
                .front()
                .is_some_and(|waiter| waiter.operation == operation)
            {
                if let Some(waiter) = waiters.pop_front() {
                    self.resolve(waiter.waiting, outcome, effects);
                }
            }
            operation += 1;
        }
        for waiter in waiters {
            self.resolve(waiter.waiting, Outcome::Nothing, effects);
        }
        if at.term.is_some() {
            let state = self.store.state();
            self.digest.fold(index, entry, &state, self.removed_sum);
        }
        Ok(Applied::Changed)
    }

    fn apply_op(
        &mut self,
        op: &Op<'_>,
        header: EntryHeader,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<Outcome, Failure> {
        let time_ns = header.time_ns;
        match *op {
            Op::Message(ref message) => self.apply_message(message, time_ns, world, effects),
            Op::Mirrored {
                sequence,
                time_ns: stored_ns,
                ref message,
            } => {
                if sequence <= self.store.state().last_sequence {
                    return Ok(Outcome::Absent);
                }
                skip_to(self.store.as_mut(), sequence, stored_ns)?;
                let at = (sequence, stored_ns);
                self.apply_message_at(message, at, time_ns, world, effects)
            }
            Op::Skip { last_sequence } => {
                skip_to(
                    self.store.as_mut(),
                    last_sequence.saturating_add(1),
                    time_ns,
                )?;
                Ok(Outcome::Nothing)
            }
            Op::Delete { sequence, erase } => {
                let deletion = if erase {
                    Deletion::Erase
                } else {
                    Deletion::Unlink
                };
                let mut gone = Gone::default();
                let found = self.store.delete(sequence, deletion, &mut gone)?;
                self.structural_applied();
                self.settle_gone(gone, time_ns, effects);
                Ok(if found {
                    Outcome::Removed(1)
                } else {
                    Outcome::Absent
                })
            }
            Op::Purge {
                filter,
                below_sequence,
                keep,
            } => {
                let filter = (!filter.is_empty()).then_some(filter.as_bytes());
                let purge = Purge {
                    filter: Filter::new(filter),
                    below_sequence: (below_sequence > 0).then_some(below_sequence),
                    keep,
                };
                let mut gone = Gone::only_sum();
                let removed = self.store.purge(&purge, &mut gone)?;
                self.removed_sum = self.removed_sum.wrapping_add(gone.sum);
                self.structural_applied();
                self.forget_schedules();
                self.reconcile(filter.unwrap_or(b">"), time_ns);
                Ok(Outcome::Removed(removed))
            }
            Op::Expire { removals_max } => {
                let mut gone = Gone::default();
                let removed = self.store.expire(time_ns, removals_max, &mut gone)?;
                self.dedupe.expire(time_ns);
                self.structural_applied();
                self.settle_gone(gone, time_ns, effects);
                Ok(Outcome::Removed(removed))
            }
            Op::Config { json } => {
                let config: StreamConfig = read_config(json)?;
                let mut gone = Gone::default();
                self.store.set_limits(limits(&config), &mut gone)?;
                self.dedupe.set_window(config.duplicate_window);
                self.rewrites = Rewrites::of(&config);
                self.positions.keep(&config.sources);
                let retention = self.config.retention;
                self.config = Arc::new(config);
                effects.reconfigured = true;
                if !self.config.allow_batched {
                    self.forget_fast();
                }
                if retention != self.config.retention {
                    self.sweep_finished(&mut gone)?;
                }
                self.structural_applied();
                self.settle_gone(gone, time_ns, effects);
                Ok(Outcome::Nothing)
            }
            Op::ConsumerCreate { id, name, json } => {
                let config: ConsumerConfig = read_config(json)?;
                self.create_consumer(id, name, config, time_ns, world, effects);
                self.structural_applied();
                Ok(Outcome::Nothing)
            }
            Op::ConsumerUpdate { id, json } => {
                let config: ConsumerConfig = read_config(json)?;
                self.update_consumer(id, config, time_ns, world, effects)?;
                self.structural_applied();
                Ok(Outcome::Nothing)
            }
            Op::ConsumerDelete { id } => {
                let found = self.delete_consumer(id, time_ns, effects)?;
                self.structural_applied();
                Ok(if found {
                    Outcome::Nothing
                } else {
                    Outcome::Absent
                })
            }
            Op::Reset {
                id,
                stream_sequence,
            } => {
                self.reset_consumer(id, stream_sequence, time_ns, world, effects)?;
                self.structural_applied();
                Ok(Outcome::Nothing)
            }
            Op::ConsumerLost { id } => {
                self.lose_consumer(id, time_ns, effects)?;
                self.structural_applied();
                Ok(Outcome::Nothing)
            }
            Op::ConsumerRestarted { id } => {
                self.restart_consumer(id, time_ns, world, effects)?;
                self.structural_applied();
                Ok(Outcome::Nothing)
            }
            Op::Unscheduled { sequence } => {
                self.schedules.remove_sequence(sequence);
                Ok(Outcome::Nothing)
            }
            Op::FastMessage { reply } => {
                let sequence = self.store.state().last_sequence + 1;
                self.note_fast(reply, sequence, time_ns);
                Ok(Outcome::Nothing)
            }
            Op::FastPassed { sequence, reply } => {
                self.note_fast(reply, sequence, time_ns);
                Ok(Outcome::Nothing)
            }
            Op::FastEnd { id } => {
                self.fast_trails.end(id);
                Ok(Outcome::Nothing)
            }
            Op::Compare { index, digest } => {
                self.digest.compare(Mark { index, digest });
                Ok(Outcome::Nothing)
            }
            _ => self.apply_progress(op, time_ns, effects),
        }
    }

    fn apply_message(
        &mut self,
        message: &MessageOp<'_>,
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<Outcome, Failure> {
        let state = self.store.state();
        // Messages of a stream are ordered by time as well, whatever the clocks of its leaders.
        let time_ns = time_ns.max(state.last_time_ns);
        let at = (state.last_sequence + 1, time_ns);
        self.apply_message_at(message, at, time_ns, world, effects)
    }

    fn apply_message_at(
        &mut self,
        message: &MessageOp<'_>,
        (sequence, stored_ns): (u64, i64),
        time_ns: i64,
        world: Option<&dyn World>,
        effects: &mut Effects,
    ) -> Result<Outcome, Failure> {
        let wanted = self.is_wanted(message.subject);
        let mut gone = match self.consumers.is_empty() && self.schedules.is_empty() {
            true => Gone::only_sum(),
            false => Gone::default(),
        };
        let again = match wanted {
            true => self.republished(message.subject, world),
            false => None,
        };
        if wanted {
            let new = NewMessage {
                sequence,
                time_ns: stored_ns,
                subject: message.subject,
                headers: message.headers,
                payload: message.payload,
                expiry: message.expiry,
            };
            self.store.append(&new, &mut gone)?;
        } else {
            self.store.skip(sequence, stored_ns)?;
        }
        if !self.config.sources.is_empty()
            && let Some(source) = headers::get(message.headers, SOURCE_HEADER)
        {
            self.positions.note(source, &self.config.sources);
        }
        if !message.id.is_empty() {
            self.dedupe.add(message.id, sequence, time_ns);
        }
        remember_id(&mut self.last_id, message.id);
        if wanted {
            self.announce(message.subject, sequence);
        }
        if let Some(lead) = self.lead.as_deref_mut() {
            let bytes = self.store.accounting().bytes(
                message.subject.len(),
                message.headers.len(),
                message.payload.len(),
            );
            lead.overlay
                .applied(message.subject, message.id, sequence, bytes);
        }
        if wanted {
            match message.schedule_ns {
                Some(at_ns) => self.schedules.set(message.subject, sequence, at_ns),
                None if message.scheduler.is_none() && !self.schedules.is_empty() => {
                    self.schedules.remove_subject(message.subject);
                }
                None => {}
            }
        }
        self.settle_gone(gone, time_ns, effects);
        self.apply_rollup(message, sequence, u64::from(wanted), time_ns)?;
        self.apply_scheduler(message, time_ns)?;
        if let Some(again) = again {
            self.republish(again, message, sequence, stored_ns, effects);
        }
        Ok(Outcome::Sequence(sequence))
    }

    fn apply_rollup(
        &mut self,
        message: &MessageOp<'_>,
        sequence: u64,
        keep: u64,
        time_ns: i64,
    ) -> Result<(), Failure> {
        let filter = match message.rollup {
            Rollup::None => return Ok(()),
            Rollup::Subject => Filter::new([message.subject]),
            Rollup::Everything => Filter::everything(),
        };
        let purge = Purge {
            filter,
            below_sequence: (keep > 0).then_some(sequence),
            keep: 0,
        };
        let purged = match message.rollup {
            Rollup::Subject => message.subject,
            _ => b">",
        };
        self.purge_aside(&purge, purged, time_ns)?;
        if message.rollup == Rollup::Everything {
            self.forget_schedules();
        }
        Ok(())
    }

    /// The schedule that a message came from goes on, or is over.
    fn apply_scheduler(&mut self, message: &MessageOp<'_>, time_ns: i64) -> Result<(), Failure> {
        match message.scheduler {
            None => Ok(()),
            Some(Scheduler {
                subject,
                next_ns: Some(next_ns),
            }) => {
                self.schedules.move_to(subject, next_ns);
                Ok(())
            }
            Some(Scheduler { subject, .. }) => {
                self.schedules.remove_subject(subject);
                let purge = Purge {
                    filter: Filter::new([subject]),
                    below_sequence: None,
                    keep: 0,
                };
                self.purge_aside(&purge, subject, time_ns)
            }
        }
    }

    /// Removes what a message makes obsolete.
    fn purge_aside(&mut self, purge: &Purge, purged: &[u8], time_ns: i64) -> Result<(), Failure> {
        let mut gone = Gone::only_sum();
        self.store.purge(purge, &mut gone)?;
        self.removed_sum = self.removed_sum.wrapping_add(gone.sum);
        self.structural_applied();
        self.reconcile(purged, time_ns);
        Ok(())
    }

    /// Schedules whose messages are gone are gone too.
    fn forget_schedules(&mut self) {
        let store = self.store.as_ref();
        self.schedules.keep(|sequence| is_there(store, sequence));
    }

    /// Tells the leader's consumers of a new message.
    fn announce(&mut self, subject: &[u8], sequence: u64) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        for consumer in self.consumers.values_mut() {
            if !consumer.rules.matches(subject) {
                continue;
            }
            if let Some(live) = consumer.live.as_deref_mut()
                && sequence >= live.cursor
            {
                live.pending_messages += 1;
                lead.ready.insert(consumer.id);
            }
        }
    }

    fn structural_applied(&mut self) {
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.overlay.structural = lead.overlay.structural.saturating_sub(1);
        }
    }

    /// Consumers learn what has left the stream.
    pub(super) fn settle_gone(&mut self, mut gone: Gone, now_ns: i64, effects: &mut Effects) {
        self.removed_sum = self.removed_sum.wrapping_add(gone.sum);
        if gone.is_empty() {
            return;
        }
        if !self.schedules.is_empty() {
            gone.each_in_order(|sequence, _| self.schedules.remove_sequence(sequence));
        }
        for consumer in self.consumers.values_mut() {
            gone.each_in_order(|sequence, subject| {
                if let Some(lead) = self.lead.as_deref_mut() {
                    settle_under_way(&mut lead.draft, consumer, sequence, now_ns);
                }
                let deliveries = consumer.progress.redelivered.get(&sequence).copied();
                let pending = consumer.progress.pending.get(&sequence).copied();
                if consumer.message_gone(sequence, subject, now_ns)
                    && let Some(pending) = pending
                    && consumer.live.is_some()
                {
                    effects.advisories.push(Advisory::Terminated {
                        consumer: consumer.name.clone(),
                        consumer_sequence: pending.consumer_sequence,
                        stream_sequence: sequence,
                        deliveries: deliveries.unwrap_or(0) + 1,
                        reason: "Unacknowledged message was deleted".to_owned(),
                    });
                }
            });
        }
    }

    /// After a purge of the subjects that match `purged`: consumers of any of them forget what is gone and count anew.
    fn reconcile(&mut self, purged: &[u8], now_ns: i64) {
        let state = self.store.state();
        let purged_filter = Filter::new([purged]);
        // Where the first message lies that a consumer of nothing but such subjects can still see.
        let first_within = self
            .store
            .next_sequence(state.first_sequence, &purged_filter)
            .unwrap_or(state.last_sequence + 1);
        let store = self.store.as_ref();
        let is_live = |sequence: &u64| is_there(store, *sequence);
        for consumer in self.consumers.values_mut() {
            let filters = consumer.config.filters();
            if !filters.is_empty() && !filters.iter().any(|filter| overlap(filter, purged)) {
                continue;
            }
            let is_within =
                !filters.is_empty() && filters.iter().all(|filter| is_subset(filter, purged));
            let first = match is_within {
                true => first_within,
                false => state.first_sequence,
            };
            // Only under this policy is there something to settle.
            let live = consumer.live.as_deref();
            let live = live.filter(|_| consumer.rules.ack == AckPolicy::Explicit);
            let waiting = live.map(|live| &live.progress.pending);
            let left = waiting.into_iter().flat_map(|pending| pending.keys());
            let left: Vec<u64> = left
                .filter(|sequence| !is_live(sequence))
                .copied()
                .collect();
            if let Some(lead) = self.lead.as_deref_mut() {
                for sequence in left {
                    settle_under_way(&mut lead.draft, consumer, sequence, now_ns);
                }
            }
            let live = consumer.live.as_deref_mut().map(|live| &mut live.progress);
            for progress in [Some(&mut consumer.progress), live].into_iter().flatten() {
                progress.purged_below(first);
                let gone: Vec<u64> = progress
                    .pending
                    .keys()
                    .chain(progress.redelivered.keys())
                    .filter(|sequence| !is_live(sequence))
                    .copied()
                    .collect();
                for sequence in gone {
                    progress.ack_one(sequence, now_ns);
                }
            }
            if let Some(mut live) = consumer.live.take() {
                live.cursor = live.cursor.max(first);
                let pending = &live.progress.pending;
                live.redeliver
                    .retain(|sequence| pending.contains_key(sequence));
                live.recount(consumer, store);
                consumer.live = Some(live);
            }
        }
    }
}

/// The first delivery of a message that has left may be logged after what removed it. Without this, which follows it, its ack would be waited for in vain.
fn settle_under_way(draft: &mut Draft, consumer: &Consumer, sequence: u64, now_ns: i64) {
    if consumer.rules.ack == AckPolicy::Explicit
        && let Some(consumer_sequence) = consumer.first_delivery_under_way(sequence)
    {
        let op = Op::Acked {
            id: consumer.id,
            consumer_sequence,
            stream_sequence: sequence,
        };
        draft.push_lazy(&op, now_ns);
    }
}
