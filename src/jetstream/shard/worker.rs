//! A shard's thread: take what has come, decide, submit, apply, send.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use storage::journal::{CommitSink, JournalError};

use super::copying::is_for_origin;
use super::faults::{Outage, OutageCause};
use super::inbox::{Done, Inbox, Item, Taker, Work, measure};
use super::slot::Slot;
use crate::broker::{Broker, Inbound, PublishCache};
use crate::jetstream::core::Retirement;
use crate::jetstream::intake::{self, Purpose};
use crate::jetstream::log::{Checkpoint, Entry, Log, Pressure};

/// How long a checkpoint that could not begin is put off.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(20);
/// How often room on the device is looked at.
const ROOM_INTERVAL_NS: i64 = 1_000_000_000;
/// How long publishes wait for checkpoints, or for what is written to files, to catch up before somebody looks again.
const PRESSURE_RETRY: Duration = Duration::from_millis(2);
/// As many messages take longer to be decided than it takes to wake a client.
const EARLY_MESSAGES_MIN: usize = 32;

pub(super) struct Worker {
    inbox: Arc<Inbox>,
    sink: Arc<dyn CommitSink>,
    broker: Arc<Broker>,
    cache: PublishCache,
    slots: HashMap<u64, Slot>,
    /// Which slot a stream has that is in the journal, by whose its entries are: its number in storage.
    slot_of: HashMap<u64, u64>,
    /// Streams that are to be checkpointed as soon as that can begin.
    checkpoints_wanted: BTreeSet<u64>,
    /// Streams that something has happened to in this round.
    touched: BTreeSet<u64>,
    /// When streams want to look at the clock; may hold what is no longer so.
    timers: BinaryHeap<Reverse<(i64, u64)>>,
    /// Publishes that wait until the log is relieved.
    held: Vec<Item>,
    /// Streams that are handed back once everything decided is applied.
    surrendering: BTreeMap<u64, Taker>,
    has_room: bool,
    room_seen_ns: i64,
    clock: Box<dyn Fn() -> i64 + Send>,
    clock_ns: i64,
    stopping: Option<Done>,
    /// Entries that were decided in this round, or in the last one when that was for offered messages: slot and index. To apply the latter is as little work as it
    /// was to decide them.
    decided: Vec<(u64, u64)>,
}

impl Worker {
    pub(super) fn new(inbox: Arc<Inbox>, broker: Arc<Broker>) -> Self {
        Self {
            sink: Arc::clone(&inbox) as Arc<dyn CommitSink>,
            inbox,
            broker,
            cache: PublishCache::new(),
            slots: HashMap::new(),
            slot_of: HashMap::new(),
            checkpoints_wanted: BTreeSet::new(),
            touched: BTreeSet::new(),
            timers: BinaryHeap::new(),
            held: Vec::new(),
            surrendering: BTreeMap::new(),
            has_room: true,
            room_seen_ns: 0,
            clock: Box::new(now_ns),
            clock_ns: 0,
            stopping: None,
            decided: Vec::new(),
        }
    }

