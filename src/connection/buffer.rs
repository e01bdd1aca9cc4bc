//! The read buffer of a connection: grows while reads fill it, shrinks when they do not.

use bytes::{Buf, Bytes, BytesMut};

/// The least room a read is given.
const READ_BYTES_MIN: usize = 512;
/// The least for a client that has fallen quiet: its next word is most likely an answer to a ping.
const READ_BYTES_QUIET: usize = 64;
/// The most, unless a message needs more.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Reads in a row that filled less than half of the room before there is less of it.
const SHORT_READS_MAX: u32 = 2;
/// A frame that takes at least this part of the buffer is cut out of it instead of copied.
const CUT_FRACTION: usize = 4;

/// Bytes read and not parsed yet, with room for more.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    read_bytes: usize,
    offered_bytes: usize,
    short_reads: u32,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            offered_bytes: 0,
            short_reads: 0,
        }
    }

    /// What is there.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes bytes off the front.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }

    /// The buffer with room for the next read. `bytes_in_all` is what the message at its front needs,
    /// 0 when that is not known. A large message is given room as it arrives, never on its word.
    pub(crate) fn for_reading(&mut self, bytes_in_all: usize) -> &mut BytesMut {
        let missing = bytes_in_all.saturating_sub(self.bytes.len());
        let believed = self.bytes.len().max(READ_BYTES_MAX);
        self.bytes
            .reserve(self.read_bytes.max(missing.min(believed)));
        self.offered_bytes = self.bytes.capacity() - self.bytes.len();
        &mut self.bytes
    }

    /// Notes how much a read brought.
    pub(crate) fn note_read(&mut self, bytes: usize) {
        if bytes >= self.offered_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
            self.short_reads = 0;
        } else if bytes < self.read_bytes / 2 {
            self.short_reads += 1;
            if self.short_reads > SHORT_READS_MAX {
                self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
                self.short_reads = 0;
            }
        } else {
            self.short_reads = 0;
        }
    }

    /// Takes a frame off the front in a form that can be shared. One that is small against the buffer
    /// is copied, so that it does not keep the whole buffer alive.
    pub(crate) fn take_frame(&mut self, bytes: usize) -> Bytes {
        if bytes * CUT_FRACTION >= self.bytes.capacity() {
            return self.bytes.split_to(bytes).freeze();
        }
        let frame = Bytes::copy_from_slice(self.bytes.get(..bytes).unwrap_or_default());
        self.bytes.advance(bytes);
        frame
    }

    /// Gives memory back that an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.read_bytes = READ_BYTES_QUIET;
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_full_reads_and_shrinks_with_short_ones() {
        let mut buffer = ReadBuffer::new();
        let mut room = 0;
        for _ in 0..12 {
            room = buffer.for_reading(0).capacity();
            buffer.note_read(room);
        }
        assert!(
            (READ_BYTES_MAX..2 * READ_BYTES_MAX).contains(&room),
            "{room}"
        );
        for _ in 0..40 {
            buffer.for_reading(0);
            buffer.note_read(10);
        }
        assert_eq!(buffer.read_bytes, READ_BYTES_MIN);
        buffer.rest();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn a_large_message_gets_room_only_as_it_arrives() {
        let mut buffer = ReadBuffer::new();
        let room = buffer.for_reading(64 << 20).capacity();
        assert!(room <= 2 * READ_BYTES_MAX, "{room}");
    }
}
