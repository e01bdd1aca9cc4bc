//! A route's connection before and after it is known who is on the other side.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::compression::{CompressingWire, Decoder, Encoder, Level, SharedLevel};
use crate::broker::Wire;
use crate::cluster::link;
use crate::connection::ReadBuffer;
use crate::protocol::ProtocolViolation;
use crate::protocol::route::parser::{ParsedRoute, RouteOp, RouteRules, parse};
use crate::protocol::route::{RouteConnect, RouteInfo, encode, info::JSON_BYTES_MAX};
use crate::tls::{TlsReader, TlsSocket, TlsWriter};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// How long the other side may take to hear why it is turned away.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// What the other side says while it is not known yet.
pub(super) enum Said {
    Info(Box<RouteInfo>),
    Connect(Box<RouteConnect>),
    /// The line without its end.
    Link(Vec<u8>),
    Error(String),
}

/// Why a conversation ended before it began.
#[derive(Debug, thiserror::Error)]
pub(super) enum TalkError {
    #[error(transparent)]
    Failed(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolViolation),
    #[error("malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("Route Closed")]
    Closed,
}

enum Halves {
    Tcp(OwnedReadHalf, OwnedWriteHalf),
    Tls(TlsReader, TlsWriter),
}

/// A connection on which two servers still introduce themselves.
pub(super) struct Talk {
    halves: Halves,
    pub(super) buffer: ReadBuffer,
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
}

const RULES: RouteRules = RouteRules {
    line_bytes_max: JSON_BYTES_MAX,
    payload_bytes_max: 0,
    names_account: true,
};

impl Talk {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self::new(Halves::Tcp(reader, writer))
    }

    pub(super) fn tls(socket: TlsSocket) -> Self {
        let (reader, writer) = socket.into_split();
        Self::new(Halves::Tls(reader, writer))
    }

    fn new(halves: Halves) -> Self {
        Self {
            halves,
            buffer: ReadBuffer::new(),
            decoder: None,
            encoder: None,
        }
    }

    /// Says a line of a verb and JSON.
    pub(super) async fn say(
        &mut self,
        verb: &str,
        value: &impl serde::Serialize,
    ) -> io::Result<()> {
        let mut line = Vec::new();
        encode::json(&mut line, verb, value);
        self.send(&line).await
    }

    /// Says why the other side is turned away.
    pub(super) async fn refuse(&mut self, text: &str) {
        // It may be gone already, or not listen.
        let line = format!("-ERR '{text}'\r\n");
        let _ = timeout(REFUSAL_MAX, self.send(line.as_bytes())).await;
    }

    async fn send(&mut self, text: &[u8]) -> io::Result<()> {
        let blocks = self.encoder.as_mut().map(|encoder| {
            let mut blocks = Vec::new();
            encoder.encode(text, &mut blocks);
            blocks
        });
        let mut rest = blocks.as_deref().unwrap_or(text);
        while !rest.is_empty() {
            match self.halves.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.halves.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.halves.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.halves.writable().await?;
                }
                done => return done,
            }
        }
    }

    /// Waits for the next line that means something now.
    pub(super) async fn hear(&mut self) -> Result<Said, TalkError> {
        loop {
            let mut asked = false;
            let (said, consumed) = match parse(self.buffer.unread(), &RULES)? {
                ParsedRoute::Incomplete { .. } => {
                    self.read().await?;
                    continue;
                }
                ParsedRoute::Complete { op, consumed } => {
                    let said = match op {
                        RouteOp::Info(json) => {
                            Some(Said::Info(Box::new(serde_json::from_slice(json)?)))
                        }
                        RouteOp::Connect(json) => {
                            Some(Said::Connect(Box::new(serde_json::from_slice(json)?)))
                        }
                        RouteOp::Link(line) => Some(Said::Link(line.to_vec())),
                        RouteOp::Error(text) => {
                            Some(Said::Error(String::from_utf8_lossy(text).into_owned()))
                        }
                        RouteOp::Ping => {
                            asked = true;
                            None
                        }
                        RouteOp::Pong | RouteOp::Ok => None,
                        _ => return Err(ProtocolViolation::UnknownOperation.into()),
                    };
                    (said, consumed)
                }
            };
            self.buffer.advance(consumed);
            if asked {
                self.send(b"PONG\r\n").await?;
            }
            if let Some(said) = said {
                return Ok(said);
            }
        }
    }

    async fn read(&mut self) -> Result<(), TalkError> {
        let room = self.buffer.for_reading(0);
        match read(&mut self.halves, self.decoder.as_mut(), room).await? {
            0 => Err(TalkError::Closed),
            bytes => {
                self.buffer.note_read(bytes);
                Ok(())
            }
        }
    }

    /// What comes from now on is compressed, also what was read already.
    pub(super) fn decompress(&mut self) {
        let mut decoder = Decoder::default();
        let unread = self.buffer.unread().len();
        decoder.raw().extend_from_slice(self.buffer.unread());
        self.buffer.advance(unread);
        self.decoder = Some(decoder);
    }

    /// What is sent from now on is compressed.
    pub(super) fn compress(&mut self, level: Level) -> Arc<SharedLevel> {
        let level = SharedLevel::new(level);
        self.encoder = Some(Encoder::new(Arc::clone(&level)));
        level
    }

    /// It is a link: the socket, and what was read behind the line.
    pub(super) fn into_link(mut self) -> (link::Socket, BytesMut) {
        let unread = self.buffer.unread().len();
        let rest = BytesMut::from(&*self.buffer.take_frame(unread));
        let socket = match self.halves {
            Halves::Tcp(reader, writer) => link::Socket::tcp_halves(reader, writer),
            Halves::Tls(reader, writer) => link::Socket::tls_halves(reader, writer),
        };
        (socket, rest)
    }

    /// It is a route: both directions, and what was read already.
    pub(super) fn into_route(self) -> (RouteReader, Box<dyn Wire>, ReadBuffer) {
        let (reader, wire): (_, Box<dyn Wire>) = match self.halves {
            Halves::Tcp(reader, writer) => (
                Incoming::Tcp(reader),
                Box::new(crate::connection::TcpWire(writer)),
            ),
            Halves::Tls(reader, writer) => (
                Incoming::Tls(reader),
                Box::new(crate::connection::TlsWire(writer)),
            ),
        };
        let wire = match self.encoder {
            Some(encoder) => Box::new(CompressingWire::new(wire, encoder)),
            None => wire,
        };
        let reader = RouteReader {
            incoming: reader,
            decoder: self.decoder,
        };
        (reader, wire, self.buffer)
    }
}

