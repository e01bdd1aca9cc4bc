//! Publishing: which messages are stored, and what their publishers hear.
//!
//! The order of the checks is the reference's; it decides which of several violated rules a publisher hears of.

use bytes::Bytes;
use storage::filter::{Filter, Pattern};
use storage::store::{self, Expiry, accounted_bytes};

use super::lead::Extra;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::duration;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::entry::{MessageOp, Op, Rollup};
use crate::jetstream::core::headers::{self, HEADER_BYTES_MAX, PublishHeaders};
use crate::jetstream::core::request::{Outgoing, Publish};
use crate::jetstream::types::{ApiError, ErrorCode};

/// The largest message that is stored, all in all.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;
const SECOND_NS: i64 = 1_000_000_000;

/// What is to become of a message.
pub(super) enum Verdict {
    /// It is stored.
    Store(Plan),
    /// It was stored before, under this sequence.
    Duplicate(u64),
    /// It is refused.
    Refuse(ApiError),
    /// That depends on what is in flight.
    Park,
}

/// How a message is stored.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) expiry: ExpiryPlan,
    pub(super) rollup: Rollup,
    /// The value a counter comes to, which is the payload then.
    pub(super) value: Option<Box<str>>,
}

/// When a message dies by itself.
pub(super) type ExpiryPlan = Option<i64>;

/// Never, in an [`ExpiryPlan`].
const NEVER: i64 = i64::MAX;

impl StreamCore {
    pub(super) fn publish(&mut self, mut publish: Publish, step: &mut Step<'_>) {
        let found = PublishHeaders::parse(&publish.headers);
        if found.request_info {
            let kept = headers::without(&publish.headers, "Nats-Request-Info");
            publish.headers = Bytes::from(kept);
        }
        let found = PublishHeaders::parse(&publish.headers);
        if found.batch_id.is_some() {
            return self.publish_in_batch(publish, step);
        }
        if found.expected_last_subject_sequence.is_some()
            && let Some(lead) = self.lead.as_deref_mut()
            && lead.overlay.has_no_messages()
        {
            lead.overlay.track_subjects();
        }
        match self.judge(&publish, &found, step.now_ns) {
            Verdict::Store(plan) => {
                let id = found.id.unwrap_or_default();
                self.store_message(&publish, id, plan, step.now_ns);
            }
            Verdict::Duplicate(sequence) => self.duplicate(publish.reply, sequence, step.effects),
            Verdict::Refuse(error) => self.refuse_publish(publish.reply, error, step.effects),
            Verdict::Park => self.park(Event::Publish(publish)),
        }
    }

    /// Puts a message into the entry being filled.
    fn store_message(&mut self, publish: &Publish, id: &[u8], plan: Plan, now_ns: i64) {
        let responds = !self.config.no_ack && !publish.reply.is_empty();
        let operation = self.push_message(publish, id, &plan);
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        if responds {
            let waiting = Waiting::Stored {
                reply: publish.reply.clone(),
                value: plan.value,
            };
            lead.draft.wait(operation, waiting);
        }
        lead.seal_if_long(now_ns);
    }

    pub(super) fn push_message(&mut self, publish: &Publish, id: &[u8], plan: &Plan) -> u32 {
        let Some(lead) = self.lead.as_deref_mut() else {
            return 0;
        };
        let counted;
        let payload: &[u8] = match &plan.value {
            Some(value) => {
                counted = format!("{{\"val\":\"{value}\"}}");
                counted.as_bytes()
            }
            None => &publish.payload,
        };
        let expiry = match plan.expiry {
            None => Expiry::ByAge,
            Some(NEVER) => Expiry::Never,
            Some(time_ns) => Expiry::At(time_ns),
        };
        if plan.rollup != Rollup::None {
            lead.overlay.structural += 1;
        }
        let bytes = accounted_bytes(publish.subject.len(), publish.headers.len(), payload.len());
        lead.overlay.add(&publish.subject, id, bytes);
        lead.draft.push(&Op::Message(MessageOp {
            subject: &publish.subject,
            headers: &publish.headers,
            payload,
            id,
            expiry,
            rollup: plan.rollup,
        }))
    }

