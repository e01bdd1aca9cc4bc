//! Atomic batches: messages that are stored all together or not at all.
//!
//! Messages wait in the leader's memory until the commit; then they become part of one entry, which is applied as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashSet;

use super::publish::{Plan, Verdict};
use super::{Event, Step, StreamCore};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Advisory;
use crate::jetstream::core::headers::{self, PublishHeaders};
use crate::jetstream::core::request::Publish;
use crate::jetstream::types::{ApiError, ErrorCode};

/// Messages in one batch.
const BATCH_MESSAGES_MAX: usize = 1000;
/// Bytes in one batch.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Batches that wait for their commit, per stream.
const BATCHES_MAX: usize = 50;
/// How long a batch waits for its next message.
const IDLE_NS_MAX: i64 = 10_000_000_000;
/// The longest batch id.
const ID_BYTES_MAX: usize = 64;

/// The batches that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: BTreeMap<String, Batch>,
}

#[derive(Debug, Default)]
struct Batch {
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

impl Batches {
    pub(super) fn next_deadline_ns(&self) -> Option<i64> {
        let oldest = self.open.values().map(|batch| batch.active_ns).min()?;
        Some(oldest.saturating_add(IDLE_NS_MAX))
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
                if !reply.is_empty() {
                    step.effects.confirm(reply);
                }
            }
            Ok(_) => self.commit_batch(&id, publish, step),
            Err(error) => {
                if let Some(lead) = self.lead.as_deref_mut() {
                    lead.batches.open.remove(&id);
                }
                self.refuse_publish(reply, error, step.effects);
            }
        }
    }

    fn collect(&mut self, id: &str, mut publish: Publish, now_ns: i64) -> Result<Commit, ApiError> {
        if self.config.sealed {
            return Err(ErrorCode::StreamSealed.into());
        }
        if !self.config.allow_atomic {
            return Err(ErrorCode::AtomicPublishDisabled.into());
        }
        if id.len() > ID_BYTES_MAX {
            return Err(ErrorCode::AtomicPublishInvalidBatchId.into());
        }
        let headers = publish.headers.clone();
        let found = PublishHeaders::parse(&headers);
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<usize>().ok();
        let Some(sequence) = found.batch_sequence.and_then(number) else {
            return Err(ErrorCode::AtomicPublishMissingSeq.into());
        };
        if found.expected_last_id.is_some() {
            let header = "Nats-Expected-Last-Msg-Id";
            return Err(ErrorCode::AtomicPublishUnsupportedHeaderBatch.with(header));
        }
        let commit = match found.batch_commit {
            None => Commit::NotYet,
            Some(b"1") => Commit::WithThis,
            Some(b"eob") => Commit::BeforeThis,
            Some(_) => return Err(ErrorCode::AtomicPublishInvalidBatchCommit.into()),
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return Ok(Commit::NotYet);
        };
        let open = &mut lead.batches.open;
        if sequence == 1 {
            if open.len() >= BATCHES_MAX && !open.contains_key(id) {
                return Err(ErrorCode::AtomicPublishTooManyInflight.into());
            }
            open.insert(id.to_owned(), Batch::default());
        }
        let known = open
            .get_mut(id)
            .filter(|batch| batch.messages.len() + 1 == sequence);
        let Some(batch) = known else {
            return Err(ErrorCode::AtomicPublishIncompleteBatch.into());
        };
        batch.active_ns = now_ns;
        if commit == Commit::BeforeThis {
            let Some(last) = batch.messages.last_mut() else {
                return Err(ErrorCode::AtomicPublishIncompleteBatch.into());
            };
            let mut block = Vec::with_capacity(last.headers.len() + 32);
            headers::reopen(&last.headers, &mut block);
            headers::line(&mut block, "Nats-Batch-Commit", 1);
            block.extend_from_slice(b"\r\n");
            last.headers = Bytes::from(block);
            return Ok(commit);
        }
        let bytes = publish.subject.len() + publish.headers.len() + publish.payload.len();
        batch.bytes += bytes;
        if batch.messages.len() >= BATCH_MESSAGES_MAX || batch.bytes > BATCH_BYTES_MAX {
            return Err(ErrorCode::AtomicPublishTooLargeBatch.with(BATCH_MESSAGES_MAX));
        }
        publish.reply = Bytes::new();
        batch.messages.push(publish);
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
        match self.plan_batch(&batch.messages, step.now_ns) {
            Ok(plans) => {
                let count = batch.messages.len() as u64;
                let mut operation = 0;
                for (message, plan) in batch.messages.iter().zip(&plans) {
                    let headers = message.headers.clone();
                    let id = PublishHeaders::parse(&headers).id.unwrap_or_default();
                    operation = self.push_message(message, id, plan);
                }
                let responds = !self.config.no_ack && !last.reply.is_empty();
                if let Some(lead) = self.lead.as_deref_mut() {
                    if responds {
                        let waiting = Waiting::Batch {
                            reply: last.reply,
                            id: Box::from(id),
                            count,
                        };
                        lead.draft.wait(operation, waiting);
                    }
                    lead.seal_if_long(step.now_ns);
                }
            }
            Err(Verdict::Park) => {
                let is_marker = PublishHeaders::parse(&last.headers).batch_commit == Some(b"eob");
                if !is_marker {
                    batch.messages.pop();
                }
                if let Some(lead) = self.lead.as_deref_mut() {
                    lead.batches.open.insert(id.to_owned(), batch);
                }
                self.park(Event::Publish(last));
            }
            Err(Verdict::Refuse(error)) => self.refuse_publish(last.reply, error, step.effects),
            Err(_) => {
                let error = ErrorCode::AtomicPublishContainsDuplicateMessage.into();
                self.refuse_publish(last.reply, error, step.effects);
            }
        }
    }

    fn plan_batch(&self, messages: &[Publish], now_ns: i64) -> Result<Vec<Plan>, Verdict> {
        let mut ids = HashSet::new();
        let mut plans = Vec::with_capacity(messages.len());
        for (at, message) in messages.iter().enumerate() {
            let mut found = PublishHeaders::parse(&message.headers);
            if found.id.is_some_and(|id| !ids.insert(id.to_vec())) {
                return Err(Verdict::Duplicate(0));
            }
            if at > 0 {
                // Only the first message can know the stream's last sequence.
                found.expected_last_sequence = None;
            }
            match self.judge(message, &found, now_ns) {
                Verdict::Store(plan) => plans.push(plan),
                other => return Err(other),
            }
        }
        Ok(plans)
    }

    /// Forgets batches whose next message does not come.
    pub(super) fn expire_batches(&mut self, step: &mut Step<'_>) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let now_ns = step.now_ns;
        lead.batches.open.retain(|id, batch| {
            let stays = now_ns < batch.active_ns.saturating_add(IDLE_NS_MAX);
            if !stays {
                step.effects.advisories.push(Advisory::BatchAbandoned {
                    batch: id.clone(),
                    reason: "timeout",
                });
            }
            stays
        });
    }
}
