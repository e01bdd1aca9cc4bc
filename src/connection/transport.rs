//! How a connection begins: in plain text, encrypted, or as the client decides.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout};

use super::proxied::source_of;
use super::socket::{TcpWire, TlsWire};
use super::websocket::WebSocketReader;
use crate::broker::{Carrier, Wire};
use crate::config::options::{HandshakeFirst, TlsOptions};
use crate::tls::ocsp::{PeerCheck, PeerKind};
use crate::tls::{
    self, Encryption, HandshakeError, PeerIdentity, ServerConfig, TlsReader, TlsSocket,
};

/// The first byte of a TLS handshake; no operation of the protocol begins with it.
const HANDSHAKE_BYTE: u8 = 0x16;
/// What a client hears that does not begin a handshake where there has to be one.
const TLS_REQUIRED: &[u8] = b"-ERR 'Secure Connection - TLS Required'\r\n";

/// What a client hears when too many begin a handshake at once.
const THROTTLED: &[u8] = b"-ERR 'Connection throttling is active. Please try again later.'\r\n";

/// Whether clients may do without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainText {
    /// They may.
    Allowed,
    /// They must not.
    Refused,
}

/// How connections are encrypted.
#[derive(Debug, Clone)]
pub struct TlsTerms {
    /// Certificates and what peers must show.
    pub config: Arc<ServerConfig>,
    /// What asks whether peers' certificates have been revoked.
    pub peer_check: Option<Arc<PeerCheck>>,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// What the server says first.
    pub first: HandshakeFirst,
    /// Whether clients may do without.
    pub plain_text: PlainText,
    /// Whether a client is the user that its certificate names.
    pub maps_users: bool,
    /// Handshakes that may begin within a second; `None` is no limit.
    pub handshakes_per_second_max: Option<u32>,
}

impl TlsTerms {
    /// What the options say, with the certificates they name.
    pub fn new(options: &TlsOptions, plain_text: PlainText) -> Result<Self, tls::TlsError> {
        Ok(Self {
            config: tls::server_config(options)?,
            peer_check: tls::peer_check(options, PeerKind::Client)?,
            timeout: options.timeout,
            first: options.handshake_first,
            plain_text,
            maps_users: options.maps_users,
            handshakes_per_second_max: options.handshakes_per_second_max,
        })
    }
}

/// How many handshakes began in the second that runs.
#[derive(Debug, Default)]
pub(super) struct HandshakeRate(Mutex<Option<(Instant, u32)>>);

impl HandshakeRate {
    /// Whether another may begin, of so many a second.
    fn admits(&self, most: Option<u32>) -> bool {
        let Some(most) = most else {
            return true;
        };
        let now = Instant::now();
        let mut running = self.0.lock();
        match &mut *running {
            Some((since, count)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *count = count.saturating_add(1);
                *count <= most
            }
            other => {
                *other = Some((now, 1));
                true
            }
        }
    }
}

/// Where a connection's bytes come from.
pub(super) enum Reader {
    Tcp(OwnedReadHalf),
    Tls(TlsReader),
    WebSocket(Box<WebSocketReader>),
}

impl Reader {
    /// Appends what the peer sent to the buffer, waiting for the first byte of it; 0 is the end.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(reader) => reader.read_buf(buffer).await,
            Self::Tls(reader) => reader.read_buf(buffer).await,
            Self::WebSocket(reader) => reader.read_buf(buffer).await,
        }
    }
}

/// Whether the client has had its greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    Sent,
    Due,
}

/// A connection that can be read and written.
pub(super) struct Transport {
    pub(super) reader: Reader,
    pub(super) wire: Box<dyn Wire>,
    pub(super) greeting: Greeting,
    pub(super) carrier: Carrier,
    /// Whom the client's certificate names, where it matters.
    pub(super) peer: Option<Arc<PeerIdentity>>,
    /// Where the client is, when a proxy has said so.
    pub(super) source: Option<SocketAddr>,
}

/// Whether clients may come through a proxy that says where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxies {
    Heard,
    Ignored,
}

