//! Connections that speak WebSocket: how they begin, and the two halves behind that.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::authentication::Authenticator;
use super::entrance::Entrance;
use super::transport::{Greeting, Reader, Transport};
use crate::broker::{Broker, Carrier, CloseReason, Wire};
use crate::config::options::{
    ConnectionType, CredentialCookies, Options, PeerCertificate, WebSocketOptions,
};
use crate::protocol::ConnectRequest;
use crate::subject::InvalidSubject;
use crate::tls::ocsp::{PeerCheck, PeerKind};
use crate::tls::{self, Encryption, HandshakeError, ServerConfig};
use crate::websocket::{
    Control, Decoder, Encoder, Limits, Origins, Path, Refusal, Shape, Terms, Upgrade, Violation,
    close_frame, control_frame,
};

/// The upgrade takes no longer than this when the file says nothing.
const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Bytes that become one message.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes read from the socket at a time, at first and at most.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// What holds for the WebSocket listener.
#[derive(Debug, Clone)]
pub struct WebSocketTerms {
    pub(super) entrance: Entrance,
    terms: Terms,
    tls: Option<Arc<ServerConfig>>,
    /// What asks whether peers' certificates have been revoked.
    peer_check: Option<Arc<PeerCheck>>,
    /// Whether a client is the user that its certificate names.
    maps_users: bool,
    handshake_timeout: Duration,
    cookies: CredentialCookies,
    limits: Limits,
}

/// Why a WebSocket connection did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("websocket handshake error: {0}")]
    Refused(#[from] Refusal),
    #[error("websocket handshake error: {0}")]
    Socket(#[from] io::Error),
    #[error("websocket handshake error: timeout")]
    Timeout,
}

impl WebSocketTerms {
    /// What the options say, with the certificates they name.
    pub fn new(
        options: &Options,
        own: &WebSocketOptions,
        usual: &Arc<Authenticator>,
        broker: &Broker,
    ) -> Result<Self, WebSocketError> {
        let tls = own.tls.as_ref().map(tls::server_config).transpose()?;
        let check = |tls| tls::peer_check(tls, PeerKind::Client);
        let peer_check = own.tls.as_ref().map(check).transpose()?.flatten();
        let maps_users = own.tls.as_ref().is_some_and(|tls| tls.maps_users);
        let authenticator = match Authenticator::of_listener(options, &own.authorization, broker)? {
            Some(authenticator) => Arc::new(authenticator.with_certificates(maps_users)),
            None if maps_users == usual.maps_certificates() => Arc::clone(usual),
            None => Arc::new(Authenticator::new(options, broker)?.with_certificates(maps_users)),
        };
        let authentication_timeout = match own.authorization.required() {
            true => own.authorization.timeout,
            false => options.authentication_timeout(),
        };
        Ok(Self {
            entrance: Entrance {
                kind: ConnectionType::WebSocket,
                authenticator,
                authentication_timeout,
                ping_interval: own.ping_interval.unwrap_or(options.timing.ping_interval),
                tls_required: tls.is_some(),
            },
            terms: Terms {
                origins: Origins {
                    same: own.same_origin,
                    allowed: own.allowed_origins.clone(),
                },
                compression: own.compression,
                encrypted: tls.is_some(),
                headers: own.headers.clone(),
            },
            tls,
            peer_check,
            maps_users,
            handshake_timeout: own.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT_DEFAULT),
            cookies: own.cookies.clone(),
            limits: Limits {
                // A message may be a whole operation: its line, its payload, and the line's end.
                compressed_bytes_max: options.limits.payload_bytes_max
                    + options.limits.control_line_bytes_max
                    + 2,
                compression: own.compression,
                masked: true,
            },
        })
    }

    /// Whether clients must show a certificate here.
    pub fn verifies(own: &WebSocketOptions) -> bool {
        let tls = own.tls.as_ref();
        tls.is_some_and(|tls| tls.peer_certificate == PeerCertificate::Required)
    }

    /// Encrypts where that is to be, and upgrades; says what the peer's cookies tell of who it is.
    pub(super) async fn open(
        &self,
        stream: TcpStream,
    ) -> Result<(Transport, ConnectRequest), OpenError> {
        let mut transport = match &self.tls {
            Some(config) => {
                let config = Arc::clone(config);
                let (at_most, check) = (self.handshake_timeout, self.peer_check.as_ref());
                let socket = tls::accept_checked(stream, config, at_most, check).await?;
                Transport::of_tls(socket, Greeting::Due, self.maps_users)
            }
            None => Transport::plain(stream, Greeting::Due),
        };
        let upgrading = timeout(self.handshake_timeout, self.upgrade(&mut transport)).await;
        let upgrade = upgrading.map_err(|_| OpenError::Timeout)??;
        let preset = self.credentials(&upgrade);
        let shared = Arc::new(Shared {
            wire: transport.wire,
            state: Mutex::new(Outgoing {
                encoder: Encoder::new(upgrade.shape),
                scratch: Vec::new(),
                held: BytesMut::new(),
            }),
        });
        let reader = WebSocketReader {
            inner: transport.reader,
            decoder: Decoder::new(self.limits_for(upgrade.shape)),
            raw: BytesMut::new(),
            controls: Vec::new(),
            shared: Arc::clone(&shared),
            ended: false,
        };
        let transport = Transport {
            reader: Reader::WebSocket(Box::new(reader)),
            wire: Box::new(WebSocketWire(shared)),
            greeting: Greeting::Due,
            carrier: Carrier {
                websocket: true,
                // Nothing is ever said in plain text before: that is nothing to tell.
                encryption: transport.carrier.encryption.map(|agreed| Encryption {
                    first: false,
                    ..agreed
                }),
            },
            peer: transport.peer,
            source: None,
        };
        Ok((transport, preset))
    }

    fn limits_for(&self, shape: Shape) -> Limits {
        Limits {
            compression: shape.compression,
            ..self.limits
        }
    }

    async fn upgrade(&self, transport: &mut Transport) -> Result<Upgrade, OpenError> {
        let mut request = BytesMut::with_capacity(READ_BYTES_MIN);
        let refusal = loop {
            if transport.reader.read_buf(&mut request).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match Upgrade::parse(&request, &self.terms) {
                Ok(None) => {}
                Ok(Some((_, length))) if length < request.len() => {
                    break Refusal {
                        status: 400,
                        reason: "client sent data before handshake is complete",
                    };
                }
                Ok(Some((upgrade, _))) if upgrade.path == Path::Client => {
                    write_all(&*transport.wire, &upgrade.response(&self.terms)).await?;
                    return Ok(upgrade);
                }
                Ok(Some(_)) => {
                    break Refusal {
                        status: 404,
                        reason: "nothing listens at that path",
                    };
                }
                Err(refusal) => break refusal,
            }
        };
        // The peer may be gone already; it is refused all the same.
        let _ = write_all(&*transport.wire, &refusal.response()).await;
        transport.wire.shutdown();
        Err(refusal.into())
    }

    fn credentials(&self, upgrade: &Upgrade) -> ConnectRequest {
        let cookie = |name: &Option<String>| {
            let found = upgrade.cookie(name.as_deref()?)?;
            Some(found.to_owned())
        };
        ConnectRequest {
            jwt: cookie(&self.cookies.jwt),
            user: cookie(&self.cookies.user),
            pass: cookie(&self.cookies.password),
            auth_token: cookie(&self.cookies.token),
            ..ConnectRequest::default()
        }
    }
}

