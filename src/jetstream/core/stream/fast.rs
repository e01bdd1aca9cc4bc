//! Fast batches: messages that are stored as they come, and acknowledged in bulk.
//!
//! What a message is to its batch stands in its reply subject. Publishers are told every so many messages how far the stream has come, and
//! in the end what all of it came to. What a group's log says of batches is in `fast_log`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::apply::Outcome;
use super::batch::ID_BYTES_MAX;
use super::fast_trail::FastTrail;
use super::judge::{Case, Obstacle, Plan};
use super::lead::{Extra, Lead};
use super::staged::Staged;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::batch_quota::{BatchKind, BatchPlace};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::fast_reply::{FastReply, Operation};
use crate::jetstream::core::headers::{self, PublishHeaders};
use crate::jetstream::core::request::{Outgoing, Publish};
use crate::jetstream::types::{ApiError, ErrorCode, encode, header_exceeds_level};

/// The largest number of messages for which there is one ack.
const EVERY_MAX: u16 = 500;

/// The fast batches that are open.
#[derive(Debug, Default)]
pub(super) struct FastBatches {
    pub(super) open: BTreeMap<String, FastBatch>,
}

#[derive(Debug)]
pub(super) struct FastBatch {
    _place: BatchPlace,
    gap_ok: bool,
    /// There is an ack for this many messages, and at most for that many.
    every: u16,
    every_max: u16,
    /// The last message that was taken, in the batch's own count.
    taken: u64,
    /// The last one that is seen to, likewise, and the last one's sequence in the stream that was stored.
    pub(super) stored: u64,
    pub(super) sequence: u64,
    /// That sequence once everything on its way is stored.
    pub(super) planned: u64,
    /// The one that was acknowledged last.
    told: u64,
    /// What is on its way to the log: messages, and what else is said of the batch.
    pub(super) pending: u32,
    /// No message is taken any more; the last ack is owed.
    committed: bool,
    /// Whether a group's log, or what is on its way to it, says something of the batch, and that it is over.
    pub(super) is_logged: bool,
    pub(super) end_is_logged: bool,
    /// Where the last one that is seen to wanted its ack.
    pub(super) reply: Bytes,
    active_ns: i64,
}

#[derive(Serialize)]
struct Progress {
    r#type: &'static str,
    seq: u64,
    msgs: u16,
}

#[derive(Serialize)]
struct Gap {
    r#type: &'static str,
    last_seq: u64,
    seq: u64,
}

#[derive(Serialize)]
struct Failure<'a> {
    r#type: &'static str,
    seq: u64,
    error: &'a ApiError,
}

impl FastBatches {
    pub(super) fn next_deadline_ns(&self, idle_ns_max: i64) -> Option<i64> {
        let idle = self.open.values().filter(|batch| !batch.committed);
        let oldest = idle.map(|batch| batch.active_ns).min()?;
        Some(oldest.saturating_add(idle_ns_max))
    }

    /// What was on its way is lost: batches go on after what is stored.
    pub(super) fn go_back(&mut self, effects: &mut Effects) {
        let count = self.open.len();
        for batch in self.open.values_mut().filter(|batch| batch.pending > 0) {
            batch.every = first_every(batch.every_max, count);
            batch.committed = false;
            batch.end_is_logged = false;
            batch.pending = 0;
            batch.taken = batch.stored;
            batch.planned = batch.sequence;
            batch.told = batch.stored;
            batch.tell_again(effects);
        }
    }

    /// Those whose next message does not come.
    pub(super) fn idle(&self, now_ns: i64, idle_ns_max: i64) -> Vec<String> {
        let open = self.open.iter();
        let idle = open.filter(|(_, batch)| {
            !batch.committed && now_ns >= batch.active_ns.saturating_add(idle_ns_max)
        });
        idle.map(|(id, _)| id.clone()).collect()
    }
}

