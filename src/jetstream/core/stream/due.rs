//! What the clock makes due beyond consumers: messages that die, the markers that take their place, and schedules.

use std::collections::HashMap;

use bytes::Bytes;
use storage::store::Message;

use super::judge::Plan;
use super::{Event, Step, StreamCore};
use crate::jetstream::core::entry::Op;
use crate::jetstream::core::headers;
use crate::jetstream::core::request::Publish;

/// Messages that one entry lets die.
const EXPIRE_MESSAGES_MAX: u64 = 4096;
const SECOND_NS: i64 = 1_000_000_000;

impl StreamCore {
    /// When something of this comes due.
    pub(super) fn next_due_ns(&self) -> Option<i64> {
        let schedule_ns = self.schedules.next_ns();
        let expiry_ns = self.store.next_expiry_ns();
        [schedule_ns, expiry_ns].into_iter().flatten().min()
    }

    /// Sees to what is due.
    pub(super) fn see_to_due(&mut self, step: &mut Step<'_>) {
        let is_due = self.next_due_ns().is_some_and(|at_ns| at_ns <= step.now_ns);
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        if !is_due || lead.expiring {
            return;
        }
        lead.expiring = true;
        if self.config.subject_delete_marker_ttl > 0 || !self.schedules.is_empty() {
            return self.decide_due(step);
        }
        lead.push_structural(&Op::Expire {
            removals_max: EXPIRE_MESSAGES_MAX,
        });
    }

    /// Decides what depends on everything that is in flight.
    pub(super) fn decide_due(&mut self, step: &mut Step<'_>) {
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        if !lead.draft.is_empty() {
            lead.seal(step.now_ns);
        }
        if !lead.is_settled() {
            return self.park(Event::Due);
        }
        lead.expiring = true;
        self.expire_with_markers(step);
        self.fire(step);
        if let Some(lead) = self.lead.as_deref_mut() {
            // What dies was found for this moment: the entry must not be of a later one.
            lead.seal(step.now_ns);
            lead.expiring = !lead.flights.is_empty();
        }
    }

    fn expire_with_markers(&mut self, step: &mut Step<'_>) {
        let due = self.store.due(step.now_ns, EXPIRE_MESSAGES_MAX);
        if due.is_empty() {
            return;
        }
        let markers = match self.config.subject_delete_marker_ttl {
            ..=0 => Vec::new(),
            ttl_ns => self.markers(&due, ttl_ns, step.now_ns),
        };
        let Some(lead) = self.lead.as_deref_mut() else {
            return;
        };
        lead.push_structural(&Op::Expire {
            removals_max: due.len() as u64,
        });
        for (publish, plan) in markers {
            self.push_message(&publish, &[], &plan);
        }
    }

    /// A marker for each subject whose last message dies, unless that is a marker itself.
    fn markers(&self, due: &[u64], ttl_ns: i64, now_ns: i64) -> Vec<(Publish, Plan)> {
        let mut last: HashMap<Bytes, (u64, Message)> = HashMap::new();
        for sequence in due {
            let Ok(Some(message)) = self.store.load(*sequence) else {
                continue;
            };
            let of_subject = last.entry(message.subject.clone());
            let (count, newest) = of_subject.or_insert_with(|| (0, message.clone()));
            *count += 1;
            if message.sequence > newest.sequence {
                *newest = message;
            }
        }
        let mut ending: Vec<Message> = last
            .into_values()
            .filter(|(count, newest)| {
                let known = self.store.subject(&newest.subject);
                known.is_some_and(|known| known.messages == *count) && !is_marker(newest)
            })
            .map(|(_, newest)| newest)
            .collect();
        ending.sort_unstable_by_key(|message| message.sequence);
        let seconds = ttl_ns / SECOND_NS;
        let ttl = crate::jetstream::types::go_duration(seconds.saturating_mul(SECOND_NS));
        let block = format!(
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {ttl}\r\nNats-Rollup: sub\r\n\r\n"
        );
        let block = Bytes::from(block);
        let marker = |message: Message| {
            let publish = Publish {
                subject: message.subject,
                headers: block.clone(),
                ..Publish::default()
            };
            let plan = Plan {
                expiry_ns: Some(now_ns.saturating_add(seconds.saturating_mul(SECOND_NS))),
                ..Plan::default()
            };
            (publish, plan)
        };
        ending.into_iter().map(marker).collect()
    }
}

/// Whether a message says that its subject was deleted.
fn is_marker(message: &Message) -> bool {
    let value = |name| headers::get(&message.headers, name);
    value("Nats-Marker-Reason").is_some_and(|reason| !reason.is_empty())
        || value("KV-Operation") == Some(b"PURGE")
}
