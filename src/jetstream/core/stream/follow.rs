//! Being one of several replicas: applying what was committed, whoever decided it, and losing the lead.

use bytes::Bytes;

use super::apply::Applied;
use super::chain::LogPlace;
use super::lead::{Flight, Lead};
use super::{ApplyError, Event, Step, StreamCore};
use crate::jetstream::core::consumer::Live;
use crate::jetstream::core::digest::{Divergence, Mark, Recollection};
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::entry::Op;
use crate::jetstream::core::request::StreamReply;
use crate::jetstream::types::ErrorCode;

/// Why a leader stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// Another replica leads now, or none.
    LeadershipLost,
    /// The server ends, or the stream cannot go on here.
    Shutdown,
    /// The stream was removed.
    Removed,
}

impl Retirement {
    /// What those hear who wait for messages, and whether they hear what they are still owed.
    fn status(self) -> (&'static str, bool) {
        match self {
            Self::LeadershipLost => ("409 Leadership Change", false),
            Self::Shutdown => ("409 Server Shutdown", true),
            Self::Removed => ("409 Consumer Deleted", false),
        }
    }
}

impl StreamCore {
    /// Whether this is the leader.
    pub fn is_leading(&self) -> bool {
        self.lead.is_some()
    }

    /// Only applies from now on. What was in flight may still be committed, or never: nobody hears of it from here.
    pub fn follow(&mut self, effects: &mut Effects) {
        self.retire(Retirement::LeadershipLost, effects);
    }

    /// Stops leading. Whoever waits for messages is told so; requests whose outcome is not known any more are refused, and publishers hear
    /// nothing, so that they ask again.
    pub fn retire(&mut self, reason: Retirement, effects: &mut Effects) {
        if let Some(mut lead) = self.lead.take() {
            abandon(&mut lead, effects);
            for (_, token, _) in lead.reads {
                effects.replies.push((token, unavailable()));
            }
            for event in lead.parked {
                if let Event::Request { token, .. } = event {
                    effects.replies.push((token, unavailable()));
                }
            }
        }
        let (status, with_remaining) = reason.status();
        for consumer in self.consumers.values_mut() {
            if let Some(mut live) = consumer.live.take() {
                live.waiting.end_all(status, with_remaining, effects);
            }
        }
    }

    /// Applies an entry that a majority has, whoever decided it. One at or below the last applied is passed over.
    pub fn take_committed(
        &mut self,
        at: LogPlace,
        entry: &Bytes,
        step: &mut Step<'_>,
    ) -> Result<(), ApplyError> {
        if at.index <= self.applied_index {
            return Ok(());
        }
        let Some(lead) = self.lead.as_deref_mut() else {
            self.apply(at, entry, Vec::new(), None, step.effects)?;
            return Ok(());
        };
        let is_next = |flight: &Flight| is_same(&flight.entry, entry);
        if lead.flights.front().is_some_and(is_next)
            && let Some(flight) = lead.flights.pop_front()
        {
            self.land(at, flight, step)?;
        } else {
            // Of an earlier leader, of an earlier chain of our own, or a repeated one.
            let applied = self.apply(at, entry, Vec::new(), Some(step.world), step.effects)?;
            if applied == Applied::Changed {
                self.lead_anew(step);
            }
        }
        self.tell_digest(step.now_ns);
        Ok(())
    }

