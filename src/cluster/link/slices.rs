//! Answers in slices, no more of them under way than there is room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::frame::{Frame, Status};
use super::requests::{LinkError, Open};
use super::session::Session;

/// The longest slice that is sent.
const SLICE_BYTES_MAX: usize = 256 * 1024;
/// What a slice costs beside its bytes, so that many empty ones have a price too.
const SLICE_COST: u64 = 64;
/// Windows that are smaller than this are none.
const WINDOW_BYTES_MIN: u64 = 4096;

fn cost(bytes: usize) -> u64 {
    bytes as u64 + SLICE_COST
}

/// Where slices of an answer arrive.
pub(super) struct Incoming {
    window_bytes: u64,
    /// What has arrived and was not taken.
    untaken: Arc<AtomicU64>,
    sender: mpsc::UnboundedSender<Result<Bytes, LinkError>>,
}

impl Incoming {
    /// A slice arrived; false when there was no room for it.
    pub fn slice(&self, body: Bytes) -> bool {
        let cost = cost(body.len());
        let before = self.untaken.fetch_add(cost, Ordering::AcqRel);
        if before.saturating_add(cost) > self.window_bytes {
            return false;
        }
        // Whoever gave up a moment ago does not need it.
        let _ = self.sender.send(Ok(body));
        true
    }

    /// No more will arrive.
    pub fn end(self, end: Result<(), LinkError>) {
        if let Err(error) = end {
            let _ = self.sender.send(Err(error));
        }
    }
}

/// An answer that comes in slices. Dropping it withdraws the request.
pub struct Slices {
    receiver: mpsc::UnboundedReceiver<Result<Bytes, LinkError>>,
    untaken: Arc<AtomicU64>,
    window_bytes: u64,
    /// Taken and not given back yet.
    owed: u64,
    patience: Duration,
    open: Open,
}

impl Slices {
    /// The two ends of an answer within that window; the second makes the first with the question once it is sent.
    pub(super) fn prepare(
        window_bytes: u32,
        patience: Duration,
    ) -> (Incoming, impl FnOnce(Open) -> Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let untaken = Arc::new(AtomicU64::new(0));
        let window_bytes = u64::from(window_bytes);
        let incoming = Incoming {
            window_bytes,
            untaken: Arc::clone(&untaken),
            sender,
        };
        let slices = move |open| Self {
            receiver,
            untaken,
            window_bytes,
            owed: 0,
            patience,
            open,
        };
        (incoming, slices)
    }

    /// The next slice; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let slice = match timeout(self.patience, self.receiver.recv()).await {
            Err(_) => return Err(LinkError::TimedOut),
            Ok(None) => return Ok(None),
            Ok(Some(slice)) => slice?,
        };
        let cost = cost(slice.len());
        // Before the credit is given: the peer may use it at once.
        self.untaken.fetch_sub(cost, Ordering::AcqRel);
        self.owed += cost;
        if self.owed >= self.window_bytes / 2 {
            let credit = u32::try_from(self.owed).unwrap_or(u32::MAX);
            self.owed -= u64::from(credit);
            self.open.credit(credit);
        }
        Ok(Some(slice))
    }
}

/// What the peer still takes of an answer.
pub(super) struct Outgoing {
    window_bytes: u64,
    credit: Mutex<u64>,
    changed: Notify,
    cancelled: AtomicBool,
}

impl Outgoing {
    pub fn new(window_bytes: u32) -> Self {
        Self {
            window_bytes: window_bytes.into(),
            credit: Mutex::new(window_bytes.into()),
            changed: Notify::new(),
            cancelled: AtomicBool::new(false),
        }
    }

    pub fn has_window(&self) -> bool {
        self.window_bytes >= WINDOW_BYTES_MIN
    }

    pub fn credit(&self, bytes: u32) {
        let mut credit = self.credit.lock();
        *credit = credit.saturating_add(bytes.into()).min(self.window_bytes);
        drop(credit);
        self.changed.notify_waiters();
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until the peer takes that much, and takes it off.
    async fn spend(&self, cost: u64) -> Result<(), SlicesEnded> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change is missed.
            changed.as_mut().enable();
            if self.is_cancelled() {
                return Err(SlicesEnded);
            }
            {
                let mut credit = self.credit.lock();
                if *credit >= cost {
                    *credit -= cost;
                    return Ok(());
                }
            }
            changed.await;
        }
    }
}

/// Nobody takes slices any more: the peer withdrew its request, or the link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody waits for the slices any more")]
pub struct SlicesEnded;

/// Answers a request in slices. Without [`SliceSender::finish`] the peer is told that the answer broke off.
pub struct SliceSender {
    session: Arc<Session>,
    id: u64,
    outgoing: Arc<Outgoing>,
    ended: bool,
}

impl SliceSender {
    pub(super) fn new(session: Arc<Session>, id: u64, outgoing: Arc<Outgoing>) -> Self {
        Self {
            session,
            id,
            outgoing,
            ended: false,
        }
    }

    /// Sends bytes, cut into slices where they are many. Waits for the peer, for the rate that it may be sent, and for the link.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), SlicesEnded> {
        let half = usize::try_from(self.outgoing.window_bytes / 2).unwrap_or(usize::MAX);
        let longest = SLICE_BYTES_MAX.min(half);
        loop {
            let slice = bytes.split_to(bytes.len().min(longest));
            self.send_slice(slice).await?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    async fn send_slice(&self, slice: Bytes) -> Result<(), SlicesEnded> {
        self.outgoing.spend(cost(slice.len())).await?;
        if let Some(rate) = &self.session.peer.rate {
            let wait = rate.lock().take(slice.len(), Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        let frame = Frame::Slice {
            id: self.id,
            body: slice,
        };
        let queued = self.session.queue.push_when_it_fits(frame).await;
        queued.map_err(|_| SlicesEnded)
    }

    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.outgoing.is_cancelled()
    }

    /// That was all.
    pub async fn finish(mut self) {
        self.ended = true;
        if self.outgoing.is_cancelled() {
            return;
        }
        self.session.answering_done(self.id);
        let end = Frame::Answer {
            id: self.id,
            status: Status::Done,
            body: Bytes::new(),
        };
        // An end that cannot be sent is the end of the link.
        let _ = self.session.queue.push_when_it_fits(end).await;
    }

    /// Breaks off, and says why.
    pub fn refuse(mut self, reason: impl Into<String>) {
        self.close(Status::Refused, Bytes::from(reason.into()));
    }

    fn close(&mut self, status: Status, body: Bytes) {
        if !std::mem::replace(&mut self.ended, true) && !self.outgoing.is_cancelled() {
            self.session.answer(self.id, status, body);
        }
    }
}

impl Drop for SliceSender {
    fn drop(&mut self) {
        self.close(Status::Dropped, Bytes::new());
    }
}