impl Transport {
    pub(super) fn plain(stream: TcpStream, greeting: Greeting) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader::Tcp(reader),
            wire: Box::new(TcpWire(writer)),
            greeting,
            carrier: Carrier::default(),
            peer: None,
            source: None,
        }
    }

    /// Begins a connection in plain text that may come through a proxy.
    pub(super) async fn proxied(
        mut stream: TcpStream,
        info: &[u8],
    ) -> Result<Self, HandshakeError> {
        // A proxy does not wait for it, and a client behind one does.
        stream.write_all(info).await?;
        let source = source_of(&mut stream)
            .await
            .map_err(HandshakeError::Before)?;
        Ok(Self {
            source,
            ..Self::plain(stream, Greeting::Sent)
        })
    }

    /// Begins a connection on these terms; `info` is what the server says in plain text before a handshake.
    pub(super) async fn open(
        mut stream: TcpStream,
        terms: &TlsTerms,
        handshakes: &HandshakeRate,
        proxies: Proxies,
        info: &[u8],
    ) -> Result<Self, HandshakeError> {
        let mut greeting = Greeting::Due;
        let mut first_byte = match terms.first {
            HandshakeFirst::No => None,
            HandshakeFirst::Always => Some(first_byte(&stream, terms.timeout).await?),
            HandshakeFirst::Within(delay) => first_byte(&stream, delay).await.ok(),
        };
        let mut source = None;
        if first_byte.is_none() {
            timeout(terms.timeout, stream.write_all(info))
                .await
                .map_err(|_| HandshakeError::Timeout)??;
            greeting = Greeting::Sent;
        }
        if proxies == Proxies::Heard {
            source = source_of(&mut stream)
                .await
                .map_err(HandshakeError::Before)?;
        }
        if first_byte.is_none() || proxies == Proxies::Heard {
            first_byte = self::first_byte(&stream, terms.timeout).await.ok();
        }
        if first_byte == Some(HANDSHAKE_BYTE) {
            if !handshakes.admits(terms.handshakes_per_second_max) {
                let _ = timeout(terms.timeout, stream.write_all(THROTTLED)).await;
                return Err(HandshakeError::Throttled);
            }
            let transport = Self::encrypted(stream, terms, greeting).await?;
            return Ok(Self {
                source,
                ..transport
            });
        }
        if greeting == Greeting::Sent && terms.plain_text == PlainText::Allowed {
            return Ok(Self {
                source,
                ..Self::plain(stream, greeting)
            });
        }
        // The client may be gone already; it is refused all the same.
        let _ = timeout(terms.timeout, stream.write_all(TLS_REQUIRED)).await;
        Err(match first_byte {
            None => HandshakeError::Timeout,
            Some(_) => io::Error::new(
                io::ErrorKind::InvalidData,
                "first record does not look like a TLS handshake",
            )
            .into(),
        })
    }

    async fn encrypted(
        stream: TcpStream,
        terms: &TlsTerms,
        greeting: Greeting,
    ) -> Result<Self, HandshakeError> {
        let config = Arc::clone(&terms.config);
        let check = terms.peer_check.as_ref();
        let socket = tls::accept_checked(stream, config, terms.timeout, check).await?;
        Ok(Self::of_tls(socket, greeting, terms.maps_users))
    }

    pub(super) fn of_tls(socket: TlsSocket, greeting: Greeting, maps_users: bool) -> Self {
        let encryption = Encryption {
            first: greeting == Greeting::Due,
            ..socket.agreed()
        };
        let peer = match maps_users {
            true => socket.peer_identity().map(Arc::new),
            false => None,
        };
        let (reader, writer) = socket.into_split();
        Self {
            reader: Reader::Tls(reader),
            wire: Box::new(TlsWire(writer)),
            greeting,
            carrier: Carrier {
                websocket: false,
                encryption: Some(encryption),
            },
            peer,
            source: None,
        }
    }
}

/// The first byte that comes, which stays where it is.
async fn first_byte(stream: &TcpStream, at_most: Duration) -> Result<u8, HandshakeError> {
    let mut byte = [0];
    let read = timeout(at_most, stream.peek(&mut byte)).await;
    match read.map_err(|_| HandshakeError::Timeout)?? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ => Ok(byte[0]),
    }
}
