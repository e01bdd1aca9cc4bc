//! One stream that is copied from.

use bytes::Bytes;

use super::wire::{self, Copier, Start};
use super::{Doings, Ear, Ground, Heard, Listen, Now, Request};
use crate::jetstream::core::sources::{self, SOURCE_HEADER};
use crate::jetstream::core::{AckSubject, Event, Publish};
use crate::jetstream::id;
use crate::jetstream::types::{
    AckPolicy, ApiError, ErrorCode, StreamSource, StreamSourceInfo, SubjectTransform, Time,
};
use crate::protocol::headers as block;
use crate::subject::transform::Transform;

/// Two requests for a consumer are at least so far apart.
const ASK_INTERVAL_NS: i64 = 2_000_000_000;
/// How long an answer may take.
const ANSWER_NS: i64 = 30_000_000_000;
/// How long an origin may be silent.
const SILENCE_NS: i64 = 10_000_000_000;
/// How much longer every failure makes the wait for the next attempt, and the longest.
const BACKOFF_NS: i64 = 10_000_000_000;
const BACKOFF_NS_MAX: i64 = 120_000_000_000;
const JITTER_NS: u64 = 100_000_000;
/// A mirror that lacks fewer messages answers direct gets for its origin.
const CAUGHT_UP: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until it is time for the next attempt.
    Waiting { until_ns: i64 },
    /// For an answer.
    Asking { until_ns: i64 },
    /// Messages come.
    Following,
    /// It is over.
    Ended,
}

/// One stream that is copied from.
pub(super) struct Origin {
    id: u64,
    source: StreamSource,
    is_mirror: bool,
    index_name: String,
    transforms: Vec<Option<Transform>>,
    stage: Stage,
    /// Counts the attempts; what came in of an earlier one is not taken.
    attempt: u64,
    asked_ns: Option<i64>,
    fails: i64,
    /// What its consumer is called: as it is asked for, and as it came to be.
    consumer_name: String,
    consumer: String,
    /// Whether the consumer stays where it is when it is not followed.
    is_durable: bool,
    /// Whether the origin's server knows consumers that are renewed under one name.
    renews: bool,
    /// The last delivery of the consumer, and the last message of the origin.
    delivered: u64,
    sequence: u64,
    lag: u64,
    heard_ns: Option<i64>,
    caught_up: bool,
    error: Option<ApiError>,
}

impl Origin {
    pub(super) fn new(
        id: u64,
        (source, is_mirror): (StreamSource, bool),
        consumer_name: String,
        ground: &Ground<'_>,
        now: Now,
    ) -> Self {
        let new = |it: &SubjectTransform| match it.dest.is_empty() {
            true => None,
            false => Transform::new(&it.src, &it.dest).ok(),
        };
        let mut origin = Self {
            id,
            index_name: sources::index_name(&source),
            transforms: source.subject_transforms.iter().map(new).collect(),
            source,
            is_mirror,
            stage: Stage::Waiting {
                until_ns: now.ns.saturating_add(jitter(now)),
            },
            attempt: id << 32,
            asked_ns: None,
            fails: 0,
            consumer_name,
            consumer: String::new(),
            is_durable: false,
            renews: true,
            delivered: 0,
            sequence: 0,
            lag: 0,
            heard_ns: None,
            caught_up: false,
            error: None,
        };
        origin.sequence = origin.position(ground);
        origin
    }

    /// In the place of one that is gone.
    pub(super) fn nowhere() -> Self {
        Self {
            id: 0,
            source: StreamSource::default(),
            is_mirror: false,
            index_name: String::new(),
            transforms: Vec::new(),
            stage: Stage::Ended,
            attempt: 0,
            asked_ns: None,
            fails: 0,
            consumer_name: String::new(),
            consumer: String::new(),
            is_durable: false,
            renews: true,
            delivered: 0,
            sequence: 0,
            lag: 0,
            heard_ns: None,
            caught_up: false,
            error: None,
        }
    }