    /// Goes through the rules in the reference's order.
    pub(super) fn judge(
        &self,
        publish: &Publish,
        found: &PublishHeaders<'_>,
        now_ns: i64,
    ) -> Verdict {
        match self.judge_by_rules(publish, found, now_ns) {
            Ok(verdict) | Err(verdict) => verdict,
        }
    }

    fn judge_by_rules(
        &self,
        publish: &Publish,
        found: &PublishHeaders<'_>,
        now_ns: i64,
    ) -> Result<Verdict, Verdict> {
        let config = &self.config;
        let (headers, payload) = (publish.headers.len(), publish.payload.len());
        let bytes = accounted_bytes(publish.subject.len(), headers, payload);
        if bytes > RECORD_BYTES_MAX {
            return Err(refuse(
                ErrorCode::StreamStoreFailed.with("message too large"),
            ));
        }
        if config.sealed {
            return Err(refuse(ErrorCode::StreamSealed));
        }
        self.check_increment(publish, found)?;
        if found
            .expected_stream
            .is_some_and(|expected| expected != self.name.as_bytes())
        {
            return Err(refuse(ErrorCode::StreamNotMatch));
        }
        let ttl = found.ttl.map(parse_ttl);
        if !config.allow_msg_ttl && matches!(ttl, Some(Some(seconds)) if seconds != 0) {
            return Err(refuse(ErrorCode::MessageTtlDisabled));
        }
        self.check_expected_sequences(publish, found)?;
        if found.schedule.is_some() || found.scheduler.is_some() {
            return Err(refuse(ErrorCode::MessageSchedulesDisabled));
        }
        self.check_id(found, now_ns)?;
        let rollup = self.rollup(found)?;
        let value = self.count(publish, found)?;
        let size = headers + payload;
        if usize::try_from(config.max_msg_size).is_ok_and(|max| max > 0 && size > max) {
            return Err(refuse(ErrorCode::StreamMessageExceedsMaximum));
        }
        if headers > HEADER_BYTES_MAX {
            return Err(refuse(ErrorCode::StreamHeaderExceedsMaximum));
        }
        let expiry = match ttl {
            Some(None) => return Err(refuse(ErrorCode::MessageTtlInvalid)),
            Some(Some(seconds)) => self.expiry(seconds, now_ns),
            None => None,
        };
        if self.is_wanted(&publish.subject) {
            self.check_room(publish, found.rollup.is_some(), bytes)?;
        }
        Ok(Verdict::Store(Plan {
            expiry,
            rollup,
            value,
        }))
    }

    fn expiry(&self, seconds: i64, now_ns: i64) -> ExpiryPlan {
        let config = &self.config;
        match seconds {
            -1 => Some(NEVER),
            0 => None,
            seconds => {
                let mut ttl_ns = seconds.saturating_mul(SECOND_NS);
                if config.max_msgs_per_subject != 1 {
                    ttl_ns = ttl_ns.max(config.subject_delete_marker_ttl);
                }
                Some(now_ns.saturating_add(ttl_ns).min(NEVER - 1))
            }
        }
    }

    fn check_expected_sequences(
        &self,
        publish: &Publish,
        found: &PublishHeaders<'_>,
    ) -> Result<(), Verdict> {
        let Some(lead) = self.lead.as_deref() else {
            return Ok(());
        };
        if let Some(expected) = found
            .expected_last_subject_sequence
            .and_then(parse_expected)
        {
            let last = match found.expected_last_subject_sequence_subject {
                Some(subject) => self.last_on(&Bytes::copy_from_slice(subject))?,
                None => self.last_on(&publish.subject)?,
            };
            if last != expected {
                return Err(refuse(ErrorCode::StreamWrongLastSequence.with(last)));
            }
        } else if found.expected_last_subject_sequence_subject.is_some() {
            return Err(refuse(ErrorCode::StreamExpectedLastSeqPerSubjectInvalid));
        }
        if let Some(expected) = found.expected_last_sequence.and_then(parse_expected) {
            if lead.overlay.structural > 0 {
                return Err(Verdict::Park);
            }
            let last = lead.overlay.last_sequence;
            if last != expected {
                return Err(refuse(ErrorCode::StreamWrongLastSequence.with(last)));
            }
        }
        Ok(())
    }

