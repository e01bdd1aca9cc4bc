//! Publishing: messages on their way into an entry, and what their publishers hear.

use bytes::Bytes;
use storage::store::Expiry;

use super::judge::{Case, Obstacle, Plan};
use super::lead::Extra;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::entry::{MessageOp, Op, Scheduler};
use crate::jetstream::core::headers::{self, PublishHeaders};
use crate::jetstream::core::request::{Outgoing, Publish};
use crate::jetstream::types::{ApiError, PersistMode};

/// How the reply subject of a message of a fast batch ends.
pub(super) const FAST_BATCH_SUFFIX: &[u8] = b".$FI";
/// Never, as the time at which a message dies.
pub(super) const NEVER: i64 = i64::MAX;

impl StreamCore {
    pub(super) fn publish(&mut self, mut publish: Publish, step: &mut Step<'_>) {
        let mut found = PublishHeaders::parse(&publish.headers);
        if found.request_info {
            let kept = headers::without(&publish.headers, "Nats-Request-Info");
            publish.headers = Bytes::from(kept);
            found = PublishHeaders::parse(&publish.headers);
        }
        if found.expected_last_subject_sequence.is_some()
            && let Some(lead) = self.lead.as_deref_mut()
            && lead.overlay.has_no_messages()
        {
            lead.overlay.track_subjects();
        }
        if publish.reply.ends_with(FAST_BATCH_SUFFIX) {
            return self.publish_fast(publish, step);
        }
        if found.batch_id.is_some() {
            return self.publish_in_batch(publish, step);
        }
        match self.judge(&Case::alone(&publish, &found, step.now_ns)) {
            Ok(plan) => {
                let id = found.id.unwrap_or_default();
                self.store_message(&publish, id, plan, step);
            }
            Err(Obstacle::Duplicate(sequence)) => {
                self.duplicate(publish.reply, sequence, step.effects)
            }
            Err(Obstacle::Refuse(error)) => self.refuse_publish(publish.reply, error, step.effects),
            Err(Obstacle::Park) => self.park(Event::Publish(publish)),
        }
    }

    /// Puts a message into the entry being filled.
    fn store_message(&mut self, publish: &Publish, id: &[u8], plan: Plan, step: &mut Step<'_>) {
        let responds = !self.config.no_ack && !publish.reply.is_empty();
        let operation = self.push_message(publish, id, &plan);
        let acks_early = self.acks_early();
        if responds && acks_early {
            let extra = Extra::value(plan.value.as_deref());
            let sequence = self.last_sequence();
            self.acknowledge(publish.reply.clone(), sequence, extra, step.effects);
        }
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        if responds && !acks_early {
            let waiting = Waiting::Stored {
                reply: publish.reply.clone(),
                value: plan.value,
            };
            lead.draft.wait(operation, waiting);
        }
        lead.seal_if_long(step.now_ns);
    }

    /// Whether publishers need not wait until what they hear of is durable.
    pub(super) fn acks_early(&self) -> bool {
        self.config.persist_mode == PersistMode::Async && self.config.num_replicas <= 1
    }

    /// Puts a message into the entry being filled as it was planned; which operation it is.
    pub(super) fn push_message(&mut self, publish: &Publish, id: &[u8], plan: &Plan) -> u32 {
        let Some(lead) = self.lead.as_deref_mut() else {
            return 0;
        };
        let expiry = match plan.expiry_ns {
            None => Expiry::ByAge,
            Some(NEVER) => Expiry::Never,
            Some(time_ns) => Expiry::At(time_ns),
        };
        let scheduler = plan.scheduler.as_ref();
        let message = MessageOp {
            subject: &publish.subject,
            headers: plan.headers.as_ref().unwrap_or(&publish.headers),
            payload: plan.payload.as_ref().unwrap_or(&publish.payload),
            id,
            expiry,
            rollup: plan.rollup,
            schedule_ns: plan.schedule_ns,
            scheduler: scheduler.map(|(subject, next_ns)| Scheduler {
                subject,
                next_ns: *next_ns,
            }),
        };
        lead.overlay.structural += message.purges();
        let bytes = self.store.accounting().bytes(
            message.subject.len(),
            message.headers.len(),
            message.payload.len(),
        );
        lead.overlay.add(&publish.subject, id, bytes);
        lead.draft.push(&Op::Message(message))
    }

    pub(super) fn duplicate(&mut self, reply: Bytes, sequence: u64, effects: &mut Effects) {
        if self.config.no_ack || reply.is_empty() {
            return;
        }
        let early = self.acks_early();
        match self.lead.as_deref_mut() {
            Some(lead) if !early && !lead.is_settled() => {
                lead.after_all(Waiting::Duplicate { reply, sequence });
            }
            _ => self.acknowledge(reply, sequence, Extra::Duplicate, effects),
        }
    }

    pub(super) fn refuse_publish(&mut self, reply: Bytes, error: ApiError, effects: &mut Effects) {
        if self.config.no_ack || reply.is_empty() {
            return;
        }
        let error = Box::new(error);
        let early = self.acks_early();
        match self.lead.as_deref_mut() {
            Some(lead) if !early && !lead.is_settled() => {
                lead.after_all(Waiting::Refused { reply, error })
            }
            _ => self.refuse(reply, &error, effects),
        }
    }

    /// Refuses a message without looking at it.
    pub fn reject(&self, reply: Bytes, error: &ApiError, effects: &mut Effects) {
        if !self.config.no_ack && !reply.is_empty() {
            self.refuse(reply, error, effects);
        }
    }

    /// Tells a publisher why its message was refused.
    pub(super) fn refuse(&self, reply: Bytes, error: &ApiError, effects: &mut Effects) {
        let error = serde_json::to_string(error).unwrap_or_default();
        let name = serde_json::to_string(&*self.name).unwrap_or_default();
        let payload = format!("{{\"error\":{error},\"stream\":{name},\"seq\":0}}");
        effects.outgoing.push(Outgoing {
            to: reply.clone(),
            subject: reply,
            payload: Bytes::from(payload),
            ..Outgoing::default()
        });
    }
}
