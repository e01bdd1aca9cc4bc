//! The journal on a thread of its own: a commit starts when the previous one returns, and takes everything that waits.
//!
//! Submitters encode their frames beside each other and beside the disk, and hold the lock only to append what they encoded to the next commit.
//! Nobody is woken per frame: the thread only when it idles, sinks once per commit.
//!
//! Where commits need not be synced, a commit is one write into the page cache. [`Journal::submit_here`] then does without the thread: waking it costs
//! more than that. Everything else, a segment's end, a sync, marks to be carried, a device that cannot follow or at which turns are taken, stays with the thread.
//!
//! # Invariant
//! Who commits holds [`Staging::at_work`] from before it takes what is staged until all of that is committed and delivered, so that commits keep the
//! order in which they were staged. Who gives it up and leaves something staged wakes the thread.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::buffer::CommitBuffer;
use super::core::{JournalCore, Readers, SyncTicket, read};
use super::draft::Draft;
use super::frame::{CommitSink, Frame, FrameKind, JournalError, Location, Owner};
use super::ledger::{Pressure, PressureLevel};
use super::options::{Durability, JournalOptions};
use super::recover::OpenJournalError;
use super::replay::Replay;
use crate::disk::{Disk, DiskError};
use crate::entropy::Entropy;
use crate::rest::Rest;

/// How many emptied buffers are kept for reuse.
const POOL_BUFFERS_MAX: usize = 8;

/// How often who commits on its own thread takes what others have staged meanwhile, before the thread has to.
const ROUNDS_HERE_MAX: usize = 4;

/// Writing into the page cache takes longer than this only when the system holds up who writes; a thread that merely lost its processor is back sooner.
const WRITE_HERE_MAX: Duration = Duration::from_millis(20);
/// How long the thread does all the writing then.
const SLOW: Duration = Duration::from_secs(1);

/// How often those who hold back a full journal are asked again. They may not have been there when they were asked, as at a start, and nothing is committed that would have
/// them asked while all who would commit wait for room.
const REMINDED_EVERY: Duration = Duration::from_millis(500);
/// The same while there is room, and less would be better.
const REMINDED_SOFTLY_EVERY: Duration = Duration::from_secs(2);

/// Called by who commits when the pressure has something new to say.
type PressureListener = Box<dyn Fn(&Pressure) + Send + Sync>;

/// The server's journal. Closed when dropped.
pub struct Journal {
    shared: Arc<Shared>,
    readers: Readers,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    staging: Mutex<Staging>,
    /// For who is at work; others find it free at once.
    committer: Mutex<Committer>,
    /// Commits are not synced one by one.
    is_lazy: bool,
    /// And who submits may write them.
    writes_here: bool,
    /// Wakes the journal's thread when nobody is at work.
    work: Condvar,
    /// Wakes the timer's thread.
    timer: Condvar,
    /// Of the segment being written: what submitters seed with. Being late with it costs a recalculation, nothing else.
    seed: AtomicU32,
    staged_bytes: AtomicUsize,
    level: AtomicU8,
    has_room: AtomicBool,
    listener: Mutex<Option<PressureListener>>,
    commit_bytes_max: usize,
}

struct Staging {
    /// Takes frames.
    open: CommitBuffer,
    /// Have grown to the limit of a commit and wait for their turn, in order.
    full: VecDeque<CommitBuffer>,
    pool: Vec<CommitBuffer>,
    letters: Vec<Letter>,
    /// Somebody commits, and looks again when it is done.
    at_work: bool,
    /// Until then the thread does all the writing.
    slow_until: Option<Instant>,
    /// Nothing more is taken; `Closed` or what went wrong.
    ended: Option<JournalError>,
    closing: bool,
    /// A sync for the timer's thread to run.
    ticket: Option<SyncTicket>,
}

/// What is staged, still locked, and whether all that was brought is among it.
type Staged<'a> = (MutexGuard<'a, Staging>, Result<(), JournalError>);

