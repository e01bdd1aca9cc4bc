//! What an outbox needs of a socket.

use std::io;
use std::io::IoSlice;
use std::task::{Context, Poll};

use crate::broker::close::CloseReason;

/// The writing half of a connection, usable from any thread.
pub trait Wire: Send + Sync {
    /// Writes what the socket takes now; `WouldBlock` when that is nothing.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Gets rid of what counts as written and has not reached the socket; `WouldBlock` while some of it cannot. A wire that
    /// keeps nothing back has nothing to do.
    fn try_flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the socket takes more. Only one task may wait here at a time.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer why the connection ends, as far as the socket takes it; most have no words for that.
    fn farewell(&self, _reason: CloseReason) {}

    /// Ends both directions, so that the peer and our own reader see the end.
    fn shutdown(&self);
}