    /// What its consumer is called wherever it is renewed.
    pub(super) fn consumer_name(&self) -> &str {
        &self.consumer_name
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn source(&self) -> &StreamSource {
        &self.source
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    pub(super) fn attempt(&self) -> u64 {
        self.attempt
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// The last message of the origin that the stream has.
    pub(super) fn position(&self, ground: &Ground<'_>) -> u64 {
        match self.is_mirror {
            true => ground.last_sequence,
            false => ground.positions.of(&self.source).unwrap_or(0),
        }
    }

    pub(super) fn deadline_ns(&self) -> i64 {
        match self.stage {
            Stage::Waiting { until_ns } | Stage::Asking { until_ns } => until_ns,
            Stage::Following => self.heard_ns.unwrap_or(0).saturating_add(SILENCE_NS),
            Stage::Ended => i64::MAX,
        }
    }

    pub(super) fn tick(
        &mut self,
        copier: &Copier<'_>,
        ground: &Ground<'_>,
        now: Now,
        doings: &mut Doings,
    ) {
        if self.deadline_ns() > now.ns {
            return;
        }
        match self.stage {
            Stage::Waiting { .. } => self.ask(copier, ground, now, doings),
            Stage::Asking { .. } => {
                self.fails += 1;
                self.begin_again(now, doings);
            }
            Stage::Following => self.begin_again(now, doings),
            Stage::Ended => {}
        }
    }

    /// Asks for a consumer.
    fn ask(&mut self, copier: &Copier<'_>, ground: &Ground<'_>, now: Now, doings: &mut Doings) {
        self.attempt += 1;
        self.asked_ns = Some(now.ns);
        self.stage = Stage::Asking {
            until_ns: now.ns.saturating_add(ANSWER_NS),
        };
        if self.is_mirror {
            self.sequence = ground.last_sequence;
        }
        let unique = id::unique();
        let reply = format!("$JSC.R.{unique}");
        let mut level = None;
        let (subject, body) = match &self.source.consumer {
            Some(consumer) => {
                self.consumer.clone_from(&consumer.name);
                let subject = format!(
                    "$JS.API.CONSUMER.RESET.{}.{}",
                    self.source.name, consumer.name
                );
                (wire::api_subject(&self.source, &subject), Bytes::new())
            }
            None => {
                self.consumer.clone_from(&self.consumer_name);
                if self.renews {
                    level = Some(wire::RENEWAL_LEVEL);
                } else {
                    // Each attempt gets a consumer of its own.
                    self.consumer.push('_');
                    self.consumer.push_str(&unique);
                }
                let to = wire::deliver_subject(&self.source, self.is_mirror, &unique);
                let wanted = wire::Wanted {
                    name: &self.consumer,
                    deliver_subject: &to,
                    start: self.start(ground),
                    renews: self.renews,
                };
                wire::create_request(&self.source, copier, self.is_mirror, &wanted)
            }
        };
        self.listen(Ear::Answers, Some(reply.clone()), doings);
        doings.requests.push(Request {
            subject,
            reply,
            level,
            body,
        });
    }

    /// Where the consumer is to begin.
    fn start(&self, ground: &Ground<'_>) -> Start {
        let (source, state) = (&self.source, &ground.state);
        let last_time =
            (state.last_time_ns != 0).then(|| Time::from_nanoseconds(state.last_time_ns));
        let is_new = match self.is_mirror {
            true => state.messages == 0 && ground.last_sequence == 0,
            false => self.sequence == 0,
        };
        if !is_new {
            return Start::Sequence(self.sequence + 1);
        }
        if source.opt_start_seq > 0 {
            return Start::Sequence(source.opt_start_seq);
        }
        match (source.opt_start_time, last_time) {
            (Some(time), Some(last)) if !self.is_mirror && time < last => Start::Time(last),
            (Some(time), _) => Start::Time(time),
            // What is gone from the stream is not copied once more.
            (None, Some(last)) if !self.is_mirror && state.first_sequence > 1 => Start::Time(last),
            _ => Start::All,
        }
    }

    /// The origin's server has answered.
    pub(super) fn answered(&mut self, heard: &Heard, now: Now, doings: &mut Doings) {
        if !matches!(self.stage, Stage::Asking { .. }) {
            return;
        }
        self.listen(Ear::Answers, None, doings);
        let has_no_listener = heard.headers.starts_with(b"NATS/1.0 503");
        let answer = match wire::read_answer(&heard.payload) {
            Ok(answer) if !has_no_listener => answer,
            Ok(_) => return self.failed(ErrorCode::StreamNotFound.into(), now, doings),
            Err(reason) => return self.failed(self.setup_failed(&reason), now, doings),
        };
        if let Some(error) = answer.error {
            let is_older =
                error.is(ErrorCode::RequiredApiLevel) || error.is(ErrorCode::InvalidJson);
            if self.renews && self.source.consumer.is_none() && is_older {
                // An older server. It does not have to be waited for.
                self.renews = false;
                self.stage = Stage::Waiting { until_ns: now.ns };
                return;
            }
            return self.failed(error, now, doings);
        }
        let Some(config) = answer.config else {
            let error = self.setup_failed("invalid consumer create response");
            return self.failed(error, now, doings);
        };
        let to = match &self.source.consumer {
            Some(_) if config.ack_policy != AckPolicy::FlowControl => {
                let code = match self.is_mirror {
                    true => ErrorCode::MirrorConsumerRequiresAckFlowControl,
                    false => ErrorCode::SourceConsumerRequiresAckFlowControl,
                };
                return self.failed(code.into(), now, doings);
            }
            Some(consumer) => consumer.deliver_subject.clone(),
            None => {
                self.is_durable = config.ack_policy == AckPolicy::FlowControl;
                config.deliver_subject
            }
        };
        self.error = None;
        self.fails = 0;
        self.stage = Stage::Following;
        self.heard_ns = Some(now.ns);
        self.delivered = 0;
        if !answer.name.is_empty() {
            self.consumer = answer.name;
        }
        self.caught_up |= answer.num_pending < CAUGHT_UP;
        self.lag = answer.num_pending;
        let begins_after = answer.delivered.stream_seq;
        if begins_after > self.sequence {
            self.sequence = begins_after;
            if self.is_mirror {
                doings.events.push(Event::Skipped {
                    last_sequence: begins_after,
                });
            }
        }
        self.listen(Ear::Messages, Some(to), doings);
    }

    fn setup_failed(&self, reason: &str) -> ApiError {
        match self.is_mirror {
            true => ErrorCode::MirrorConsumerSetupFailed.with(reason),
            false => ErrorCode::SourceConsumerSetupFailed.with(reason),
        }
    }

    fn failed(&mut self, error: ApiError, now: Now, doings: &mut Doings) {
        tracing::debug!("stream {} cannot be copied from: {error}", self.source.name);
        self.fails += 1;
        self.consumer.clear();
        self.begin_again(now, doings);
        self.error = Some(error);
    }

    /// Takes no more messages of this attempt, and makes another one.
    fn begin_again(&mut self, now: Now, doings: &mut Doings) {
        self.end(doings);
        // The server may be another one by then.
        self.renews = true;
        let earliest = self.asked_ns.map_or(now.ns, |at| at + ASK_INTERVAL_NS);
        let backoff = (self.fails * BACKOFF_NS).min(BACKOFF_NS_MAX);
        self.stage = Stage::Waiting {
            until_ns: earliest.max(now.ns) + backoff + jitter(now),
        };
    }

    /// Asks again for what came after a sequence.
    pub(super) fn go_back(&mut self, sequence: u64, now: Now, doings: &mut Doings) {
        self.sequence = sequence;
        if matches!(self.stage, Stage::Asking { .. } | Stage::Following) {
            self.begin_again(now, doings);
        }
    }

    pub(super) fn end(&mut self, doings: &mut Doings) {
        if matches!(self.stage, Stage::Asking { .. } | Stage::Following) {
            self.listen(Ear::Answers, None, doings);
            self.listen(Ear::Messages, None, doings);
            let is_ours = self.source.consumer.is_none() && !self.is_durable;
            if is_ours && !self.consumer.is_empty() {
                self.delete_consumer(&self.consumer, doings);
            }
        }
        self.stage = Stage::Ended;
    }

    /// Nobody will follow it any more: a consumer that waits to be renewed would hold the origin's messages for ever. Whether there is one is
    /// known only to who has followed it before, which may have been another server.
    pub(super) fn leave(&self, doings: &mut Doings) {
        if self.source.consumer.is_none() && !self.consumer_name.is_empty() {
            self.delete_consumer(&self.consumer_name, doings);
        }
    }

    fn delete_consumer(&self, consumer: &str, doings: &mut Doings) {
        let stream = &self.source.name;
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
        doings.requests.push(Request {
            subject: wire::api_subject(&self.source, &subject),
            ..Request::default()
        });
    }

    fn listen(&self, ear: Ear, subject: Option<String>, doings: &mut Doings) {
        doings.listens.push(Listen {
            origin: self.id,
            ear,
            subject,
        });
    }

    /// The consumer has delivered something.
    pub(super) fn delivered(&mut self, heard: Heard, now: Now, doings: &mut Doings) {
        if self.stage != Stage::Following {
            return;
        }
        self.heard_ns = Some(now.ns);
        if heard.payload.is_empty() && heard.headers.starts_with(b"NATS/1.0 100 ") {
            return self.controlled(&heard, now, doings);
        }
        let Some(about) = AckSubject::parse(&heard.reply) else {
            return;
        };
        if about.consumer != self.consumer || about.deliveries > 1 {
            return;
        }
        let (sequence, delivered) = (about.stream_sequence, about.consumer_sequence);
        let (time_ns, pending) = (about.time_ns, about.pending);
        let is_next = delivered == self.delivered + 1;
        if sequence <= self.sequence {
            self.delivered += u64::from(is_next);
            return;
        }
        if !is_next {
            // Something was lost on the way.
            return self.begin_again(now, doings);
        }
        self.delivered = delivered;
        self.sequence = sequence;
        self.lag = pending.saturating_sub(1);
        self.caught_up |= pending < CAUGHT_UP;
        let event = match self.is_mirror {
            true => Event::Mirrored {
                sequence,
                time_ns,
                message: self.message(heard, None, now),
            },
            false => Event::Sourced {
                attempt: self.attempt,
                sequence,
                message: self.message(heard, Some(sequence), now),
            },
        };
        doings.events.push(event);
    }

    /// The consumer says something about itself.
    fn controlled(&mut self, heard: &Heard, now: Now, doings: &mut Doings) {
        if !heard.reply.is_empty() {
            doings.events.push(Event::SourceFlow {
                reply: heard.reply.clone(),
                delivered: self.delivered,
                sequence: self.sequence,
            });
            return;
        }
        let last = block::get(&heard.headers, "Nats-Last-Consumer");
        let last = last.and_then(|last| std::str::from_utf8(last).ok()?.parse::<u64>().ok());
        if last.is_some_and(|last| last > 0 && last != self.delivered) {
            return self.begin_again(now, doings);
        }
        if let Some(stalled) = block::get(&heard.headers, "Nats-Consumer-Stalled") {
            doings.requests.push(Request {
                subject: String::from_utf8_lossy(stalled).into_owned(),
                ..Request::default()
            });
        }
    }

    /// The message as the stream gets it: headers that were meant for the origin are gone.
    fn message(&self, heard: Heard, source_sequence: Option<u64>, now: Now) -> Publish {
        let Heard {
            subject,
            headers,
            payload,
            ..
        } = heard;
        let names_source = source_sequence.is_some();
        let mut headers = sources::without_origins_own(headers, names_source);
        if let Some(sequence) = source_sequence {
            let value = sources::header(&self.index_name, sequence, &subject);
            headers = sources::with_header(&headers, SOURCE_HEADER, &value);
        }
        Publish {
            subject: self.transformed(subject, now),
            reply: Bytes::new(),
            headers,
            payload,
        }
    }

    fn transformed(&self, subject: Bytes, now: Now) -> Bytes {
        let mut transforms = self.transforms.iter().flatten();
        let Some(transform) = transforms.find(|transform| transform.matches(&subject)) else {
            return subject;
        };
        let mut state = now.random ^ self.sequence;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 32) as u32
        };
        let mut out = Vec::with_capacity(subject.len());
        match transform.apply(&subject, &mut random, &mut out) {
            Ok(()) => Bytes::from(out),
            Err(_) => subject,
        }
    }

    pub(super) fn info(&self, now_ns: i64) -> StreamSourceInfo {
        StreamSourceInfo {
            name: self.source.name.clone(),
            external: self.source.external.clone(),
            lag: self.lag,
            active: self.heard_ns.map_or(-1, |at| now_ns.saturating_sub(at)),
            error: self.error.clone(),
            filter_subject: self.source.filter_subject.clone(),
            subject_transforms: self.source.subject_transforms.clone(),
        }
    }
}

/// Between one and two tenths of a second.
fn jitter(now: Now) -> i64 {
    (JITTER_NS + now.random % JITTER_NS) as i64
}