/// What else the thread is told.
enum Letter {
    Release(Owner, u64),
    Forget(Owner),
    DropMark(Owner, FrameKind),
    /// Whoever listens wants to hear how things are.
    Look,
    SyncDue,
    Synced(SyncTicket, Result<(), DiskError>),
}

/// What is done next.
#[derive(Default)]
struct Work {
    buffers: Vec<CommitBuffer>,
    letters: Vec<Letter>,
    closing: bool,
}

/// The journal itself, and what belongs to who is at work on it.
struct Committer {
    core: JournalCore,
    work: Work,
    last_pressure: Pressure,
}

impl Journal {
    /// Opens the journal in `directory`, creates it when there is none, and starts its thread.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: JournalOptions,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Self, Replay), OpenJournalError> {
        let durability = options.durability;
        let writes_here = durability != Durability::Always && !options.takes_turns;
        let commit_bytes_max = options.commit_bytes_max;
        let (core, replay) = JournalCore::open(disk, directory, options, entropy)?;
        let readers = core.readers();
        let shared = Arc::new(Shared {
            is_lazy: durability != Durability::Always,
            writes_here,
            staging: Mutex::new(Staging {
                open: CommitBuffer::new(),
                full: VecDeque::new(),
                pool: Vec::new(),
                letters: Vec::new(),
                at_work: false,
                slow_until: None,
                ended: None,
                closing: false,
                ticket: None,
            }),
            work: Condvar::new(),
            timer: Condvar::new(),
            seed: AtomicU32::new(core.seed()),
            committer: Mutex::new(Committer {
                core,
                work: Work::default(),
                last_pressure: Pressure::default(),
            }),
            staged_bytes: AtomicUsize::new(0),
            level: AtomicU8::new(0),
            has_room: AtomicBool::new(true),
            listener: Mutex::new(None),
            commit_bytes_max,
        });
        let mut threads = vec![start("journal", {
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?];
        if let Durability::Interval(interval) = durability {
            let shared = Arc::clone(&shared);
            threads.push(start("journal-sync", move || shared.run_timer(interval))?);
        }
        let journal = Self {
            shared,
            readers,
            threads: Mutex::new(threads),
        };
        Ok((journal, replay))
    }

    /// Appends frames, each with a token that its completion carries. Never waits for the disk. All frames of one call stand directly one after
    /// another. When a frame is too large, it and those after it are not taken.
    pub fn submit(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        let shared = &self.shared;
        let (staging, result) = shared.stage(frames, sink)?;
        shared.leave_to_thread(staging);
        result
    }

    /// The same, and where commits are not synced one by one it commits what is staged on the caller's thread, if nobody is at that already: then
    /// the sink has heard of it when this returns. For those whose sinks, and those of others, need nothing that the caller holds.
    pub fn submit_here(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        let shared = &self.shared;
        let (staging, result) = shared.stage(frames, sink)?;
        match shared.writes_here {
            true => shared.commit_here(staging),
            false => shared.leave_to_thread(staging),
        }
        result
    }

    /// The owner no longer needs its entries up to `upto`: a checkpoint that is durable covers them.
    pub fn release(&self, owner: Owner, upto: u64) {
        self.shared.post(Letter::Release(owner, upto));
    }

    /// The owner no longer needs its mark of that kind: something else that is durable takes its place.
    pub fn drop_mark(&self, owner: Owner, kind: FrameKind) {
        self.shared.post(Letter::DropMark(owner, kind));
    }

    /// The owner is gone, durably, and nothing of it is needed any more.
    pub fn forget(&self, owner: Owner) {
        self.shared.post(Letter::Forget(owner));
    }

    /// Bytes that were submitted and are not yet committed. Submitters that can wait should, when this is many megabytes.
    pub fn staged_bytes(&self) -> usize {
        self.shared.staged_bytes.load(Ordering::Relaxed)
    }

    /// How full the journal is.
    pub fn pressure_level(&self) -> PressureLevel {
        match self.shared.level.load(Ordering::Relaxed) {
            0 => PressureLevel::None,
            1 => PressureLevel::Soft,
            _ => PressureLevel::Hard,
        }
    }

    /// Whether the device has room: see [`JournalCore::has_room`].
    pub fn has_room(&self) -> bool {
        self.shared.has_room.load(Ordering::Relaxed)
    }

    /// Whom to tell when checkpoints are wanted. Called by who commits, soon after this and again after each commit that changes the picture.
    pub fn set_pressure_listener(&self, listener: impl Fn(&Pressure) + Send + Sync + 'static) {
        *self.shared.listener.lock() = Some(Box::new(listener));
        // What an earlier listener was told, or nobody, this one does not know.
        self.shared.committer.lock().last_pressure = Pressure::default();
        self.shared.post(Letter::Look);
    }

    /// Reads a committed frame's payload again.
    pub fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        read(&self.readers, location)
    }

