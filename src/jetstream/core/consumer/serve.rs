//! Delivery: which message is next, who gets it, and what is remembered of that.

use std::cmp::Reverse;

use bytes::Bytes;
use storage::store::{Message, ReadError};

use super::live::Pin;
use super::progress::Place;
use super::waiting::Choice;
use super::{Consumer, RESERVE_MAX, Turn};
use crate::jetstream::core::effects::{Advisory, push_number};
use crate::jetstream::core::entry::Op;
use crate::jetstream::core::headers;
use crate::jetstream::core::request::Outgoing;
use crate::jetstream::core::status;
use crate::jetstream::types::{AckPolicy, PriorityPolicy, Retention};

/// What a rate limit lets through at once.
const RATE_BURST_BYTES: u64 = 1024 * 1024;
/// Shorter distances between messages are not kept under original speed.
const REPLAY_DELAY_NS_MIN: i64 = 1_000_000;

/// Why a consumer stopped delivering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its share of this turn is used up.
    Budget,
    /// There is nothing more to deliver.
    End,
    /// Nobody wants anything now.
    Demand,
    /// As many messages as may be wait for their acks.
    AcksFull,
    /// The log has to catch up first.
    Reservation,
    /// The next message cannot be read, and is not given up.
    Damage,
}

/// A message that could be delivered.
struct Candidate {
    message: Message,
    deliveries: u64,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Redelivery,
    LastMessages,
    Cursor,
}