    /// The same, with another clock.
    #[cfg(test)]
    pub(super) fn with_clock(mut self, clock: Box<dyn Fn() -> i64 + Send>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes what has come, and does what there is to do.
    pub(super) fn turn(&mut self, work: &mut Work) {
        self.inbox.take(work);
        self.read_clock();
        self.round(work);
        self.decided.clear();
    }

    /// Does what has come, if it is all light and nothing else is to be done. Whether it was done.
    pub(super) fn turn_offered(&mut self, work: &mut Work) -> bool {
        self.read_clock();
        let is_due = |at_ns: i64| at_ns <= self.clock_ns;
        let is_idle = self.touched.is_empty()
            && self.held.is_empty()
            && self.checkpoints_wanted.is_empty()
            && self.surrendering.is_empty()
            && self.stopping.is_none()
            && !self
                .timers
                .peek()
                .is_some_and(|Reverse((at_ns, _))| is_due(*at_ns));
        if !is_idle || !self.inbox.take_offered(work, &self.decided) {
            return false;
        }
        if !work.items.iter().all(|item| self.is_at_hand(item)) {
            self.inbox.put_back(work);
            return false;
        }
        self.decided.clear();
        self.round(work);
        true
    }

    /// Whether nothing that is asked for has to be fetched from a disk, and taking in what is brought leads to its entry and not to a checkpoint.
    fn is_at_hand(&self, item: &Item) -> bool {
        let Item::Inbound { slot, batch, .. } = item else {
            return false;
        };
        let Some(stream) = self.slots.get(slot) else {
            return true;
        };
        if brings_messages(batch) && stream.log().pressure() != Pressure::None {
            return false;
        }
        batch.iter().all(|inbound| match intake::query_of(inbound) {
            Some(query) => stream.core.is_at_hand(&query),
            None => true,
        })
    }

    /// Whether everything is brought to an end, as it was asked to be.
    pub(super) fn is_over(&self) -> bool {
        self.stopping.is_some() && self.is_settled()
    }

    /// When there is something to do again unless something comes before, by this shard's clock: a time that has passed is at once. The same as long as nothing
    /// changes, whenever it is asked for, but for what is only tried again after a while.
    pub(super) fn wakes_ns(&self) -> Option<i64> {
        let busy = self.touched.iter().any(|slot| {
            self.slots
                .get(slot)
                .is_some_and(|slot| slot.is_busy && slot.offline.is_none())
        });
        let after = |retry: Duration| (self.clock)().saturating_add(retry.as_nanos() as i64);
        if busy {
            return Some(self.clock_ns);
        }
        if !self.held.is_empty() {
            return Some(after(PRESSURE_RETRY));
        }
        if !self.checkpoints_wanted.is_empty() {
            return Some(after(CHECKPOINT_RETRY));
        }
        let Reverse((at_ns, _)) = self.timers.peek()?;
        Some(*at_ns)
    }

    /// How long it is until then.
    pub(super) fn until(&self, wakes_ns: i64) -> Duration {
        let wait_ns = wakes_ns.saturating_sub((self.clock)()).max(0);
        Duration::from_nanos(wait_ns as u64)
    }

    /// The clock never goes back for the streams, whatever the system's does.
    fn read_clock(&mut self) {
        self.clock_ns = self.clock_ns.max((self.clock)());
    }

    fn round(&mut self, work: &mut Work) {
        work.is_called = false;
        if let Some(failure) = work.failure.take() {
            self.log_failed(&failure);
        }
        for (slot, index) in work.commits.drain(..) {
            if let Some(stream) = self.slots.get_mut(&slot) {
                stream.committed(index, self.clock_ns);
                self.touched.insert(slot);
            }
        }
        if count_messages(&work.items) >= EARLY_MESSAGES_MIN {
            self.send_early();
        }
        let held = std::mem::take(&mut self.held);
        for item in held.into_iter().chain(work.items.drain(..)) {
            self.handle(item);
        }
        self.wake_due();
        let touched = std::mem::take(&mut self.touched);
        let submitted = self.let_run(&touched);
        self.submit(submitted);
        let failed = self.checkpoints();
        for slot in touched.into_iter().chain(failed) {
            self.finish(slot);
        }
    }

    /// Sends what the entries that were committed have led to. Publishers go on with their acknowledgements while it is decided what becomes of what they sent before.
    fn send_early(&mut self) {
        for slot in &self.touched {
            if let Some(stream) = self.slots.get_mut(slot) {
                stream.carry_out(&self.broker, &mut self.cache, self.clock_ns);
            }
        }
    }

    /// Nothing that was submitted is durable. Streams in memory go on, unless nothing can be stored any more at all.
    fn log_failed(&mut self, failure: &JournalError) {
        let reason = failure.to_string();
        let outage = OutageCause::of(failure);
        for (id, slot) in &mut self.slots {
            if slot.storage == 0 {
                continue;
            }
            if let Some(cause) = outage {
                slot.port.faults.give_out(Outage {
                    cause,
                    stream: slot.core.name().to_owned(),
                });
            }
            slot.fail(&reason);
            self.touched.insert(*id);
        }
    }

    fn handle(&mut self, item: Item) {
        let now_ns = self.clock_ns;
        let slot = match item {
            Item::Adopt(mut stream) => {
                let slot = stream.port.slot;
                if stream.replica.is_none() {
                    stream.lead(now_ns);
                }
                if stream.owner != 0 {
                    self.slot_of.insert(stream.owner, slot);
                }
                self.slots.insert(slot, *stream);
                Some(slot)
            }
            Item::Inbound { slot, batch, .. } => {
                self.inbound(slot, batch);
                Some(slot)
            }
            Item::Overrun { slot, replies } => self.with(slot, |stream| stream.overrun(replies)),
            Item::Interest {
                slot,
                consumer,
                active,
            } => self.with(slot, |stream| stream.interest(consumer, active, now_ns)),
            Item::Request {
                slot,
                request,
                answer,
            } => self.with(slot, |stream| stream.request(request, answer, now_ns)),
            Item::Checkpoint { stream } => {
                let slot = self.slot_of.get(&stream).copied();
                self.checkpoints_wanted.extend(slot);
                slot.and_then(|slot| self.with(slot, Slot::holds_journal))
            }
            Item::Fail { stream, reason } => {
                let slot = self.slot_of.get(&stream).copied();
                slot.and_then(|slot| self.with(slot, |stream| stream.spoil(&reason)))
            }
            Item::FailAll { reason } => {
                for (id, slot) in &mut self.slots {
                    slot.fail(&reason);
                    self.touched.insert(*id);
                }
                None
            }
            Item::Checkpointed { stream, index } => {
                let slot = self.slot_of.get(&stream).copied();
                slot.and_then(|slot| self.with(slot, |stream| stream.checkpointed(index)))
            }
            Item::Committed { slot, batch, done } => {
                self.with(slot, |stream| stream.take_committed(batch, done, now_ns))
            }
            Item::Role { slot, role } => self.with(slot, |stream| stream.take_role(role, now_ns)),
            Item::InDoubt { slot } => self.with(slot, |stream| stream.is_in_doubt(now_ns)),
            Item::Replica { slot, act } => self.with(slot, |stream| act(stream, now_ns)),
            Item::Remove { slot, done } => {
                if let Some(mut stream) = self.slots.remove(&slot) {
                    self.slot_of.remove(&stream.owner);
                    self.surrendering.remove(&slot);
                    stream.retire(Retirement::Removed);
                    stream.carry_out(&self.broker, &mut self.cache, now_ns);
                    stream.port.faults.forget(slot);
                }
                done();
                None
            }
            // Who waits hears that it is not to be had when the taker is dropped.
            Item::Surrender { slot, .. } if !self.is_whole(slot) => None,
            Item::Surrender { slot, taker } => {
                self.last_entries_of(slot);
                self.surrendering.insert(slot, taker);
                Some(slot)
            }
            Item::Stop { done } => {
                self.stopping = Some(done);
                self.submit_last();
                None
            }
        };
        self.touched.extend(slot);
    }

    fn with(&mut self, slot: u64, act: impl FnOnce(&mut Slot)) -> Option<u64> {
        act(self.slots.get_mut(&slot)?);
        Some(slot)
    }

    fn inbound(&mut self, slot: u64, batch: Vec<Inbound>) {
        let now_ns = self.clock_ns;
        let Some(stream) = self
            .slots
            .get_mut(&slot)
            .filter(|_| self.stopping.is_none() && !self.surrendering.contains_key(&slot))
        else {
            return;
        };
        let is_held =
            |item: &Item| matches!(item, Item::Inbound { slot: held, .. } if *held == slot);
        let pressure = match stream.log().pressure() {
            // No message overtakes another that waits; acks and requests do.
            Pressure::None if brings_messages(&batch) => {
                match self.held.iter().any(is_held) || stream.is_behind() {
                    true => Pressure::Wait,
                    false => Pressure::None,
                }
            }
            pressure => pressure,
        };
        if pressure != Pressure::None && stream.offline.is_none() {
            // The queue's limits count what is held here too.
            if pressure == Pressure::Checkpoints && stream.has_entries_to_cover() {
                self.checkpoints_wanted.insert(slot);
            }
            let is_light = false;
            self.held.push(Item::Inbound {
                slot,
                batch,
                is_light,
            });
            return;
        }
        if now_ns.saturating_sub(self.room_seen_ns) >= ROOM_INTERVAL_NS {
            self.room_seen_ns = now_ns;
            self.has_room = stream.log().has_room();
        }
        let (messages, bytes) = measure(&batch);
        stream.port.gauge.release(messages, bytes);
        stream.take(batch, self.has_room, now_ns);
    }

    /// Streams whose time has come.
    fn wake_due(&mut self) {
        while let Some(Reverse((at_ns, slot))) = self.timers.peek().copied() {
            if at_ns > self.clock_ns {
                return;
            }
            self.timers.pop();
            if let Some(stream) = self.slots.get_mut(&slot) {
                stream.scheduled_ns = None;
                self.touched.insert(slot);
            }
        }
    }

    /// Lets every touched stream deliver and collects what is to be logged.
    fn let_run(&mut self, touched: &BTreeSet<u64>) -> Vec<(Arc<dyn Log>, Vec<Entry>)> {
        let mut submitted = Vec::new();
        for slot in touched {
            let Some(stream) = self.slots.get_mut(slot) else {
                continue;
            };
            let entries = stream.run(*slot, self.clock_ns);
            if !entries.is_empty() {
                collect(&mut submitted, stream.log(), entries);
            }
        }
        submitted
    }

    /// Sends what a stream wants sent and notes when it wants to be woken.
    fn finish(&mut self, slot: u64) {
        let Some(stream) = self.slots.get_mut(&slot) else {
            return;
        };
        stream.carry_out(&self.broker, &mut self.cache, self.clock_ns);
        if stream.is_busy {
            self.touched.insert(slot);
        }
        if stream.wants_checkpoint() || stream.relieves_journal() {
            self.checkpoints_wanted.insert(slot);
        }
        if stream.offline.is_some() {
            self.surrendering.remove(&slot);
        } else if self.surrendering.contains_key(&slot) && stream.is_settled() {
            return self.hand_back(slot);
        }
        let next_ns = stream.next_deadline_ns();
        if let Some(next_ns) = next_ns.filter(|_| stream.offline.is_none())
            && stream
                .scheduled_ns
                .is_none_or(|scheduled| next_ns < scheduled)
        {
            stream.scheduled_ns = Some(next_ns);
            self.timers.push(Reverse((next_ns, slot)));
        }
    }

    /// One submission per log: all entries of a round stand together.
    fn submit(&mut self, submitted: Vec<(Arc<dyn Log>, Vec<Entry>)>) {
        for (log, entries) in submitted {
            let from = self.decided.len();
            let decided = entries.iter().map(|entry| (entry.token, entry.index));
            self.decided.extend(decided);
            if let Err(error) = log.submit(entries, &self.sink) {
                for (slot, _) in self.decided.split_off(from) {
                    self.with(slot, |stream| stream.fail(&error.to_string()));
                    self.touched.insert(slot);
                }
            }
        }
    }

    /// Begins the checkpoints that are wanted; those that cannot begin yet stay wanted. The streams that cannot make one any more.
    fn checkpoints(&mut self) -> Vec<u64> {
        let mut failed = Vec::new();
        for slot in std::mem::take(&mut self.checkpoints_wanted) {
            let stream = self.slots.get_mut(&slot);
            let Some(stream) = stream.filter(|stream| stream.offline.is_none()) else {
                continue;
            };
            match stream.checkpoint() {
                Ok(Checkpoint::Busy) => {
                    self.checkpoints_wanted.insert(slot);
                }
                Ok(_) => {}
                Err(error) => {
                    stream.fail(&error.to_string());
                    failed.push(slot);
                }
            }
        }
        failed
    }

    /// Whether a stream is here and takes what it is brought.
    fn is_whole(&self, slot: u64) -> bool {
        let stream = self.slots.get(&slot);
        stream.is_some_and(|stream| stream.offline.is_none())
    }

    /// Everything decided is applied: the stream leaves.
    fn hand_back(&mut self, slot: u64) {
        let taker = self.surrendering.remove(&slot);
        let Some(mut stream) = self.slots.remove(&slot) else {
            return;
        };
        self.slot_of.remove(&stream.owner);
        self.touched.remove(&slot);
        self.checkpoints_wanted.remove(&slot);
        stream.retire(Retirement::LeadershipLost);
        stream.carry_out(&self.broker, &mut self.cache, self.clock_ns);
        if let Some(taker) = taker {
            taker(stream.surrender());
        }
    }

    fn last_entries_of(&mut self, slot: u64) {
        let Some(stream) = self.slots.get_mut(&slot) else {
            return;
        };
        let entries = stream.last_entries(slot, self.clock_ns);
        let mut submitted = Vec::new();
        collect(&mut submitted, &Arc::clone(stream.log()), entries);
        self.submit(submitted);
    }

    fn submit_last(&mut self) {
        let mut submitted = Vec::new();
        for (slot, stream) in &mut self.slots {
            let entries = stream.last_entries(*slot, self.clock_ns);
            collect(&mut submitted, &Arc::clone(stream.log()), entries);
        }
        self.submit(submitted);
    }

    fn is_settled(&self) -> bool {
        self.slots
            .values()
            .all(|stream| stream.offline.is_some() || stream.is_settled())
    }

    /// Everything is durable: says goodbye, writes checkpoints, and is gone.
    pub(super) fn end(mut self) {
        for stream in self.slots.values_mut() {
            stream.retire(Retirement::Shutdown);
            stream.carry_out(&self.broker, &mut self.cache, self.clock_ns);
            if stream.offline.is_some() {
                continue;
            }
            stream.end_files();
            for _ in 0..2 {
                match stream.checkpoint() {
                    Ok(Checkpoint::Busy) => stream.log().wait_until_idle(),
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(
                            "JetStream stream '{}' could not be checkpointed: {error}",
                            stream.core.name()
                        );
                        break;
                    }
                }
            }
        }
        let done = self.stopping.take();
        let inbox = Arc::clone(&self.inbox);
        drop(self);
        inbox.close();
        if let Some(done) = done {
            done();
        }
    }
}