    /// The last sequence on a subject (wildcards allowed), with what is in flight.
    fn last_on(&self, subject: &Bytes) -> Result<u64, Verdict> {
        let Some(lead) = self.lead.as_deref() else {
            return Ok(0);
        };
        let overlay = &lead.overlay;
        if overlay.structural > 0 {
            return Err(Verdict::Park);
        }
        let pattern = Pattern::new(subject.clone());
        if !pattern.is_literal() {
            if !overlay.has_no_messages() {
                return Err(Verdict::Park);
            }
            let filter = Filter::new([subject.as_ref()]);
            let last = self.store.previous_sequence(overlay.last_sequence, &filter);
            return Ok(last.unwrap_or(0));
        }
        if !overlay.has_no_messages() {
            if !overlay.tracks_subjects() {
                return Err(Verdict::Park);
            }
            if let Some(sequence) = overlay.last_on(subject) {
                return Ok(sequence);
            }
        }
        Ok(self
            .store
            .subject(subject)
            .map_or(0, |state| state.last_sequence))
    }

    fn check_id(&self, found: &PublishHeaders<'_>, now_ns: i64) -> Result<(), Verdict> {
        let Some(lead) = self.lead.as_deref() else {
            return Ok(());
        };
        if let Some(id) = found.id {
            let seen = lead.overlay.find_id(id);
            if let Some(sequence) = seen.or_else(|| self.dedupe.find(id, now_ns)) {
                return Err(Verdict::Duplicate(sequence));
            }
        }
        if let Some(expected) = found.expected_last_id {
            let last = lead.overlay.last_id.as_deref().unwrap_or(&self.last_id);
            if last != expected {
                let last = String::from_utf8_lossy(last);
                return Err(refuse(ErrorCode::StreamWrongLastMsgId.with(last)));
            }
        }
        Ok(())
    }

    fn rollup(&self, found: &PublishHeaders<'_>) -> Result<Rollup, Verdict> {
        let Some(value) = found.rollup else {
            return Ok(Rollup::None);
        };
        let failed = |reason: String| refuse(ErrorCode::StreamRollupFailed.with(reason));
        if !self.config.allow_rollup_hdrs || self.config.deny_purge {
            return Err(failed("rollup not permitted".to_owned()));
        }
        match value.to_ascii_lowercase().as_slice() {
            b"sub" => Ok(Rollup::Subject),
            b"all" => Ok(Rollup::Everything),
            value => {
                let value = String::from_utf8_lossy(value);
                Err(failed(format!("rollup value invalid: {value:?}")))
            }
        }
    }

    /// Whether a stream that refuses new messages at its limits has room.
    fn check_room(&self, publish: &Publish, rolls_up: bool, bytes: u64) -> Result<(), Verdict> {
        let limits = self.store.limits();
        if limits.discard != store::Discard::New {
            return Ok(());
        }
        let Some(lead) = self.lead.as_deref() else {
            return Ok(());
        };
        let overlay = &lead.overlay;
        let uncertain = overlay.structural > 0 || !overlay.has_no_messages();
        let full = |text: &str| {
            if uncertain {
                Verdict::Park
            } else {
                refuse(ErrorCode::StreamStoreFailed.with(text))
            }
        };
        let mut replaces = false;
        if let Some(max) = limits.per_subject_max {
            let known = self.store.subject(&publish.subject);
            let in_flight = overlay.last_on(&publish.subject).is_some();
            let at_limit = known.is_some_and(|subject| subject.messages >= max);
            if self.config.discard_new_per_subject && !rolls_up && (at_limit || in_flight) {
                return Err(full("maximum messages per subject exceeded"));
            }
            replaces = at_limit;
        }
        let state = self.store.state();
        let messages = state.messages + overlay.messages;
        if limits.messages_max.is_some_and(|max| messages >= max) && !replaces {
            return Err(full("maximum messages exceeded"));
        }
        let total = state.bytes + overlay.bytes + bytes;
        if limits.bytes_max.is_some_and(|max| total > max) && !replaces {
            return Err(full("maximum bytes exceeded"));
        }
        Ok(())
    }

