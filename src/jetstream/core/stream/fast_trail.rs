//! What every replica remembers of the fast batches that the entries which it applies tell of, so that whoever leads next goes on with them.
//!
//! It is in memory alone: no state depends on it, and after a start, or with a state that was fetched, there is less of it. Only entries
//! change it, so that replicas that have applied the same ones remember the same batches.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::jetstream::core::fast_reply::{FastReply, Operation};

/// How far fast batches are stored.
#[derive(Debug, Default)]
pub(super) struct FastTrails {
    open: BTreeMap<String, FastTrail>,
    /// Until then there are no idle ones to make room for others, unless one ends.
    full_until_ns: i64,
}

/// How far one is.
#[derive(Debug)]
pub(super) struct FastTrail {
    pub(super) gap_ok: bool,
    pub(super) every_max: u16,
    /// The last message that is seen to, in the batch's own count, and the last one's sequence in the stream that was stored.
    pub(super) stored: u64,
    pub(super) sequence: u64,
    reply: Vec<u8>,
    active_ns: i64,
}

impl FastTrail {
    /// One that is seen to up to what this says.
    fn begun(said: &FastReply<'_>, sequence: u64, reply: &[u8], time_ns: i64) -> Self {
        Self {
            gap_ok: said.gap_ok,
            every_max: said.every,
            stored: said.sequence,
            sequence,
            reply: reply.to_vec(),
            active_ns: time_ns,
        }
    }

    /// Where that message wanted its ack.
    pub(super) fn reply(&self) -> Bytes {
        Bytes::copy_from_slice(&self.reply)
    }

    /// Whether its publisher may go on with it.
    pub(super) fn is_alive(&self, now_ns: i64, idle_ns_max: i64) -> bool {
        now_ns < self.active_ns.saturating_add(idle_ns_max)
    }
}

/// For how long a batch is remembered, and how many are.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrailBounds {
    pub(super) idle_ns_max: i64,
    pub(super) batches_max: usize,
}

impl FastTrails {
    /// A batch has come to a message; the last one of it that is stored has this sequence. Allocates for a batch's first message alone.
    pub(super) fn note(&mut self, reply: &[u8], sequence: u64, time_ns: i64, bounds: TrailBounds) {
        let Some(said) = FastReply::parse(reply) else {
            return;
        };
        if said.operation == Operation::CommitWith {
            return self.end(said.id);
        }
        if let Some(trail) = self.open.get_mut(said.id) {
            trail.stored = said.sequence;
            trail.sequence = sequence;
            trail.reply.clear();
            trail.reply.extend_from_slice(reply);
            trail.active_ns = time_ns;
        } else if self.has_room(time_ns, bounds) {
            let trail = FastTrail::begun(&said, sequence, reply, time_ns);
            self.open.insert(said.id.to_owned(), trail);
        }
    }

    /// A batch is over.
    pub(super) fn end(&mut self, id: &str) {
        self.open.remove(id);
    }

    /// No batch goes on.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Whether there is room for one more, where idle ones make room.
    fn has_room(&mut self, now_ns: i64, bounds: TrailBounds) -> bool {
        let TrailBounds {
            idle_ns_max,
            batches_max,
        } = bounds;
        if self.open.len() >= batches_max && now_ns >= self.full_until_ns {
            self.open
                .retain(|_, trail| trail.is_alive(now_ns, idle_ns_max));
            let oldest_ns = self.open.values().map(|trail| trail.active_ns).min();
            self.full_until_ns = oldest_ns.map_or(0, |at_ns| at_ns.saturating_add(idle_ns_max));
        }
        self.open.len() < batches_max
    }

    pub(super) fn get(&self, id: &str) -> Option<&FastTrail> {
        self.open.get(id)
    }

    /// All of them, by their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &FastTrail)> {
        self.open.iter().map(|(id, trail)| (id.as_str(), trail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: TrailBounds = TrailBounds {
        idle_ns_max: 10,
        batches_max: 2,
    };

    fn places(trails: &FastTrails) -> Vec<(&str, u64)> {
        trails.iter().map(|(id, it)| (id, it.stored)).collect()
    }

    #[test]
    fn a_batch_is_remembered_up_to_its_last_message_until_it_ends() {
        let mut trails = FastTrails::default();
        trails.note(b"i.a.9.ok.1.0.$FI", 5, 0, BOUNDS);
        trails.note(b"i.a.9.ok.3.1.$FI", 6, 1, BOUNDS);
        trails.note(b"i.b.9.fail.1.0.$FI", 7, 2, BOUNDS);
        assert_eq!(places(&trails), [("a", 3), ("b", 1)]);
        trails.note(b"i.a.9.ok.4.2.$FI", 8, 3, BOUNDS);
        assert_eq!(places(&trails), [("b", 1)]);
        let trail = trails.get("b").expect("it goes on");
        assert_eq!((trail.sequence, trail.gap_ok), (7, false));
        assert!(trail.is_alive(11, 10) && !trail.is_alive(12, 10));
        trails.end("b");
        assert_eq!(places(&trails), []);
    }

    #[test]
    fn idle_batches_make_room_and_others_do_not() {
        let mut trails = FastTrails::default();
        for (id, time_ns) in [("a", 0), ("b", 5), ("c", 9)] {
            let reply = format!("i.{id}.9.ok.1.0.$FI");
            trails.note(reply.as_bytes(), 1, time_ns, BOUNDS);
        }
        assert_eq!(places(&trails), [("a", 1), ("b", 1)]);
        trails.note(b"i.c.9.ok.2.1.$FI", 2, 10, BOUNDS);
        assert_eq!(places(&trails), [("b", 1), ("c", 2)]);
        // Where none is idle, one that ends makes room as well.
        trails.note(b"i.d.9.ok.1.0.$FI", 3, 11, BOUNDS);
        assert_eq!(places(&trails), [("b", 1), ("c", 2)]);
        trails.end("b");
        trails.note(b"i.d.9.ok.2.1.$FI", 4, 11, BOUNDS);
        assert_eq!(places(&trails), [("c", 2), ("d", 2)]);
    }
}