impl Consumer {
    /// Delivers up to `budget` messages and looks after the requests that wait.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_>, budget: usize) -> Stop {
        if self.live.as_deref().is_none_or(|live| live.resets > 0) {
            return Stop::Demand;
        }
        let mut sent = 0;
        let mut is_unwanted = false;
        let stop = loop {
            if !self.has_demand(turn.now_ns) {
                break Stop::Demand;
            }
            if sent >= budget {
                break Stop::Budget;
            }
            let candidate = match self.candidate(turn) {
                Ok(candidate) => candidate,
                Err(stop) => break stop,
            };
            if !self.deliver(candidate, turn) {
                // It may also be too early for it.
                is_unwanted = self.has_demand(turn.now_ns);
                break Stop::Demand;
            }
            sent += 1;
        };
        if sent > 0 {
            self.after_deliveries(turn);
        }
        if stop == Stop::Reservation {
            self.reserve(turn, true);
        }
        if !self.rules.is_push() && stop != Stop::Budget {
            // Nothing comes out of a paused consumer, and nobody gets what none of those may have who ask: for those that do not want to wait that is the
            // end, too.
            let over = stop == Stop::End || is_unwanted || self.rules.is_paused(turn.now_ns);
            self.walk_waiting(over, turn);
        }
        stop
    }

    fn has_demand(&self, now_ns: i64) -> bool {
        let Some(live) = self.live.as_deref() else {
            return false;
        };
        if self.rules.is_paused(now_ns) {
            return false;
        }
        if self.rules.is_push() {
            live.push.is_open() && live.not_before_ns <= now_ns
        } else {
            !live.waiting.is_empty() && live.not_before_ns <= now_ns
        }
    }

    /// Looks after waiting requests and says how many messages they ask for.
    pub(crate) fn walk_waiting(&mut self, end_of_stream: bool, turn: &mut Turn<'_>) -> u64 {
        let Some(live) = self.live.as_deref_mut() else {
            return 0;
        };
        let place = (
            live.progress.delivered.consumer,
            live.cursor.saturating_sub(1),
        );
        live.waiting
            .walk(end_of_stream, turn.now_ns, place, turn.world, turn.effects)
    }

    /// The next message, without having taken it yet.
    fn candidate(&mut self, turn: &mut Turn<'_>) -> Result<Candidate, Stop> {
        if let Some(candidate) = self.redelivery(turn) {
            return Ok(candidate);
        }
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return Err(Stop::Demand);
        };
        if rules
            .ack_pending_max
            .is_some_and(|max| live.progress.pending.len() >= max)
        {
            return Err(Stop::AcksFull);
        }
        // Without acks nothing is ever delivered again, so that there is nothing to mark.
        let marks = rules.ack != AckPolicy::None;
        let reserved = live.given_back.unwrap_or(self.progress.reserved);
        if marks && live.progress.delivered.consumer >= reserved {
            return Err(Stop::Reservation);
        }
        let (deliveries_upto, messages_upto) = live.suspect_upto;
        let suspect = marks && live.progress.delivered.consumer < deliveries_upto;
        let deliveries = |message: &Message| {
            if suspect && message.sequence <= messages_upto {
                2
            } else {
                1
            }
        };
        while let Some(sequence) = live.last_messages.front().copied() {
            match turn.store.load(sequence) {
                Ok(Some(message)) => {
                    return Ok(Candidate {
                        deliveries: deliveries(&message),
                        message,
                        source: Source::LastMessages,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    passed_over(&self.name, sequence, &error, turn);
                    if waits_for_others(&error, turn) {
                        return Err(Stop::Damage);
                    }
                }
            }
            live.last_messages.pop_front();
        }
        loop {
            match turn.store.next(live.cursor, &rules.filter) {
                Ok(Some(message)) => {
                    return Ok(Candidate {
                        deliveries: deliveries(&message),
                        message,
                        source: Source::Cursor,
                    });
                }
                Ok(None) => {
                    let end = turn.store.state().last_sequence.saturating_add(1);
                    live.cursor = live.cursor.max(end);
                    return Err(Stop::End);
                }
                Err(ReadError::Damaged { sequence, reason }) if sequence >= live.cursor => {
                    let error = ReadError::Damaged { sequence, reason };
                    passed_over(&self.name, sequence, &error, turn);
                    if waits_for_others(&error, turn) {
                        return Err(Stop::Damage);
                    }
                    live.cursor = sequence + 1;
                    live.pending_messages = live.pending_messages.saturating_sub(1);
                }
                Err(error) => {
                    passed_over(&self.name, live.cursor, &error, turn);
                    return Err(match turn.has_replicas {
                        true => Stop::Damage,
                        false => Stop::End,
                    });
                }
            }
        }
    }

    /// The first message that is to be delivered again, dropping those that may not or cannot.
    fn redelivery(&mut self, turn: &mut Turn<'_>) -> Option<Candidate> {
        loop {
            let live = self.live.as_deref_mut()?;
            let sequence = live.redeliver.first().copied()?;
            let times = live
                .progress
                .redelivered
                .get(&sequence)
                .copied()
                .unwrap_or(0);
            let deliveries = times + 2;
            if self.rules.deliver_max.is_some_and(|max| deliveries > max) {
                live.redeliver.remove(&sequence);
                self.exhaust(sequence, deliveries - 1, turn);
                continue;
            }
            match turn.store.load(sequence) {
                Ok(Some(message)) => {
                    return Some(Candidate {
                        message,
                        deliveries,
                        source: Source::Redelivery,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    // It stays unacknowledged, and is looked at again when as much time has passed as an ack may take.
                    passed_over(&self.name, sequence, &error, turn);
                    live.redeliver.remove(&sequence);
                    let again_ns = turn.now_ns.saturating_add(self.rules.wait_ns(times));
                    live.due.push(Reverse((again_ns, sequence)));
                    continue;
                }
            }
            live.redeliver.remove(&sequence);
            let consumer_sequence = live
                .progress
                .pending
                .get(&sequence)
                .map_or(0, |pending| pending.consumer_sequence);
            if live.progress.ack_one(sequence, turn.now_ns) {
                let op = Op::Acked {
                    id: self.id,
                    consumer_sequence,
                    stream_sequence: sequence,
                };
                turn.draft.push_lazy(&op, turn.now_ns);
            }
        }
    }

    /// A message was delivered as often as it may.
    pub(crate) fn exhaust(&mut self, sequence: u64, deliveries: u64, turn: &mut Turn<'_>) {
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        // It would be logged behind a reset.
        if live.resets > 0 || !live.progress.pending.contains_key(&sequence) {
            return;
        }
        live.progress.exhaust(sequence, deliveries);
        let op = Op::Exhausted {
            id: self.id,
            stream_sequence: sequence,
            deliveries,
        };
        turn.draft.push_lazy(&op, turn.now_ns);
        turn.effects.advisories.push(Advisory::DeliveriesExceeded {
            consumer: self.name.clone(),
            stream_sequence: sequence,
            deliveries,
        });
    }

    /// Sends a message to whoever is next; `false` when there is nobody or it is too early.
    fn deliver(&mut self, candidate: Candidate, turn: &mut Turn<'_>) -> bool {
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return false;
        };
        let Candidate {
            message,
            deliveries,
            source,
        } = candidate;
        let is_new = source != Source::Redelivery;
        if is_new && let Some(at_ns) = live.original_time(&message, turn.now_ns) {
            live.not_before_ns = at_ns;
            return false;
        }
        let pending = if is_new {
            live.pending_messages.saturating_sub(1)
        } else {
            live.pending_messages
        };
        let place = Place {
            consumer: live.progress.delivered.consumer + 1,
            stream: message.sequence,
        };
        let time_ns = message.time_ns;
        let reply = turn.effects.small(|into| {
            into.extend_from_slice(&live.ack_prefix);
            push_number(into, deliveries);
            for number in [place.stream, place.consumer] {
                into.extend_from_slice(b".");
                push_number(into, number);
            }
            into.extend_from_slice(b".");
            push_number(into, time_ns);
            into.extend_from_slice(b".");
            push_number(into, pending);
        });
        let mut outgoing = Outgoing {
            to: rules.deliver_subject.clone(),
            subject: message.subject,
            reply,
            headers: message.headers,
            payload: message.payload,
        };
        if rules.headers_only {
            outgoing.headers = with_size(&outgoing.headers, outgoing.payload.len());
            outgoing.payload = Bytes::new();
        }
        let size = |outgoing: &Outgoing| {
            outgoing.subject.len()
                + outgoing.reply.len()
                + outgoing.headers.len()
                + outgoing.payload.len()
        };
        let mut completed = None;
        if !rules.is_push() {
            let choice = Choice {
                now_ns: turn.now_ns,
                size: size(&outgoing) as i64,
                pending: pending + 1,
                ack_pending: live.progress.pending.len(),
                policy: rules.priority,
                pinned: live.pin.as_ref().map(|pin| pin.id.as_str()),
                world: turn.world,
            };
            let Some(chosen) = live.waiting.choose(&choice, turn.effects) else {
                return false;
            };
            if rules.priority == PriorityPolicy::PinnedClient {
                if chosen.claims_pin {
                    self.pin(chosen.batch > 0, turn);
                }
                outgoing.headers = self.with_pin(&outgoing.headers);
            }
            if chosen.batch <= 0 && chosen.bounded_bytes && chosen.bytes > 0 {
                completed = Some((chosen.reply.clone(), chosen.batch, chosen.bytes));
            }
            outgoing.to = chosen.reply;
        }
        let size = size(&outgoing) as u64;
        turn.effects.outgoing.push(outgoing);
        if let Some((reply, batch, bytes)) = completed {
            let text = "409 Batch Completed";
            let status = status::remaining(&reply, text, batch, bytes);
            turn.effects.outgoing.push(status);
        }
        self.delivered(place, deliveries, time_ns, source, size, turn);
        true
    }

    /// Remembers a delivery.
    fn delivered(
        &mut self,
        place: Place,
        deliveries: u64,
        time_ns: i64,
        source: Source,
        size: u64,
        turn: &mut Turn<'_>,
    ) {
        let rules = &self.rules;
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        match source {
            Source::Redelivery => {
                live.redeliver.remove(&place.stream);
            }
            Source::LastMessages => {
                live.last_messages.pop_front();
            }
            Source::Cursor => live.cursor = place.stream + 1,
        }
        if source != Source::Redelivery {
            live.pending_messages = live.pending_messages.saturating_sub(1);
        }
        live.progress
            .deliver(rules.ack, place, deliveries, turn.now_ns);
        live.expect_ack(rules, place.stream);
        live.active_ns = turn.now_ns;
        live.last_sent = Some((time_ns, turn.now_ns));
        if rules.rate_bits_per_second > 0 {
            live.throttle(rules.rate_bits_per_second, size, turn.now_ns);
        }
        if rules.is_push() {
            live.push.heartbeat_at_ns = turn.now_ns.saturating_add(rules.idle_heartbeat_ns);
            let acks_full = rules.ack == AckPolicy::FlowControl
                && rules
                    .ack_pending_max
                    .is_some_and(|max| live.progress.pending.len() >= max);
            if live.push.sent(size, acks_full) {
                live.push.ask(
                    turn.ack_names.flow_prefix(&self.name),
                    &rules.deliver_subject,
                    turn.world.random(),
                    turn.effects,
                );
            }
        }
        if self.logs_each_delivery(turn.retention) {
            let op = Op::Delivered {
                id: self.id,
                consumer_sequence: place.consumer,
                stream_sequence: place.stream,
                deliveries,
            };
            turn.draft.push_lazy(&op, turn.now_ns);
        }
    }

    /// Without acks only the last delivery of a turn matters, unless each one removes its message.
    fn logs_each_delivery(&self, retention: Retention) -> bool {
        self.rules.ack != AckPolicy::None || retention != Retention::Limits
    }

    fn after_deliveries(&mut self, turn: &mut Turn<'_>) {
        let Some(live) = self.live.as_deref() else {
            return;
        };
        if !self.logs_each_delivery(turn.retention) {
            let op = Op::Delivered {
                id: self.id,
                consumer_sequence: live.progress.delivered.consumer,
                stream_sequence: live.progress.delivered.stream,
                deliveries: 1,
            };
            turn.draft.push_lazy(&op, turn.now_ns);
        } else if self.rules.ack == AckPolicy::None {
            // These deliveries remove messages, which readers of the stream expect to see soon.
            turn.draft.urgent = true;
        }
        self.reserve(turn, false);
    }

    /// Asks for room to deliver ahead of the log, well before it is used up.
    fn reserve(&mut self, turn: &mut Turn<'_>, waits: bool) {
        if self.rules.ack == AckPolicy::None {
            return;
        }
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        let delivered = live.progress.delivered.consumer;
        if delivered + live.reserve_ahead / 2 <= live.reserve_asked {
            return;
        }
        if waits && live.reserve_asked > 0 {
            live.reserve_ahead = (live.reserve_ahead * 2).min(RESERVE_MAX);
        }
        live.reserve_asked = delivered + live.reserve_ahead;
        turn.draft.push(&Op::Reserved {
            id: self.id,
            consumer_sequence: live.reserve_asked,
        });
    }

    /// Gives back what is reserved but not delivered: before a clean stop. What an earlier leader had reserved it may have delivered, and may deliver
    /// still, as long as it does not know that it leads no more: until all of that has been delivered here it stays reserved, so that whoever delivers it marks it.
    pub(crate) fn give_back(&mut self, turn: &mut Turn<'_>) {
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        let delivered = live.progress.delivered.consumer;
        let (deliveries_upto, messages_upto) = live.suspect_upto;
        let is_past = live.cursor > messages_upto && live.last_messages.is_empty();
        let kept = match is_past {
            true => delivered,
            false => delivered.max(deliveries_upto),
        };
        if live.reserve_asked > kept {
            live.reserve_asked = kept;
            live.given_back = Some(kept);
            turn.draft.push(&Op::Reserved {
                id: self.id,
                consumer_sequence: kept,
            });
        }
    }

    /// A reservation is applied.
    pub(crate) fn reserved(&mut self, upto: u64) {
        self.progress.reserved = upto;
        if let Some(live) = self.live.as_deref_mut() {
            live.given_back.take_if(|given_back| *given_back == upto);
        }
    }

    /// Pins the client whose request was chosen last, which may ask for more.
    fn pin(&mut self, asks_for_more: bool, turn: &mut Turn<'_>) {
        let timeout_ns = self.rules.priority_timeout_ns;
        let group = self
            .rules
            .priority_groups
            .first()
            .cloned()
            .unwrap_or_default();
        let Some(live) = self.live.as_deref_mut() else {
            return;
        };
        let mut id = format!("{:011x}{:011x}", turn.world.random(), turn.world.random());
        id.truncate(22);
        turn.effects.advisories.push(Advisory::Pinned {
            consumer: self.name.clone(),
            group: group.clone(),
            id: id.clone(),
        });
        if asks_for_more {
            live.waiting.pin_last(&id);
        }
        live.pin = Some(Pin {
            id,
            group,
            since_ns: turn.now_ns,
            until_ns: turn.now_ns.saturating_add(timeout_ns),
        });
    }

    fn with_pin(&self, block: &[u8]) -> Bytes {
        let mut headers = Vec::with_capacity(block.len() + 48);
        headers::reopen(block, &mut headers);
        // Nobody is pinned where the request named no group.
        let pin = self.live.as_deref().and_then(|live| live.pin.as_ref());
        let id = pin.map_or("", |pin| pin.id.as_str());
        headers::line_bytes(&mut headers, "Nats-Pin-Id", id.as_bytes());
        headers.extend_from_slice(b"\r\n");
        Bytes::from(headers)
    }
}

impl super::Live {
    /// Under original speed: when a message is to be sent, if that is still to come.
    fn original_time(&self, message: &Message, now_ns: i64) -> Option<i64> {
        if message.sequence > self.replay_upto {
            return None;
        }
        let (time_ns, sent_ns) = self.last_sent?;
        let distance_ns = message.time_ns.saturating_sub(time_ns);
        let at_ns = sent_ns.saturating_add(distance_ns);
        (distance_ns > REPLAY_DELAY_NS_MIN && now_ns < at_ns).then_some(at_ns)
    }

    /// Holds back what follows for as long as these bytes take.
    fn throttle(&mut self, bits_per_second: u64, size: u64, now_ns: i64) {
        let nanoseconds = |bytes: u64| {
            let bits = u128::from(bytes) * 8 * 1_000_000_000;
            (bits / u128::from(bits_per_second.max(1))).min(i64::MAX as u128) as i64
        };
        let burst_ns = nanoseconds(RATE_BURST_BYTES.max(bits_per_second / 8));
        let floor_ns = now_ns.saturating_sub(burst_ns);
        self.not_before_ns = self
            .not_before_ns
            .max(floor_ns)
            .saturating_add(nanoseconds(size));
    }
}

fn with_size(before: &[u8], payload_bytes: usize) -> Bytes {
    let mut block = Vec::with_capacity(before.len() + 40);
    headers::reopen(before, &mut block);
    headers::line(&mut block, "Nats-Msg-Size", payload_bytes);
    block.extend_from_slice(b"\r\n");
    Bytes::from(block)
}

/// Whether a message that cannot be read is not given up: the disk may answer the next time, and where there are other replicas one of them has it.
fn waits_for_others(error: &ReadError, turn: &Turn<'_>) -> bool {
    turn.has_replicas || matches!(error, ReadError::Disk(_))
}

fn passed_over(consumer: &str, sequence: u64, error: &ReadError, turn: &mut Turn<'_>) {
    turn.effects.advisories.push(Advisory::Damaged {
        consumer: consumer.to_owned(),
        stream_sequence: sequence,
        reason: error.to_string(),
    });
}