    fn check_increment(
        &self,
        publish: &Publish,
        found: &PublishHeaders<'_>,
    ) -> Result<(), Verdict> {
        let Some(increment) = found.increment else {
            return Ok(());
        };
        if parse_integer(increment).is_none() {
            return Err(refuse(ErrorCode::MessageIncrInvalid));
        }
        if !self.config.allow_msg_counter {
            return Err(refuse(ErrorCode::MessageIncrDisabled));
        }
        if !publish.payload.is_empty() {
            return Err(refuse(ErrorCode::MessageIncrPayload));
        }
        let incompatible = [
            found.rollup,
            found.expected_stream,
            found.expected_last_id,
            found.expected_last_subject_sequence_subject,
            found.expected_last_sequence,
            found.expected_last_subject_sequence,
        ];
        if incompatible.iter().any(Option::is_some) {
            return Err(refuse(ErrorCode::MessageIncrInvalid));
        }
        Ok(())
    }

    /// What a counter comes to with this message.
    fn count(
        &self,
        publish: &Publish,
        found: &PublishHeaders<'_>,
    ) -> Result<Option<Box<str>>, Verdict> {
        if !self.config.allow_msg_counter {
            return Ok(None);
        }
        let Some(increment) = found.increment.and_then(parse_integer) else {
            return Err(refuse(ErrorCode::MessageIncrMissing));
        };
        if self.lead.as_deref().is_some_and(|lead| !lead.is_settled()) {
            return Err(Verdict::Park);
        }
        let broken = || refuse(ErrorCode::MessageCounterBroken);
        let last = self.store.last_on(&publish.subject).map_err(|_| broken())?;
        let before = match last {
            Some(message) => counter_value(&message.payload).ok_or_else(broken)?,
            None => 0,
        };
        let value = before.checked_add(increment).ok_or_else(broken)?;
        Ok(Some(value.to_string().into_boxed_str()))
    }

    pub(super) fn duplicate(&mut self, reply: Bytes, sequence: u64, effects: &mut Effects) {
        if self.config.no_ack || reply.is_empty() {
            return;
        }
        match self.lead.as_deref_mut() {
            Some(lead) if !lead.is_settled() => {
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
        match self.lead.as_deref_mut() {
            Some(lead) if !lead.is_settled() => lead.after_all(Waiting::Refused { reply, error }),
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
        let mut payload = format!("{{\"error\":{error},\"stream\":{name},\"seq\":0");
        if !self.domain.is_empty() {
            let domain = serde_json::to_string(&*self.domain).unwrap_or_default();
            payload.push_str(",\"domain\":");
            payload.push_str(&domain);
        }
        payload.push('}');
        effects.outgoing.push(Outgoing {
            to: reply.clone(),
            subject: reply,
            payload: Bytes::from(payload),
            ..Outgoing::default()
        });
    }
}

pub(super) fn refuse(error: impl Into<ApiError>) -> Verdict {
    Verdict::Refuse(error.into())
}

fn parse_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A sequence that somebody expects. What is no number is expected in vain; nothing at all expects nothing.
fn parse_expected(text: &[u8]) -> Option<u64> {
    (!text.is_empty()).then(|| parse_number(text).unwrap_or(u64::MAX))
}

fn parse_integer(text: &[u8]) -> Option<i128> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds, a duration of at least one, or `never` (-1).
fn parse_ttl(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.eq_ignore_ascii_case("never") {
        return Some(-1);
    }
    if let Some(duration_ns) = duration::parse(text) {
        return (duration_ns >= SECOND_NS).then_some(duration_ns / SECOND_NS);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Reads `{"val":"5"}`.
fn counter_value(payload: &[u8]) -> Option<i128> {
    #[derive(serde::Deserialize)]
    struct Counter {
        val: String,
    }
    let counter: Counter = serde_json::from_slice(payload).ok()?;
    counter.val.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_seconds_a_duration_or_never() {
        for (text, seconds) in [
            ("60", Some(60)),
            ("0", None),
            ("1h", Some(3600)),
            ("1500ms", Some(1)),
            ("999ms", None),
            ("0s", None),
            ("never", Some(-1)),
            ("NEVER", Some(-1)),
            ("-1", None),
            ("bogus", None),
        ] {
            assert_eq!(parse_ttl(text.as_bytes()), seconds, "{text:?}");
        }
    }

    #[test]
    fn a_counter_is_a_number_in_a_string() {
        assert_eq!(counter_value(br#"{"val":"-7"}"#), Some(-7));
        assert_eq!(counter_value(br#"{"val":7}"#), None);
        assert_eq!(counter_value(b"7"), None);
    }
}
