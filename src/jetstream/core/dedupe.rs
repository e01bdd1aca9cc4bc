//! The duplicate window: which message ids were stored lately, and where.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::codec::{DecodeError, Reader, Writer};

/// Message ids in the order in which they were stored.
///
/// # Invariant
/// Changes only with applied entries and their times, so that every replica and every replay remembers the same ids.
#[derive(Debug, Default)]
pub(crate) struct Dedupe {
    window_ns: i64,
    by_id: HashMap<Arc<[u8]>, Seen, foldhash::fast::RandomState>,
    by_time: VecDeque<(i64, u64, Arc<[u8]>)>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    sequence: u64,
    time_ns: i64,
}

impl Dedupe {
    pub(crate) fn new(window_ns: i64) -> Self {
        Self {
            window_ns,
            ..Self::default()
        }
    }

    /// Takes another window; a shorter one forgets with the next message.
    pub(crate) fn set_window(&mut self, window_ns: i64) {
        self.window_ns = window_ns;
    }

    /// The sequence stored under this id within the window before `now_ns`.
    pub(crate) fn find(&self, id: &[u8], now_ns: i64) -> Option<u64> {
        let seen = self.by_id.get(id)?;
        (now_ns.saturating_sub(seen.time_ns) < self.window_ns).then_some(seen.sequence)
    }

    /// Remembers an id and forgets those that have left the window.
    pub(crate) fn add(&mut self, id: &[u8], sequence: u64, time_ns: i64) {
        self.expire(time_ns);
        if self.window_ns <= 0 {
            return;
        }
        let id: Arc<[u8]> = Arc::from(id);
        self.by_time.push_back((time_ns, sequence, Arc::clone(&id)));
        self.by_id.insert(id, Seen { sequence, time_ns });
    }

    /// Forgets what has left the window at `now_ns`.
    pub(crate) fn expire(&mut self, now_ns: i64) {
        while let Some((time_ns, sequence, id)) = self.by_time.front() {
            if now_ns.saturating_sub(*time_ns) < self.window_ns {
                return;
            }
            if self
                .by_id
                .get(id)
                .is_some_and(|seen| seen.sequence == *sequence)
            {
                self.by_id.remove(id);
            }
            self.by_time.pop_front();
        }
    }

    /// How many ids are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.by_time.len() as u64);
        for (time_ns, sequence, id) in &self.by_time {
            writer.i64(*time_ns);
            writer.number(*sequence);
            writer.blob(id);
        }
    }

    pub(crate) fn read(window_ns: i64, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut dedupe = Self::new(window_ns);
        for _ in 0..reader.number()? {
            let time_ns = reader.i64()?;
            let sequence = reader.number()?;
            let id: Arc<[u8]> = Arc::from(reader.blob()?);
            dedupe
                .by_id
                .insert(Arc::clone(&id), Seen { sequence, time_ns });
            dedupe.by_time.push_back((time_ns, sequence, id));
        }
        Ok(dedupe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_duplicate_within_the_window_and_forgotten_after_it() {
        let mut dedupe = Dedupe::new(100);
        dedupe.add(b"a", 1, 1000);
        assert_eq!(dedupe.find(b"a", 1099), Some(1));
        assert_eq!(dedupe.find(b"a", 1100), None);
        assert_eq!(dedupe.find(b"b", 1000), None);
        dedupe.add(b"b", 2, 1100);
        assert_eq!(dedupe.len(), 1);
    }

    #[test]
    fn an_id_used_again_is_remembered_from_then_on() {
        let mut dedupe = Dedupe::new(100);
        dedupe.add(b"a", 1, 1000);
        dedupe.set_window(1000);
        dedupe.add(b"a", 2, 1500);
        dedupe.expire(2000);
        assert_eq!(dedupe.find(b"a", 2100), Some(2));
    }

    #[test]
    fn the_window_survives_a_snapshot() {
        let mut dedupe = Dedupe::new(100);
        dedupe.add(b"a", 1, 1000);
        dedupe.add(b"b", 2, 1010);
        let mut writer = Writer::default();
        dedupe.write(&mut writer);
        let read = Dedupe::read(100, &mut Reader::new(&writer.bytes)).expect("reads");
        assert_eq!(read.find(b"a", 1050), Some(1));
        assert_eq!(read.find(b"b", 1050), Some(2));
    }
}
