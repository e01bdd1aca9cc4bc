//! An encrypted connection for whoever wants a stream: one task reads and writes it, waiting for both.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::TlsSocket;

/// An encrypted connection as a stream of bytes.
#[derive(Debug)]
pub struct TlsStream {
    socket: TlsSocket,
    /// Decrypted and not read yet; never more than one read of the session.
    decrypted: BytesMut,
}

impl TlsStream {
    /// The connection of a handshake that is over.
    pub fn new(socket: TlsSocket) -> Self {
        Self {
            socket,
            decrypted: BytesMut::new(),
        }
    }

    fn poll_flushed(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.socket.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(context))?;
                }
                flushed => return Poll::Ready(flushed),
            }
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.decrypted.is_empty() {
            match this.socket.try_read_buf(&mut this.decrypted) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.socket.poll_readable(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let count = this.decrypted.len().min(buffer.remaining());
        buffer.put_slice(this.decrypted.get(..count).unwrap_or_default());
        this.decrypted.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match self.socket.try_write(&[IoSlice::new(bytes)]) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
            ready!(self.socket.poll_writable(context))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flushed(context))?;
        self.socket.shutdown();
        Poll::Ready(Ok(()))
    }
}
