//! What every replica remembers of the fast batches whose messages it applies, so that whoever leads next goes on with them.
//!
//! It is in memory alone: no state depends on it, and after a start, or with a state that was fetched, there is less of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::jetstream::core::fast_reply::{FastReply, Operation};

/// How far fast batches are stored.
#[derive(Debug, Default)]
pub(super) struct FastTrails {
    open: BTreeMap<String, FastTrail>,
}

/// How far one is.
#[derive(Debug)]
pub(super) struct FastTrail {
    pub(super) gap_ok: bool,
    pub(super) every_max: u16,
    /// The last message that was stored, in the batch's own count, and its sequence in the stream.
    pub(super) stored: u64,
    pub(super) sequence: u64,
    reply: Vec<u8>,
    active_ns: i64,
}

impl FastTrail {
    /// Where that message wanted its ack.
    pub(super) fn reply(&self) -> Bytes {
        Bytes::copy_from_slice(&self.reply)
    }
}

/// For how long a batch is remembered, and how many are.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrailBounds {
    pub(super) idle_ns_max: i64,
    pub(super) batches_max: usize,
}

impl FastTrails {
    /// A message of a batch was stored under a sequence.
    pub(super) fn note(&mut self, reply: &[u8], sequence: u64, time_ns: i64, bounds: TrailBounds) {
        let Some(said) = FastReply::parse(reply) else {
            return;
        };
        if said.operation == Operation::CommitWith {
            self.open.remove(&said.id);
            return;
        }
        if !self.open.contains_key(&said.id) {
            if self.open.len() >= bounds.batches_max {
                self.forget_idle(time_ns, bounds.idle_ns_max);
            }
            if self.open.len() >= bounds.batches_max {
                return;
            }
        }
        let trail = self.open.entry(said.id).or_insert_with(|| FastTrail {
            gap_ok: said.gap_ok,
            every_max: said.every,
            stored: 0,
            sequence: 0,
            reply: Vec::new(),
            active_ns: 0,
        });
        trail.stored = said.sequence;
        trail.sequence = sequence;
        trail.reply.clear();
        trail.reply.extend_from_slice(reply);
        trail.active_ns = time_ns;
    }

    /// A batch is over.
    pub(super) fn remove(&mut self, id: &str) {
        self.open.remove(id);
    }

    fn forget_idle(&mut self, now_ns: i64, idle_ns_max: i64) {
        self.open
            .retain(|_, trail| now_ns < trail.active_ns.saturating_add(idle_ns_max));
    }

    /// Those that may go on, by their ids.
    pub(super) fn alive(
        &mut self,
        now_ns: i64,
        idle_ns_max: i64,
    ) -> impl ExactSizeIterator<Item = (&String, &FastTrail)> {
        self.forget_idle(now_ns, idle_ns_max);
        self.open.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: TrailBounds = TrailBounds {
        idle_ns_max: 10,
        batches_max: 2,
    };

    fn ids(trails: &mut FastTrails, now_ns: i64) -> Vec<(String, u64)> {
        let alive = trails.alive(now_ns, BOUNDS.idle_ns_max);
        alive.map(|(id, it)| (id.clone(), it.stored)).collect()
    }

    #[test]
    fn a_batch_is_remembered_up_to_its_last_message_until_it_ends() {
        let mut trails = FastTrails::default();
        trails.note(b"i.a.9.ok.1.0.$FI", 5, 0, BOUNDS);
        trails.note(b"i.a.9.ok.3.1.$FI", 6, 1, BOUNDS);
        trails.note(b"i.b.9.fail.1.0.$FI", 7, 2, BOUNDS);
        let expected = [("a".to_owned(), 3), ("b".to_owned(), 1)];
        assert_eq!(ids(&mut trails, 3), expected);
        trails.note(b"i.a.9.ok.4.2.$FI", 8, 3, BOUNDS);
        assert_eq!(ids(&mut trails, 3), expected[1..]);
    }

    #[test]
    fn idle_batches_make_room_and_others_do_not() {
        let mut trails = FastTrails::default();
        for (id, time_ns) in [("a", 0), ("b", 5), ("c", 9)] {
            let reply = format!("i.{id}.9.ok.1.0.$FI");
            trails.note(reply.as_bytes(), 1, time_ns, BOUNDS);
        }
        assert_eq!(ids(&mut trails, 9).len(), 2);
        trails.note(b"i.c.9.ok.2.1.$FI", 2, 10, BOUNDS);
        let left = ids(&mut trails, 10);
        assert_eq!(left, [("b".to_owned(), 1), ("c".to_owned(), 2)]);
        assert_eq!(ids(&mut trails, 30), []);
    }
}
