//! Direct gets: messages read straight from the store, answered as messages.

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{Counting, Message};

use super::StreamCore;
use crate::jetstream::core::draft::Waiting;
use crate::jetstream::core::effects::Effects;
use crate::jetstream::core::headers::{self, line, line_bytes};
use crate::jetstream::core::request::{DirectQuery, MessageQuery, Outgoing};
use crate::jetstream::core::status;
use crate::jetstream::types::Time;

/// Subjects that one request for last messages answers at most.
const LAST_RESULTS_MAX: usize = 1024;
/// Bytes that a batch sends where the request says nothing: what a client may have pending.
const BATCH_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Where a message stands in its batch.
#[derive(Clone, Copy)]
struct InBatch {
    pending: u64,
    last_sequence: u64,
}

impl StreamCore {
    /// Answers a direct get. Where publishers are acknowledged early it waits for what they were told to be there.
    pub(super) fn direct(&mut self, reply: Bytes, query: DirectQuery, effects: &mut Effects) {
        let early = self.acks_early();
        match self.lead.as_deref_mut() {
            Some(lead) if early && !lead.is_settled() => {
                let query = Box::new(query);
                lead.after_all(Waiting::Direct { reply, query });
            }
            _ => self.answer_direct(&reply, &query, effects),
        }
    }

    /// Whether the answer is one message, found without a search and read without a disk.
    pub fn is_at_hand(&self, query: &DirectQuery) -> bool {
        let DirectQuery::One { query, .. } = query else {
            return false;
        };
        match query {
            MessageQuery::Sequence(sequence) => self.store.is_at_hand(*sequence),
            MessageQuery::LastBySubject(subject) => {
                let known = self.store.subject(subject.as_bytes());
                known.is_some_and(|known| self.store.is_at_hand(known.last_sequence))
            }
            MessageQuery::NextBySubject { .. } | MessageQuery::AtTime { .. } => false,
        }
    }

    pub(super) fn answer_direct(&self, reply: &Bytes, query: &DirectQuery, effects: &mut Effects) {
        let outgoing = &mut effects.outgoing;
        match query {
            DirectQuery::One { query, no_headers } => match self.find(query) {
                Ok(Some(message)) => {
                    let mut answer = self.answer_directly(reply, &message, None);
                    if *no_headers {
                        answer.headers = Bytes::new();
                    }
                    outgoing.push(answer);
                }
                _ => outgoing.push(status::status(reply, "404 Message Not Found")),
            },
            DirectQuery::Batch {
                sequence,
                time_ns,
                subject,
                batch,
                bytes_max,
            } => {
                let from = match time_ns {
                    Some(time_ns) => self
                        .store
                        .sequence_at(*time_ns)
                        .unwrap_or(self.store.state().last_sequence + 1),
                    None => (*sequence).max(1),
                };
                self.direct_batch(reply, from, subject, *batch, *bytes_max, outgoing);
            }
            DirectQuery::LastOfEach { .. } => self.direct_last(reply, query, outgoing),
        }
    }

    fn direct_batch(
        &self,
        reply: &Bytes,
        from: u64,
        subject: &str,
        batch: u64,
        bytes_max: u64,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let filter = Filter::new((!subject.is_empty()).then_some(subject.as_bytes()));
        let mut at = InBatch {
            pending: self.store.count(from, &filter, Counting::Every),
            last_sequence: 0,
        };
        let bytes_max = if bytes_max == 0 {
            BATCH_BYTES_DEFAULT
        } else {
            bytes_max
        };
        let (mut next, mut sent, mut bytes) = (from, 0, 0);
        while sent < batch.max(1) && bytes < bytes_max {
            let Ok(Some(message)) = self.store.next(next, &filter) else {
                break;
            };
            at.pending = at.pending.saturating_sub(1);
            outgoing.push(self.answer_directly(reply, &message, Some(at)));
            at.last_sequence = message.sequence;
            next = message.sequence + 1;
            sent += 1;
            bytes += size(&message);
        }
        if sent == 0 {
            outgoing.push(status::status(reply, "404 Message Not Found"));
            return;
        }
        let end = status::end_of_batch(reply, at.pending, at.last_sequence, None);
        outgoing.push(end);
    }

    fn direct_last(&self, reply: &Bytes, query: &DirectQuery, outgoing: &mut Vec<Outgoing>) {
        let DirectQuery::LastOfEach {
            subjects,
            upto_sequence,
            upto_time_ns,
            from_sequence,
            batch,
            bytes_max,
        } = query
        else {
            return;
        };
        let nothing = || status::status(reply, "404 No Results");
        let state = self.store.state();
        let mut upto = *upto_sequence;
        if let Some(time_ns) = upto_time_ns {
            let after = self.store.sequence_at(*time_ns);
            let after = after.unwrap_or(state.last_sequence + 1);
            if after <= state.first_sequence {
                outgoing.push(nothing());
                return;
            }
            upto = after - 1;
        }
        if upto == 0 {
            upto = state.last_sequence;
        }
        let filter = Filter::new(subjects.iter().map(String::as_bytes));
        let Some(listed) = self.store.last_sequences(&filter, upto, LAST_RESULTS_MAX) else {
            outgoing.push(status::status(reply, "413 Too Many Results"));
            return;
        };
        if listed.is_empty() {
            outgoing.push(nothing());
            return;
        }
        let mut at = InBatch {
            pending: listed.len() as u64,
            last_sequence: 0,
        };
        let bytes_max = if *bytes_max == 0 {
            BATCH_BYTES_DEFAULT
        } else {
            *bytes_max
        };
        let (mut sent, mut bytes) = (0, 0);
        for sequence in listed {
            at.pending = at.pending.saturating_sub(1);
            if sequence < *from_sequence {
                continue;
            }
            let Ok(Some(message)) = self.store.load(sequence) else {
                outgoing.push(status::status(reply, "404 Message Not Found"));
                return;
            };
            outgoing.push(self.answer_directly(reply, &message, Some(at)));
            at.last_sequence = sequence;
            sent += 1;
            bytes += size(&message);
            if bytes >= bytes_max || (*batch > 0 && sent >= *batch) {
                break;
            }
        }
        let end = status::end_of_batch(reply, at.pending, at.last_sequence, Some(upto));
        outgoing.push(end);
    }

    fn answer_directly(&self, reply: &Bytes, message: &Message, at: Option<InBatch>) -> Outgoing {
        let mut block = Vec::with_capacity(message.headers.len() + 192);
        headers::reopen(&message.headers, &mut block);
        line(&mut block, "Nats-Stream", &self.name);
        line_bytes(&mut block, "Nats-Subject", &message.subject);
        line(&mut block, "Nats-Sequence", message.sequence);
        let time = Time::from_nanoseconds(message.time_ns);
        line(&mut block, "Nats-Time-Stamp", time);
        if let Some(at) = at {
            line(&mut block, "Nats-Num-Pending", at.pending);
            line(&mut block, "Nats-Last-Sequence", at.last_sequence);
        }
        block.extend_from_slice(b"\r\n");
        Outgoing {
            to: reply.clone(),
            subject: reply.clone(),
            reply: Bytes::new(),
            headers: Bytes::from(block),
            payload: message.payload.clone(),
        }
    }

    /// Answers a direct get without being told by an event: for those who hold the core themselves.
    pub fn get(&self, query: &MessageQuery) -> Option<Message> {
        self.find(query).ok().flatten()
    }
}

fn size(message: &Message) -> u64 {
    (message.subject.len() + message.headers.len() + message.payload.len()) as u64
}