impl Halves {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(_, writer) => writer.try_write(bytes),
            Self::Tls(_, writer) => writer.try_write(&[IoSlice::new(bytes)]),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(..) => Ok(()),
            Self::Tls(_, writer) => writer.try_flush(),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| match self {
            Self::Tcp(_, writer) => writer.as_ref().poll_write_ready(context),
            Self::Tls(_, writer) => writer.poll_writable(context),
        })
        .await
    }

    async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(reader, _) => reader.read_buf(buffer).await,
            Self::Tls(reader, _) => reader.read_buf(buffer).await,
        }
    }
}

async fn read(
    halves: &mut Halves,
    decoder: Option<&mut Decoder>,
    out: &mut BytesMut,
) -> io::Result<usize> {
    let Some(decoder) = decoder else {
        return halves.read_buf(out).await;
    };
    loop {
        let decoded = decoder.decode(out)?;
        if decoded > 0 {
            return Ok(decoded);
        }
        decoder.raw().reserve(READ_BYTES);
        if halves.read_buf(decoder.raw()).await? == 0 {
            return Ok(0);
        }
    }
}

/// Room for one read of compressed bytes.
const READ_BYTES: usize = 64 << 10;

enum Incoming {
    Tcp(OwnedReadHalf),
    Tls(TlsReader),
}

/// The direction of a route that comes in.
pub(super) struct RouteReader {
    incoming: Incoming,
    decoder: Option<Decoder>,
}

impl RouteReader {
    /// Appends what came, waiting for the first byte of it; 0 is the end.
    pub(super) async fn read_buf(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else {
            return self.incoming.read_buf(out).await;
        };
        loop {
            let decoded = decoder.decode(out)?;
            if decoded > 0 {
                return Ok(decoded);
            }
            decoder.raw().reserve(READ_BYTES);
            if self.incoming.read_buf(decoder.raw()).await? == 0 {
                return Ok(0);
            }
        }
    }
}

impl Incoming {
    async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(reader) => reader.read_buf(buffer).await,
            Self::Tls(reader) => reader.read_buf(buffer).await,
        }
    }
}
