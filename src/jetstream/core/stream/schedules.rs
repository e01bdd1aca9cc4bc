//! Schedules: which messages are one, and the messages that they produce.

use bytes::Bytes;
use storage::store::Message;

use super::judge::{Case, Obstacle, Plan, parse_ttl, refuse};
use super::publish::NEVER;
use super::{Step, StreamCore};
use crate::jetstream::core::entry::{Op, Rollup};
use crate::jetstream::core::headers::{self, ScheduleHeaders};
use crate::jetstream::core::request::Publish;
use crate::jetstream::core::schedule::{self, Firing, PatternError};
use crate::jetstream::types::{ErrorCode, Time};
use crate::subject::{is_valid_literal, overlap};

/// Schedules that fire in one entry.
const FIRINGS_MAX: usize = 1024;
const SECOND_NS: i64 = 1_000_000_000;

impl StreamCore {
    /// What a message says of schedules, and whether it may.
    pub(super) fn schedule(&self, case: &Case<'_>, plan: &mut Plan) -> Result<(), Obstacle> {
        if !case.found.schedules || case.is_sourced {
            return Ok(());
        }
        let said = ScheduleHeaders::parse(&case.publish.headers);
        self.be_schedule(&said, case, plan)?;
        self.end_schedule(&said, case, plan)
    }

    fn be_schedule(
        &self,
        said: &ScheduleHeaders<'_>,
        case: &Case<'_>,
        plan: &mut Plan,
    ) -> Result<(), Obstacle> {
        let enabled = |error: ErrorCode| match self.config.allow_msg_schedules {
            true => refuse(error),
            false => refuse(ErrorCode::MessageSchedulesDisabled),
        };
        let firing = match first_firing(said, case.now_ns) {
            Ok(Some(firing)) => firing,
            Ok(None) => return Ok(()),
            Err(PatternError::Pattern) => {
                return Err(enabled(ErrorCode::MessageSchedulesPatternInvalid));
            }
            Err(PatternError::TimeZone) => {
                return Err(enabled(ErrorCode::MessageSchedulesTimeZoneInvalid));
            }
        };
        if !self.config.allow_msg_schedules {
            return Err(refuse(ErrorCode::MessageSchedulesDisabled));
        }
        if said.ttl.is_some_and(|ttl| parse_ttl(ttl).is_none()) {
            return Err(refuse(ErrorCode::MessageSchedulesTtlInvalid));
        }
        if said.rollup.is_some_and(|rollup| rollup != b"sub") {
            return Err(refuse(ErrorCode::MessageSchedulesRollupInvalid));
        }
        if said.ttl.is_some() && !self.config.allow_msg_ttl {
            return Err(refuse(ErrorCode::MessageTtlDisabled));
        }
        let subject: &[u8] = &case.publish.subject;
        let is_target = |target: &[u8]| is_valid_literal(target) && target != subject;
        let Some(target) = said.target.filter(|target| is_target(target)) else {
            return Err(refuse(ErrorCode::MessageSchedulesTargetInvalid));
        };
        let is_source = |source: &[u8]| is_target(source) && source != target;
        if said.source.is_some_and(|source| !is_source(source)) {
            return Err(refuse(ErrorCode::MessageSchedulesSourceInvalid));
        }
        let is_stored = |subject: &[u8]| {
            let mut subjects = self.config.subjects.iter();
            subjects.any(|pattern| overlap(pattern, subject))
        };
        if !is_stored(target) {
            return Err(refuse(ErrorCode::MessageSchedulesTargetInvalid));
        }
        if said.source.is_some_and(|source| !is_stored(source)) {
            return Err(refuse(ErrorCode::MessageSchedulesSourceInvalid));
        }
        match case.found.rollup {
            // A subject has one schedule.
            None => {
                let block = headers::with(&case.publish.headers, "Nats-Rollup", b"sub");
                plan.headers = Some(Bytes::from(block));
                plan.rollup = Rollup::Subject;
            }
            Some(rollup) if rollup.eq_ignore_ascii_case(b"sub") => {}
            Some(_) => return Err(refuse(ErrorCode::MessageSchedulesRollupInvalid)),
        }
        plan.schedule_ns = Some(firing.at_ns);
        Ok(())
    }

