//! The pieces an outbox is made of, and the list that a producer fills before it hands it over.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use super::pool;
use super::wire::Wire;

/// Payloads up to this are copied between others; larger ones are shared with their other receivers.
pub const COPIED_BYTES_MAX: usize = 4 * 1024;

/// How many pieces one write takes.
const SLICES_MAX: usize = 64;

/// A piece of what is to be written.
#[derive(Debug)]
pub enum Chunk {
    /// A buffer of ours and how much of it is written already.
    Owned {
        /// The bytes, with room for more behind them.
        data: Vec<u8>,
        /// How many of them are written.
        written: usize,
    },
    /// A payload that others may send too.
    Shared(Bytes),
}

impl Chunk {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Owned { data, written } => &data[*written..],
            Self::Shared(bytes) => bytes,
        }
    }

    fn advance(&mut self, bytes: usize) {
        match self {
            Self::Owned { written, .. } => *written += bytes,
            Self::Shared(shared) => shared.advance(bytes),
        }
    }

    /// Gives the memory back.
    pub fn recycle(self) {
        if let Self::Owned { data, .. } = self {
            pool::give(data);
        }
    }
}

/// What one producer has for one receiver.
#[derive(Debug, Default)]
pub struct Staged {
    chunks: Vec<Chunk>,
    bytes: usize,
    /// How many messages it holds.
    pub messages: u64,
    /// How many bytes of headers and payload it holds.
    pub message_bytes: u64,
}

impl Staged {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends what `write` writes, which is at most `bytes_max` bytes.
    pub fn write(&mut self, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.tail(bytes_max);
        let before = tail.len();
        write(tail);
        let written = tail.len() - before;
        self.bytes += written;
    }

    /// Appends bytes that are shared, not copied.
    pub fn share(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.chunks.push(Chunk::Shared(bytes));
    }

    /// The last buffer when it has room for this many bytes, else a new one.
    fn tail(&mut self, bytes: usize) -> &mut Vec<u8> {
        let new_bytes = match self.chunks.last() {
            Some(Chunk::Owned { data, .. }) if data.capacity() - data.len() >= bytes => None,
            Some(Chunk::Owned { data, .. }) => Some(pool::larger_than(data.capacity()).max(bytes)),
            _ => Some(bytes),
        };
        if let Some(new_bytes) = new_bytes {
            self.chunks.push(Chunk::Owned {
                data: pool::take(new_bytes),
                written: 0,
            });
        }
        match self.chunks.last_mut() {
            Some(Chunk::Owned { data, .. }) => data,
            _ => unreachable!("the last chunk is owned or was just pushed"),
        }
    }

    /// Moves everything behind what already waits. A small piece is copied into the room that the
    /// last one has left, so that many small batches do not each pin a buffer.
    pub(super) fn move_into(&mut self, waiting: &mut VecDeque<Chunk>) {
        for chunk in self.chunks.drain(..) {
            match (waiting.back_mut(), chunk) {
                (Some(Chunk::Owned { data, .. }), Chunk::Owned { data: new, .. })
                    if data.capacity() - data.len() >= new.len() =>
                {
                    data.extend_from_slice(&new);
                    pool::give(new);
                }
                (_, chunk) => waiting.push_back(chunk),
            }
        }
        self.reset();
    }

    /// Drops everything.
    pub fn forget(&mut self) {
        for chunk in self.chunks.drain(..) {
            chunk.recycle();
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.bytes = 0;
        self.messages = 0;
        self.message_bytes = 0;
    }
}

/// Writes what the socket takes now and drops it from the front. How many bytes that were, or the
/// error when there were none.
pub(super) fn write(wire: &dyn Wire, chunks: &mut VecDeque<Chunk>) -> io::Result<usize> {
    let mut total = 0;
    while !chunks.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut offered = 0;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
            *slice = IoSlice::new(chunk.rest());
            offered += slice.len();
            count += 1;
        }
        let written = match wire.try_write(&slices[..count]) {
            Ok(0) if offered > 0 => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if total > 0 => return Ok(total),
            Err(error) => return Err(error),
        };
        total += written;
        drop_front(chunks, written);
        if written < offered {
            return Ok(total);
        }
    }
    Ok(total)
}

fn drop_front(chunks: &mut VecDeque<Chunk>, mut bytes: usize) {
    while let Some(front) = chunks.front_mut() {
        let length = front.rest().len();
        if length > bytes {
            front.advance(bytes);
            return;
        }
        bytes -= length;
        if let Some(done) = chunks.pop_front() {
            done.recycle();
        }
    }
}
