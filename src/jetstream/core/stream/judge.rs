//! The rules that decide whether a message is stored, and how.
//!
//! The reference goes through them in one order on streams with one replica and in another on replicated ones and in batches; the order
//! decides which of several violated rules a publisher hears of.

use bytes::Bytes;
use storage::filter::{Filter, Pattern};
use storage::store::{self, Accounting, accounted_bytes};

use super::StreamCore;
use super::counter::Counter;
use super::publish::NEVER;
use super::staged::Staged;
use crate::jetstream::core::duration;
use crate::jetstream::core::entry::Rollup;
use crate::jetstream::core::headers::{self, HEADER_BYTES_MAX, PublishHeaders};
use crate::jetstream::core::request::Publish;
use crate::jetstream::types::{ApiError, ErrorCode};

/// The largest message that is stored, all in all.
const RECORD_BYTES_MAX: u64 = 32 * 1024 * 1024;
const SECOND_NS: i64 = 1_000_000_000;

/// A message to judge.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) publish: &'a Publish,
    pub(super) found: &'a PublishHeaders<'a>,
    pub(super) now_ns: i64,
    /// The messages of its batch before it.
    pub(super) staged: Option<&'a Staged>,
    /// Whether it was stored by another stream before, which has judged it.
    pub(super) is_sourced: bool,
}

impl<'a> Case<'a> {
    /// A message that belongs to no batch.
    pub(super) fn alone(publish: &'a Publish, found: &'a PublishHeaders<'a>, now_ns: i64) -> Self {
        Self {
            publish,
            found,
            now_ns,
            staged: None,
            is_sourced: false,
        }
    }
}

/// Why a message is not stored.
pub(super) enum Obstacle {
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
    /// When it dies by itself.
    pub(super) expiry_ns: Option<i64>,
    pub(super) rollup: Rollup,
    /// Headers other than those it came with.
    pub(super) headers: Option<Bytes>,
    /// A payload other than the one it came with.
    pub(super) payload: Option<Bytes>,
    /// The value a counter comes to.
    pub(super) value: Option<Box<str>>,
    pub(super) counter: Option<Counter>,
    /// When the schedule that it is fires.
    pub(super) schedule_ns: Option<i64>,
    /// The schedule that it came from, and when that fires next.
    pub(super) scheduler: Option<(Bytes, Option<i64>)>,
}

impl Plan {
    /// The headers that are stored.
    pub(super) fn headers<'a>(&'a self, publish: &'a Publish) -> &'a Bytes {
        self.headers.as_ref().unwrap_or(&publish.headers)
    }

    /// The bytes that count when it is stored.
    pub(super) fn accounted_bytes(&self, publish: &Publish, accounting: Accounting) -> u64 {
        let payload = self.payload.as_ref().unwrap_or(&publish.payload);
        let headers = self.headers(publish).len();
        accounting.bytes(publish.subject.len(), headers, payload.len())
    }
}

impl StreamCore {
    /// Goes through the rules in the reference's order.
    pub(super) fn judge(&self, case: &Case<'_>) -> Result<Plan, Obstacle> {
        if case.staged.is_some() || self.config.num_replicas > 1 {
            self.judge_before_proposal(case)
        } else {
            self.judge_alone(case)
        }
    }

    /// The order of a stream with one replica.
    fn judge_alone(&self, case: &Case<'_>) -> Result<Plan, Obstacle> {
        let mut plan = Plan::default();
        check_record_size(case)?;
        self.check_open()?;
        self.check_increment(case)?;
        self.check_stream(case)?;
        let ttl = self.time_to_live(case)?;
        self.check_expected_on_subject(case)?;
        self.check_expected_last(case)?;
        self.schedule(case, &mut plan)?;
        self.check_id(case)?;
        self.check_expected_id(case)?;
        self.rollup(case, &mut plan)?;
        self.plan_count(case, &mut plan)?;
        self.check_size(case, &plan)?;
        check_header_size(case, &plan)?;
        let Some(ttl) = ttl else {
            return Err(refuse(ErrorCode::MessageTtlInvalid));
        };
        self.expiry(ttl, case, &mut plan);
        self.check_room(case, &plan)?;
        Ok(plan)
    }

