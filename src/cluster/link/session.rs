//! One connection while it lives: what is read, what is written, and how its end is found.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use raft::group::Channel;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::frame::{Encoded, Frame, FrameError};
use super::links::Core;
use super::options::Meeting;
use super::peer::{Peer, PeerChannel};
use super::queue::Queue;
use super::requests::{Answering, Asked, Misbehaved};
use super::socket::{Reader, Writer};
use crate::tls::KeyHash;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;
/// What is made room for at once of a frame that is longer.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// A connection to a peer.
pub(super) struct Session {
    /// Told apart from all others of this process; never 0.
    pub number: u64,
    pub core: Arc<Core>,
    pub peer: Arc<Peer>,
    pub channel: Channel,
    /// The identity of the peer's run.
    pub server_id: String,
    /// Whether the one with the lesser name dialled.
    pub by_lesser: bool,
    /// The hash of the key that the peer has shown, when we dialled it.
    pub dialled_key: Option<KeyHash>,
    pub queue: Queue,
    pub asked: Asked,
    pub answering: Answering,
    begun: Instant,
    ended: watch::Sender<bool>,
    turned_out: AtomicBool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the peer closed it")]
    Closed,
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Failed(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    #[error("another connection took its place")]
    Replaced,
    #[error("the peer may not be linked as it is any more")]
    TurnedOut,
    #[error("this server ends")]
    Stopped,
}

impl Session {
    pub fn new(
        core: &Arc<Core>,
        peer: &Arc<Peer>,
        channel: Channel,
        server_id: String,
        by_lesser: bool,
        dialled_key: Option<KeyHash>,
    ) -> Arc<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let limits = &core.options.limits;
        Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            core: Arc::clone(core),
            peer: Arc::clone(peer),
            channel,
            server_id,
            by_lesser,
            dialled_key,
            queue: Queue::new(limits.queue_bytes_max(channel)),
            asked: Asked::new(limits.asked_max),
            answering: Answering::new(limits.answering_max),
            begun: Instant::now(),
            ended: watch::Sender::new(false),
            turned_out: AtomicBool::new(false),
        })
    }

    pub fn way(&self) -> &PeerChannel {
        self.peer.channel(self.channel)
    }

    /// Ends the connection; what it carries is lost.
    pub fn end(&self) {
        self.ended.send_replace(true);
        self.queue.close();
        self.asked.fail_all();
        self.answering.cancel_all();
    }

    /// Ends the connection if it was dialled and the peer's key may not be taken any more.
    pub fn review(&self, meeting: &Meeting) {
        if self.dialled_key.is_some() && !meeting.dialling.takes_key(self.dialled_key.as_ref()) {
            self.turn_out();
        }
    }

    /// Ends the connection because the peer may not be here any more.
    pub fn turn_out(&self) {
        self.turned_out.store(true, Ordering::Release);
        self.end();
    }

    /// Reads and writes until the end, and tells of it. `buffer` holds what was read already; `greeting` is written before all else.
    pub async fn run(
        self: Arc<Self>,
        reader: Reader,
        writer: Writer,
        buffer: BytesMut,
        greeting: Vec<u8>,
    ) {
        let writer = Arc::new(writer);
        let mut ended = self.ended.subscribe();
        let mut stopped = self.core.stop.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).read(reader, buffer));
        tasks.spawn(Arc::clone(&self).write(Arc::clone(&writer), greeting));
        tasks.spawn(Arc::clone(&self).ping());
        let end = tokio::select! {
            done = tasks.join_next() => match done {
                Some(Ok(end)) => end,
                Some(Err(error)) => Ended::Failed(io::Error::other(error)),
                None => Ended::Closed,
            },
            _ = ended.wait_for(|ended| *ended) => Ended::Replaced,
            _ = stopped.wait_for(|stop| *stop) => Ended::Stopped,
        };
        // Its end may be found by whoever writes first.
        let end = match end {
            Ended::Replaced if self.turned_out.load(Ordering::Acquire) => Ended::TurnedOut,
            end => end,
        };
        tasks.shutdown().await;
        writer.shutdown();
        let counted = self.way().release(&self);
        self.end();
        self.tell(&end);
        if counted {
            self.core.lost(&self.peer.name);
        }
    }

    fn tell(&self, end: &Ended) {
        let (name, channel) = (&self.peer.name, self.channel);
        match end {
            Ended::Replaced | Ended::Stopped => {
                tracing::debug!("{channel:?} link with {name:?} ended: {end}");
            }
            Ended::Frame(_) | Ended::Misbehaved(_) => {
                tracing::error!("{channel:?} link with {name:?} ended: {end}");
            }
            _ => tracing::info!("{channel:?} link with {name:?} ended: {end}"),
        }
    }

    async fn read(self: Arc<Self>, mut reader: Reader, mut buffer: BytesMut) -> Ended {
        let silent_after = self.core.options.timing.silent_after;
        loop {
            let missing = match self.hand_on(&mut buffer) {
                Ok(missing) => missing,
                Err(end) => return end,
            };
            buffer.reserve(missing.clamp(READ_BYTES, READ_BYTES_MAX));
            match timeout(silent_after, reader.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return Ended::Closed,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return Ended::Silent(silent_after),
            }
        }
    }

    /// Hands on what was read as a whole, while this is the connection that counts. Says what is missing of the next frame.
    fn hand_on(self: &Arc<Self>, buffer: &mut BytesMut) -> Result<usize, Ended> {
        let bytes_max = self.core.options.limits.frame_bytes_max;
        let (mut frames, before) = (0, buffer.len());
        let gate = self.way().gate.lock();
        if *gate != self.number {
            return Err(Ended::Replaced);
        }
        while let Some(frame) = Frame::decode(buffer, bytes_max)? {
            frames += 1;
            self.take(frame)?;
        }
        drop(gate);
        self.way().counters.received(frames, before - buffer.len());
        let length = buffer
            .first_chunk()
            .map(|length| u32::from_le_bytes(*length));
        let length = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
        Ok(length.saturating_sub(buffer.len()))
    }

    fn take(self: &Arc<Self>, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Raft(frame) => self.core.received(&self.peer.name, self.channel, frame),
            Frame::Request {
                id,
                kind,
                deadline_ms,
                window_bytes,
                body,
            } => self.requested(id, kind, deadline_ms, window_bytes, body),
            Frame::Answer { id, status, body } => self.asked.answered(id, status, body),
            Frame::Slice { id, body } => self.asked.slice(id, body)?,
            Frame::Credit { id, bytes } => self.answering.credit(id, bytes),
            Frame::Cancel { id } => self.answering.cancel(id),
            // A full queue is a sign of life by itself.
            Frame::Ping(said) => drop(self.queue.push_short(Frame::Pong(said))),
            Frame::Pong(said) => {
                let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                if let Some(took) = now.checked_sub(said) {
                    self.way().counters.round_trip(Duration::from_nanos(took));
                }
            }
        }
        Ok(())
    }

    async fn write(self: Arc<Self>, writer: Arc<Writer>, greeting: Vec<u8>) -> Ended {
        let stalled_after = self.core.options.timing.stalled_after;
        if let Err(error) = writer.write_line(&greeting, stalled_after).await {
            return error.into();
        }
        let mut frames = Vec::new();
        while self.queue.take(&mut frames).await {
            let bytes = frames.iter().map(Encoded::bytes).sum();
            if let Err(error) = writer.write_frames(&frames, stalled_after).await {
                return error.into();
            }
            self.way().counters.sent(frames.len(), bytes);
            frames.clear();
            self.queue.written(bytes);
        }
        Ended::Replaced
    }

    async fn ping(self: Arc<Self>) -> Ended {
        let mut due = interval(self.core.options.timing.ping_interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // What waits before it is a sign of life too.
            let _ = self.queue.push_short(Frame::Ping(now));
        }
    }
}
