//! What a batch has come to so far, while its messages are judged one after the other.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::counter::Counter;
use super::judge::Plan;
use crate::jetstream::core::request::Publish;

/// The messages of a batch that are judged already.
#[derive(Debug, Default)]
pub(super) struct Staged {
    ids: HashSet<Vec<u8>>,
    subjects: HashMap<Bytes, OnSubject>,
    counters: HashMap<Bytes, Counter>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct OnSubject {
    messages: u64,
    /// Whether the last one is a schedule.
    is_schedule: bool,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_id(&self, id: &[u8]) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn has_subject(&self, subject: &[u8]) -> bool {
        self.subjects.contains_key(subject)
    }

    pub(super) fn messages_on(&self, subject: &[u8]) -> u64 {
        self.subjects.get(subject).map_or(0, |it| it.messages)
    }

    /// Whether the last message on a subject is a schedule, if there is one.
    pub(super) fn is_schedule(&self, subject: &[u8]) -> Option<bool> {
        self.subjects.get(subject).map(|it| it.is_schedule)
    }

    /// What a counter came to.
    pub(super) fn counter(&self, subject: &[u8]) -> Option<&Counter> {
        self.counters.get(subject)
    }

    /// A message is to be stored as planned.
    pub(super) fn add(&mut self, publish: &Publish, id: Option<&[u8]>, plan: &Plan, bytes: u64) {
        self.ids.extend(id.map(<[u8]>::to_vec));
        let on_subject = self.subjects.entry(publish.subject.clone()).or_default();
        on_subject.messages += 1;
        on_subject.is_schedule = plan.schedule_ns.is_some();
        if let Some(counter) = &plan.counter {
            self.counters
                .insert(publish.subject.clone(), counter.clone());
        }
        self.messages += 1;
        self.bytes += bytes;
    }
}
