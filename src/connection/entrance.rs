//! The way by which a client comes: what holds for all who connect to one listener.

use std::sync::Arc;
use std::time::Duration;

use super::authentication::Authenticator;
use crate::config::options::ConnectionType;

/// What holds for all clients of a listener.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    pub(super) kind: ConnectionType,
    pub(super) authenticator: Arc<Authenticator>,
    /// How long a client may take to say who it is.
    pub(super) authentication_timeout: Duration,
    /// Between the server's pings.
    pub(super) ping_interval: Duration,
    /// Whether its clients are encrypted, as they are told.
    pub(super) tls_required: bool,
}