    /// Commits what was submitted, marks the journal as closed in order, and ends its threads. Nothing is taken any more.
    pub fn close(&self) {
        {
            let mut staging = self.shared.staging.lock();
            staging.closing = true;
            staging.ended.get_or_insert(JournalError::Closed);
        }
        // Who is at work wakes the thread when it leaves.
        self.shared.work.notify_one();
        self.shared.timer.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock());
        let here = std::thread::current().id();
        for thread in threads {
            // A completion may hold the last reference to whoever owns the journal: a thread cannot wait for itself.
            if thread.thread().id() != here {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DiskError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|error| DiskError {
        operation: "start the journal's thread",
        path: Default::default(),
        kind: crate::disk::DiskErrorKind::Io(error.to_string()),
    })
}

impl Staging {
    /// Takes the frames of one call, one directly after another, and says how many bytes they are.
    fn append(&mut self, draft: &mut Draft, sink: &Arc<dyn CommitSink>) -> usize {
        let mut grown = 0;
        for (mut buffer, commits) in draft.full.drain(..) {
            if !self.open.is_empty() {
                self.close_buffer();
            }
            grown += buffer.frame_bytes();
            buffer.expect(&commits, 0, sink);
            self.full.push_back(buffer);
        }
        if !draft.open.is_empty() {
            grown += draft.open.frame_bytes();
            self.open.append(&mut draft.open, &draft.commits, sink);
        }
        grown
    }

    /// Ends the open commit and begins the next.
    fn close_buffer(&mut self) {
        let next = self.pool.pop().unwrap_or_else(CommitBuffer::new);
        let full = std::mem::replace(&mut self.open, next);
        self.full.push_back(full);
    }

    fn has_work(&self) -> bool {
        self.closing || !self.open.is_empty() || !self.full.is_empty() || !self.letters.is_empty()
    }

    /// Whether writing took long a short while ago: then the system has too much to write, and nobody but the thread is to wait for it.
    fn is_slow(&self) -> bool {
        self.slow_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether there are frames, none of which has to be synced, and nothing else.
    fn is_plain(&self) -> bool {
        let is_frames_only = !self.closing && self.letters.is_empty();
        let is_plain = |buffer: &CommitBuffer| !buffer.is_urgent();
        let has_frames = !self.open.is_empty() || !self.full.is_empty();
        is_frames_only && has_frames && is_plain(&self.open) && self.full.iter().all(is_plain)
    }

    /// What the frames take in a segment.
    fn stored_bytes(&self) -> usize {
        let full: usize = self.full.iter().map(CommitBuffer::stored_bytes).sum();
        full + self.open.stored_bytes()
    }

    /// Takes all that there is, for who is at work from now on.
    fn begin(&mut self, work: &mut Work) {
        if !self.open.is_empty() {
            self.close_buffer();
        }
        work.buffers.extend(self.full.drain(..));
        std::mem::swap(&mut work.letters, &mut self.letters);
        work.closing = self.closing;
        self.at_work = true;
    }
}

impl Shared {
    /// Puts frames into the next commit. An error says that none were taken; the result beside the lock, that some were not.
    fn stage(
        &self,
        frames: impl IntoIterator<Item = (Frame, u64)>,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<Staged<'_>, JournalError> {
        let mut draft = Draft::take();
        let seed = self.seed.load(Ordering::Relaxed);
        let result = draft.encode(frames, seed, self.commit_bytes_max);
        let mut staging = self.staging.lock();
        if let Some(error) = &staging.ended {
            return Err(error.clone());
        }
        let grown = staging.append(&mut draft, sink);
        if staging.open.length() >= self.commit_bytes_max {
            staging.close_buffer();
        }
        // Still under the lock: who commits subtracts only what it has taken from here.
        self.staged_bytes.fetch_add(grown, Ordering::Relaxed);
        draft.put_back();
        Ok((staging, result))
    }

