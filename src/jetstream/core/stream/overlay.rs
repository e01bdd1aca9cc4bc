//! What is in flight: submitted or about to be, not yet applied.

use bytes::Bytes;
use hashbrown::HashMap;

/// Makes `id` the last message id.
///
/// Most messages have none, and two empty ids are not compared: their addresses lead nowhere, and to compare no bytes there costs processors with AVX-512 a masked load that
/// would fault, which is as much as everything else that is decided about a message.
pub(super) fn remember_id(last: &mut Box<[u8]>, id: &[u8]) {
    let are_empty = last.is_empty() && id.is_empty();
    if !are_empty && **last != *id {
        *last = Box::from(id);
    }
}

/// What the entries in flight will have changed, as far as decisions need to know.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// The last sequence once everything is applied.
    pub(crate) last_sequence: u64,
    /// Messages in flight.
    pub(crate) messages: u64,
    /// Their accounted bytes.
    pub(crate) bytes: u64,
    /// Operations in flight whose outcome is known only once they are applied.
    pub(crate) structural: u32,
    /// Message ids in flight.
    ids: HashMap<Box<[u8]>, u64, foldhash::fast::RandomState>,
    /// The last message id once everything is applied, if it changes.
    pub(crate) last_id: Option<Box<[u8]>>,
    /// The last sequence by subject, kept once somebody has asked.
    subjects: Option<HashMap<Bytes, u64, foldhash::fast::RandomState>>,
}

impl Overlay {
    pub(crate) fn new(last_sequence: u64) -> Self {
        Self {
            last_sequence,
            ..Self::default()
        }
    }

    /// Whether no message is in flight.
    pub(crate) fn has_no_messages(&self) -> bool {
        self.messages == 0
    }

    /// A message goes into flight; its sequence.
    pub(crate) fn add(&mut self, subject: &Bytes, id: &[u8], bytes: u64) -> u64 {
        self.last_sequence += 1;
        self.messages += 1;
        self.bytes += bytes;
        if !id.is_empty() {
            self.ids.insert(Box::from(id), self.last_sequence);
        }
        match &mut self.last_id {
            Some(last) => remember_id(last, id),
            none => *none = Some(Box::from(id)),
        }
        if let Some(subjects) = &mut self.subjects {
            subjects.insert(Bytes::copy_from_slice(subject), self.last_sequence);
        }
        self.last_sequence
    }

    /// A message has been applied.
    pub(crate) fn applied(&mut self, subject: &[u8], id: &[u8], sequence: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if !id.is_empty() && self.ids.get(id) == Some(&sequence) {
            self.ids.remove(id);
        }
        if let Some(subjects) = &mut self.subjects
            && subjects.get(subject) == Some(&sequence)
        {
            subjects.remove(subject);
        }
        if self.messages == 0 {
            self.last_id = None;
        }
    }

    /// The sequence under which an id is in flight.
    pub(crate) fn find_id(&self, id: &[u8]) -> Option<u64> {
        self.ids.get(id).copied()
    }

    /// Keeps track of subjects from now on. Only complete when called while no message is in flight.
    pub(crate) fn track_subjects(&mut self) {
        self.subjects.get_or_insert_default();
    }

    /// Whether every message in flight is known by subject.
    pub(crate) fn tracks_subjects(&self) -> bool {
        self.subjects.is_some()
    }

    /// The last sequence in flight on a subject.
    pub(crate) fn last_on(&self, subject: &[u8]) -> Option<u64> {
        self.subjects.as_ref()?.get(subject).copied()
    }
}
