//! Messages that are copied from other streams.

use bytes::Bytes;
use storage::store::{ChangeError, Expiry, Store};

use super::judge::{Case, Obstacle, Plan, parse_ttl};
use super::{Event, Step, StreamCore};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::entry::{MessageOp, Op};
use crate::jetstream::core::headers::{self, LINE, PublishHeaders};
use crate::jetstream::core::request::{Outgoing, Publish};
use crate::jetstream::core::sources::SourcePositions;

const SECOND_NS: i64 = 1_000_000_000;

impl StreamCore {
    /// The last sequence, with what is in flight.
    pub fn last_sequence(&self) -> u64 {
        match self.lead.as_deref() {
            Some(lead) => lead.overlay.last_sequence,
            None => self.store.state().last_sequence,
        }
    }

    /// How far the sources have come, without what is in flight.
    pub(crate) fn source_positions(&self) -> &SourcePositions {
        &self.positions
    }

    /// A mirror gets the message that its origin has under a sequence.
    pub(super) fn mirrored(
        &mut self,
        sequence: u64,
        time_ns: i64,
        message: &Publish,
        step: &mut Step<'_>,
    ) {
        if sequence <= self.last_sequence() {
            return;
        }
        let found = PublishHeaders::parse(&message.headers);
        let case = Case {
            is_sourced: true,
            ..Case::alone(message, &found, step.now_ns)
        };
        let mut plan = Plan::default();
        // A rollup that the origin took to be none is none here either.
        let _ = self.rollup(&case, &mut plan);
        let expiry = match found.ttl.and_then(parse_ttl) {
            Some(-1) => Expiry::Never,
            Some(seconds) if seconds > 0 && self.config.allow_msg_ttl => {
                Expiry::At(time_ns.saturating_add(seconds.saturating_mul(SECOND_NS)))
            }
            _ => Expiry::ByAge,
        };
        let operation = MessageOp {
            subject: &message.subject,
            headers: &message.headers,
            payload: &message.payload,
            id: found.id.unwrap_or_default(),
            expiry,
            rollup: plan.rollup,
            schedule_ns: None,
            scheduler: None,
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        lead.overlay.structural += operation.purges();
        lead.overlay.last_sequence = sequence - 1;
        let bytes = plan.accounted_bytes(message, self.store.accounting());
        lead.overlay.add(&message.subject, operation.id, bytes);
        lead.draft.push(&Op::Mirrored {
            sequence,
            time_ns,
            message: operation,
        });
        lead.seal_if_long(step.now_ns);
    }

    /// A mirror's origin has nothing up to a sequence.
    pub(super) fn skipped(&mut self, last_sequence: u64) {
        if last_sequence <= self.last_sequence() {
            return;
        }
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.overlay.last_sequence = last_sequence;
            lead.draft.push(&Op::Skip { last_sequence });
        }
    }

    /// A source has a message. What cannot be stored is told to whoever brought it, and nothing more of that attempt is taken.
    pub(super) fn sourced(
        &mut self,
        attempt: u64,
        sequence: u64,
        message: Publish,
        step: &mut Step<'_>,
    ) {
        let refused = self.lead.as_deref().map(|lead| &lead.refused);
        if refused.is_none_or(|refused| refused.contains(&attempt)) {
            return;
        }
        let found = PublishHeaders::parse(&message.headers);
        let case = Case {
            is_sourced: true,
            ..Case::alone(&message, &found, step.now_ns)
        };
        match self.judge(&case) {
            Ok(plan) => {
                self.push_message(&message, found.id.unwrap_or_default(), &plan);
                if let Some(lead) = self.lead.as_deref_mut() {
                    lead.seal_if_long(step.now_ns);
                }
            }
            Err(Obstacle::Duplicate(_)) => {}
            Err(Obstacle::Park) => self.park(Event::Sourced {
                attempt,
                sequence,
                message,
            }),
            Err(Obstacle::Refuse(_)) => {
                if let Some(lead) = self.lead.as_deref_mut() {
                    lead.refused.insert(attempt);
                }
                step.effects.refused.push((attempt, sequence));
            }
        }
    }

    /// An origin asks how far this stream is. It hears of nothing that is not durable here.
    pub(super) fn source_flow(
        &mut self,
        reply: Bytes,
        delivered: u64,
        sequence: u64,
        effects: &mut Effects,
    ) {
        let mut block = LINE.to_vec();
        headers::line(&mut block, "Nats-Last-Consumer", delivered);
        headers::line(&mut block, "Nats-Last-Stream", sequence);
        block.extend_from_slice(b"\r\n");
        let answer = Box::new(Outgoing {
            to: reply.clone(),
            subject: reply,
            headers: Bytes::from(block),
            ..Outgoing::default()
        });
        match self.lead.as_deref_mut() {
            Some(lead) if !lead.is_settled() => lead.after_all(Waiting::Flow { answer }),
            _ => effects.outgoing.push(*answer),
        }
    }
}

/// Uses up the sequences between the last one and this.
pub(super) fn skip_to(
    store: &mut dyn Store,
    sequence: u64,
    time_ns: i64,
) -> Result<(), ChangeError> {
    match sequence > store.state().last_sequence.saturating_add(1) {
        true => store.skip(sequence - 1, time_ns),
        false => Ok(()),
    }
}