    fn post(&self, letter: Letter) {
        let mut staging = self.staging.lock();
        staging.letters.push(letter);
        self.leave_to_thread(staging);
    }

    /// Lets go of what is staged, and sees to it that somebody looks.
    fn leave_to_thread(&self, staging: MutexGuard<'_, Staging>) {
        let wake = !staging.at_work && staging.has_work();
        drop(staging);
        if wake {
            self.work.notify_one();
        }
    }

    fn run(&self) {
        let mut closing = false;
        let mut rest = Rest::default();
        while !closing {
            let mut staging = self.staging.lock();
            let waits_since = Instant::now();
            let mut reminds = false;
            while staging.at_work || !(staging.has_work() || reminds) {
                let every = self.reminded_every();
                rest.wait(&self.work, &mut staging, every);
                reminds = every.is_some_and(|every| waits_since.elapsed() >= every);
            }
            if !self.is_lazy {
                // Who is about to bring something, and has no processor, does so before this commit and not during it: one sync then serves more.
                drop(staging);
                std::thread::yield_now();
                staging = self.staging.lock();
            }
            let mut committer = self.committer.lock();
            staging.begin(&mut committer.work);
            drop(staging);
            if reminds {
                committer.last_pressure = Pressure::default();
            }
            self.round(&mut committer);
            closing = committer.work.closing;
            drop(committer);
            self.staging.lock().at_work = false;
        }
        if let Err(error) = self.committer.lock().core.write_closing_mark() {
            tracing::warn!(%error, "the journal could not be closed in order");
        }
    }

    /// When those who hold back the journal are asked again, although nothing is committed.
    fn reminded_every(&self) -> Option<Duration> {
        match self.level.load(Ordering::Relaxed) {
            level if level == PressureLevel::Hard as u8 => Some(REMINDED_EVERY),
            level if level == PressureLevel::Soft as u8 => Some(REMINDED_SOFTLY_EVERY),
            _ => None,
        }
    }

    /// Commits what is staged, as long as that is writing and nothing more; the thread does the rest.
    fn commit_here<'a>(&'a self, mut staging: MutexGuard<'a, Staging>) {
        for _ in 0..ROUNDS_HERE_MAX {
            if staging.at_work || !staging.is_plain() || staging.is_slow() {
                break;
            }
            // Nobody is at work, so that it is free; but for the thread that ends.
            let Some(mut committer) = self.committer.try_lock() else {
                break;
            };
            if !committer.core.is_ready_for(staging.stored_bytes()) {
                break;
            }
            staging.begin(&mut committer.work);
            drop(staging);
            let begun = Instant::now();
            self.round(&mut committer);
            drop(committer);
            let is_slow = begun.elapsed() > WRITE_HERE_MAX;
            staging = self.staging.lock();
            staging.at_work = false;
            staging.slow_until = is_slow.then(|| Instant::now() + SLOW);
        }
        self.leave_to_thread(staging);
    }

