//! Management requests: what is answered from state, what becomes an entry.

use std::collections::BTreeMap;

use storage::filter::Filter;
use storage::store::Message;

use super::apply::Outcome;
use super::consumers::is_there;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::consumer::Consumer;
use crate::jetstream::core::draft::{Answer, Waiting};
use crate::jetstream::core::entry::Op;
use crate::jetstream::core::request::{
    ConsumerAction, ConsumerCreate, InfoQuery, MessageQuery, PurgeQuery, StreamReply, StreamRequest,
};
use crate::jetstream::types::{
    AckPolicy, ApiError, ConsumerConfig, ConsumerInfo, DeliverPolicy, ErrorCode,
    PriorityGroupState, Retention, SequenceInfo, Storage, StreamConfig, StreamInfo, StreamState,
    Time, encode,
};

impl StreamCore {
    pub(super) fn request(&mut self, token: u64, request: StreamRequest, step: &mut Step<'_>) {
        let is_read = request.is_read();
        let settled = self.is_settled();
        if is_read && settled {
            let reply = self.read(&request, step);
            step.effects.replies.push((token, reply));
        } else if is_read {
            self.read_later(token, request);
        } else if !settled {
            // Changes are decided on what is durable: the checks that follow then hold when the entry is applied.
            self.park(Event::Request { token, request });
        } else if let Err(error) = self.change(token, &request, step) {
            step.effects
                .replies
                .push((token, StreamReply::Refused(error)));
        }
    }

    /// Turns a changing request into an operation; somebody waits for it then.
    fn change(
        &mut self,
        token: u64,
        request: &StreamRequest,
        step: &mut Step<'_>,
    ) -> Result<(), ApiError> {
        match request {
            StreamRequest::Update(config) => {
                let json = encode(config.as_ref());
                self.submit(token, &Op::Config { json: &json }, Answer::Updated);
            }
            StreamRequest::Purge(query) => self.purge(token, query)?,
            StreamRequest::Delete { sequence, erase } => self.delete(token, *sequence, *erase)?,
            StreamRequest::ConsumerCreate(create) => {
                if let Some(reply) = self.consumer_create(token, create, step)? {
                    step.effects.replies.push((token, reply));
                }
            }
            StreamRequest::ConsumerDelete { name } => {
                let id = self.id_of(name)?;
                self.submit(token, &Op::ConsumerDelete { id }, Answer::ConsumerDeleted);
            }
            StreamRequest::ConsumerPause { name, until_ns } => {
                let id = self.id_of(name)?;
                let Some(consumer) = self.consumers.get(&id) else {
                    return Err(ErrorCode::ConsumerNotFound.into());
                };
                let mut config = ConsumerConfig::clone(&consumer.config);
                config.pause_until = until_ns.map(Time::from_nanoseconds);
                config.set_stored_metadata();
                let json = encode(&config);
                let op = Op::ConsumerUpdate { id, json: &json };
                self.submit(token, &op, Answer::ConsumerPaused(id));
            }
            StreamRequest::ConsumerReset { name, sequence } => {
                let id = self.id_of(name)?;
                let stream_sequence = self.reset_sequence(id, *sequence)?;
                let op = Op::Reset {
                    id,
                    stream_sequence,
                };
                self.submit(token, &op, Answer::ConsumerReset(id));
                let consumer = self.consumers.get_mut(&id);
                if let Some(live) = consumer.and_then(|consumer| consumer.live.as_deref_mut()) {
                    live.resets += 1;
                }
            }
            StreamRequest::ConsumerUnpin { name, group } => {
                let id = self.id_of(name)?;
                let known = self
                    .consumers
                    .get(&id)
                    .is_some_and(|consumer| consumer.rules.priority_groups.contains(group));
                if !known {
                    return Err(ErrorCode::ConsumerInvalidPriorityGroup.into());
                }
                self.with_consumer(id, step, |consumer, turn| {
                    consumer.unpin("admin", turn);
                    true
                });
                let reply = self.consumer_reply(id, step.now_ns);
                step.effects.replies.push((token, reply));
            }
            _ => {}
        }
        Ok(())
    }

    fn submit(&mut self, token: u64, op: &Op<'_>, answer: Answer) {
        if let Some(lead) = self.lead.as_deref_mut() {
            let operation = lead.push_structural(op);
            lead.draft
                .wait(operation, Waiting::Request { token, answer });
        }
    }