/// For how many messages there is one ack in the beginning.
fn first_every(every_max: u16, batches: usize) -> u16 {
    match batches {
        0 | 1 => every_max.min(EVERY_MAX),
        _ => 1,
    }
}

impl FastBatch {
    /// One that has taken nothing yet, as its first message wants it.
    fn opened(place: BatchPlace, said: &FastReply<'_>, every: u16) -> Self {
        Self {
            _place: place,
            gap_ok: said.gap_ok,
            every,
            every_max: said.every,
            taken: 0,
            stored: 0,
            sequence: 0,
            planned: 0,
            told: 0,
            pending: 0,
            committed: false,
            is_logged: false,
            end_is_logged: false,
            reply: Bytes::new(),
            active_ns: 0,
        }
    }

    /// One of so many that another leader had taken, after what is stored of it.
    pub(super) fn continued(
        place: BatchPlace,
        trail: &FastTrail,
        batches: usize,
        now_ns: i64,
    ) -> Self {
        Self {
            _place: place,
            gap_ok: trail.gap_ok,
            every: first_every(trail.every_max, batches),
            every_max: trail.every_max,
            taken: trail.stored,
            stored: trail.stored,
            sequence: trail.sequence,
            planned: trail.sequence,
            told: trail.stored,
            pending: 0,
            committed: false,
            is_logged: true,
            end_is_logged: false,
            reply: trail.reply(),
            active_ns: now_ns,
        }
    }

    /// Says once more how far the batch is.
    pub(super) fn tell_again(&self, effects: &mut Effects) {
        self.tell(self.told, &self.reply, effects);
    }

    /// Something of the batch that was on its way is in the log, up to this place in it.
    pub(super) fn settle(&mut self, at: u64, stored: Option<u64>, reply: &Bytes) {
        self.pending = self.pending.saturating_sub(1);
        self.sequence = stored.unwrap_or(self.sequence);
        self.reply = reply.clone();
        // Duplicates after it are as good as stored.
        self.stored = match self.pending {
            0 => self.taken,
            _ => at.min(self.taken),
        };
    }

    /// Whether nothing more comes, and all that has come is seen to.
    pub(super) fn is_over(&self) -> bool {
        self.committed && self.pending == 0
    }

    fn tell(&self, seq: u64, reply: &Bytes, effects: &mut Effects) {
        let progress = Progress {
            r#type: "ack",
            seq,
            msgs: self.every,
        };
        send(reply, &progress, effects);
    }

    /// Acknowledges when it is time to; whether it did. Publishers share what may be under way.
    pub(super) fn tell_if_due(
        &mut self,
        batches: usize,
        reply: &Bytes,
        effects: &mut Effects,
    ) -> bool {
        let every = u64::from(self.every.max(1));
        let ahead = self.stored.saturating_sub(self.told);
        if ahead < every {
            return false;
        }
        self.told += ahead / every * every;
        let share = usize::from(EVERY_MAX) / batches.max(1);
        let share = u16::try_from(share.max(1)).unwrap_or(EVERY_MAX);
        let goal = share.min(self.every_max);
        self.every = match self.every < goal {
            true => self.every.saturating_mul(2).min(goal),
            false => (self.every / 2).max(goal),
        };
        self.tell(self.told, reply, effects);
        true
    }
}

fn send(reply: &Bytes, body: &impl Serialize, effects: &mut Effects) {
    if reply.is_empty() {
        return;
    }
    effects.outgoing.push(Outgoing {
        to: reply.clone(),
        subject: reply.clone(),
        payload: Bytes::from(encode(body)),
        ..Outgoing::default()
    });
}

impl StreamCore {
    /// Takes a message whose reply subject says that it belongs to a fast batch.
    pub(super) fn publish_fast(&mut self, publish: Publish, step: &mut Step<'_>) {
        let reply = publish.reply.clone();
        if let Err(error) = self.take_fast(&reply, publish, step) {
            self.refuse_publish(reply, error, step.effects);
        }
    }