    /// Does what was taken.
    fn round(&self, committer: &mut Committer) {
        let Committer {
            core,
            work,
            last_pressure,
        } = committer;
        let done = self
            .read_letters(core, work)
            .and_then(|()| core.commit_all(&mut work.buffers));
        self.seed.store(core.seed(), Ordering::Relaxed);
        // Before anyone is told: who hears that all is committed finds nothing staged.
        let taken: usize = work.buffers.iter().map(CommitBuffer::frame_bytes).sum();
        self.staged_bytes.fetch_sub(taken, Ordering::Relaxed);
        match done {
            Ok(()) => work.buffers.iter().for_each(CommitBuffer::deliver),
            Err(error) => self.fail(&error, work),
        }
        self.reuse(&mut work.buffers);
        self.report(core, last_pressure);
    }

    fn read_letters(&self, core: &mut JournalCore, work: &mut Work) -> Result<(), JournalError> {
        for letter in work.letters.drain(..) {
            match letter {
                Letter::Release(owner, upto) => core.release(owner, upto),
                Letter::Forget(owner) => core.forget(owner),
                Letter::DropMark(owner, kind) => core.drop_mark(owner, kind),
                Letter::Look => {}
                Letter::Synced(ticket, result) => core.finish_sync(&ticket, result)?,
                Letter::SyncDue => {
                    if let Some(ticket) = core.begin_sync() {
                        self.staging.lock().ticket = Some(ticket);
                        self.timer.notify_one();
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes nothing more, and tells everyone who waits.
    fn fail(&self, error: &JournalError, work: &mut Work) {
        let mut staging = self.staging.lock();
        staging.ended = Some(error.clone());
        if !staging.open.is_empty() {
            staging.close_buffer();
        }
        work.buffers.extend(staging.full.drain(..));
        self.staged_bytes.store(0, Ordering::Relaxed);
        drop(staging);
        let mut told: Vec<Arc<dyn CommitSink>> = Vec::new();
        for sink in work.buffers.iter().flat_map(CommitBuffer::waiting_sinks) {
            if !told.iter().any(|known| Arc::ptr_eq(known, sink)) {
                told.push(Arc::clone(sink));
            }
        }
        told.iter().for_each(|sink| sink.failed(error));
    }

    fn reuse(&self, buffers: &mut Vec<CommitBuffer>) {
        for buffer in buffers.iter_mut() {
            buffer.reset(self.commit_bytes_max * 2);
        }
        let mut staging = self.staging.lock();
        let room = POOL_BUFFERS_MAX.saturating_sub(staging.pool.len());
        buffers.truncate(room);
        staging.pool.append(buffers);
    }

    fn report(&self, core: &JournalCore, last: &mut Pressure) {
        self.has_room.store(core.has_room(), Ordering::Relaxed);
        let live_bytes = core.live_bytes();
        // Nothing to look for as long as little is in use.
        if live_bytes == last.live_bytes && last.level == PressureLevel::None {
            return;
        }
        let now = core.pressure();
        self.level.store(now.level as u8, Ordering::Relaxed);
        if now != *last {
            if let Some(listener) = &*self.listener.lock() {
                listener(&now);
            }
            *last = now;
        }
    }

    /// Every interval asks the journal's thread for what is to be synced, and syncs it here, so that commits go on meanwhile.
    fn run_timer(&self, interval: Duration) {
        let mut staging = self.staging.lock();
        while !staging.closing {
            if let Some(ticket) = staging.ticket.take() {
                drop(staging);
                let result = ticket.run();
                self.post(Letter::Synced(ticket, result));
                staging = self.staging.lock();
                continue;
            }
            let waited = self.timer.wait_for(&mut staging, interval);
            if waited.timed_out() && !staging.closing {
                drop(staging);
                self.post(Letter::SyncDue);
                staging = self.staging.lock();
            }
        }
    }
}