/// Why there is no WebSocket listener.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A permission names no subject.
    #[error("Authorization: {0}")]
    Permissions(#[from] InvalidSubject),
}

async fn write_all(wire: &dyn Wire, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match wire.try_write(&[IoSlice::new(bytes)]) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|context| wire.poll_writable(context)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    loop {
        match wire.try_flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|context| wire.poll_writable(context)).await?;
            }
            flushed => return flushed,
        }
    }
}

/// The socket, and what is on its way there.
struct Shared {
    wire: Box<dyn Wire>,
    state: Mutex<Outgoing>,
}

struct Outgoing {
    encoder: Encoder,
    scratch: Vec<u8>,
    /// Frames that the socket has not taken yet: no more is made while there are any.
    held: BytesMut,
}

impl Shared {
    fn flush(&self, state: &mut Outgoing) -> io::Result<()> {
        while !state.held.is_empty() {
            let written = self.wire.try_write(&[IoSlice::new(&state.held)])?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes::Buf::advance(&mut state.held, written);
        }
        if state.held.capacity() > MESSAGE_BYTES_MAX {
            state.held = BytesMut::new();
        }
        Ok(())
    }

    /// Says something between the data, unless the socket is so full that it has to be left out.
    fn say(&self, put: impl FnOnce(&mut BytesMut)) {
        let mut state = self.state.lock();
        if state.held.len() < MESSAGE_BYTES_MAX {
            put(&mut state.held);
        }
        // What does not fit waits for the next write.
        let _ = self.flush(&mut state);
    }
}

struct WebSocketWire(Arc<Shared>);