    /// A follower answers from what it has applied, and decides nothing.
    pub(super) fn handle_following(&mut self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Direct { reply, query } => self.direct(reply, query, step.effects),
            Event::Request { token, request } => {
                let reply = match request.is_read() {
                    true => self.read(&request, step),
                    false => StreamReply::Refused(ErrorCode::ClusterNotLeader.into()),
                };
                step.effects.replies.push((token, reply));
            }
            _ => {}
        }
    }

    /// The entry at an index is none of the stream's: the group's own.
    pub fn pass(&mut self, index: u64) {
        if index > self.applied_index {
            self.applied_index = index;
            self.digest.mark(index);
        }
    }

    /// The entries in flight, in order: to be submitted again when it is not known what became of them. Those that were applied meanwhile fit
    /// nowhere any more.
    pub fn in_flight(&self) -> Vec<(u64, Bytes)> {
        let lead = self.lead.as_deref();
        let flights = lead.map(|lead| lead.flights.iter());
        let entry = |flight: &Flight| (flight.ordinal, flight.entry.clone());
        flights.into_iter().flatten().map(entry).collect()
    }

    /// Drops everything that was decided and is not applied, because the state that it rests on never came to be, and leads on from the
    /// applied state. What was not decided yet is decided now, and requests for messages go on waiting.
    pub(super) fn lead_anew(&mut self, step: &mut Step<'_>) {
        let Some(mut before) = self.lead.take() else {
            return;
        };
        let mut lead = self.fresh_lead(before.term);
        abandon(&mut before, step.effects);
        step.effects.lost = true;
        lead.parked = before.parked;
        lead.parked.retain(|event| !event.is_copied());
        lead.batches = before.batches;
        lead.fast = before.fast;
        self.take_back_fast(&mut lead, step);
        lead.told = before.told;
        for consumer in self.consumers.values_mut() {
            let store = self.store.as_ref();
            let mut live = Live::new(&self.ack_names, consumer, store, step.world, step.now_ns);
            if let Some(before) = consumer.live.take() {
                live.keep_waiting(*before);
            }
            consumer.live = Some(Box::new(live));
            lead.ready.insert(consumer.id);
        }
        self.lead = Some(Box::new(lead));
        for (_, token, request) in before.reads {
            let reply = self.read(&request, step);
            step.effects.replies.push((token, reply));
        }
        self.unpark(step);
    }

    /// Lets the followers compare themselves with this leader, now and then.
    fn tell_digest(&mut self, now_ns: i64) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        if let Some(Mark { index, digest }) = self.digest.untold()
            && lead.told < index
        {
            lead.told = index;
            lead.draft.push_lazy(&Op::Compare { index, digest }, now_ns);
        }
    }

    /// The digest after the last applied entry.
    pub fn digest(&self) -> Mark {
        Mark {
            index: self.applied_index,
            digest: self.digest.value(),
        }
    }

    /// Where this replica was found to differ from another one, while it is open which of them is wrong.
    pub fn divergence(&self) -> Option<Divergence> {
        self.digest.divergence()
    }

    /// Another replica says what its digest was, and asks for the one here.
    pub fn contrast(&mut self, theirs: Mark) -> Recollection {
        self.digest.contrast(theirs);
        match self.digest.recall(theirs.index) {
            // Marks are forgotten at a start, the entries that they were of are not.
            Recollection::NotYet if self.applied_index >= theirs.index => Recollection::Forgotten,
            known => known,
        }
    }

    /// Most replicas have what this one has up to an entry: who differed there is wrong.
    pub fn is_right_upto(&mut self, index: u64) {
        self.digest.is_right_upto(index);
    }
}

/// Refuses what waits for entries whose outcome is unknown. A publisher, or whoever waits for an ack to be confirmed, hears nothing.
fn abandon(lead: &mut Lead, effects: &mut Effects) {
    let flights = lead.flights.drain(..);
    let waiters = flights.flat_map(|flight| flight.waiters);
    for waiter in waiters.chain(lead.draft.waiters.drain(..)) {
        if let Waiting::Request { token, .. } = waiter.waiting {
            effects.replies.push((token, unavailable()));
        }
    }
}

fn unavailable() -> StreamReply {
    StreamReply::Refused(ErrorCode::ClusterNotAvail.into())
}

/// Whether two are the same entry. On the leader they mostly share their memory.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.len() == other.len() && (one.as_ptr() == other.as_ptr() || one == other)
}
