//! The writing half of a connection as an outbox needs it.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll};

use tokio::net::tcp::OwnedWriteHalf;

use crate::broker::Wire;
use crate::tls::TlsWriter;

pub(crate) struct TcpWire(pub(crate) OwnedWriteHalf);

impl Wire for TcpWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_ref().poll_write_ready(context)
    }

    fn shutdown(&self) {
        // Nothing to be done when the peer was faster.
        let _ = socket2::SockRef::from(self.0.as_ref()).shutdown(Shutdown::Both);
    }
}

pub(crate) struct TlsWire(pub(crate) TlsWriter);

impl Wire for TlsWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(slices)
    }

    fn try_flush(&self) -> io::Result<()> {
        self.0.try_flush()
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(context)
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}
