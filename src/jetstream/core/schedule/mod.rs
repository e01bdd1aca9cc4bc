//! Messages that are produced on a schedule.
//!
//! - `pattern`: when a schedule fires: `@at`, `@every`, or a `cron` pattern in a time zone.
//! - `cron`: the six fields of a cron pattern.
//! - [`Schedules`]: which subjects hold a schedule, and when each fires next.

mod cron;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub(crate) use pattern::{Firing, PatternError, check_zone, next};

use super::codec::{DecodeError, Reader, Writer};

/// The schedules of a stream: one for each subject at most.
///
/// # Invariant
/// Changes only with applied entries, so that every replica knows the same ones. The three maps hold the same schedules.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    by_subject: BTreeMap<Bytes, Schedule>,
    by_sequence: BTreeMap<u64, Bytes>,
    by_time: BTreeSet<(i64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Schedule {
    sequence: u64,
    at_ns: i64,
}

impl Schedules {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// The message with this sequence is the schedule of its subject from now on.
    pub(crate) fn set(&mut self, subject: &[u8], sequence: u64, at_ns: i64) {
        self.remove_subject(subject);
        let subject = Bytes::copy_from_slice(subject);
        self.by_sequence.insert(sequence, subject.clone());
        self.by_time.insert((at_ns, sequence));
        self.by_subject
            .insert(subject, Schedule { sequence, at_ns });
    }

    /// A subject's schedule has fired and fires again at another time.
    pub(crate) fn move_to(&mut self, subject: &[u8], at_ns: i64) {
        if let Some(schedule) = self.by_subject.get_mut(subject) {
            self.by_time.remove(&(schedule.at_ns, schedule.sequence));
            self.by_time.insert((at_ns, schedule.sequence));
            schedule.at_ns = at_ns;
        }
    }

    pub(crate) fn remove_subject(&mut self, subject: &[u8]) {
        if let Some(schedule) = self.by_subject.remove(subject) {
            self.by_sequence.remove(&schedule.sequence);
            self.by_time.remove(&(schedule.at_ns, schedule.sequence));
        }
    }

    /// The message with this sequence has left the stream.
    pub(crate) fn remove_sequence(&mut self, sequence: u64) {
        if let Some(subject) = self.by_sequence.get(&sequence).cloned() {
            self.remove_subject(&subject);
        }
    }

    /// Forgets those whose message has left the stream.
    pub(crate) fn keep(&mut self, mut is_live: impl FnMut(u64) -> bool) {
        let gone: Vec<u64> = self
            .by_sequence
            .keys()
            .copied()
            .filter(|sequence| !is_live(*sequence))
            .collect();
        for sequence in gone {
            self.remove_sequence(sequence);
        }
    }

    /// Those that are due, in the order of their messages, as time and sequence.
    pub(crate) fn due(&self, now_ns: i64, most: usize) -> Vec<(i64, u64)> {
        let due = self
            .by_time
            .iter()
            .take_while(|(at_ns, _)| *at_ns <= now_ns);
        let mut due: Vec<(i64, u64)> = due.take(most).copied().collect();
        due.sort_unstable_by_key(|(_, sequence)| *sequence);
        due
    }

    /// When the next one fires.
    pub(crate) fn next_ns(&self) -> Option<i64> {
        self.by_time.first().map(|(at_ns, _)| *at_ns)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.by_subject.len() as u64);
        for (subject, schedule) in &self.by_subject {
            writer.blob(subject);
            writer.number(schedule.sequence);
            writer.i64(schedule.at_ns);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut schedules = Self::default();
        for _ in 0..reader.number()? {
            let subject = reader.blob()?;
            let sequence = reader.number()?;
            let at_ns = reader.i64()?;
            if schedules.by_sequence.contains_key(&sequence) {
                return Err(DecodeError::Range { what: "schedule" });
            }
            schedules.set(subject, sequence, at_ns);
        }
        Ok(schedules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_schedule() {
        let mut schedules = Schedules::default();
        schedules.set(b"a", 1, 100);
        schedules.set(b"a", 2, 50);
        schedules.set(b"b", 3, 70);
        assert_eq!(schedules.due(100, 10), [(50, 2), (70, 3)]);
        schedules.move_to(b"a", 200);
        assert_eq!(schedules.next_ns(), Some(70));
        schedules.remove_sequence(3);
        schedules.remove_sequence(1);
        assert_eq!(schedules.next_ns(), Some(200));
        schedules.keep(|_| false);
        assert!(schedules.is_empty());
        assert_eq!(schedules.next_ns(), None);
    }

    #[test]
    fn schedules_survive_a_snapshot() {
        let mut schedules = Schedules::default();
        schedules.set(b"a", 1, 100);
        schedules.set(b"b", 3, -70);
        let mut writer = Writer::default();
        schedules.write(&mut writer);
        let read = Schedules::read(&mut Reader::new(&writer.bytes)).expect("reads");
        assert_eq!(read.due(100, 10), schedules.due(100, 10));
    }
}
