//! What waits to be written to a connection.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::{Encoded, Frame};

/// Short frames that keep a link going (answers of a few bytes, credit, signs of life) fit in beyond the limit.
const RESERVE_BYTES: usize = 256 * 1024;

/// Frames in the order in which they were sent, and how many bytes they may be.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    /// There is something to write, or the end has come.
    filled: Notify,
    /// Something was written.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Encoded>,
    /// Waiting and being written.
    bytes: usize,
    closed: bool,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    Full,
    Closed,
}

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Takes a frame when it fits; one that is longer than the limit fits when nothing else waits.
    pub fn push(&self, frame: Frame) -> Result<(), NotQueued> {
        self.put(frame, self.bytes_max)
    }

    /// The same for a frame without which the link cannot go on.
    pub fn push_short(&self, frame: Frame) -> Result<(), NotQueued> {
        self.put(frame, self.bytes_max.saturating_add(RESERVE_BYTES))
    }

    fn put(&self, frame: Frame, bytes_max: usize) -> Result<(), NotQueued> {
        let frame = frame.encode();
        let mut state = self.state.lock();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        if state.bytes > 0 && state.bytes.saturating_add(frame.bytes()) > bytes_max {
            return Err(NotQueued::Full);
        }
        state.bytes = state.bytes.saturating_add(frame.bytes());
        state.frames.push(frame);
        let first = state.frames.len() == 1;
        drop(state);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for frames and takes all of them; false at the end.
    pub async fn take(&self, frames: &mut Vec<Encoded>) -> bool {
        loop {
            {
                let mut state = self.state.lock();
                if state.closed {
                    return false;
                }
                if !state.frames.is_empty() {
                    std::mem::swap(&mut state.frames, frames);
                    return true;
                }
            }
            self.filled.notified().await;
        }
    }

    /// So many bytes of what was taken were written.
    pub fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        drop(state);
        self.room.notify_waiters();
    }

    /// Takes a frame, waiting until it fits.
    pub async fn push_when_it_fits(&self, frame: Frame) -> Result<(), NotQueued> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look at the queue, so that no room is missed.
            room.as_mut().enable();
            match self.push(frame.clone()) {
                Err(NotQueued::Full) => room.await,
                done => return done,
            }
        }
    }

    /// What waits is lost, and nothing is taken any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.frames.clear();
        drop(state);
        self.filled.notify_one();
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn raft(bytes: usize) -> Frame {
        Frame::Raft(Bytes::from(vec![0; bytes]))
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_until_something_was_written() {
        let queue = Queue::new(100);
        queue.push(raft(60)).unwrap();
        assert_eq!(queue.push(raft(60)), Err(NotQueued::Full));
        queue.push_short(Frame::Ping(1)).unwrap();
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken).await);
        assert_eq!(taken.len(), 2);
        let refused = queue.push(raft(60));
        assert_eq!(refused, Err(NotQueued::Full), "it is still being written");
        queue.written(taken.iter().map(Encoded::bytes).sum());
        queue.push(raft(60)).unwrap();
    }

    #[tokio::test]
    async fn a_long_frame_fits_alone_and_who_waits_is_let_in_or_told_of_the_end() {
        let queue = std::sync::Arc::new(Queue::new(100));
        queue.push(raft(1000)).unwrap();
        let waiting = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { queue.push_when_it_fits(raft(10)).await }
        });
        tokio::task::yield_now().await;
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken).await);
        queue.written(taken.iter().map(Encoded::bytes).sum());
        assert_eq!(waiting.await.unwrap(), Ok(()));
        queue.close();
        assert_eq!(queue.push(raft(1)), Err(NotQueued::Closed));
        assert!(!queue.take(&mut taken).await);
    }
}
