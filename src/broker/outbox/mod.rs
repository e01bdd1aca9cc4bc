//! The outbox of a connection: bytes on their way to a socket, counted, bounded, written by whoever
//! brings them.
//!
//! Whoever hands bytes over also writes them, without waiting. Only when the socket takes no more does
//! a writer task step in, and it goes away when the outbox is empty again.
//!
//! # Invariant
//! At most one party writes to the socket at a time ([`Writer`]), and it never holds the lock while it
//! does. `bytes` counts all that was handed over and not yet taken by the socket, also what the
//! writing party holds in its hands.

pub mod chunk;
pub mod pool;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

pub use chunk::{Chunk, Staged};
pub use wire::Wire;

use super::client::Client;
use super::close::CloseReason;
use crate::config::options::WriteTimeout;

/// How often a party that writes looks for more before a writer task takes over.
const ROUNDS_MAX: usize = 8;

/// Longer than this is for ever.
const WRITE_DEADLINE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What an outbox allows.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// More waiting bytes than this make the connection a slow consumer.
    pub pending_bytes_max: usize,
    /// How long the socket may take for what waits.
    pub write_deadline: Duration,
    /// What happens when it takes longer.
    pub write_timeout: WriteTimeout,
}

/// What a producer should do after it handed bytes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Go on.
    Low,
    /// Wait a little, the receiver is close to its limit.
    High,
}

/// Who writes what was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushBy {
    /// The caller, at once and without waiting.
    Caller,
    /// A task of its own, because the caller has done enough.
    Task,
}

/// What a connection's task is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To end.
    Close(CloseReason),
    /// To look at what has changed around it.
    Review,
}

/// Who writes to the socket now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Nobody,
    Caller,
    Task,
}

/// Bytes on their way to one connection.
pub struct Outbox {
    wire: Box<dyn Wire>,
    limits: OutboxLimits,
    write_deadline_ms: AtomicU64,
    /// Where writer tasks run: bytes also come from threads outside the runtime.
    runtime: Handle,
    state: Mutex<State>,
    closed: AtomicBool,
    /// The connection's task is to look at what has changed around it.
    review: AtomicBool,
    /// The receiver is close to its limit; read without the lock by whoever would rather not add more.
    pressed: AtomicBool,
    closing: Notify,
    drained: Notify,
    idle: Notify,
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    writer: Writer,
    closed: Option<CloseReason>,
    /// Somebody waits for the outbox to drain.
    stalling: bool,
    /// The connection's task waits for the writer to be done.
    finishing: bool,
    out_messages: u64,
    out_bytes: u64,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How far one attempt to write came.
enum Progress {
    Empty,
    More { written: usize },
    Blocked { written: usize },
    Failed,
}

impl Outbox {
    /// An empty outbox in front of a socket. Must be called within the runtime.
    pub fn new(wire: Box<dyn Wire>, limits: OutboxLimits) -> Self {
        let outbox = Self {
            wire,
            limits,
            write_deadline_ms: AtomicU64::new(0),
            runtime: Handle::current(),
            state: Mutex::new(State {
                chunks: VecDeque::new(),
                bytes: 0,
                writer: Writer::Nobody,
                closed: None,
                stalling: false,
                finishing: false,
                out_messages: 0,
                out_bytes: 0,
            }),
            closed: AtomicBool::new(false),
            review: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            closing: Notify::new(),
            drained: Notify::new(),
            idle: Notify::new(),
        };
        outbox.set_write_deadline(limits.write_deadline);
        outbox
    }

    /// Whether the receiver is close to its limit.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// How many bytes wait.
    pub fn pending_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// How many messages and bytes of messages were handed over.
    pub fn counted_out(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.out_messages, state.out_bytes)
    }

    /// Why the connection is being closed, once it is.
    pub fn closed(&self) -> Option<CloseReason> {
        if !self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().closed
    }

    /// How long a write may take from now on.
    pub fn set_write_deadline(&self, deadline: Duration) {
        let deadline = deadline.min(WRITE_DEADLINE_MAX);
        let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.write_deadline_ms
            .store(milliseconds.max(1), Ordering::Relaxed);
    }

    fn write_deadline(&self) -> Duration {
        Duration::from_millis(self.write_deadline_ms.load(Ordering::Relaxed))
    }

    /// Asks the connection's task to look at what has changed around it.
    pub fn ask_for_review(&self) {
        self.review.store(true, Ordering::Release);
        self.closing.notify_one();
    }