    fn id_of(&self, name: &str) -> Result<u64, ApiError> {
        let id = self.names.get(name).copied();
        id.ok_or_else(|| ErrorCode::ConsumerNotFound.into())
    }

    fn purge(&mut self, token: u64, query: &PurgeQuery) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ErrorCode::StreamSealed.into());
        }
        if self.config.deny_purge {
            return Err(ErrorCode::StreamPurgeFailed.with("stream purge not permitted"));
        }
        let op = Op::Purge {
            filter: &query.filter,
            below_sequence: query.below_sequence,
            keep: query.keep,
        };
        self.submit(token, &op, Answer::Purged);
        // Whoever purges beyond the last message moves the last sequence too: what is decided from now on builds on that.
        let everything = query.keep == 0 && matches!(query.filter.as_str(), "" | ">");
        let last_after = query.below_sequence.saturating_sub(1);
        if everything && let Some(lead) = self.lead.as_deref_mut() {
            lead.overlay.last_sequence = lead.overlay.last_sequence.max(last_after);
        }
        Ok(())
    }

    fn delete(&mut self, token: u64, sequence: u64, erase: bool) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ErrorCode::StreamSealed.into());
        }
        if self.config.deny_delete {
            return Err(ErrorCode::StreamMsgDeleteFailed.with("message delete not permitted"));
        }
        let state = self.store.state();
        // Which of several ways of not being there it is, the reference tells for file streams only.
        if self.config.storage == Storage::File {
            if sequence > state.last_sequence {
                return Err(ErrorCode::StreamMsgDeleteFailed.with("stream store EOF"));
            }
            if sequence == 0 || sequence < state.first_sequence {
                return Err(ErrorCode::StreamMsgDeleteFailed.with("no message found"));
            }
        }
        if !is_there(self.store.as_ref(), sequence) {
            return Err(ErrorCode::SequenceNotFound.with(sequence));
        }
        self.submit(token, &Op::Delete { sequence, erase }, Answer::Deleted);
        Ok(())
    }

    fn consumer_create(
        &mut self,
        token: u64,
        create: &ConsumerCreate,
        step: &mut Step<'_>,
    ) -> Result<Option<StreamReply>, ApiError> {
        let config = &create.config;
        if let Some(consumer) = self.consumer(&create.name) {
            if *consumer.config == *config {
                let info = Box::new(self.consumer_info(consumer, step.now_ns));
                return Ok(Some(StreamReply::ConsumerCreated {
                    info,
                    created: false,
                }));
            }
            if create.action == ConsumerAction::Create {
                return Err(ErrorCode::ConsumerAlreadyExists.into());
            }
            (create.check_update)(&consumer.config, config)?;
            let moved = consumer.config.deliver_subject != config.deliver_subject;
            let bound = consumer
                .live
                .as_deref()
                .is_some_and(|live| live.push.active);
            if moved && bound {
                return Err(ErrorCode::ConsumerNameExist.into());
            }
            let id = consumer.id;
            if self.config.retention == Retention::Workqueue && !config.is_of_a_copy() {
                self.check_work_queue(config, Some(id))?;
            }
            let json = encode(config);
            let op = Op::ConsumerUpdate { id, json: &json };
            self.submit(token, &op, Answer::ConsumerUpdated(id));
            return Ok(None);
        }
        if create.action == ConsumerAction::Update {
            return Err(ErrorCode::ConsumerDoesNotExist.into());
        }
        if !config.is_of_a_copy() {
            self.check_count(create.consumers_max)?;
        }
        if self.config.retention == Retention::Workqueue && !config.is_of_a_copy() {
            self.check_work_queue(config, None)?;
        }
        let id = self.consumer_id_last + 1;
        let json = encode(config);
        let op = Op::ConsumerCreate {
            id,
            name: &create.name,
            json: &json,
        };
        self.submit(token, &op, Answer::ConsumerCreated(id));
        Ok(None)
    }

    fn check_count(&self, account_max: i64) -> Result<(), ApiError> {
        let maxima = [self.config.max_consumers, account_max];
        let max = maxima.into_iter().filter(|max| *max > 0).min();
        let count = self
            .consumers
            .values()
            .filter(|consumer| !consumer.config.is_of_a_copy())
            .count();
        if max.is_some_and(|max| count as i64 >= max) {
            return Err(ErrorCode::MaximumConsumersLimit.into());
        }
        Ok(())
    }

    /// A message of a work queue belongs to one consumer.
    fn check_work_queue(
        &self,
        config: &ConsumerConfig,
        itself: Option<u64>,
    ) -> Result<(), ApiError> {
        if !matches!(
            config.ack_policy,
            AckPolicy::Explicit | AckPolicy::FlowControl
        ) {
            return Err(ErrorCode::ConsumerWorkQueueRequiresExplicitAck.into());
        }
        if config.deliver_policy != DeliverPolicy::All {
            return Err(ErrorCode::ConsumerWorkQueueConsumerNotDeliverAll.into());
        }
        let others = || {
            self.consumers
                .values()
                .filter(|other| Some(other.id) != itself && !other.config.is_of_a_copy())
        };
        if config.filters().is_empty() && others().next().is_some() {
            return Err(ErrorCode::ConsumerWorkQueueMultipleUnfiltered.into());
        }
        let overlaps = |other: &Consumer| {
            let theirs = other.config.filters();
            theirs.is_empty()
                || theirs
                    .iter()
                    .any(|one| config.filters().iter().any(|two| collide(one, two)))
        };
        if others().any(overlaps) {
            return Err(ErrorCode::ConsumerWorkQueueConsumerNotUnique.into());
        }
        Ok(())
    }

    fn reset_sequence(&self, id: u64, sequence: u64) -> Result<u64, ApiError> {
        let Some(consumer) = self.consumers.get(&id) else {
            return Err(ErrorCode::ConsumerNotFound.into());
        };
        let config = &consumer.config;
        if sequence == 0 {
            return Ok(consumer.progress.floor.stream + 1);
        }
        let bad = |reason: &str| Err(ErrorCode::ConsumerInvalidReset.with(reason));
        match config.deliver_policy {
            DeliverPolicy::All => Ok(sequence),
            DeliverPolicy::ByStartSequence if sequence < config.opt_start_seq => {
                bad("below start seq")
            }
            DeliverPolicy::ByStartSequence => Ok(sequence),
            DeliverPolicy::ByStartTime => {
                let first = config
                    .opt_start_time
                    .and_then(|time| self.store.sequence_at(time.nanoseconds()));
                if sequence < first.unwrap_or(self.store.state().last_sequence + 1) {
                    return bad("below start time");
                }
                Ok(sequence)
            }
            _ => bad("not allowed"),
        }
    }

    /// The answer to a changing request once its operation is applied.
    pub(super) fn answer(&mut self, answer: Answer, outcome: Outcome) -> StreamReply {
        let now_ns = self.applied_ns;
        match answer {
            Answer::Updated => StreamReply::Info {
                info: Box::new(self.info(&InfoQuery::default(), now_ns).0),
                subjects_total: 0,
            },
            Answer::Purged => StreamReply::Purged(match outcome {
                Outcome::Removed(count) => count,
                _ => 0,
            }),
            Answer::Deleted | Answer::ConsumerDeleted => StreamReply::Done,
            Answer::ConsumerCreated(id) | Answer::ConsumerUpdated(id) => {
                match self.consumer_reply(id, now_ns) {
                    StreamReply::Consumer(info) => StreamReply::ConsumerCreated {
                        info,
                        created: matches!(answer, Answer::ConsumerCreated(_)),
                    },
                    other => other,
                }
            }
            Answer::ConsumerPaused(id) => {
                let until_ns = self
                    .consumers
                    .get(&id)
                    .and_then(|consumer| consumer.rules.pause_until_ns);
                StreamReply::Paused {
                    until_ns,
                    remaining_ns: until_ns.map_or(0, |until_ns| (until_ns - now_ns).max(0)),
                }
            }
            Answer::ConsumerReset(id) => match self.consumer_reply(id, now_ns) {
                StreamReply::Consumer(info) => {
                    let sequence = info.delivered.stream_seq + 1;
                    StreamReply::Reset { info, sequence }
                }
                other => other,
            },
        }
    }

    fn consumer_reply(&self, id: u64, now_ns: i64) -> StreamReply {
        match self.consumers.get(&id) {
            Some(consumer) => StreamReply::Consumer(Box::new(self.consumer_info(consumer, now_ns))),
            None => StreamReply::Refused(ErrorCode::ConsumerNotFound.into()),
        }
    }

    /// Answers a request that changes nothing.
    pub(super) fn read(&mut self, request: &StreamRequest, step: &mut Step<'_>) -> StreamReply {
        let now_ns = step.now_ns;
        match request {
            StreamRequest::Info(query) => {
                let (info, subjects_total) = self.info(query, now_ns);
                StreamReply::Info {
                    info: Box::new(info),
                    subjects_total,
                }
            }
            StreamRequest::Get(query) => match self.find(query) {
                Ok(Some(message)) => StreamReply::Message(message),
                Ok(None) => StreamReply::Refused(ErrorCode::NoMessageFound.into()),
                Err(error) => StreamReply::Refused(error),
            },
            StreamRequest::ConsumerInfo { name } => match self.id_of(name) {
                Ok(id) => {
                    self.with_consumer(id, step, |consumer, turn| {
                        consumer.walk_waiting(false, turn);
                        false
                    });
                    self.consumer_reply(id, now_ns)
                }
                Err(error) => StreamReply::Refused(error),
            },
            StreamRequest::Outline => StreamReply::Outline(Box::new(self.outline(now_ns))),
            StreamRequest::Messages {
                from,
                upto,
                bytes_max,
            } => self.messages(*from, *upto, *bytes_max),
            StreamRequest::ConsumerNames => {
                StreamReply::ConsumerNames(self.listed().map(|one| one.name.clone()).collect())
            }
            StreamRequest::ConsumerCounts => {
                let mut counts = BTreeMap::new();
                for consumer in self.consumers.values() {
                    let replicas = consumer.config.replicas_on(&self.config);
                    *counts.entry(replicas).or_default() += 1;
                }
                StreamReply::ConsumerCounts(counts)
            }
            StreamRequest::ConsumerInfos { offset, limit } => StreamReply::ConsumerInfos {
                infos: self
                    .listed()
                    .skip(*offset)
                    .take(*limit)
                    .map(|consumer| self.consumer_info(consumer, now_ns))
                    .collect(),
                total: self.listed().count(),
            },
            _ => StreamReply::Refused(ErrorCode::BadRequest.into()),
        }
    }

    /// The consumers that listings show, by name.
    fn listed(&self) -> impl Iterator<Item = &Consumer> {
        let mut listed: Vec<&Consumer> = self
            .consumers
            .values()
            .filter(|consumer| !consumer.config.direct)
            .collect();
        listed.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        listed.into_iter()
    }

    /// The message a query is about.
    pub(super) fn find(&self, query: &MessageQuery) -> Result<Option<Message>, ApiError> {
        let store = self.store.as_ref();
        let filter =
            |subject: &str| Filter::new((!subject.is_empty()).then_some(subject.as_bytes()));
        let found = match query {
            MessageQuery::Sequence(sequence) => store.load(*sequence),
            MessageQuery::LastBySubject(subject) => {
                let last = store.state().last_sequence;
                match store.previous_sequence(last, &filter(subject)) {
                    Some(sequence) => store.load(sequence),
                    None => Ok(None),
                }
            }
            MessageQuery::NextBySubject { sequence, subject } => {
                store.next((*sequence).max(1), &filter(subject))
            }
            MessageQuery::AtTime { time_ns, subject } => match store.sequence_at(*time_ns) {
                Some(sequence) => store.next(sequence, &filter(subject)),
                None => Ok(None),
            },
        };
        found.map_err(|error| ErrorCode::StreamStoreFailed.with(error))
    }

    /// Consumers that belong to mirrors and sources of other streams: they are not counted among the stream's own.
    fn direct_consumers(&self) -> u64 {
        let consumers = self.consumers.values();
        consumers.filter(|consumer| consumer.config.direct).count() as u64
    }

    /// What the stream is, and how many subjects match the query.
    pub fn info(&self, query: &InfoQuery, now_ns: i64) -> (StreamInfo, usize) {
        let state = self.store.state();
        let time = |time_ns: i64, known: bool| {
            if known {
                Time::from_nanoseconds(time_ns)
            } else {
                Time::ZERO
            }
        };
        let mut shown = StreamState {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_sequence,
            first_ts: time(state.first_time_ns, state.messages > 0),
            last_seq: state.last_sequence,
            last_ts: time(state.last_time_ns, state.last_time_ns != 0),
            num_subjects: state.subjects,
            num_deleted: state.deleted,
            lost: (state.lost > 0).then(|| self.lost(query)),
            consumer_count: self.consumers.len() as u64 - self.direct_consumers(),
            ..StreamState::default()
        };
        let mut total = 0;
        if let Some(filter) = &query.subjects_filter {
            let filter = Filter::new((!filter.is_empty()).then_some(filter.as_bytes()));
            let mut subjects = std::collections::BTreeMap::new();
            let end = query.subjects_offset.saturating_add(query.subjects_limit);
            self.store.subjects(&filter, &mut |subject, state| {
                if total >= query.subjects_offset && total < end {
                    let subject = String::from_utf8_lossy(subject).into_owned();
                    subjects.insert(subject, state.messages);
                }
                total += 1;
                true
            });
            shown.subjects = Some(subjects);
        }
        if query.deleted_details {
            self.store.deleted(&mut |first, last| {
                shown.deleted.extend(first..=last);
                true
            });
        }
        let info = StreamInfo {
            config: StreamConfig::clone(&self.config),
            created: Time::from_nanoseconds(self.created_ns),
            state: shown,
            domain: self.domain.to_string(),
            cluster: None,
            mirror: None,
            sources: Vec::new(),
            alternates: Vec::new(),
            ts: Time::from_nanoseconds(now_ns),
        };
        (info, total)
    }

    fn consumer_info(&self, consumer: &Consumer, now_ns: i64) -> ConsumerInfo {
        let rules = &consumer.rules;
        let live = consumer.live.as_deref();
        let progress = live.map_or(&consumer.progress, |live| &live.progress);
        let at = |time_ns: i64| (time_ns != 0).then(|| Time::from_nanoseconds(time_ns));
        // With a single delivery there are no redeliveries to speak of.
        let redelivered = if rules.deliver_max == Some(1) {
            0
        } else {
            progress.redelivered.len() as u64
        };
        ConsumerInfo {
            stream_name: self.name.to_string(),
            name: consumer.name.clone(),
            created: Time::from_nanoseconds(consumer.created_ns),
            config: ConsumerConfig::clone(&consumer.config),
            delivered: SequenceInfo {
                consumer_seq: progress.delivered.consumer,
                stream_seq: progress.delivered.stream,
                last_active: at(progress.delivered_ns),
            },
            ack_floor: SequenceInfo {
                consumer_seq: progress.floor.consumer,
                stream_seq: progress.floor.stream,
                last_active: at(progress.acked_ns),
            },
            num_ack_pending: progress.pending.len() as u64,
            num_redelivered: redelivered,
            num_waiting: live.map_or(0, |live| live.waiting.len() as u64),
            num_pending: live.map_or(0, |live| live.pending_messages),
            cluster: None,
            push_bound: rules.is_push() && live.is_some_and(|live| live.push.active),
            paused: rules.is_paused(now_ns),
            pause_remaining: rules
                .pause_until_ns
                .map_or(0, |until_ns| (until_ns - now_ns).max(0)),
            ts: Time::from_nanoseconds(now_ns),
            priority_groups: self.priority_groups(consumer),
        }
    }

    fn priority_groups(&self, consumer: &Consumer) -> Vec<PriorityGroupState> {
        let pin = consumer.live.as_deref().and_then(|live| live.pin.as_ref());
        consumer
            .rules
            .priority_groups
            .first()
            .map(|group| PriorityGroupState {
                group: group.clone(),
                pinned_client_id: pin.map(|pin| pin.id.clone()).unwrap_or_default(),
                pinned_ts: pin.map_or(Time::ZERO, |pin| Time::from_nanoseconds(pin.since_ns)),
            })
            .into_iter()
            .collect()
    }
}

/// Whether some subject matches both patterns.
fn collide(one: &str, two: &str) -> bool {
    let (mut one, mut two) = (one.split('.'), two.split('.'));
    loop {
        match (one.next(), two.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::collide;

    #[test]
    fn patterns_collide_when_one_subject_matches_both() {
        for (one, two, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.b", "a.c", false),
            ("a", "a.b", false),
            (">", "a", true),
            ("a.>", "a", false),
        ] {
            assert_eq!(collide(one, two), expected, "{one} {two}");
            assert_eq!(collide(two, one), expected, "{two} {one}");
        }
    }
}
