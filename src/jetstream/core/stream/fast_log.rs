//! What the log of a group says of fast batches beside their messages, and how whoever leads goes on with them.
//!
//! # Invariant
//! A group's log knows how far a batch has come, and that it is over, before its publisher hears of it: what one leader has said holds for the
//! next one. Of a batch that the log knows and the leader does not have open, the log has the end, or gets it next.

use bytes::Bytes;

use super::fast::{FastBatch, FastBatches};
use super::fast_trail::TrailBounds;
use super::lead::Lead;
use super::{Step, StreamCore};
use crate::jetstream::core::batch_quota::BatchKind;
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::entry::Op;
use crate::jetstream::core::fast_reply::{FastReply, Operation};

impl Lead {
    /// The log says before a message that it belongs to a batch.
    pub(super) fn log_fast_message(&mut self, said: &FastReply<'_>, reply: &[u8]) {
        if let Some(batch) = self.fast.open.get_mut(said.id) {
            batch.is_logged = true;
            batch.end_is_logged |= said.operation == Operation::CommitWith;
            self.draft.push(&Op::FastMessage { reply });
        }
    }

    /// The log says that a batch has come past a message that is not stored; its publisher hears of that once it does.
    pub(super) fn log_fast_passed(&mut self, said: &FastReply<'_>, reply: &Bytes) {
        if let Some(batch) = self.fast.open.get_mut(said.id) {
            batch.is_logged = true;
            batch.end_is_logged |= said.operation == Operation::CommitWith;
            batch.pending += 1;
            let sequence = batch.planned;
            let operation = self.draft.push(&Op::FastPassed { sequence, reply });
            let reply = reply.clone();
            self.draft.wait(operation, Waiting::Fast { reply });
        }
    }

    /// The log says that a batch is over, where it does not say so yet; its last ack is sent once it does. Whether there is that to wait for.
    /// Also where the log says nothing else of it: another leader may have taken more.
    pub(super) fn log_fast_end(&mut self, id: &str, reply: &Bytes) -> bool {
        let Some(batch) = self.fast.open.get_mut(id) else {
            return false;
        };
        if batch.end_is_logged {
            return false;
        }
        batch.end_is_logged = true;
        batch.pending += 1;
        let operation = self.draft.push(&Op::FastEnd { id });
        let reply = reply.clone();
        self.draft.wait(operation, Waiting::Fast { reply });
        true
    }

    /// Closes a batch of which there is nothing more to tell.
    pub(super) fn drop_fast(&mut self, id: &str, now_ns: i64) {
        if let Some(batch) = self.fast.open.remove(id)
            && batch.is_logged
            && !batch.end_is_logged
        {
            self.draft.push_lazy(&Op::FastEnd { id }, now_ns);
        }
    }
}

impl StreamCore {
    /// An entry says how far a batch is.
    pub(super) fn note_fast(&mut self, reply: &[u8], sequence: u64, time_ns: i64) {
        let bounds = TrailBounds {
            idle_ns_max: self.batch_quota.idle_ns_max(),
            batches_max: self.batch_quota.fast_per_stream_max(),
        };
        if self.config.allow_batched {
            self.fast_trails.note(reply, sequence, time_ns, bounds);
        }
    }

    /// The stream takes no batches any more.
    pub(super) fn forget_fast(&mut self) {
        self.fast_trails.clear();
        if let Some(lead) = self.lead.as_deref_mut() {
            lead.fast = FastBatches::default();
        }
    }

    /// Goes on with the batches of the leader before this one after what is stored of them, and tells their publishers how far that is. Those
    /// that cannot go on are over.
    pub(super) fn take_up_fast(&mut self, lead: &mut Lead, step: &mut Step<'_>) {
        let (now_ns, idle_ns_max) = (step.now_ns, self.batch_quota.idle_ns_max());
        let trails = self.fast_trails.iter();
        let count = trails
            .filter(|(_, trail)| trail.is_alive(now_ns, idle_ns_max))
            .count();
        for (id, trail) in self.fast_trails.iter() {
            if !trail.is_alive(now_ns, idle_ns_max) {
                continue;
            }
            let open = lead.fast.open.len();
            let Some(place) = self.batch_quota.enter(BatchKind::Fast, open) else {
                break;
            };
            let batch = FastBatch::continued(place, trail, count, now_ns);
            batch.tell_again(step.effects);
            lead.fast.open.insert(id.to_owned(), batch);
        }
        match self.has_replicas {
            true => self.end_forgotten_fast(lead, now_ns),
            // From here on the log says nothing of them.
            false => self.fast_trails.clear(),
        }
    }

    /// What was on its way is lost: batches go on after what is stored.
    pub(super) fn take_back_fast(&self, lead: &mut Lead, step: &mut Step<'_>) {
        if !self.has_replicas {
            return lead.fast.go_back(step.effects);
        }
        let trails = &self.fast_trails;
        lead.fast.open.retain(|id, batch| {
            if batch.pending == 0 {
                return true;
            }
            let trail = trails.get(id);
            if let Some(trail) = trail {
                batch.stored = trail.stored;
                batch.sequence = trail.sequence;
                batch.reply = trail.reply();
            }
            // What ended it may have got into the log although nobody waited for it any more.
            trail.is_some() || batch.stored == 0
        });
        lead.fast.go_back(step.effects);
        self.end_forgotten_fast(lead, step.now_ns);
    }

    /// The log gets the ends of batches that are not open here.
    fn end_forgotten_fast(&self, lead: &mut Lead, now_ns: i64) {
        for (id, _) in self.fast_trails.iter() {
            if !lead.fast.open.contains_key(id) {
                lead.draft.push_lazy(&Op::FastEnd { id }, now_ns);
            }
        }
    }

    /// Forgets batches whose next message does not come.
    pub(super) fn expire_fast(&mut self, now_ns: i64) {
        let idle_ns_max = self.batch_quota.idle_ns_max();
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        for id in lead.fast.idle(now_ns, idle_ns_max) {
            lead.drop_fast(&id, now_ns);
        }
    }

    /// What a message of a batch came to is in the log: under which sequence it was stored, or that it was not.
    pub(super) fn settle_fast(
        &mut self,
        reply: &Bytes,
        stored: Option<u64>,
        effects: &mut Effects,
    ) {
        let Some(said) = FastReply::parse(reply) else {
            return;
        };
        let Some((batch, count)) = self.fast_batch(said.id) else {
            return;
        };
        batch.settle(said.sequence, stored, reply);
        if batch.is_over() {
            self.commit_fast(said.id, reply, effects);
        } else {
            batch.tell_if_due(count, reply, effects);
        }
    }

    /// The batches that whoever leads next goes on with, as far as this replica has applied.
    #[cfg(test)]
    pub(crate) fn remembered_fast_batches(&self) -> Vec<String> {
        let trails = self.fast_trails.iter();
        trails.map(|(id, _)| id.to_owned()).collect()
    }
}