    /// A publisher may say of a schedule that it is over, and nothing else.
    fn end_schedule(
        &self,
        said: &ScheduleHeaders<'_>,
        case: &Case<'_>,
        plan: &mut Plan,
    ) -> Result<(), Obstacle> {
        let invalid = || refuse(ErrorCode::MessageSchedulesSchedulerInvalid);
        match said.next {
            None if said.scheduler.is_none() => return Ok(()),
            Some(b"purge") => {}
            _ => return Err(invalid()),
        }
        let subject: &[u8] = &case.publish.subject;
        let is_other = |it: &&[u8]| *it != subject && is_valid_literal(*it);
        let Some(scheduler) = said.scheduler.filter(is_other) else {
            return Err(invalid());
        };
        if !self.config.allow_msg_schedules {
            return Err(refuse(ErrorCode::MessageSchedulesDisabled));
        }
        let staged = case.staged.and_then(|staged| staged.is_schedule(scheduler));
        let is_schedule = match staged {
            Some(is_schedule) => is_schedule,
            None => {
                if self.lead.as_deref().is_some_and(|lead| !lead.is_settled()) {
                    return Err(Obstacle::Park);
                }
                match self.store.last_on(scheduler) {
                    Ok(Some(last)) => ScheduleHeaders::parse(&last.headers).pattern.is_some(),
                    _ => true,
                }
            }
        };
        if !is_schedule {
            return Err(invalid());
        }
        plan.scheduler = Some((Bytes::copy_from_slice(scheduler), None));
        Ok(())
    }

    /// Produces the messages of the schedules that are due. Nothing may be in flight.
    pub(super) fn fire(&mut self, step: &mut Step<'_>) {
        for (at_ns, sequence) in self.schedules.due(step.now_ns, FIRINGS_MAX) {
            let schedule = self.store.load(sequence).ok().flatten();
            let produced = schedule.and_then(|it| self.produce(&it, at_ns, step.now_ns));
            match (produced, self.lead.as_deref_mut()) {
                (Some((mut publish, plan)), _) => {
                    publish.subject = self.stored_subject(publish.subject, step.world);
                    self.push_message(&publish, &[], &plan);
                }
                (None, Some(lead)) => {
                    lead.draft.push(&Op::Unscheduled { sequence });
                }
                (None, None) => {}
            }
        }
    }

    /// The message that a schedule produces when it fires.
    fn produce(&self, schedule: &Message, at_ns: i64, now_ns: i64) -> Option<(Publish, Plan)> {
        let said = ScheduleHeaders::parse(&schedule.headers);
        let firing = next_firing(&said, at_ns, now_ns).ok()??;
        let target = Bytes::copy_from_slice(said.target?);
        let source = said.source.and_then(|it| self.store.last_on(it).ok()?);
        let content = source.as_ref().unwrap_or(schedule);
        let mut block = headers::without_those(&content.headers, |name| {
            name.starts_with(b"Nats-Schedule")
                || name.starts_with(b"Nats-Expected-")
                || [&b"Nats-Msg-Id"[..], b"Nats-TTL", b"Nats-Rollup"].contains(&name)
        });
        let mut add = |name: &str, value: &[u8]| block = headers::with(&block, name, value);
        add("Nats-Scheduler", &schedule.subject);
        let next_ns = firing.repeats.then_some(firing.at_ns);
        match next_ns {
            Some(next_ns) => {
                let next = Time::from_nanoseconds(next_ns).to_string();
                add("Nats-Schedule-Next", next.as_bytes());
            }
            None => add("Nats-Schedule-Next", b"purge"),
        }
        let mut plan = Plan {
            scheduler: Some((schedule.subject.clone(), next_ns)),
            ..Plan::default()
        };
        if let Some(ttl) = said.ttl {
            add("Nats-TTL", ttl);
            plan.expiry_ns = match parse_ttl(ttl)? {
                -1 => Some(NEVER),
                seconds => {
                    let ttl_ns = seconds.saturating_mul(SECOND_NS);
                    Some(now_ns.saturating_add(ttl_ns).min(NEVER - 1))
                }
            };
        }
        if let Some(rollup) = said.rollup {
            add("Nats-Rollup", rollup);
            plan.rollup = Rollup::Subject;
        }
        let publish = Publish {
            subject: target,
            reply: Bytes::new(),
            headers: Bytes::from(block),
            payload: content.payload.clone(),
        };
        Some((publish, plan))
    }
}

/// When a message that is a schedule fires first; `None` when it is none.
pub(super) fn first_firing(
    said: &ScheduleHeaders<'_>,
    now_ns: i64,
) -> Result<Option<Firing>, PatternError> {
    next_firing(said, now_ns, now_ns)
}

/// When a schedule fires again after it has fired at a time.
fn next_firing(
    said: &ScheduleHeaders<'_>,
    last_ns: i64,
    now_ns: i64,
) -> Result<Option<Firing>, PatternError> {
    let Some(pattern) = said.pattern else {
        return match said.time_zone {
            Some(zone) => schedule::check_zone(zone).map(|()| None),
            None => Ok(None),
        };
    };
    let pattern = std::str::from_utf8(pattern).map_err(|_| PatternError::Pattern)?;
    schedule::next(pattern, said.time_zone, last_ns, now_ns).map(Some)
}
