//! An archive out of messages, each acknowledged when it is used up.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::under_way::Claim;
use crate::broker::{Inbound, InternalTarget};

/// How long the client may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// What may wait here of a client that does not wait for its acknowledgements.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How often it is looked whether the server goes on.
const LOOK: Duration = Duration::from_millis(250);

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FeedError {
    #[error("restore for stream '{0}' is stalled")]
    Stalled(String),
    #[error("restore for stream '{0}' requires reply subject for each chunk")]
    NoReply(String),
    #[error("more than {WAITING_BYTES_MAX} bytes came without waiting for acknowledgements")]
    Overrun,
    #[error("server is shutting down")]
    Stopping,
}

/// Where chunks arrive.
#[derive(Default)]
pub(super) struct Feed {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<(Bytes, Bytes)>,
    bytes: usize,
    overrun: bool,
}

impl InternalTarget for Feed {
    fn deliver(&self, batch: Vec<Inbound>) {
        let mut waiting = self.waiting.lock();
        for chunk in batch {
            let bytes = bytes_of(&chunk.reply, &chunk.payload);
            if waiting.bytes + bytes > WAITING_BYTES_MAX {
                waiting.overrun = true;
                break;
            }
            waiting.bytes += bytes;
            waiting.chunks.push_back((chunk.reply, chunk.payload));
        }
        self.changed.notify_all();
    }
}

/// What a chunk takes while it waits: many small or empty ones take more than their payloads.
fn bytes_of(reply: &Bytes, payload: &Bytes) -> usize {
    reply.len() + payload.len() + 2 * size_of::<Bytes>()
}

/// Reads what arrives.
pub(super) struct FeedReader<'a> {
    feed: Arc<Feed>,
    claim: &'a Claim,
    /// What is left of the chunk that is being read, and whom to tell when it is used up.
    chunk: Bytes,
    reply: Option<Bytes>,
    total: u64,
    ended: bool,
    failed: Option<FeedError>,
}

impl<'a> FeedReader<'a> {
    pub(super) fn new(feed: Arc<Feed>, claim: &'a Claim) -> Self {
        Self {
            feed,
            claim,
            chunk: Bytes::new(),
            reply: None,
            total: 0,
            ended: false,
            failed: None,
        }
    }

    /// How many bytes came.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Why nothing more comes, if that is so.
    pub(super) fn failed(&self) -> Option<&FeedError> {
        self.failed.as_ref()
    }

    /// Takes all that the client still sends, until it says that it was all.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    /// Whom to tell how it went: whoever sent what was not acknowledged yet.
    pub(super) fn into_reply(mut self) -> Option<Bytes> {
        if self.reply.is_none() && !self.ended && self.failed.is_none() {
            // It fails between two chunks: the next one is answered.
            if let Ok((reply, _)) = self.next() {
                self.reply = Some(reply);
            }
        }
        self.reply.take().filter(|reply| !reply.is_empty())
    }

    fn next(&self) -> Result<(Bytes, Bytes), FeedError> {
        let since = Instant::now();
        let mut waiting = self.feed.waiting.lock();
        loop {
            if let Some((reply, payload)) = waiting.chunks.pop_front() {
                waiting.bytes -= bytes_of(&reply, &payload);
                return match reply.is_empty() {
                    true => Err(FeedError::NoReply(self.claim.title())),
                    false => Ok((reply, payload)),
                };
            }
            if waiting.overrun {
                return Err(FeedError::Overrun);
            }
            if self.claim.is_stopping() {
                return Err(FeedError::Stopping);
            }
            if since.elapsed() >= SILENCE {
                return Err(FeedError::Stalled(self.claim.title()));
            }
            self.feed.changed.wait_for(&mut waiting, LOOK);
        }
    }

    fn take_next(&mut self) -> Result<(), FeedError> {
        if let Some(reply) = self.reply.take() {
            self.claim.answer(&reply, Vec::new());
        }
        let (reply, payload) = self.next()?;
        self.ended = payload.is_empty();
        self.total += payload.len() as u64;
        self.reply = Some(reply);
        self.chunk = payload;
        Ok(())
    }
}

impl Read for FeedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failed) = &self.failed {
            return Err(io::Error::other(failed.clone()));
        }
        if self.chunk.is_empty() && !self.ended {
            self.take_next().map_err(|error| {
                self.failed = Some(error.clone());
                io::Error::other(error)
            })?;
        }
        let count = self.chunk.len().min(buffer.len());
        let part = self.chunk.split_to(count);
        if let Some(to) = buffer.get_mut(..count) {
            to.copy_from_slice(&part);
        }
        Ok(count)
    }
}
