//! Why a connection ended.

use std::fmt;

/// Why a connection ended, as monitoring shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client went away.
    ClientClosed,
    /// Credentials were wrong or missing.
    AuthenticationFailure,
    /// No `CONNECT` came in time.
    AuthenticationTimeout,
    /// The connection could not be encrypted.
    TlsHandshakeFailure,
    /// More bytes waited for the client than allowed.
    SlowConsumerPendingBytes,
    /// The client did not take its bytes in time.
    SlowConsumerWriteDeadline,
    /// The socket could not be read.
    ReadError,
    /// The socket could not be written.
    WriteError,
    /// An `-ERR` from the client: the reference calls that so.
    ParseError,
    /// Bytes that break the protocol or are none of its operations.
    ProtocolViolation,
    /// A protocol level that does not exist.
    BadClientProtocolVersion,
    /// Pings went unanswered.
    StaleConnection,
    /// The server has as many connections as it may have.
    MaxConnectionsExceeded,
    /// The account has as many connections as it may have.
    MaxAccountConnectionsExceeded,
    /// The client holds more subscriptions than it may.
    MaxSubscriptionsExceeded,
    /// A message larger than allowed.
    MaxPayloadExceeded,
    /// A line longer than allowed.
    MaxControlLineExceeded,
    /// No responders were asked for without headers.
    NoRespondersRequiresHeaders,
    /// The server is shutting down.
    ServerShutdown,
    /// A client on the port for routes.
    WrongPort,
    /// The other server has the name of this one.
    DuplicateServerName,
    /// A route for an account that is not here.
    MissingAccount,
    /// There is a route for the same purpose already.
    DuplicateRoute,
    /// The configuration does not want this route any more.
    RouteRemoved,
    /// The other server is of another cluster.
    ClusterNameConflict,
    /// Somebody asked the server to close it.
    Kicked,
}

impl CloseReason {
    /// Whether the connection did not keep up.
    pub fn is_slow_consumer(self) -> bool {
        matches!(
            self,
            Self::SlowConsumerPendingBytes | Self::SlowConsumerWriteDeadline
        )
    }

    /// Whether what still waits for the client is worth sending.
    pub fn flushes(self) -> bool {
        !matches!(
            self,
            Self::SlowConsumerPendingBytes
                | Self::SlowConsumerWriteDeadline
                | Self::ReadError
                | Self::WriteError
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientClosed => "Client Closed",
            Self::AuthenticationFailure => "Authentication Failure",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::TlsHandshakeFailure => "TLS Handshake Failure",
            Self::SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            Self::SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            Self::ReadError => "Read Error",
            Self::WriteError => "Write Error",
            Self::ParseError => "Parse Error",
            Self::ProtocolViolation => "Protocol Violation",
            Self::BadClientProtocolVersion => "Bad Client Protocol Version",
            Self::StaleConnection => "Stale Connection",
            Self::MaxConnectionsExceeded => "Maximum Connections Exceeded",
            Self::MaxAccountConnectionsExceeded => "Maximum Account Connections Exceeded",
            Self::MaxSubscriptionsExceeded => "Maximum Subscriptions Exceeded",
            Self::MaxPayloadExceeded => "Maximum Message Payload Exceeded",
            Self::MaxControlLineExceeded => "Maximum Control Line Exceeded",
            Self::NoRespondersRequiresHeaders => "No Responders Requires Headers",
            Self::ServerShutdown => "Server Shutdown",
            Self::WrongPort => "Incorrect Port",
            Self::DuplicateServerName => "Duplicate Server Name",
            Self::MissingAccount => "Missing Account",
            Self::DuplicateRoute => "Duplicate Route",
            Self::RouteRemoved => "Route Removed",
            Self::ClusterNameConflict => "Cluster Name Conflict",
            Self::Kicked => "Kicked",
        })
    }
}