    /// The order of replicated streams, and of batches.
    fn judge_before_proposal(&self, case: &Case<'_>) -> Result<Plan, Obstacle> {
        let mut plan = Plan::default();
        self.check_open()?;
        self.check_size(case, &plan)?;
        check_record_size(case)?;
        check_header_size(case, &plan)?;
        self.check_increment(case)?;
        self.check_stream(case)?;
        let Some(ttl) = self.time_to_live(case)? else {
            return Err(refuse(ErrorCode::MessageTtlInvalid));
        };
        self.check_id(case)?;
        self.plan_count(case, &mut plan)?;
        self.check_expected_last(case)?;
        self.check_expected_on_subject(case)?;
        self.schedule(case, &mut plan)?;
        self.rollup(case, &mut plan)?;
        self.check_expected_id(case)?;
        self.expiry(ttl, case, &mut plan);
        self.check_room(case, &plan)?;
        Ok(plan)
    }

    fn check_open(&self) -> Result<(), Obstacle> {
        match self.config.sealed {
            true => Err(refuse(ErrorCode::StreamSealed)),
            false => Ok(()),
        }
    }

    fn check_stream(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let expected = case.found.expected_stream;
        match expected.is_some_and(|expected| expected != self.name.as_bytes()) {
            true => Err(refuse(ErrorCode::StreamNotMatch)),
            false => Ok(()),
        }
    }

    fn check_size(&self, case: &Case<'_>, plan: &Plan) -> Result<(), Obstacle> {
        let payload = plan.payload.as_ref().unwrap_or(&case.publish.payload);
        let size = plan.headers(case.publish).len() + payload.len();
        let max = usize::try_from(self.config.max_msg_size);
        match max.is_ok_and(|max| max > 0 && size > max) {
            true => Err(refuse(ErrorCode::StreamMessageExceedsMaximum)),
            false => Ok(()),
        }
    }

    /// How long a message lives, in seconds; -1 is for ever and 0 leaves it open. `None` when what it says cannot be read.
    fn time_to_live(&self, case: &Case<'_>) -> Result<Option<i64>, Obstacle> {
        let ttl = case.found.ttl.map_or(Some(0), parse_ttl);
        if case.is_sourced {
            return Ok(ttl.or(Some(0)));
        }
        let disabled = !self.config.allow_msg_ttl;
        let says_something = match ttl {
            Some(seconds) => seconds != 0,
            None => case.staged.is_some() || self.config.num_replicas > 1,
        };
        match disabled && says_something {
            true => Err(refuse(ErrorCode::MessageTtlDisabled)),
            false => Ok(ttl),
        }
    }

    fn expiry(&self, seconds: i64, case: &Case<'_>, plan: &mut Plan) {
        let config = &self.config;
        if seconds == -1 {
            plan.expiry_ns = Some(NEVER);
        }
        if seconds <= 0 || !config.allow_msg_ttl {
            return;
        }
        let mut seconds = seconds;
        let least = config.subject_delete_marker_ttl / SECOND_NS;
        if least > 0 && config.max_msgs_per_subject != 1 && seconds < least {
            // A marker that is there already must not outlive what comes after it.
            seconds = least;
            let kept = headers::without(plan.headers(case.publish), "Nats-TTL");
            let changed = headers::with(&kept, "Nats-TTL", seconds.to_string().as_bytes());
            plan.headers = Some(Bytes::from(changed));
        }
        let ttl_ns = seconds.saturating_mul(SECOND_NS);
        plan.expiry_ns = Some(case.now_ns.saturating_add(ttl_ns).min(NEVER - 1));
    }