    fn take_fast(
        &mut self,
        reply: &Bytes,
        mut publish: Publish,
        step: &mut Step<'_>,
    ) -> Result<(), ApiError> {
        let now_ns = step.now_ns;
        let said = self.check_fast(&publish, reply)?;
        let found = PublishHeaders::parse(&publish.headers);
        let Some(lead) = self.lead.as_deref_mut() else {
            return Ok(());
        };
        let open = &lead.fast.open;
        let known = open.get(said.id);
        if known.is_none() && said.sequence != 1 {
            return Err(ErrorCode::BatchPublishUnknownBatchId.into());
        }
        let is_over = known.is_some_and(|batch| batch.committed);
        let place = match known {
            Some(_) => None,
            None => {
                let place = self.batch_quota.enter(BatchKind::Fast, open.len());
                Some(place.ok_or(ErrorCode::BatchPublishTooManyInflight)?)
            }
        };
        if let Some(level) = found.required_level {
            if header_exceeds_level(level) {
                lead.drop_fast(said.id, now_ns);
                return Err(ErrorCode::RequiredApiLevel.into());
            }
            let kept = headers::without(&publish.headers, "Nats-Required-Api-Level");
            publish.headers = Bytes::from(kept);
        }
        // Whether a message can be stored at all is found before the batch moves on to it, because that may have to wait.
        let moves = said.stores() && !is_over;
        let found = PublishHeaders::parse(&publish.headers);
        let verdict = moves.then(|| {
            let staged = Staged::default();
            self.judge(&Case {
                staged: Some(&staged),
                ..Case::alone(&publish, &found, now_ns)
            })
        });
        if matches!(verdict, Some(Err(Obstacle::Park))) {
            self.park(Event::Publish(publish));
            return Ok(());
        }
        self.open_fast(&said, place, now_ns);
        match said.operation {
            Operation::Ping => self.ping_fast(&said, reply, step.effects),
            _ if self.skips_fast(&said, reply, step.effects) => {}
            _ => self.move_fast(&said, publish, verdict, step),
        }
        Ok(())
    }

