//! Leading a stream: from events to entries, and from applied entries to what the world gets to see.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;

use super::apply::{Applied, Outcome};
use super::batch::Batches;
use super::chain::LogPlace;
use super::consumers::present;
use super::fast::FastBatches;
use super::overlay::Overlay;
use super::{ApplyError, Event, Step, StreamCore};
use crate::jetstream::core::ack::{AckKind, AckSubject};
use crate::jetstream::core::consumer::{Consumer, Live, Stop, Turn};
use crate::jetstream::core::draft::{Draft, Waiter, Waiting};
use crate::jetstream::core::effects::{Effects, push_number};
use crate::jetstream::core::entry::{EntryHeader, Op};
use crate::jetstream::core::headers;
use crate::jetstream::core::request::{Outgoing, StreamRequest};
use crate::jetstream::types::AckPolicy;

/// An entry is closed when it is this long.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Progress that nobody waits for is logged at least this often.
const LAZY_NS_MAX: i64 = 100_000_000;
/// Progress that nobody waits for is logged when it is this long.
const LAZY_BYTES_MAX: usize = 256 * 1024;
/// Messages one consumer delivers before it is another one's turn.
const TURN_MESSAGES_MAX: usize = 256;

/// An entry on its way to the log.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its place in its chain.
    pub(super) ordinal: u64,
    pub(super) entry: Bytes,
    pub(super) waiters: Vec<Waiter>,
}

/// The leader's side of a stream.
pub(super) struct Lead {
    pub(super) term: u64,
    pub(super) draft: Draft,
    /// The last sequence before the draft.
    draft_base: u64,
    pub(super) flights: VecDeque<Flight>,
    /// Closed entries that were not handed out yet; they are in flight already.
    outbox: Vec<(u64, Bytes)>,
    /// What was applied when this chain of entries began.
    base_index: u64,
    ordinal_last: u64,
    pub(super) overlay: Overlay,
    /// Events that wait until nothing is in flight.
    pub(super) parked: VecDeque<Event>,
    /// Reads, and after which entry they are answered.
    pub(super) reads: VecDeque<(u64, u64, StreamRequest)>,
    /// Consumers that may have something to deliver.
    pub(super) ready: BTreeSet<u64>,
    /// When consumers want to look at the clock; may hold what is no longer so.
    timers: BinaryHeap<Reverse<(i64, u64)>>,
    /// Whether an expiry is in flight.
    pub(super) expiring: bool,
    /// The last digest that the followers were told, or are about to be.
    pub(super) told: u64,
    pub(super) batches: Batches,
    pub(super) fast: FastBatches,
    /// Attempts to follow a source that brought something that could not be stored.
    pub(super) refused: BTreeSet<u64>,
}

impl Event {
    /// Whether it came from another stream, which is asked again for what gets lost.
    pub(super) fn is_copied(&self) -> bool {
        matches!(
            self,
            Self::Mirrored { .. }
                | Self::Skipped { .. }
                | Self::Sourced { .. }
                | Self::SourceFlow { .. }
        )
    }

    /// Whether it may not overtake what was put off.
    fn waits_its_turn(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::Request { .. }) || self.is_copied()
    }
}

impl Lead {
    /// Whether everything decided so far is applied.
    pub(super) fn is_settled(&self) -> bool {
        self.flights.is_empty() && !self.draft.urgent
    }

    /// Lets something happen once all that is in flight now has been applied.
    pub(super) fn after_all(&mut self, waiting: Waiting) {
        let waiter = Waiter {
            operation: u32::MAX,
            waiting,
        };
        match self.flights.back_mut() {
            Some(flight) if !self.draft.urgent => flight.waiters.push(waiter),
            _ => self.draft.waiters.push(waiter),
        }
    }

    /// Adds an operation whose outcome decisions cannot foresee.
    pub(super) fn push_structural(&mut self, op: &Op<'_>) -> u32 {
        self.overlay.structural += 1;
        self.draft.push(op)
    }

    fn ordinal_of_last(&self) -> u64 {
        if self.draft.urgent {
            self.ordinal_last + 1
        } else {
            self.flights.back().map_or(0, |flight| flight.ordinal)
        }
    }

