//! Atomic batches: messages that are stored all together or not at all.
//!
//! Messages wait in the leader's memory until the commit; then they become part of one entry, which is applied as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::judge::{Case, Obstacle, Plan};
use super::staged::Staged;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::batch_quota::{BatchKind, BatchPlace};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::{Advisory, Effects};
use crate::jetstream::core::headers::{self, PublishHeaders};
use crate::jetstream::core::request::Publish;
use crate::jetstream::types::{ApiError, ErrorCode, header_exceeds_level};

/// Bytes in one batch.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest batch id.
pub(super) const ID_BYTES_MAX: usize = 64;

/// The batches that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: BTreeMap<String, Batch>,
}

#[derive(Debug)]
struct Batch {
    _place: BatchPlace,
    messages: Vec<Publish>,
    bytes: usize,
    active_ns: i64,
}

/// What a message means for its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    NotYet,
    WithThis,
    BeforeThis,
}

/// A message that its batch cannot take.
struct Refusal {
    error: ApiError,
    /// Whether the batch ends, and what the world hears of that.
    ends: bool,
    reason: Option<&'static str>,
}

impl Refusal {
    /// The batch goes on without the message.
    fn of_message(error: impl Into<ApiError>) -> Self {
        Self {
            error: error.into(),
            ends: false,
            reason: None,
        }
    }

    /// The batch is over.
    fn of_batch(error: impl Into<ApiError>, reason: Option<&'static str>) -> Self {
        Self {
            error: error.into(),
            ends: true,
            reason,
        }
    }
}

impl Batch {
    /// One without messages.
    fn at(place: BatchPlace) -> Self {
        Self {
            _place: place,
            messages: Vec::new(),
            bytes: 0,
            active_ns: 0,
        }
    }
}

impl Batches {
    pub(super) fn next_deadline_ns(&self, idle_ns_max: i64) -> Option<i64> {
        let oldest = self.open.values().map(|batch| batch.active_ns).min()?;
        Some(oldest.saturating_add(idle_ns_max))
    }
}

impl StreamCore {
    /// Takes a message that belongs to a batch.
    pub(super) fn publish_in_batch(&mut self, publish: Publish, step: &mut Step<'_>) {
        let found = PublishHeaders::parse(&publish.headers);
        let id = String::from_utf8_lossy(found.batch_id.unwrap_or_default()).into_owned();
        let reply = publish.reply.clone();
        match self.collect(&id, publish.clone(), step.now_ns) {
            Ok(Commit::NotYet) => {
                if !self.config.no_ack && !reply.is_empty() {
                    step.effects.confirm(reply);
                }
            }
            Ok(_) => self.commit_batch(&id, publish, step),
            Err(refusal) => {
                if refusal.ends
                    && let Some(lead) = self.lead.as_deref_mut()
                {
                    lead.batches.open.remove(&id);
                }
                if let Some(reason) = refusal.reason {
                    abandoned(&id, reason, step.effects);
                }
                self.refuse_publish(reply, refusal.error, step.effects);
            }
        }
    }