    fn check_fast<'a>(
        &self,
        publish: &Publish,
        reply: &'a [u8],
    ) -> Result<FastReply<'a>, ApiError> {
        if self.config.sealed {
            return Err(ErrorCode::StreamSealed.into());
        }
        let size = publish.headers.len() + publish.payload.len();
        let max = usize::try_from(self.config.max_msg_size);
        if max.is_ok_and(|max| max > 0 && size > max) {
            return Err(ErrorCode::StreamMessageExceedsMaximum.into());
        }
        if !self.config.allow_batched {
            return Err(ErrorCode::BatchPublishDisabled.into());
        }
        let said = FastReply::parse(reply);
        let said = said.ok_or(ErrorCode::BatchPublishInvalidPattern)?;
        match said.id.len() > ID_BYTES_MAX {
            true => Err(ErrorCode::BatchPublishInvalidBatchId.into()),
            false => Ok(said),
        }
    }

    /// Notes that something came for a batch, which is opened at its place if it is new.
    fn open_fast(&mut self, said: &FastReply<'_>, place: Option<BatchPlace>, now_ns: i64) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let open = &mut lead.fast.open;
        let count = open.len() + 1;
        if let Some(place) = place {
            let batch = FastBatch::opened(place, said, first_every(said.every, count));
            open.insert(said.id.to_owned(), batch);
        }
        if let Some(batch) = open.get_mut(said.id) {
            batch.active_ns = now_ns;
        }
    }

    /// An open batch, and how many there are.
    pub(super) fn fast_batch(&mut self, id: &str) -> Option<(&mut FastBatch, usize)> {
        self.lead.as_deref_mut()?.fast(id)
    }

    /// A publisher asks how far its batch is.
    fn ping_fast(&mut self, said: &FastReply<'_>, reply: &Bytes, effects: &mut Effects) {
        let Some((batch, _)) = self.fast_batch(said.id) else {
            return;
        };
        if said.sequence > batch.taken {
            let gap = Gap {
                r#type: "gap",
                last_seq: batch.taken + 1,
                seq: said.sequence + 1,
            };
            send(reply, &gap, effects);
            if !batch.gap_ok {
                if !self.commit_fast(said.id, reply, effects) {
                    self.tell_fast(said.id, reply, effects);
                }
                return;
            }
            if !batch.committed {
                batch.taken = said.sequence;
                if self.pass_fast(said, reply, effects) {
                    return;
                }
            }
        }
        self.tell_fast(said.id, reply, effects);
    }

    /// A batch comes past something that is not stored. Whether its publisher was told how far that brings it: not as long as that rests on
    /// what is on its way.
    fn pass_fast(&mut self, said: &FastReply<'_>, reply: &Bytes, effects: &mut Effects) -> bool {
        let has_replicas = self.has_replicas;
        let Some(lead) = self.lead.as_deref_mut() else {
            return false;
        };
        if has_replicas {
            lead.log_fast_passed(said, reply);
            return false;
        }
        let is_settled = lead.is_settled();
        let Some((batch, count)) = lead.fast(said.id) else {
            return false;
        };
        if !is_settled {
            batch.pending += 1;
            let reply = reply.clone();
            lead.after_all(Waiting::Fast { reply });
            return false;
        }
        batch.stored = batch.taken;
        batch.tell_if_due(count, reply, effects)
    }

    fn tell_fast(&mut self, id: &str, reply: &Bytes, effects: &mut Effects) {
        if let Some((batch, _)) = self.fast_batch(id) {
            batch.tell(batch.told, reply, effects);
        }
    }

    /// Whether the batch does not take this message: it is over, or something before it is missing.
    fn skips_fast(&mut self, said: &FastReply<'_>, reply: &Bytes, effects: &mut Effects) -> bool {
        let Some((batch, _)) = self.fast_batch(said.id) else {
            return true;
        };
        if batch.committed {
            return true;
        }
        let expected = batch.taken + 1;
        if said.sequence > expected {
            let gap = Gap {
                r#type: "gap",
                last_seq: expected,
                seq: said.sequence,
            };
            send(reply, &gap, effects);
        }
        let takes = said.sequence == expected || (said.sequence > expected && batch.gap_ok);
        if takes {
            batch.taken = said.sequence;
        } else {
            self.commit_fast(said.id, reply, effects);
        }
        !takes
    }

    /// The batch has come to this message.
    fn move_fast(
        &mut self,
        said: &FastReply<'_>,
        publish: Publish,
        verdict: Option<Result<Plan, Obstacle>>,
        step: &mut Step<'_>,
    ) {
        let reply = publish.reply.clone();
        let no_ack = self.config.no_ack;
        let Some((batch, _)) = self.fast_batch(said.id) else {
            return;
        };
        if said.operation == Operation::CommitBefore {
            batch.taken -= 1;
            if batch.pending == 0 {
                batch.stored = batch.taken;
            }
            self.commit_fast(said.id, &reply, step.effects);
            return;
        }
        let commits = said.operation == Operation::CommitWith;
        if commits {
            batch.committed = true;
        } else if said.sequence == 1 && !no_ack {
            batch.tell(0, &reply, step.effects);
        }
        match verdict {
            Some(Ok(plan)) => self.store_fast(said, &publish, &plan, step.now_ns),
            Some(Err(Obstacle::Duplicate(sequence))) => {
                self.repeat_fast(said, sequence, &reply, step);
            }
            Some(Err(Obstacle::Refuse(error))) => {
                self.fail_fast(said, &error, reply, step);
            }
            _ => {}
        }
    }

    fn store_fast(&mut self, said: &FastReply<'_>, publish: &Publish, plan: &Plan, now_ns: i64) {
        if self.has_replicas
            && let Some(lead) = self.lead.as_deref_mut()
        {
            lead.log_fast_message(said, &publish.reply);
        }
        let id = PublishHeaders::parse(&publish.headers).id;
        let operation = self.push_message(publish, id.unwrap_or_default(), plan);
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let sequence = lead.overlay.last_sequence;
        if let Some((batch, _)) = lead.fast(said.id) {
            batch.pending += 1;
            batch.planned = sequence;
        }
        let reply = publish.reply.clone();
        lead.draft.wait(operation, Waiting::Fast { reply });
        lead.seal_if_long(now_ns);
    }

    /// A message of the batch was stored before, or is on its way.
    fn repeat_fast(
        &mut self,
        said: &FastReply<'_>,
        sequence: u64,
        reply: &Bytes,
        step: &mut Step<'_>,
    ) {
        let Some((batch, _)) = self.fast_batch(said.id) else {
            return;
        };
        let commits = said.operation == Operation::CommitWith;
        if commits && !batch.gap_ok && batch.taken == 1 {
            return self.repeat_lone_fast(said, sequence, reply, step);
        }
        self.pass_fast(said, reply, step.effects);
        if commits {
            self.commit_fast(said.id, reply, step.effects);
        }
    }

    /// The same where it is the only one.
    fn repeat_lone_fast(
        &mut self,
        said: &FastReply<'_>,
        sequence: u64,
        reply: &Bytes,
        step: &mut Step<'_>,
    ) {
        let waiting = Waiting::DuplicateBatch {
            reply: reply.clone(),
            id: Box::from(said.id),
            sequence,
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        lead.drop_fast(said.id, step.now_ns);
        match lead.is_settled() {
            true => self.resolve(waiting, Outcome::Nothing, step.effects),
            false => lead.after_all(waiting),
        }
    }

    /// A message of the batch cannot be stored.
    fn fail_fast(
        &mut self,
        said: &FastReply<'_>,
        error: &ApiError,
        reply: Bytes,
        step: &mut Step<'_>,
    ) {
        let has_replicas = self.has_replicas;
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        let Some((batch, _)) = lead.fast(said.id) else {
            return;
        };
        let (gap_ok, is_first) = (batch.gap_ok, batch.taken == 1);
        if !gap_ok && is_first {
            lead.drop_fast(said.id, step.now_ns);
            return self.refuse(reply, error, step.effects);
        }
        let failure = Failure {
            r#type: "err",
            seq: said.sequence,
            error,
        };
        send(&reply, &failure, step.effects);
        if gap_ok && said.operation != Operation::CommitWith {
            if has_replicas {
                lead.log_fast_passed(said, &reply);
            }
            return;
        }
        batch.taken -= 1;
        if batch.pending == 0 {
            batch.stored = batch.taken;
        }
        self.commit_fast(said.id, &reply, step.effects);
    }

    /// Ends a batch after what was taken of it; whether none of that is on its way any more, so that its last ack is sent, or follows the end
    /// into the log.
    pub(super) fn commit_fast(&mut self, id: &str, reply: &Bytes, effects: &mut Effects) -> bool {
        let has_replicas = self.has_replicas;
        let Some(lead) = self.lead.as_deref_mut() else {
            return true;
        };
        let Some((batch, _)) = lead.fast(id) else {
            return true;
        };
        batch.committed = true;
        let is_stored = batch.pending == 0;
        let (sequence, count) = (batch.sequence, batch.taken);
        if has_replicas && lead.log_fast_end(id, reply) {
            return is_stored;
        }
        if !is_stored {
            return false;
        }
        lead.fast.open.remove(id);
        self.acknowledge(reply.clone(), sequence, Extra::Batch(id, count), effects);
        true
    }
}

impl Lead {
    /// An open batch, and how many there are.
    fn fast(&mut self, id: &str) -> Option<(&mut FastBatch, usize)> {
        let count = self.fast.open.len();
        Some((self.fast.open.get_mut(id)?, count))
    }
}