    /// Closes the entry being filled.
    pub(super) fn seal(&mut self, now_ns: i64) {
        if self.draft.is_empty() {
            return;
        }
        self.ordinal_last += 1;
        let ordinal = self.ordinal_last;
        let header = EntryHeader {
            term: self.term,
            time_ns: now_ns,
            base_sequence: self.draft_base,
            base_index: self.base_index,
            ordinal,
        };
        let (entry, waiters) = self.draft.finish(header);
        self.draft_base = self.overlay.last_sequence;
        let index = self.base_index + ordinal;
        self.outbox.push((index, entry.clone()));
        self.flights.push_back(Flight {
            ordinal,
            entry,
            waiters,
        });
    }

    /// The entries that were closed and not handed out.
    pub(super) fn into_outbox(self) -> Vec<(u64, Bytes)> {
        self.outbox
    }

    /// Closes the entry being filled when it has become long.
    pub(super) fn seal_if_long(&mut self, now_ns: i64) {
        if self.draft.entry.length() >= ENTRY_BYTES_MAX {
            self.seal(now_ns);
        }
    }
}

impl StreamCore {
    /// Starts to lead: what only a leader knows is built from durable state.
    pub fn lead(&mut self, term: u64, step: &mut Step<'_>) {
        #[cfg(test)]
        if super::museum::is_open(super::museum::Piece::ForgottenIds) {
            let window_ns = self.config.duplicate_window;
            self.dedupe = crate::jetstream::core::dedupe::Dedupe::new(window_ns);
        }
        let mut lead = self.fresh_lead(term);
        for consumer in self.consumers.values_mut() {
            let store = self.store.as_ref();
            let live = Live::new(&self.ack_names, consumer, store, step.world, step.now_ns);
            consumer.live = Some(Box::new(live));
            lead.ready.insert(consumer.id);
            step.effects.consumers.push(present(consumer));
        }
        self.take_up_fast(&mut lead, step);
        self.lead = Some(Box::new(lead));
    }

    /// A leader's side with nothing in flight.
    pub(super) fn fresh_lead(&self, term: u64) -> Lead {
        let last_sequence = self.store.state().last_sequence;
        let mut lead = Lead {
            term: term.max(self.chain.term),
            draft: Draft::new(),
            draft_base: last_sequence,
            flights: VecDeque::new(),
            outbox: Vec::new(),
            base_index: self.applied_index,
            ordinal_last: 0,
            overlay: Overlay::new(last_sequence),
            parked: VecDeque::new(),
            reads: VecDeque::new(),
            ready: BTreeSet::new(),
            timers: BinaryHeap::new(),
            expiring: false,
            told: 0,
            batches: Batches::default(),
            fast: FastBatches::default(),
            refused: BTreeSet::new(),
        };
        if self.config.discard_new_per_subject {
            lead.overlay.track_subjects();
        }
        lead
    }

    /// Decides about an event.
    pub fn handle(&mut self, event: Event, step: &mut Step<'_>) {
        let event = match event {
            Event::Publish(mut publish) if self.lead.is_some() => {
                publish.subject = self.stored_subject(publish.subject, step.world);
                Event::Publish(publish)
            }
            Event::Sourced {
                attempt,
                sequence,
                mut message,
            } => {
                message.subject = self.stored_subject(message.subject, step.world);
                Event::Sourced {
                    attempt,
                    sequence,
                    message,
                }
            }
            event => event,
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return self.handle_following(event, step);
        };
        if !lead.parked.is_empty() && event.waits_its_turn() {
            lead.parked.push_back(event);
            return;
        }
        self.decide(event, step);
    }