    /// What is checked of each message before it waits for the commit.
    fn check_in_batch(&self, id: &str, publish: &Publish) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ErrorCode::StreamSealed.into());
        }
        let size = publish.headers.len() + publish.payload.len();
        let max = usize::try_from(self.config.max_msg_size);
        if max.is_ok_and(|max| max > 0 && size > max) {
            return Err(ErrorCode::StreamMessageExceedsMaximum.into());
        }
        if !self.config.allow_atomic {
            return Err(ErrorCode::AtomicPublishDisabled.into());
        }
        if id.len() > ID_BYTES_MAX {
            return Err(ErrorCode::AtomicPublishInvalidBatchId.into());
        }
        Ok(())
    }

    fn collect(&mut self, id: &str, mut publish: Publish, now_ns: i64) -> Result<Commit, Refusal> {
        self.check_in_batch(id, &publish)
            .map_err(Refusal::of_message)?;
        let block = publish.headers.clone();
        let found = PublishHeaders::parse(&block);
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<usize>().ok();
        let Some(sequence) = found.batch_sequence.and_then(number) else {
            return Err(Refusal::of_message(ErrorCode::AtomicPublishMissingSeq));
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return Ok(Commit::NotYet);
        };
        let open = &mut lead.batches.open;
        let is_marker = found.batch_commit == Some(b"eob");
        let size = sequence.saturating_sub(usize::from(is_marker));
        let messages_max = self.batch_quota.messages_max();
        let too_large = || ErrorCode::AtomicPublishTooLargeBatch.with(messages_max);
        if !open.contains_key(id) {
            if sequence != 1 && size > messages_max {
                return Err(Refusal::of_message(too_large()));
            }
            if sequence != 1 {
                return Err(Refusal::of_message(ErrorCode::AtomicPublishIncompleteBatch));
            }
            let Some(place) = self.batch_quota.enter(BatchKind::Atomic, open.len()) else {
                return Err(Refusal::of_message(ErrorCode::AtomicPublishTooManyInflight));
            };
            open.insert(id.to_owned(), Batch::at(place));
        }
        let Some(batch) = open.get_mut(id) else {
            return Ok(Commit::NotYet);
        };
        let commit = match found.batch_commit {
            None => Commit::NotYet,
            Some(b"1") => Commit::WithThis,
            Some(b"eob") => Commit::BeforeThis,
            Some(_) => {
                let error = ErrorCode::AtomicPublishInvalidBatchCommit;
                return Err(Refusal::of_batch(error, None));
            }
        };
        if let Some(level) = found.required_level {
            if header_exceeds_level(level) {
                let error = ErrorCode::RequiredApiLevel;
                return Err(Refusal::of_batch(error, Some("unsupported")));
            }
            let kept = headers::without(&block, "Nats-Required-Api-Level");
            publish.headers = Bytes::from(kept);
        }
        batch.active_ns = now_ns;
        let follows = batch.messages.len() + 1 == sequence;
        if !follows || (sequence == 1 && commit == Commit::BeforeThis) {
            let error = ErrorCode::AtomicPublishIncompleteBatch;
            return Err(Refusal::of_batch(error, Some("incomplete")));
        }
        if commit != Commit::BeforeThis {
            batch.bytes += publish.subject.len() + publish.headers.len() + publish.payload.len();
        }
        if size > messages_max || batch.bytes > BATCH_BYTES_MAX {
            return Err(Refusal::of_batch(too_large(), Some("large")));
        }
        if commit != Commit::BeforeThis {
            publish.reply = Bytes::new();
            batch.messages.push(publish);
        }
        Ok(commit)
    }

    /// Stores all messages of a batch, or none.
    fn commit_batch(&mut self, id: &str, last: Publish, step: &mut Step<'_>) {
        let batch = self
            .lead
            .as_deref_mut()
            .and_then(|lead| lead.batches.open.remove(id));
        let Some(mut batch) = batch else {
            return;
        };
        let is_marker = PublishHeaders::parse(&last.headers).batch_commit == Some(b"eob");
        match self.plan_batch(&batch.messages, step.now_ns) {
            Ok(mut plans) => {
                if is_marker
                    && let (Some(message), Some(plan)) = (batch.messages.last(), plans.last_mut())
                {
                    let block = plan.headers(message);
                    let marked = headers::with(block, "Nats-Batch-Commit", b"1");
                    plan.headers = Some(Bytes::from(marked));
                }
                self.store_batch(id, &batch.messages, &plans, last.reply, step.now_ns);
            }
            Err(Obstacle::Park) => {
                if !is_marker && let Some(message) = batch.messages.pop() {
                    let bytes = message.subject.len() + message.headers.len();
                    batch.bytes -= bytes + message.payload.len();
                }
                if let Some(lead) = self.lead.as_deref_mut() {
                    lead.batches.open.insert(id.to_owned(), batch);
                }
                self.park(Event::Publish(last));
            }
            Err(Obstacle::Refuse(error)) => self.refuse_publish(last.reply, error, step.effects),
            Err(_) => {
                let error = ErrorCode::AtomicPublishContainsDuplicateMessage.into();
                self.refuse_publish(last.reply, error, step.effects);
            }
        }
    }

    fn store_batch(
        &mut self,
        id: &str,
        messages: &[Publish],
        plans: &[Plan],
        reply: Bytes,
        now_ns: i64,
    ) {
        let mut operation = 0;
        for (message, plan) in messages.iter().zip(plans) {
            let id = PublishHeaders::parse(&message.headers).id;
            operation = self.push_message(message, id.unwrap_or_default(), plan);
        }
        let responds = !self.config.no_ack && !reply.is_empty();
        if let Some(lead) = self.lead.as_deref_mut() {
            if responds {
                let waiting = Waiting::Batch {
                    reply,
                    id: Box::from(id),
                    count: messages.len() as u64,
                };
                lead.draft.wait(operation, waiting);
            }
            lead.seal_if_long(now_ns);
        }
    }

    fn plan_batch(&self, messages: &[Publish], now_ns: i64) -> Result<Vec<Plan>, Obstacle> {
        let mut staged = Staged::default();
        let mut plans = Vec::with_capacity(messages.len());
        for message in messages {
            let found = PublishHeaders::parse(&message.headers);
            if found.expected_last_id.is_some() {
                let header = "Nats-Expected-Last-Msg-Id";
                let error = ErrorCode::AtomicPublishUnsupportedHeaderBatch.with(header);
                return Err(Obstacle::Refuse(error));
            }
            let case = Case {
                staged: Some(&staged),
                ..Case::alone(message, &found, now_ns)
            };
            let plan = self.judge(&case)?;
            let bytes = plan.accounted_bytes(message, self.store.accounting());
            staged.add(message, found.id, &plan, bytes);
            plans.push(plan);
        }
        Ok(plans)
    }

    /// Forgets batches whose next message does not come.
    pub(super) fn expire_batches(&mut self, step: &mut Step<'_>) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let (now_ns, idle_ns_max) = (step.now_ns, self.batch_quota.idle_ns_max());
        lead.batches.open.retain(|id, batch| {
            let stays = now_ns < batch.active_ns.saturating_add(idle_ns_max);
            if !stays {
                abandoned(id, "timeout", step.effects);
            }
            stays
        });
    }
}

fn abandoned(id: &str, reason: &'static str, effects: &mut Effects) {
    effects.advisories.push(Advisory::BatchAbandoned {
        batch: id.to_owned(),
        reason,
    });
}