    pub(super) fn check_expected_on_subject(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let found = case.found;
        let subject = match found.expected_last_subject_sequence_subject {
            Some(subject) => Bytes::copy_from_slice(subject),
            None => case.publish.subject.clone(),
        };
        let expected = found
            .expected_last_subject_sequence
            .and_then(parse_expected);
        let Some(expected) = expected else {
            return match found.expected_last_subject_sequence_subject {
                Some(_) => Err(refuse(ErrorCode::StreamExpectedLastSeqPerSubjectInvalid)),
                None => Ok(()),
            };
        };
        if case
            .staged
            .is_some_and(|staged| staged.has_subject(&subject))
        {
            return Err(refuse(ErrorCode::StreamWrongLastSequenceConstant));
        }
        let last = self.last_on(&subject)?;
        match last == expected {
            true => Ok(()),
            false => Err(refuse(ErrorCode::StreamWrongLastSequence.with(last))),
        }
    }

    fn check_expected_last(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let expected = case.found.expected_last_sequence.and_then(parse_expected);
        let (Some(lead), Some(expected)) = (self.lead.as_deref(), expected) else {
            return Ok(());
        };
        if lead.overlay.structural > 0 {
            return Err(Obstacle::Park);
        }
        let staged = case.staged.map_or(0, |staged| staged.messages);
        let last = lead.overlay.last_sequence + staged;
        if last != expected {
            return Err(refuse(ErrorCode::StreamWrongLastSequence.with(last)));
        }
        match staged > 0 {
            // Only the first message of a batch can know the stream's last sequence.
            true => Err(refuse(ErrorCode::StreamWrongLastSequenceConstant)),
            false => Ok(()),
        }
    }

    /// The last sequence on a subject (wildcards allowed), with what is in flight.
    fn last_on(&self, subject: &Bytes) -> Result<u64, Obstacle> {
        let Some(lead) = self.lead.as_deref() else {
            return Ok(0);
        };
        let overlay = &lead.overlay;
        if overlay.structural > 0 {
            return Err(Obstacle::Park);
        }
        let pattern = Pattern::new(subject.clone());
        if !pattern.is_literal() {
            if !overlay.has_no_messages() {
                return Err(Obstacle::Park);
            }
            let filter = Filter::new([subject.as_ref()]);
            let last = self.store.previous_sequence(overlay.last_sequence, &filter);
            return Ok(last.unwrap_or(0));
        }
        if !overlay.has_no_messages() {
            if !overlay.tracks_subjects() {
                return Err(Obstacle::Park);
            }
            if let Some(sequence) = overlay.last_on(subject) {
                return Ok(sequence);
            }
        }
        let known = self.store.subject(subject);
        Ok(known.map_or(0, |state| state.last_sequence))
    }

    fn check_id(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let (Some(lead), Some(id)) = (self.lead.as_deref(), case.found.id) else {
            return Ok(());
        };
        if case.staged.is_some_and(|staged| staged.has_id(id)) {
            let code = ErrorCode::AtomicPublishContainsDuplicateMessage;
            return Err(refuse(code));
        }
        let seen = lead.overlay.find_id(id);
        match seen.or_else(|| self.dedupe.find(id, case.now_ns)) {
            Some(sequence) => Err(Obstacle::Duplicate(sequence)),
            None => Ok(()),
        }
    }

    fn check_expected_id(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let (Some(lead), Some(expected)) = (self.lead.as_deref(), case.found.expected_last_id)
        else {
            return Ok(());
        };
        let last = lead.overlay.last_id.as_deref().unwrap_or(&self.last_id);
        if last != expected {
            let last = String::from_utf8_lossy(last);
            return Err(refuse(ErrorCode::StreamWrongLastMsgId.with(last)));
        }
        Ok(())
    }

    pub(super) fn rollup(&self, case: &Case<'_>, plan: &mut Plan) -> Result<(), Obstacle> {
        let Some(value) = case.found.rollup else {
            return Ok(());
        };
        let permitted = self.config.allow_rollup_hdrs && !self.config.deny_purge;
        if !permitted && case.is_sourced {
            return Ok(());
        }
        if !permitted {
            return Err(rollup_failed("rollup not permitted"));
        }
        let staged = case.staged;
        plan.rollup = match value.to_ascii_lowercase().as_slice() {
            b"sub" if staged.is_some_and(|it| it.has_subject(&case.publish.subject)) => {
                return Err(rollup_failed("batch rollup sub invalid"));
            }
            b"sub" => Rollup::Subject,
            b"all" if staged.is_some_and(|it| !it.is_empty()) => {
                return Err(rollup_failed("batch rollup all invalid"));
            }
            b"all" => Rollup::Everything,
            value => {
                let value = String::from_utf8_lossy(value);
                return Err(rollup_failed(&format!("rollup value invalid: {value:?}")));
            }
        };
        Ok(())
    }

