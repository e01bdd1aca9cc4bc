//! An encrypted socket that is read by one task and written from any thread, neither of them waiting for the other.
//!
//! # Invariant
//! The session's lock is held for ciphers and system calls that do not wait, never across an `await`. Ciphertext that the
//! socket does not take stays in the session, at most [`CIPHERTEXT_BYTES_MAX`] and a record, until a later write or
//! [`TlsSocket::try_flush`] gets rid of it: who wrote has to see to that.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use parking_lot::Mutex;
use rustls::Connection;
use rustls::pki_types::CertificateDer;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::agreed::Encryption;
use super::identity::{KeyHash, PeerIdentity, key_hash};

/// How much ciphertext waits for the socket before no more is made.
pub const CIPHERTEXT_BYTES_MAX: usize = 64 * 1024;
/// What a full buffer grows by when it is to be read into.
const READ_BYTES_MIN: usize = 4 * 1024;

/// An encrypted connection.
pub struct TlsSocket {
    tcp: TcpStream,
    session: Mutex<Connection>,
}

impl std::fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSocket")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

/// The half that one task reads.
#[derive(Debug)]
pub struct TlsReader(Arc<TlsSocket>);

/// The half that anybody writes.
#[derive(Debug)]
pub struct TlsWriter(Arc<TlsSocket>);

/// The socket as rustls wants it: it reads and writes what is possible without waiting.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsSocket {
    pub(super) fn new(tcp: TcpStream, mut session: Connection) -> Self {
        session.set_buffer_limit(Some(CIPHERTEXT_BYTES_MAX));
        Self {
            tcp,
            session: Mutex::new(session),
        }
    }

    /// What the handshake has led to.
    pub fn agreed(&self) -> Encryption {
        Encryption::of(&self.session.lock())
    }

    /// Who the peer is by the certificate that it has shown and that was verified.
    pub fn peer_identity(&self) -> Option<PeerIdentity> {
        let session = self.session.lock();
        PeerIdentity::of(session.peer_certificates()?.first()?)
    }

    /// The hash of the key in the peer's certificate, if it has shown one.
    pub fn peer_key(&self) -> Option<KeyHash> {
        let session = self.session.lock();
        key_hash(session.peer_certificates()?.first()?)
    }

    /// The certificates that the peer has shown, its own first.
    pub(super) fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let session = self.session.lock();
        let shown = session.peer_certificates().unwrap_or_default();
        shown.iter().map(|one| one.clone().into_owned()).collect()
    }

    /// The two halves. The connection ends when both are gone, or either says so.
    pub fn into_split(self) -> (TlsReader, TlsWriter) {
        let socket = Arc::new(self);
        (TlsReader(Arc::clone(&socket)), TlsWriter(socket))
    }

    /// Exchanges what has to be exchanged before the first byte can be encrypted.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        loop {
            let wanted = {
                let mut session = self.session.lock();
                let step = self.handshake_step(&mut session);
                // What went wrong is told to the peer too, as far as its socket takes it.
                let flushed = flush(&self.tcp, &mut session);
                step?;
                match flushed {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Interest::WRITABLE,
                    Err(error) => return Err(error),
                    Ok(()) if !session.is_handshaking() => return Ok(()),
                    Ok(()) => Interest::READABLE,
                }
            };
            self.tcp.ready(wanted).await?;
        }
    }

    fn handshake_step(&self, session: &mut Connection) -> io::Result<()> {
        while session.is_handshaking() && !session.wants_write() {
            match take_records(&self.tcp, session) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.tcp.ready(Interest::READABLE).await?;
        }
    }

    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut session = self.session.lock();
        loop {
            match read_plaintext(&mut session, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            // At the socket's end the session knows whether the peer has said goodbye.
            take_records(&self.tcp, &mut session)?;
            // A change of keys is answered at once when the socket takes it, else with what is written next.
            match flush(&self.tcp, &mut session) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session.lock();
        flush(&self.tcp, &mut session)?;
        let mut taken = 0;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let written = session.writer().write(rest)?;
                taken += written;
                rest = rest.get(written..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
                match flush(&self.tcp, &mut session) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                    result => result?,
                }
            }
        }
        match flush(&self.tcp, &mut session) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    pub(super) fn try_flush(&self) -> io::Result<()> {
        flush(&self.tcp, &mut self.session.lock())
    }

    /// Whether the socket has something. Only one task may wait here at a time.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(context)
    }

    /// Whether the socket takes more. Only one task may wait here at a time.
    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(context)
    }

    pub(super) fn shutdown(&self) {
        {
            let mut session = self.session.lock();
            session.send_close_notify();
            let _ = flush(&self.tcp, &mut session);
        }
        // Nothing to be done when the peer was faster.
        let _ = socket2::SockRef::from(&self.tcp).shutdown(Shutdown::Both);
    }
}

impl TlsReader {
    /// Appends what the peer sent to the buffer, waiting for the first byte of it; 0 is the end. When the call is dropped
    /// nothing is lost.
    pub async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.0.read_buf(buffer).await
    }
}

impl TlsWriter {
    /// Encrypts and writes what the socket takes now; `WouldBlock` when that is nothing. What counts as written may still
    /// wait in the session: see [`TlsWriter::try_flush`].
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(slices)
    }

    /// Writes what was encrypted and did not fit into the socket; `WouldBlock` while some of it still does not.
    pub fn try_flush(&self) -> io::Result<()> {
        self.0.try_flush()
    }

    /// Whether the socket takes more. Only one task may wait here at a time.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(context)
    }

    /// Says goodbye, as far as the socket takes it, and ends both directions.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

/// Moves decrypted bytes into the buffer; `WouldBlock` when there are none, 0 at the end of what the peer says.
fn read_plaintext(session: &mut Connection, buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.capacity() == buffer.len() {
        buffer.reserve(READ_BYTES_MIN);
    }
    let room = buffer.capacity() - buffer.len();
    let mut reader = session.reader();
    let found = reader.fill_buf()?;
    let taken = found.get(..room).unwrap_or(found);
    let count = taken.len();
    buffer.extend_from_slice(taken);
    reader.consume(count);
    Ok(count)
}

/// Takes what the socket has and decrypts it; 0 at the socket's end.
fn take_records(tcp: &TcpStream, session: &mut Connection) -> io::Result<usize> {
    let read = session.read_tls(&mut NonBlocking(tcp))?;
    session
        .process_new_packets()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(read)
}

fn flush(tcp: &TcpStream, session: &mut Connection) -> io::Result<()> {
    while session.wants_write() {
        if session.write_tls(&mut NonBlocking(tcp))? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
