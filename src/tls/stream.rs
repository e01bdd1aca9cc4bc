//! An encrypted socket as tokio's traits want it, for what speaks other protocols than ours over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::TlsSocket;

/// A socket whose handshake happens with the first reads, so that accepting it does not wait for the peer.
#[derive(Debug)]
pub struct TlsStream(TlsSocket);

impl TlsStream {
    pub(super) fn new(socket: TlsSocket) -> Self {
        Self(socket)
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let read = self.0.try_read(buffer.initialize_unfilled());
            if !would_block(&read) {
                return Poll::Ready(read.map(|count| buffer.advance(count)));
            }
            // What the handshake has to say may wait for the socket, too; the peer reads on when it has time.
            if would_block(&self.0.try_flush())
                && self.0.poll_writable(context)?.is_ready()
            {
                continue;
            }
            ready!(self.0.poll_readable(context))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = self.0.try_write(&[io::IoSlice::new(bytes)]);
            // Nothing is taken of some bytes: the session is full until the socket takes more.
            let is_full = matches!(written, Ok(0)) && !bytes.is_empty();
            if !would_block(&written) && !is_full {
                return Poll::Ready(written);
            }
            ready!(self.0.poll_writable(context))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.0.try_flush();
            if !would_block(&flushed) {
                return Poll::Ready(flushed);
            }
            ready!(self.0.poll_writable(context))?;
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown();
        Poll::Ready(Ok(()))
    }
}
