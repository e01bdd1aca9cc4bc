//! An archive in messages of one size, no more of them on their way than the client has asked for.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::under_way::Claim;
use crate::broker::{Inbound, InternalSubscription, InternalTarget, Outgoing, PublishCache};
use crate::jetstream::id;

const CHUNK_BYTES: u64 = 128 << 10;
const CHUNK_BYTES_RANGE: [u64; 2] = [1 << 10, 1 << 20];
const WINDOW_BYTES: u64 = 8 << 20;
const WINDOW_BYTES_RANGE: [u64; 2] = [1 << 10, 32 << 20];
/// How long the client may take to acknowledge a chunk.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long somebody may take to listen.
const INTEREST_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether somebody still listens.
const LOOK: Duration = Duration::from_millis(20);

/// How large chunks are, and how many of them may be on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    chunk_bytes: usize,
    chunks_max: usize,
}

impl Pace {
    /// As a request says it; 0 is as the server likes it.
    pub(super) fn new(chunk_bytes: i64, window_bytes: i64) -> Self {
        let within = |asked: i64, usual: u64, [least, most]: [u64; 2]| match asked {
            0 => usual,
            asked => u64::try_from(asked).unwrap_or_default().clamp(least, most),
        };
        let chunk = within(chunk_bytes, CHUNK_BYTES, CHUNK_BYTES_RANGE);
        let window = within(window_bytes, WINDOW_BYTES, WINDOW_BYTES_RANGE).max(chunk);
        Self {
            chunk_bytes: chunk as usize,
            chunks_max: (window / chunk) as usize,
        }
    }
}

/// Acknowledgements of the client.
#[derive(Default)]
struct Acks {
    free: Mutex<usize>,
    changed: Condvar,
}

impl InternalTarget for Acks {
    fn deliver(&self, batch: Vec<Inbound>) {
        *self.free.lock() += batch.len();
        self.changed.notify_all();
    }
}

/// Why chunks go nowhere. These are the texts that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unheard {
    #[error("408 No Interest")]
    NoInterest,
    #[error("408 No Flow Response")]
    NoFlow,
    #[error("500 server is shutting down")]
    Stopping,
}

/// Sends an archive to a client.
pub(super) struct Chunks<'a> {
    claim: &'a Claim,
    deliver: Bytes,
    ack_prefix: String,
    pace: Pace,
    acks: Arc<Acks>,
    _subscription: Option<InternalSubscription>,
    chunk: Vec<u8>,
    sent: u64,
    sent_at: Instant,
    cache: PublishCache,
    unheard: Option<Unheard>,
    /// Somebody subscribed to the very subject, so that it shows when they go.
    is_subscribed: bool,
}

impl<'a> Chunks<'a> {
    /// To those who listen on a subject.
    pub(super) fn new(claim: &'a Claim, deliver: &str, pace: Pace) -> Self {
        let acks = Arc::new(Acks::default());
        *acks.free.lock() = pace.chunks_max;
        let ack_prefix = format!("$JS.SNAPSHOT.ACK.{}.{}", claim.stream(), id::unique());
        let target: Arc<dyn InternalTarget> = Arc::clone(&acks) as _;
        let subscription = claim
            .account
            .subscribe(&format!("{ack_prefix}.>"), None, target, 0);
        Self {
            claim,
            deliver: Bytes::copy_from_slice(deliver.as_bytes()),
            ack_prefix,
            pace,
            acks,
            // The subject is made of valid tokens.
            _subscription: subscription.ok(),
            chunk: Vec::new(),
            sent: 0,
            sent_at: Instant::now(),
            cache: PublishCache::new(),
            unheard: None,
            is_subscribed: false,
        }
    }

    /// Gives the client a moment to subscribe. Clients often do so only after the answer, on a subject that their
    /// inbox for all answers matches, too; what came there before would be lost.
    pub(super) fn await_interest(&mut self) {
        let begun = Instant::now();
        loop {
            self.is_subscribed = self
                .claim
                .account
                .is_subscribed(self.subject().as_bytes(), None);
            let is_over = begun.elapsed() >= INTEREST_WAIT || self.claim.is_stopping();
            if self.is_subscribed || is_over {
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.sent_at = Instant::now();
    }

    fn subject(&self) -> &str {
        std::str::from_utf8(&self.deliver).unwrap_or_default()
    }

    fn is_heard(&self) -> bool {
        match self.is_subscribed {
            true => self
                .claim
                .account
                .is_subscribed(self.subject().as_bytes(), None),
            false => self.claim.account.has_interest(self.subject()),
        }
    }

    /// Why nobody takes it any more.
    pub(super) fn unheard(&self) -> Option<Unheard> {
        self.unheard
    }

    /// Sends the rest, and that it was all.
    pub(super) fn end(mut self) {
        if !self.chunk.is_empty() {
            let rest = std::mem::take(&mut self.chunk);
            self.send(Bytes::new(), rest, Bytes::new());
        }
        let all = match self.sent {
            0 => Bytes::new(),
            _ => Bytes::from_static(b"NATS/1.0 204\r\n\r\n"),
        };
        self.send(all, Vec::new(), Bytes::new());
    }

    /// Sends that there will be no more, and why.
    pub(super) fn break_off(mut self, status: &str) {
        let status: String = status.chars().filter(|one| !one.is_control()).collect();
        let headers = Bytes::from(format!("NATS/1.0 {status}\r\n\r\n"));
        self.send(headers, Vec::new(), Bytes::new());
    }

    fn send(&mut self, headers: Bytes, payload: Vec<u8>, reply: Bytes) {
        let message = Outgoing {
            subject: self.deliver.clone(),
            headers,
            payload: payload.into(),
            reply,
            ..Outgoing::default()
        };
        self.claim.publish(message, &mut self.cache);
    }

    fn send_chunk(&mut self) -> Result<(), Unheard> {
        self.take_slot()?;
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(self.pace.chunk_bytes));
        self.sent += 1;
        let reply = format!("{}.{}.{}", self.ack_prefix, chunk.len(), self.sent);
        self.send(Bytes::new(), chunk, reply.into());
        self.sent_at = Instant::now();
        Ok(())
    }

    fn take_slot(&self) -> Result<(), Unheard> {
        loop {
            if self.claim.is_stopping() {
                return Err(Unheard::Stopping);
            }
            if !self.is_heard() {
                return Err(Unheard::NoInterest);
            }
            let mut free = self.acks.free.lock();
            if *free > 0 {
                *free -= 1;
                return Ok(());
            }
            if self.sent_at.elapsed() >= ACK_WAIT {
                return Err(Unheard::NoFlow);
            }
            self.acks.changed.wait_for(&mut free, LOOK);
        }
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.pace.chunk_bytes - self.chunk.len());
        self.chunk
            .extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.chunk.len() >= self.pace.chunk_bytes {
            self.send_chunk().map_err(|unheard| {
                self.unheard = Some(unheard);
                io::Error::other(unheard)
            })?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_way_within_bounds() {
        let pace = |chunk, window| {
            let pace = Pace::new(chunk, window);
            (pace.chunk_bytes, pace.chunks_max)
        };
        assert_eq!(pace(0, 0), (128 << 10, 64));
        assert_eq!(pace(1, 0), (1 << 10, 8192));
        assert_eq!(pace(1 << 30, 1), (1 << 20, 1));
        assert_eq!(pace(1 << 20, 1 << 40), (1 << 20, 32));
        assert_eq!(pace(-5, -5), (1 << 10, 1));
    }
}
