//! A connection to another server, in plain text or encrypted.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::frame::Encoded;
use crate::tls::{TlsReader, TlsSocket, TlsWriter};

/// Slices of memory in one write to a socket.
const WRITE_SLICES_MAX: usize = 256;

/// A connection to another server, both of its directions.
#[derive(Debug)]
pub struct Socket {
    reader: Reader,
    writer: Writer,
}

impl Socket {
    /// In plain text.
    pub fn tcp(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self::tcp_halves(reader, writer)
    }

    /// In plain text, split already.
    pub fn tcp_halves(reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Self {
        Self {
            reader: Reader::Tcp(reader),
            writer: Writer::Tcp(writer),
        }
    }

    /// Encrypted.
    pub fn tls(socket: TlsSocket) -> Self {
        let (reader, writer) = socket.into_split();
        Self::tls_halves(reader, writer)
    }

    /// Encrypted, split already.
    pub fn tls_halves(reader: TlsReader, writer: TlsWriter) -> Self {
        Self {
            reader: Reader::Tls(reader),
            writer: Writer::Tls(writer),
        }
    }

    /// The next line without its end; what follows it stays in the buffer.
    pub async fn line(&mut self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<BytesMut> {
        self.reader.line(buffer, bytes_max).await
    }

    pub(super) fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

/// The direction that comes in.
#[derive(Debug)]
pub(super) enum Reader {
    Tcp(OwnedReadHalf),
    Tls(TlsReader),
}

impl Reader {
    /// Appends what came; 0 is the end.
    pub async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(reader) => reader.read_buf(buffer).await,
            Self::Tls(reader) => reader.read_buf(buffer).await,
        }
    }

    /// The next line without its end; what follows it stays in the buffer.
    pub async fn line(&mut self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<BytesMut> {
        let mut searched = 0;
        loop {
            let rest = buffer.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                let mut line = buffer.split_to(searched + at + 1);
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let length = text.strip_suffix(b"\r").unwrap_or(text).len();
                line.truncate(length);
                return Ok(line);
            }
            searched = buffer.len();
            if searched > bytes_max {
                let error = "the first line is too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The direction that goes out.
#[derive(Debug)]
pub(super) enum Writer {
    Tcp(OwnedWriteHalf),
    Tls(TlsWriter),
}

impl Writer {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(writer) => writer.try_write_vectored(slices),
            Self::Tls(writer) => writer.try_write(slices),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(writer) => writer.try_flush(),
        }
    }

    async fn writable(&self, at_most: Duration) -> io::Result<()> {
        let writable = poll_fn(|context| match self {
            Self::Tcp(writer) => writer.as_ref().poll_write_ready(context),
            Self::Tls(writer) => writer.poll_writable(context),
        });
        match timeout(at_most, writable).await {
            Ok(ready) => ready,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Writes all of the frames, with as few calls as the system allows. Gives up when the socket takes nothing for `stalled_after`.
    pub async fn write_frames(
        &self,
        frames: &[Encoded],
        stalled_after: Duration,
    ) -> io::Result<()> {
        let parts = frames.iter().flat_map(|frame| [frame.head(), &frame.body]);
        let mut parts = parts.filter(|part| !part.is_empty());
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(frames.len().min(64) * 2);
        loop {
            slices.extend(parts.by_ref().take(WRITE_SLICES_MAX).map(IoSlice::new));
            if slices.is_empty() {
                break;
            }
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                match self.try_write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut rest, written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.writable(stalled_after).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            slices.clear();
        }
        self.flush(stalled_after).await
    }

    async fn flush(&self, stalled_after: Duration) -> io::Result<()> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable(stalled_after).await?;
                }
                done => return done,
            }
        }
    }

    /// Writes all of a line.
    pub async fn write_line(&self, line: &[u8], at_most: Duration) -> io::Result<()> {
        let mut rest = line;
        while !rest.is_empty() {
            match self.try_write(&[IoSlice::new(rest)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable(at_most).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.flush(at_most).await
    }

    /// Ends both directions.
    pub fn shutdown(&self) {
        match self {
            Self::Tcp(writer) => {
                // Nothing to be done when the peer was faster.
                let _ = socket2::SockRef::from(writer.as_ref()).shutdown(Shutdown::Both);
            }
            Self::Tls(writer) => writer.shutdown(),
        }
    }
}
