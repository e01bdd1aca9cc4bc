//! The bench of a shard: where its work is done, by one at a time.
//!
//! Mostly that is the shard's thread. Who brings a little work while the thread sleeps, and is prepared to do it himself, does it here at once: the two switches between
//! threads that are saved cost more than such work does. Where entries need not be synced one by one they are durable at once (`storage::journal`), so that what was decided
//! is also applied and acknowledged there. Everything else, and all that comes while somebody is at the bench, is the thread's.
//!
//! # Invariant
//! The thread sleeps no longer than the worker said when somebody was last at the bench. Who puts something into the inbox without waking the thread comes to the bench
//! afterwards, and who leaves the bench looks into the inbox afterwards: so it is done, or the thread is called.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::rest::Rest;

use super::inbox::{Inbox, Work};
use super::worker::Worker;
use crate::broker::Offered;

/// How often who brings work looks again whether others have brought some meanwhile, before the thread has to do it.
const VISITS_MAX: usize = 8;

/// Where the work of one shard is done.
pub(super) struct Bench {
    inbox: Arc<Inbox>,
    place: Mutex<Place>,
}

struct Place {
    /// Gone when the shard has ended.
    worker: Option<Worker>,
    work: Work,
    /// How long the thread was told to sleep at most, by the worker's clock; `None` until it is woken.
    sleeps_until_ns: Option<i64>,
}

impl Bench {
    pub(super) fn new(worker: Worker, inbox: Arc<Inbox>) -> Self {
        let place = Place {
            worker: Some(worker),
            work: Work::default(),
            sleeps_until_ns: None,
        };
        Self {
            inbox,
            place: Mutex::new(place),
        }
    }

    /// Whether nobody is at work.
    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.place.try_lock().is_some()
    }

    /// Works until the shard is brought to an end.
    pub(super) fn run(&self) {
        let mut rest = Rest::default();
        while let Some(patience) = self.turn() {
            self.inbox.wait(patience, &mut rest);
        }
    }

    /// Does what there is to do, and says how long there is nothing more unless something comes; nothing when the shard has ended.
    fn turn(&self) -> Option<Option<Duration>> {
        let mut place = self.place.lock();
        let Place {
            worker,
            work,
            sleeps_until_ns,
        } = &mut *place;
        let at_work = worker.as_mut()?;
        at_work.turn(work);
        if !at_work.is_over() {
            *sleeps_until_ns = at_work.wakes_ns();
            return Some(sleeps_until_ns.map(|at_ns| at_work.until(at_ns)));
        }
        let last = worker.take();
        drop(place);
        if let Some(last) = last {
            last.end();
        }
        None
    }
}

/// How a visit at the bench ended.
enum Visit {
    /// All that was there is done.
    Done,
    /// There is something for the thread.
    ForThread,
    /// Somebody else is there.
    Taken,
}

impl Bench {
    fn visit(&self) -> Visit {
        let Some(mut place) = self.place.try_lock() else {
            return Visit::Taken;
        };
        let Place {
            worker,
            work,
            sleeps_until_ns,
        } = &mut *place;
        let Some(worker) = worker else {
            return Visit::Done;
        };
        let is_done = worker.turn_offered(work);
        let wakes_ns = worker.wakes_ns();
        let is_early = match (wakes_ns, *sleeps_until_ns) {
            (Some(wakes_ns), Some(sleeps_until_ns)) => wakes_ns < sleeps_until_ns,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_early {
            *sleeps_until_ns = wakes_ns;
        }
        match is_done && !is_early {
            true => Visit::Done,
            false => Visit::ForThread,
        }
    }
}

impl Offered for Bench {
    fn take(&self) {
        for _ in 0..VISITS_MAX {
            match self.visit() {
                // What others have brought meanwhile they have left to whoever was here, and what was decided may be durable already.
                Visit::Done if self.inbox.leave() => return,
                Visit::Done => {}
                Visit::ForThread => break,
                // Who is there looks again when he leaves.
                Visit::Taken => return,
            }
        }
        self.inbox.leave();
        self.inbox.call();
    }

    fn leave(&self) {
        self.inbox.call();
    }
}