    /// Returns when the connection is to be closed, or its task is asked to look around.
    pub async fn wait_for_call(&self) -> Call {
        loop {
            let notified = self.closing.notified();
            if let Some(reason) = self.closed() {
                return Call::Close(reason);
            }
            if self.review.load(Ordering::Acquire) && self.review.swap(false, Ordering::AcqRel) {
                return Call::Review;
            }
            notified.await;
        }
    }

    /// Returns when the connection is to be closed.
    pub async fn wait_for_close(&self) -> CloseReason {
        loop {
            let notified = self.closing.notified();
            if let Some(reason) = self.closed() {
                return reason;
            }
            notified.await;
        }
    }

    /// Takes nothing more from now on and asks the connection's task to end. The first reason stands.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(reason);
            self.closed.store(true, Ordering::Release);
            if !reason.flushes() {
                state.forget_all();
            }
            if std::mem::take(&mut state.stalling) {
                self.drained.notify_waiters();
            }
        }
        drop(state);
        // Whoever dialled a route waits beside the connection's task: all are told.
        self.closing.notify_waiters();
        // A permit is kept when nobody waits yet, so that the wish is never lost.
        self.closing.notify_one();
    }

    /// Takes over what was staged and writes it, or lets it be written. What is over the limit
    /// closes the connection.
    pub fn accept(&self, client: &Arc<Client>, staged: &mut Staged, flush: FlushBy) -> Pressure {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            staged.forget();
            return Pressure::Low;
        }
        state.append(staged);
        if state.bytes > self.limits.pending_bytes_max {
            drop(state);
            self.close(CloseReason::SlowConsumerPendingBytes);
            return Pressure::Low;
        }
        let pressure = if state.bytes > self.limits.pending_bytes_max / 4 * 3 {
            self.pressed.store(true, Ordering::Relaxed);
            Pressure::High
        } else {
            Pressure::Low
        };
        if state.writer == Writer::Nobody {
            match flush {
                FlushBy::Caller => {
                    state.writer = Writer::Caller;
                    drop(state);
                    self.write_now(client);
                }
                FlushBy::Task => {
                    state.writer = Writer::Task;
                    drop(state);
                    self.start_writer(client);
                }
            }
        }
        pressure
    }

    /// Gives back what is kept for bytes to come, unless there are some.
    pub fn rest(&self) {
        let mut state = self.state.lock();
        if state.chunks.is_empty() {
            state.chunks = VecDeque::new();
        }
    }

    /// Waits until the receiver has caught up, at most this long.
    pub async fn wait_while_stalled(&self, at_most: Duration) {
        let drained = self.drained.notified();
        {
            let mut state = self.state.lock();
            if state.bytes <= self.limits.pending_bytes_max / 2 || state.closed.is_some() {
                return;
            }
            state.stalling = true;
        }
        let _ = tokio::time::timeout(at_most, drained).await;
    }

    /// Writes what is left of a closed outbox, waiting for the socket at most this long, and then
    /// shuts the socket down.
    pub async fn finish(&self, at_most: Duration) {
        debug_assert!(self.closed.load(Ordering::Acquire));
        let deadline = Instant::now() + at_most;
        if self.become_last_writer(deadline).await {
            loop {
                match self.attempt() {
                    Progress::Empty | Progress::Failed => break,
                    Progress::More { .. } => {}
                    Progress::Blocked { .. } => {
                        if timeout_at(deadline, self.writable()).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        self.state.lock().forget_all();
        if let Some(reason) = self.closed() {
            self.wire.farewell(reason);
        }
        self.wire.shutdown();
    }

    /// Waits until nobody else writes; `false` when there is nothing to write or no time left.
    async fn become_last_writer(&self, deadline: Instant) -> bool {
        loop {
            let idle = self.idle.notified();
            {
                let mut state = self.state.lock();
                if state.bytes == 0 && !self.holds_back() {
                    return false;
                }
                if state.writer == Writer::Nobody {
                    state.writer = Writer::Task;
                    return true;
                }
                state.finishing = true;
            }
            if timeout_at(deadline, idle).await.is_err() {
                return false;
            }
        }
    }

    /// Whether the wire still has something that counts as written.
    fn holds_back(&self) -> bool {
        let flushed = self.wire.try_flush();
        flushed.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes until there is nothing left or the socket takes no more. The caller is the writer.
    fn write_now(&self, client: &Arc<Client>) {
        for _ in 0..ROUNDS_MAX {
            match self.attempt() {
                Progress::Empty => return,
                Progress::More { .. } => {}
                Progress::Blocked { .. } => break,
                Progress::Failed => return self.close(CloseReason::WriteError),
            }
        }
        self.state.lock().writer = Writer::Task;
        self.start_writer(client);
    }

    fn start_writer(&self, client: &Arc<Client>) {
        let client = Arc::clone(client);
        self.runtime
            .spawn(async move { client.outbox().write_when_ready().await });
    }

    /// The writer task. What waits when a round starts must be taken within the write deadline.
    async fn write_when_ready(&self) {
        let mut deadline = Instant::now() + self.write_deadline();
        // Whether anything was taken since the deadline was set.
        let mut moved = false;
        let mut round_bytes = self.pending_bytes();
        loop {
            match self.attempt() {
                Progress::Empty => return,
                Progress::Failed => return self.close(CloseReason::WriteError),
                Progress::More { written } | Progress::Blocked { written }
                    if written >= round_bytes =>
                {
                    deadline = Instant::now() + self.write_deadline();
                    round_bytes = self.pending_bytes();
                    moved = false;
                }
                Progress::More { written } | Progress::Blocked { written } => {
                    round_bytes -= written;
                    moved |= written > 0;
                }
            }
            match timeout_at(deadline, self.writable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return self.close(CloseReason::WriteError),
                Err(_) if moved && self.limits.write_timeout == WriteTimeout::Retry => {
                    deadline = Instant::now() + self.write_deadline();
                    moved = false;
                }
                Err(_) => return self.close(CloseReason::SlowConsumerWriteDeadline),
            }
        }
    }

    async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.wire.poll_writable(context)).await
    }

    /// Writes once what waits. The caller must be the writer; it no longer is when the answer is
    /// `Empty` or `Failed`.
    fn attempt(&self) -> Progress {
        let mut chunks = {
            let mut state = self.state.lock();
            if state.chunks.is_empty() {
                return self.flush(&mut state, 0);
            }
            std::mem::take(&mut state.chunks)
        };
        let result = chunk::write(&*self.wire, &mut chunks);
        let mut state = self.state.lock();
        if state.closed.is_some_and(|reason| !reason.flushes()) {
            return self.step_down(&mut state, Progress::Empty);
        }
        let written = *result.as_ref().unwrap_or(&0);
        state.bytes = state.bytes.saturating_sub(written);
        state.put_back(chunks);
        if state.bytes <= self.limits.pending_bytes_max / 2 {
            self.pressed.store(false, Ordering::Relaxed);
            if std::mem::take(&mut state.stalling) {
                self.drained.notify_waiters();
            }
        }
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Progress::Blocked { written: 0 }
            }
            Err(_) => self.step_down(&mut state, Progress::Failed),
            Ok(written) if state.chunks.is_empty() => self.flush(&mut state, written),
            Ok(written) => Progress::More { written },
        }
    }

    /// Everything is written: the work is done when it has left the wire, too.
    fn flush(&self, state: &mut State, written: usize) -> Progress {
        match self.wire.try_flush() {
            Ok(()) => self.step_down(state, Progress::Empty),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Progress::Blocked { written }
            }
            Err(_) => self.step_down(state, Progress::Failed),
        }
    }

    fn step_down(&self, state: &mut State, progress: Progress) -> Progress {
        state.writer = Writer::Nobody;
        if std::mem::take(&mut state.finishing) {
            self.idle.notify_waiters();
        }
        progress
    }
}

impl State {
    fn append(&mut self, staged: &mut Staged) {
        self.bytes += staged.bytes();
        self.out_messages += staged.messages;
        self.out_bytes += staged.message_bytes;
        staged.move_into(&mut self.chunks);
    }

    /// Puts what was not written before what came meanwhile.
    fn put_back(&mut self, mut rest: VecDeque<Chunk>) {
        if rest.is_empty() {
            if self.chunks.is_empty() && rest.capacity() <= 64 {
                self.chunks = rest;
            }
            return;
        }
        rest.append(&mut self.chunks);
        self.chunks = rest;
    }

    fn forget_all(&mut self) {
        for chunk in self.chunks.drain(..) {
            chunk.recycle();
        }
        self.chunks = VecDeque::new();
        self.bytes = 0;
    }
}