    fn plan_count(&self, case: &Case<'_>, plan: &mut Plan) -> Result<(), Obstacle> {
        let Some(counted) = self.count(case)? else {
            return Ok(());
        };
        plan.headers = Some(counted.headers);
        plan.payload = Some(counted.payload);
        plan.value = Some(counted.value);
        plan.counter = Some(counted.counter);
        self.check_size(case, plan)
    }

    /// Whether a stream that refuses new messages at its limits has room.
    fn check_room(&self, case: &Case<'_>, plan: &Plan) -> Result<(), Obstacle> {
        let subject = &case.publish.subject;
        let limits = self.store.limits();
        let (Some(lead), store::Discard::New) = (self.lead.as_deref(), limits.discard) else {
            return Ok(());
        };
        if !self.is_wanted(subject) {
            return Ok(());
        }
        let overlay = &lead.overlay;
        let uncertain = overlay.structural > 0 || !overlay.has_no_messages();
        let full = |text: &str| {
            if uncertain {
                Obstacle::Park
            } else {
                refuse(ErrorCode::StreamStoreFailed.with(text))
            }
        };
        let (mut messages, mut bytes) = (overlay.messages, overlay.bytes);
        let mut on_subject = self.store.subject(subject).map_or(0, |it| it.messages);
        if let Some(staged) = case.staged {
            messages += staged.messages;
            bytes += staged.bytes;
            on_subject += staged.messages_on(subject);
        }
        let mut replaces = false;
        if let Some(max) = limits.per_subject_max {
            let rolls_up = plan.rollup != Rollup::None;
            let in_flight = overlay.last_on(subject).is_some();
            let at_limit = on_subject >= max;
            if self.config.discard_new_per_subject && !rolls_up && (at_limit || in_flight) {
                return Err(full("maximum messages per subject exceeded"));
            }
            replaces = at_limit;
        }
        let state = self.store.state();
        let messages = state.messages + messages;
        if limits.messages_max.is_some_and(|max| messages >= max) && !replaces {
            return Err(full("maximum messages exceeded"));
        }
        let total =
            state.bytes + bytes + plan.accounted_bytes(case.publish, self.store.accounting());
        if limits.bytes_max.is_some_and(|max| total > max) && !replaces {
            return Err(full("maximum bytes exceeded"));
        }
        Ok(())
    }
}

fn check_record_size(case: &Case<'_>) -> Result<(), Obstacle> {
    let publish = case.publish;
    let (headers, payload) = (publish.headers.len(), publish.payload.len());
    match accounted_bytes(publish.subject.len(), headers, payload) > RECORD_BYTES_MAX {
        true => Err(refuse(
            ErrorCode::StreamStoreFailed.with("message too large"),
        )),
        false => Ok(()),
    }
}

fn check_header_size(case: &Case<'_>, plan: &Plan) -> Result<(), Obstacle> {
    match plan.headers(case.publish).len() > HEADER_BYTES_MAX {
        true => Err(refuse(ErrorCode::StreamHeaderExceedsMaximum)),
        false => Ok(()),
    }
}

pub(super) fn refuse(error: impl Into<ApiError>) -> Obstacle {
    Obstacle::Refuse(error.into())
}

fn rollup_failed(reason: &str) -> Obstacle {
    refuse(ErrorCode::StreamRollupFailed.with(reason))
}

/// A sequence that somebody expects. What is no number is expected in vain; nothing at all expects nothing.
fn parse_expected(text: &[u8]) -> Option<u64> {
    let number = || std::str::from_utf8(text).ok()?.parse().ok();
    (!text.is_empty()).then(|| number().unwrap_or(u64::MAX))
}

/// Seconds, a duration of at least one, or `never` (-1).
pub(super) fn parse_ttl(text: &[u8]) -> Option<i64> {
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
}