    fn decide(&mut self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Publish(publish) => self.publish(publish, step),
            Event::Request { token, request } => self.request(token, request, step),
            Event::Direct { reply, query } => self.direct(reply, query, step.effects),
            Event::Pull {
                consumer,
                reply,
                body,
            } => self.on_consumer(&consumer, step, |consumer, turn| {
                consumer.pull(reply, &body, turn)
            }),
            Event::Ack {
                subject,
                reply,
                body,
            } => self.ack(&subject, reply, &body, step),
            Event::FlowControl { subject, headers } => self.flow_control(&subject, &headers, step),
            Event::Interest { consumer, active } => {
                let now_ns = step.now_ns;
                self.with_consumer(consumer, step, |consumer, _| {
                    consumer.interest(active, now_ns)
                });
            }
            Event::Due => self.decide_due(step),
            Event::Mirrored {
                sequence,
                time_ns,
                message,
            } => self.mirrored(sequence, time_ns, &message, step),
            Event::Skipped { last_sequence } => self.skipped(last_sequence),
            Event::Sourced {
                attempt,
                sequence,
                message,
            } => self.sourced(attempt, sequence, message, step),
            Event::SourceFlow {
                reply,
                delivered,
                sequence,
            } => self.source_flow(reply, delivered, sequence, step.effects),
        }
    }

    fn ack(&mut self, subject: &[u8], reply: Bytes, body: &[u8], step: &mut Step<'_>) {
        let parsed = AckSubject::parse(subject);
        let Some(parsed) = parsed.filter(|parsed| self.hears_acks(parsed.consumer)) else {
            return;
        };
        let kind = AckKind::parse(body);
        self.on_consumer(parsed.consumer, step, |consumer, turn| {
            let ready = consumer.ack(&parsed, &kind, reply.clone(), turn);
            if let AckKind::Next(request) = &kind
                && !reply.is_empty()
            {
                consumer.pull(reply, request, turn);
            }
            ready
        });
    }

    /// Consumers that want no acks do not listen for any, so that nobody confirms one either.
    fn hears_acks(&self, name: &str) -> bool {
        let consumer = self.consumer(name);
        consumer.is_some_and(|consumer| {
            let policy = consumer.config.ack_policy;
            !matches!(policy, AckPolicy::None | AckPolicy::FlowControl)
        })
    }

    fn flow_control(&mut self, subject: &[u8], block: &[u8], step: &mut Step<'_>) {
        let name = std::str::from_utf8(subject)
            .ok()
            .and_then(|subject| subject.rsplit('.').nth(1))
            .map(str::to_owned);
        let mut last = (None, None);
        headers::each(block, |name, value| {
            let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
            match name {
                b"Nats-Last-Consumer" => last.0 = number(),
                b"Nats-Last-Stream" => last.1 = number(),
                _ => {}
            }
        });
        let last = last
            .1
            .filter(|stream| *stream > 0)
            .map(|stream| (last.0.unwrap_or(0), stream));
        if let Some(name) = name {
            self.on_consumer(&name, step, |consumer, turn| {
                consumer.flow_answered(subject, last, turn)
            });
        }
    }

    fn on_consumer(
        &mut self,
        name: &str,
        step: &mut Step<'_>,
        act: impl FnOnce(&mut Consumer, &mut Turn<'_>) -> bool,
    ) {
        if let Some(id) = self.names.get(name).copied() {
            self.with_consumer(id, step, act);
        }
    }

    /// Lets a consumer act; when it says so, it is among the next to deliver.
    pub(super) fn with_consumer<R>(
        &mut self,
        id: u64,
        step: &mut Step<'_>,
        act: impl FnOnce(&mut Consumer, &mut Turn<'_>) -> R,
    ) -> Option<R>
    where
        R: Into<Readiness> + Copy,
    {
        let lead = self.lead.as_deref_mut()?;
        let consumer = self.consumers.get_mut(&id)?;
        let mut confirmations = Vec::new();
        let mut turn = Turn {
            now_ns: step.now_ns,
            ack_names: &self.ack_names,
            retention: self.config.retention,
            has_replicas: self.has_replicas,
            store: self.store.as_ref(),
            draft: &mut lead.draft,
            confirmations: &mut confirmations,
            world: step.world,
            effects: step.effects,
        };
        let result = act(consumer, &mut turn);
        for reply in confirmations {
            if lead.flights.is_empty() && lead.draft.is_empty() {
                step.effects.confirm(reply);
            } else {
                lead.draft.urgent |= !lead.draft.is_empty();
                lead.after_all(Waiting::Confirmed { reply });
            }
        }
        if result.into().0 {
            lead.ready.insert(id);
        }
        if let Some(live) = consumer.live.as_deref_mut() {
            let next_ns = live.next_deadline_ns(&consumer.rules, step.now_ns);
            if let Some(next_ns) = next_ns
                && live
                    .scheduled_ns
                    .is_none_or(|scheduled| next_ns < scheduled)
            {
                live.scheduled_ns = Some(next_ns);
                lead.timers.push(Reverse((next_ns, id)));
            }
        }
        Some(result)
    }

    /// Lets consumers deliver, each its share; whether there is more to do at once.
    pub fn run(&mut self, step: &mut Step<'_>) -> bool {
        let Some(lead) = self.lead.as_deref_mut() else {
            return false;
        };
        let ready = std::mem::take(&mut lead.ready);
        for id in ready {
            self.with_consumer(id, step, |consumer, turn| {
                consumer.serve(turn, TURN_MESSAGES_MAX)
            });
        }
        self.lead
            .as_deref()
            .is_some_and(|lead| !lead.ready.is_empty())
    }

    /// The entries to submit now, in order, each with the index that it takes in a log of one replica.
    pub fn take_entries(&mut self, now_ns: i64) -> Vec<(u64, Bytes)> {
        let Some(lead) = self.lead.as_deref_mut() else {
            return Vec::new();
        };
        let draft = &lead.draft;
        let lazy_is_over = draft
            .lazy_since_ns
            .is_some_and(|since_ns| now_ns.saturating_sub(since_ns) >= LAZY_NS_MAX);
        if draft.urgent || lazy_is_over || draft.entry.length() >= LAZY_BYTES_MAX {
            lead.seal(now_ns);
        }
        std::mem::take(&mut lead.outbox)
    }

    /// Everything decided, whether anybody waits for it or not, and the end of what is reserved: before a clean stop.
    pub fn take_last_entries(&mut self, step: &mut Step<'_>) -> Vec<(u64, Bytes)> {
        let now_ns = step.now_ns;
        let ids: Vec<u64> = self.consumers.keys().copied().collect();
        for id in ids {
            self.with_consumer(id, step, |consumer, turn| {
                consumer.give_back(turn);
                false
            });
        }
        let Some(lead) = self.lead.as_deref_mut() else {
            return Vec::new();
        };
        lead.seal(now_ns);
        std::mem::take(&mut lead.outbox)
    }

    /// Whether nothing is in flight.
    pub fn is_settled(&self) -> bool {
        self.lead.as_deref().is_none_or(Lead::is_settled)
    }

    /// The next entry in flight is durable in a log of one replica.
    pub fn committed(&mut self, index: u64, step: &mut Step<'_>) -> Result<(), ApplyError> {
        let Some(lead) = self.lead.as_deref_mut() else {
            return Ok(());
        };
        let Some(flight) = lead.flights.pop_front() else {
            return Ok(());
        };
        debug_assert_eq!(
            lead.base_index + flight.ordinal,
            index,
            "entries are committed in order"
        );
        self.land(LogPlace { index, term: None }, flight, step)
    }

    /// Applies the first entry in flight, and does what waited for it.
    pub(super) fn land(
        &mut self,
        at: LogPlace,
        flight: Flight,
        step: &mut Step<'_>,
    ) -> Result<(), ApplyError> {
        let Flight {
            ordinal,
            entry,
            waiters,
        } = flight;
        let applied = self.apply(at, &entry, waiters, Some(step.world), step.effects)?;
        if applied == Applied::Unfit {
            self.lead_anew(step);
            return Ok(());
        }
        self.answer_reads(ordinal, step);
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.expiring = lead.expiring && !lead.is_settled();
        }
        self.unpark(step);
        Ok(())
    }

    /// Puts off a read until all that is in flight has been applied.
    pub(super) fn read_later(&mut self, token: u64, request: StreamRequest) {
        if let Some(lead) = self.lead.as_deref_mut() {
            let ordinal = lead.ordinal_of_last();
            lead.reads.push_back((ordinal, token, request));
        }
    }

    fn answer_reads(&mut self, ordinal: u64, step: &mut Step<'_>) {
        while let Some(lead) = self.lead.as_deref_mut() {
            if lead.reads.front().is_none_or(|read| read.0 > ordinal) {
                return;
            }
            if let Some((_, token, request)) = lead.reads.pop_front() {
                let reply = self.read(&request, step);
                step.effects.replies.push((token, reply));
            }
        }
    }

    /// Puts off an event until nothing is in flight.
    pub(super) fn park(&mut self, event: Event) {
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.parked.push_back(event);
        }
    }

    /// Looks again at events that were put off.
    pub(super) fn unpark(&mut self, step: &mut Step<'_>) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let mut events = std::mem::take(&mut lead.parked);
        while let Some(event) = events.pop_front() {
            self.decide(event, step);
            let Some(lead) = self.lead.as_deref_mut() else {
                return;
            };
            if !lead.parked.is_empty() {
                lead.parked.append(&mut events);
                return;
            }
        }
    }

    /// The clock has moved on.
    pub fn tick(&mut self, step: &mut Step<'_>) {
        let now_ns = step.now_ns;
        self.expire_batches(step);
        self.expire_fast(now_ns);
        self.see_to_due(step);
        loop {
            let Some(lead) = self.lead.as_deref_mut() else {
                return;
            };
            let Some(Reverse((at_ns, id))) = lead.timers.peek().copied() else {
                return;
            };
            if at_ns > now_ns {
                return;
            }
            lead.timers.pop();
            self.with_consumer(id, step, |consumer, turn| consumer.tick(turn));
        }
    }

    /// When [`StreamCore::tick`] next has something to do.
    pub fn next_deadline_ns(&self) -> Option<i64> {
        let lead = self.lead.as_deref()?;
        let due_ns = self.next_due_ns().filter(|_| !lead.expiring);
        let lazy_ns = lead
            .draft
            .lazy_since_ns
            .map(|since_ns| since_ns.saturating_add(LAZY_NS_MAX));
        let idle_ns_max = self.batch_quota.idle_ns_max();
        let timer_ns = lead.timers.peek().map(|Reverse((at_ns, _))| *at_ns);
        [
            due_ns,
            lazy_ns,
            timer_ns,
            lead.batches.next_deadline_ns(idle_ns_max),
            lead.fast.next_deadline_ns(idle_ns_max),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Somebody's wait is over.
    pub(super) fn resolve(&mut self, waiting: Waiting, outcome: Outcome, effects: &mut Effects) {
        match waiting {
            Waiting::Stored { reply, value } => {
                if let Outcome::Sequence(sequence) = outcome {
                    self.acknowledge(reply, sequence, Extra::value(value.as_deref()), effects);
                }
            }
            Waiting::Duplicate { reply, sequence } => {
                self.acknowledge(reply, sequence, Extra::Duplicate, effects);
            }
            Waiting::Batch { reply, id, count } => {
                if let Outcome::Sequence(sequence) = outcome {
                    self.acknowledge(reply, sequence, Extra::Batch(&id, count), effects);
                }
            }
            Waiting::Fast { reply } => {
                let stored = match outcome {
                    Outcome::Sequence(sequence) => Some(sequence),
                    _ => None,
                };
                self.settle_fast(&reply, stored, effects);
            }
            Waiting::DuplicateBatch {
                reply,
                id,
                sequence,
            } => {
                let extra = Extra::DuplicateBatch(&id, 1);
                self.acknowledge(reply, sequence, extra, effects);
            }
            Waiting::Direct { reply, query } => self.answer_direct(&reply, &query, effects),
            Waiting::Flow { answer } => effects.outgoing.push(*answer),
            Waiting::Refused { reply, error } => self.refuse(reply, &error, effects),
            Waiting::Confirmed { reply } => effects.confirm(reply),
            Waiting::Request { token, answer } => {
                let reply = self.answer(answer, outcome);
                effects.replies.push((token, reply));
            }
        }
    }

    pub(super) fn acknowledge(
        &self,
        reply: Bytes,
        sequence: u64,
        extra: Extra<'_>,
        effects: &mut Effects,
    ) {
        let payload = effects.small(|into| {
            into.extend_from_slice(&self.ack_prefix);
            push_number(into, sequence);
            match extra {
                Extra::None => {}
                Extra::Duplicate => into.extend_from_slice(b",\"duplicate\": true"),
                Extra::Value(value) => {
                    into.extend_from_slice(b",\"val\":\"");
                    into.extend_from_slice(value.as_bytes());
                    into.extend_from_slice(b"\"");
                }
                Extra::Batch(id, count) | Extra::DuplicateBatch(id, count) => {
                    if matches!(extra, Extra::DuplicateBatch(..)) {
                        into.extend_from_slice(b",\"duplicate\": true");
                    }
                    into.extend_from_slice(b",\"batch\":");
                    let id = serde_json::to_string(id).unwrap_or_default();
                    into.extend_from_slice(id.as_bytes());
                    into.extend_from_slice(b",\"count\":");
                    push_number(into, count);
                }
            }
            into.extend_from_slice(b"}");
        });
        effects.outgoing.push(Outgoing {
            to: reply.clone(),
            subject: reply,
            payload,
            ..Outgoing::default()
        });
    }
}

/// What a publish ack says beyond the sequence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extra<'a> {
    None,
    Duplicate,
    Value(&'a str),
    Batch(&'a str, u64),
    DuplicateBatch(&'a str, u64),
}

impl<'a> Extra<'a> {
    pub(super) fn value(value: Option<&'a str>) -> Self {
        value.map_or(Self::None, Self::Value)
    }
}

/// Whether a consumer may have something to deliver after it has acted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readiness(bool);

impl From<bool> for Readiness {
    fn from(ready: bool) -> Self {
        Self(ready)
    }
}

impl From<Stop> for Readiness {
    fn from(stop: Stop) -> Self {
        Self(stop == Stop::Budget)
    }
}