impl Wire for WebSocketWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        self.0.flush(&mut state)?;
        let Outgoing {
            encoder,
            scratch,
            held,
        } = &mut *state;
        scratch.clear();
        for slice in slices {
            let room = MESSAGE_BYTES_MAX - scratch.len();
            scratch.extend_from_slice(slice.get(..room).unwrap_or(slice));
            if scratch.len() == MESSAGE_BYTES_MAX {
                break;
            }
        }
        let taken = scratch.len();
        encoder.encode(scratch, held);
        match self.0.flush(&mut state) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        self.0.flush(&mut self.0.state.lock())?;
        self.0.wire.try_flush()
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wire.poll_writable(context)
    }

    fn farewell(&self, reason: CloseReason) {
        let (status, text) = (status_of(reason), reason.to_string());
        self.0.say(|held| close_frame(held, status, &text));
    }

    fn shutdown(&self) {
        self.0.wire.shutdown();
    }
}

/// How the end is called in a close frame (RFC 6455, section 7.4.1).
fn status_of(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::ClientClosed => 1000,
        CloseReason::AuthenticationTimeout
        | CloseReason::AuthenticationFailure
        | CloseReason::TlsHandshakeFailure
        | CloseReason::SlowConsumerPendingBytes
        | CloseReason::SlowConsumerWriteDeadline
        | CloseReason::MaxAccountConnectionsExceeded
        | CloseReason::MaxConnectionsExceeded
        | CloseReason::MaxSubscriptionsExceeded
        | CloseReason::MaxControlLineExceeded
        | CloseReason::NoRespondersRequiresHeaders => 1008,
        CloseReason::ParseError
        | CloseReason::ProtocolViolation
        | CloseReason::BadClientProtocolVersion => 1002,
        CloseReason::MaxPayloadExceeded => 1009,
        CloseReason::ReadError
        | CloseReason::WriteError
        | CloseReason::StaleConnection
        | CloseReason::ServerShutdown => 1001,
        // Of routes only.
        CloseReason::DuplicateRoute
        | CloseReason::RouteRemoved
        | CloseReason::ClusterNameConflict
        | CloseReason::WrongPort
        | CloseReason::DuplicateServerName
        | CloseReason::MissingAccount => 1000,
        CloseReason::Kicked => 1011,
    }
}

/// The reading half: what comes out is what the frames mean.
pub(super) struct WebSocketReader {
    inner: Reader,
    decoder: Decoder,
    raw: BytesMut,
    controls: Vec<Control>,
    shared: Arc<Shared>,
    ended: bool,
}

impl WebSocketReader {
    /// Appends what the peer said to the buffer, waiting for the first byte of it; 0 is the end. When the call is dropped nothing is lost.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let before = buffer.len();
        while !self.ended {
            let room = (self.raw.capacity() * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            if self.raw.capacity() == 0 {
                self.raw.reserve(READ_BYTES_MIN);
            }
            let read = Box::pin(self.inner.read_buf(&mut self.raw)).await?;
            if read == 0 {
                self.ended = true;
                break;
            }
            let fed = self.decoder.feed(&self.raw, buffer, &mut self.controls);
            // A full read asks for more room next time, a short one gives it back.
            if read == self.raw.capacity() && room > self.raw.capacity() {
                self.raw = BytesMut::with_capacity(room);
            } else if read < self.raw.capacity() / 8 && self.raw.capacity() > READ_BYTES_MIN {
                self.raw = BytesMut::new();
            } else {
                self.raw.clear();
            }
            self.answer();
            fed.map_err(|violation| io::Error::new(io::ErrorKind::InvalidData, violation))?;
            if buffer.len() > before {
                break;
            }
        }
        Ok(buffer.len() - before)
    }

    fn answer(&mut self) {
        for control in self.controls.drain(..) {
            match control {
                Control::Ping(payload) => {
                    self.shared.say(|held| control_frame(held, false, &payload));
                }
                Control::Pong => {}
                Control::Close(_) => self.ended = true,
            }
        }
    }
}

/// What ends a connection whose bytes could not be read.
pub(super) fn close_reason_of(error: &io::Error) -> Option<CloseReason> {
    let violation = error.get_ref()?.downcast_ref::<Violation>()?;
    Some(match violation {
        Violation::TooLong => CloseReason::MaxPayloadExceeded,
        _ => CloseReason::ProtocolViolation,
    })
}

/// How a connection that did not begin is told of in the log.
pub(super) fn log_refused(id: u64, address: SocketAddr, error: &OpenError) {
    tracing::error!("{address} - wid:{id} - {error}");
}