fn count_messages(items: &[Item]) -> usize {
    let count = |item: &Item| match item {
        Item::Inbound { batch, .. } => batch.len(),
        _ => 0,
    };
    items.iter().map(count).sum()
}

/// Whether something is to be stored, published or copied from another stream.
fn brings_messages(batch: &[Inbound]) -> bool {
    batch
        .iter()
        .any(|inbound| inbound.tag == Purpose::Publish as u64 || is_for_origin(inbound.tag))
}

fn collect(
    submitted: &mut Vec<(Arc<dyn Log>, Vec<Entry>)>,
    log: &Arc<dyn Log>,
    entries: Vec<Entry>,
) {
    if entries.is_empty() {
        return;
    }
    match submitted
        .iter_mut()
        .find(|(other, _)| Arc::ptr_eq(other, log))
    {
        Some((_, all)) => all.extend(entries),
        None => submitted.push((Arc::clone(log), entries)),
    }
}

/// The time of day in nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn a_timer_that_waits_is_the_same_time_whenever_it_is_asked_for() {
        let time_ns = Arc::new(AtomicI64::new(1_000));
        let clock = {
            let time_ns = Arc::clone(&time_ns);
            Box::new(move || time_ns.fetch_add(100, Ordering::Relaxed))
        };
        let mut worker = Worker::new(Arc::default(), Arc::new(Broker::new())).with_clock(clock);
        worker.timers.push(Reverse((5_000, 1)));
        worker.timers.push(Reverse((9_000, 2)));
        for _ in 0..10 {
            // A round takes its time.
            worker.read_clock();
            assert_eq!(worker.wakes_ns(), Some(5_000));
        }
        assert!(worker.until(5_000) < Duration::from_nanos(4_000));
        time_ns.store(7_000, Ordering::Relaxed);
        assert_eq!(worker.until(5_000), Duration::ZERO);
    }
}
