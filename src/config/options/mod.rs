//! The options the server runs with: defaults, then the configuration file, then the command line.
//!
//! [`report`] collects what is wrong with a file and reads single values, [`top`] walks the top level of the file,
//! [`authorization`], [`accounts`], [`users`], [`mappings`], [`cluster`], [`jetstream`], [`domains`], [`tls`], [`ocsp`], [`websocket`], [`monitoring`],
//! [`description`] and [`unsupported`] its parts, [`overrides`] lays the command line over it.

pub mod accounts;
pub mod authorization;
pub mod cluster;
pub mod description;
mod domains;
pub mod jetstream;
mod mappings;
pub mod monitoring;
pub mod ocsp;
mod overrides;
mod report;
pub mod sharing;
#[cfg(test)]
mod tests;
pub mod tls;
mod top;
mod unsupported;
pub mod users;
pub mod websocket;

pub use accounts::{AccountJetStream, AccountLimitOptions, AccountOptions, TraceOptions};
pub use authorization::{Authorization, Permissions, ResponsePermission, SubjectPermission};
pub use cluster::{ClusterOptions, Compression, RouteUrl};
pub use description::FeatureFlags;
pub use domains::DefaultDomain;
pub use jetstream::{
    AssetLimits, BatchOptions, EncryptionCipher, EncryptionOptions, JetStreamOptions,
    MetaCompaction, StoreLimit, SyncPolicy,
};
pub use monitoring::MonitorOptions;
pub use ocsp::{OcspCacheKind, OcspCacheOptions, OcspMode, OcspOptions, OcspPeerOptions};
pub use report::{OptionError, OptionProblem, Problems};
pub use tls::{HandshakeFirst, PeerCertificate, TlsOptions, TlsVersion};
pub use users::{ConnectionType, NkeyUser, User};
pub use websocket::{CredentialCookies, WebSocketOptions};

use authorization::AUTHORIZATION_TIMEOUT_DEFAULT;

use super::digest::config_digest;
use super::duration::format_duration;
use super::flags::Flags;
use super::parser::{ReadError, Surroundings, parse_file, parse_text};
use crate::subject::transform::Mappings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The client port of every NATS server.
pub const CLIENT_PORT_DEFAULT: u16 = 4222;
/// Largest protocol line that is not a payload.
pub const CONTROL_LINE_BYTES_DEFAULT: usize = 4096;
/// Largest message.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1 << 20;
/// Above this a larger message limit earns a warning.
pub const PAYLOAD_BYTES_ADVISED_MAX: usize = 8 << 20;
/// What may wait for one client before it counts as slow.
pub const PENDING_BYTES_DEFAULT: u64 = 64 << 20;
/// The account of the server itself, when the file names no other.
pub const SYSTEM_ACCOUNT_DEFAULT: &str = "$SYS";
/// Ended connections that monitoring still tells of.
pub const CLOSED_CLIENTS_DEFAULT: usize = 10_000;
/// Series of accounts, streams and consumers that one answer of `/metrics` shows.
pub const METRIC_SERIES_DEFAULT: usize = 50_000;
/// Connections at one time.
pub const CONNECTIONS_DEFAULT: u64 = 64 << 10;

/// A port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Any free port; written as -1.
    Random,
    /// This port.
    Fixed(u16),
}

impl Port {
    /// The number to bind: 0 asks the system for a free port.
    pub fn bind(self) -> u16 {
        match self {
            Port::Random => 0,
            Port::Fixed(port) => port,
        }
    }
}

/// How much a subsystem logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemLevel {
    /// The subsystem: a room of the server, as `connection`, or a part of one, as `jetstream::api`.
    pub subsystem: String,
    /// The least grave lines that it logs.
    pub level: LogLevel,
}

/// How grave a line is at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And what an operator wants to see.
    Info,
    /// And what helps to find a fault.
    Debug,
    /// And the protocol.
    Trace,
}

impl SubsystemLevel {
    /// Reads `subsystem=level`.
    pub fn parse(text: &str) -> Option<Self> {
        let (subsystem, level) = text.split_once('=')?;
        let level = match level.to_ascii_lowercase().as_str() {
            "error" => LogLevel::Error,
            "warn" | "warning" => LogLevel::Warning,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => return None,
        };
        let is_named = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        subsystem.split("::").all(is_named).then(|| Self {
            subsystem: subsystem.to_owned(),
            level,
        })
    }
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Lines tagged `[DBG]`.
    pub debug: bool,
    /// Lines tagged `[TRC]`: the protocol itself.
    pub trace: bool,
    /// Traces the system account as well.
    pub trace_verbose: bool,
    /// Of traced messages, show headers instead of payloads.
    pub trace_headers: bool,
    /// Date and time in front of each line.
    pub timestamps: bool,
    /// Date and time in UTC instead of local time.
    pub timestamps_utc: bool,
    /// The log file. Without one lines go to the remote syslog, to this machine's, or to standard error.
    pub file: Option<PathBuf>,
    /// This machine's syslog.
    pub syslog: bool,
    /// A remote syslog, as `scheme://address`.
    pub remote_syslog: Option<String>,
    /// Levels of single subsystems, laid over the others.
    pub levels: Vec<SubsystemLevel>,
    /// A log file that grew beyond this is put aside; 0 is never.
    pub file_bytes_max: u64,
    /// How many log files to keep, the current one included; 0 is all.
    pub files_max: u64,
    /// How much of a traced payload is shown; 0 is all.
    pub traced_message_bytes_max: usize,
}

/// What one client, and all together, may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOptions {
    /// Longest protocol line.
    pub control_line_bytes_max: usize,
    /// Largest message, headers included.
    pub payload_bytes_max: usize,
    /// What may wait for one client.
    pub pending_bytes_max: u64,
    /// Connections at one time; `None` is no limit, 0 admits nobody.
    pub connections_max: Option<u64>,
    /// Subscriptions per connection; `None` is no limit.
    pub subscriptions_max: Option<u64>,
    /// Tokens of a subscription's subject; `None` is no limit.
    pub subscription_tokens_max: Option<u8>,
    /// Ended connections that monitoring still tells of.
    pub closed_clients_max: usize,
    /// Series of accounts, streams and consumers that one answer of `/metrics` shows.
    pub metric_series_max: usize,
}

/// What happens when a socket takes too long for what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteTimeout {
    /// The connection is closed.
    Close,
    /// It is given as much time again, unless it has taken nothing at all.
    Retry,
}

impl WriteTimeout {
    /// As the configuration and monitoring call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Retry => "retry",
        }
    }
}

/// Timing of client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingOptions {
    /// Between the server's pings.
    pub ping_interval: Duration,
    /// Unanswered pings before a connection is stale.
    pub pings_outstanding_max: u32,
    /// How long one write to a client may take.
    pub write_deadline: Duration,
    /// What happens when it takes longer; clients are closed when nothing is said.
    pub write_timeout: Option<WriteTimeout>,
    /// How long the closing of clients in lame duck mode is spread over.
    pub lame_duck_duration: Duration,
    /// How long lame duck mode waits before it closes the first client.
    pub lame_duck_grace_period: Duration,
}

/// How often a dial that fails again and again is told of as an error: the first time, and then every so many attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialReports {
    /// While there has never been a connection.
    pub connect_every: u32,
    /// When there has been one.
    pub reconnect_every: u32,
}

impl Default for DialReports {
    fn default() -> Self {
        Self {
            connect_every: 3600,
            reconnect_every: 1,
        }
    }
}

/// Everything the operator decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Host for clients.
    pub host: String,
    /// Port for clients.
    pub port: Port,
    /// What clients are told instead of host and port; the port is the listener's where none is named.
    pub client_advertise: Option<(String, Option<u16>)>,
    /// The server's name; its id without one.
    pub server_name: Option<String>,
    /// What it says of itself, in lower case, for the placement of streams.
    pub server_tags: Vec<String>,
    /// What it says of itself besides, for people and their tools.
    pub server_metadata: BTreeMap<String, String>,
    /// Which features are on.
    pub feature_flags: FeatureFlags,
    /// Monitoring, when asked for.
    pub monitor: Option<MonitorOptions>,
    /// Where the profiler listens, when it is asked for.
    pub profiling_port: Option<Port>,
    /// Logging.
    pub log: LogOptions,
    /// Receives the process id.
    pub pid_file: Option<PathBuf>,
    /// Receives the addresses the server really listens on.
    pub ports_file_dir: Option<PathBuf>,
    /// Limits.
    pub limits: LimitOptions,
    /// Timing.
    pub timing: TimingOptions,
    /// A publisher is not slowed down when its subscribers fall behind.
    pub no_fast_producer_stall: bool,
    /// Headers are not offered to clients.
    pub no_header_support: bool,
    /// Clients may come through a proxy that says where they are.
    pub proxy_protocol: bool,
    /// How client connections are encrypted; they are not without it.
    pub tls: Option<TlsOptions>,
    /// With TLS, clients may do without all the same.
    pub allow_non_tls: bool,
    /// Whether certificates of listeners are shown with a proof that they have not been revoked.
    pub ocsp: Option<OcspOptions>,
    /// What is kept of the answers about peers' certificates.
    pub ocsp_cache: OcspCacheOptions,
    /// Who may connect, and is in the global account then.
    pub authorization: Authorization,
    /// Accounts besides the global one, and who is in each.
    pub accounts: Vec<AccountOptions>,
    /// What clients of the global account publish and goes elsewhere.
    pub mappings: Mappings,
    /// What clients who name no JetStream domain are taken to mean.
    pub default_domains: Vec<DefaultDomain>,
    /// The account of the server itself, when the file names one.
    pub system_account: Option<String>,
    /// The server has no account of its own: it tells nothing of itself over the protocol. JetStream brings one all the same.
    pub no_system_account: bool,
    /// How often a dial that fails is told of.
    pub dial_reports: DialReports,
    /// Where WebSocket clients connect, when the file says so.
    pub websocket: Option<WebSocketOptions>,
    /// The cluster; [`Options::cluster`] is the way to ask whether there is one.
    pub cluster: ClusterOptions,
    /// Streams; [`Options::jetstream`] is the way to ask whether they are wanted.
    pub jetstream: JetStreamOptions,
    /// The configuration file as named on the command line.
    pub config_file: Option<PathBuf>,
    /// The digest of the configuration file; empty without one.
    pub config_digest: String,
    /// What the file says in a way that it should not; to be shown, not to be obeyed.
    pub warnings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "0.0.0.0".into(),
            port: Port::Fixed(CLIENT_PORT_DEFAULT),
            client_advertise: None,
            server_name: None,
            server_tags: Vec::new(),
            server_metadata: BTreeMap::new(),
            feature_flags: FeatureFlags::default(),
            monitor: None,
            profiling_port: None,
            log: LogOptions {
                debug: false,
                trace: false,
                trace_verbose: false,
                trace_headers: false,
                timestamps: true,
                timestamps_utc: false,
                file: None,
                syslog: false,
                remote_syslog: None,
                levels: Vec::new(),
                file_bytes_max: 0,
                files_max: 0,
                traced_message_bytes_max: 0,
            },
            pid_file: None,
            ports_file_dir: None,
            limits: LimitOptions {
                control_line_bytes_max: CONTROL_LINE_BYTES_DEFAULT,
                payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
                pending_bytes_max: PENDING_BYTES_DEFAULT,
                connections_max: Some(CONNECTIONS_DEFAULT),
                subscriptions_max: None,
                subscription_tokens_max: None,
                closed_clients_max: CLOSED_CLIENTS_DEFAULT,
                metric_series_max: METRIC_SERIES_DEFAULT,
            },
            timing: TimingOptions {
                ping_interval: Duration::from_secs(120),
                pings_outstanding_max: 2,
                write_deadline: Duration::from_secs(10),
                write_timeout: None,
                lame_duck_duration: Duration::from_secs(120),
                lame_duck_grace_period: Duration::from_secs(10),
            },
            no_fast_producer_stall: false,
            no_header_support: false,
            proxy_protocol: false,
            tls: None,
            allow_non_tls: false,
            ocsp: None,
            ocsp_cache: OcspCacheOptions::default(),
            authorization: Authorization::default(),
            accounts: Vec::new(),
            mappings: Mappings::default(),
            default_domains: Vec::new(),
            system_account: None,
            no_system_account: false,
            dial_reports: DialReports::default(),
            websocket: None,
            cluster: ClusterOptions::default(),
            jetstream: JetStreamOptions::default(),
            config_file: None,
            config_digest: String::new(),
            warnings: Vec::new(),
        }
    }
}

/// Why the server cannot run with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Values in the file are wrong; every one of them is named.
    #[error(transparent)]
    Options(#[from] Problems),
    /// Options that are sound on their own contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl Options {
    /// The options of this command line and of the file it names.
    pub fn load(flags: &Flags, surroundings: &dyn Surroundings) -> Result<Self, ConfigError> {
        let mut options = match &flags.config {
            Some(path) => Options::from_file(Path::new(path), surroundings)?,
            None => Options::default(),
        };
        overrides::apply(&mut options, flags)?;
        ocsp::spread(&mut options);
        options.check()?;
        Ok(options)
    }

    /// The options of a configuration file.
    pub fn from_file(path: &Path, surroundings: &dyn Surroundings) -> Result<Self, ConfigError> {
        let map = parse_file(path, surroundings)?;
        let mut options = Options::from_map(&map)?;
        if map.is_empty() {
            let warning = format!("{}: config has no values or is empty", path.display());
            options.warnings.push(warning);
        }
        options.config_file = Some(path.to_owned());
        Ok(options)
    }

    /// The options of configuration text.
    pub fn from_text(text: &str, surroundings: &dyn Surroundings) -> Result<Self, ConfigError> {
        let mut options = Options::from_map(&parse_text(text, surroundings)?)?;
        ocsp::spread(&mut options);
        options.check()?;
        Ok(options)
    }

    fn from_map(map: &super::value::Map) -> Result<Self, ConfigError> {
        let mut options = top::read(map)?;
        options.config_digest = config_digest(map);
        Ok(options)
    }

    /// The JetStream options, if JetStream is on.
    pub fn jetstream(&self) -> Option<&JetStreamOptions> {
        self.jetstream.enabled.then_some(&self.jetstream)
    }

    /// The cluster's options, if this server is in one.
    pub fn cluster(&self) -> Option<&ClusterOptions> {
        self.cluster.port.is_some().then_some(&self.cluster)
    }

    /// Whether the options go together.
    fn check(&self) -> Result<(), ConfigError> {
        let contradiction = |reason: String| Err(ConfigError::Contradiction(reason));
        let timing = &self.timing;
        if timing.lame_duck_grace_period >= timing.lame_duck_duration {
            return contradiction(format!(
                "lame duck grace period ({}) should be strictly lower than lame duck duration ({})",
                format_duration(timing.lame_duck_grace_period),
                format_duration(timing.lame_duck_duration),
            ));
        }
        let limits = &self.limits;
        if limits.payload_bytes_max as u64 > limits.pending_bytes_max {
            return contradiction(format!(
                "max_payload ({}) cannot be higher than max_pending ({})",
                limits.payload_bytes_max, limits.pending_bytes_max,
            ));
        }
        if let Some(name) = &self.server_name
            && name.contains(' ')
        {
            return contradiction("server name cannot contain spaces".into());
        }
        self.authorization
            .check()
            .and_then(|()| accounts::check(self))
            .and_then(|()| match &self.monitor {
                Some(monitor) => monitor.check(self),
                None => Ok(()),
            })
            .and_then(|()| ocsp::check(self))
            .and_then(|()| domains::check(self))
            .and_then(|()| websocket::check(self))
            .and_then(|()| {
                let name = self.server_name.as_deref();
                self.cluster.check(self.jetstream.enabled, name)
            })
            .map_err(ConfigError::Contradiction)
    }

    /// How long a client may take to say who it is. Where it has to encrypt first and nothing else is said, it may take as
    /// long as the handshake and a second.
    pub fn authentication_timeout(&self) -> Duration {
        match &self.tls {
            Some(tls) if self.authorization.timeout == AUTHORIZATION_TIMEOUT_DEFAULT => {
                tls.timeout + Duration::from_secs(1)
            }
            _ => self.authorization.timeout,
        }
    }

    /// The name of the server's own account.
    pub fn system_account(&self) -> &str {
        self.system_account
            .as_deref()
            .unwrap_or(SYSTEM_ACCOUNT_DEFAULT)
    }

    /// Whether the server has an account of its own.
    pub fn has_system_account(&self) -> bool {
        !self.no_system_account || self.system_account.is_some() || self.jetstream.enabled
    }

    /// Whether a client must say who it is.
    pub fn authorization_required(&self) -> bool {
        self.authorization.required() || self.accounts.iter().any(AccountOptions::has_users)
    }

    /// The user that a client without credentials is taken for; `None` when there is none.
    pub fn no_auth_user(&self) -> Option<&str> {
        self.authorization.no_auth_user.as_deref()
    }

    /// Whether somebody who reads the configuration could log in.
    pub fn holds_plain_passwords(&self) -> bool {
        let mut users = self.accounts.iter().flat_map(|account| &account.users);
        self.authorization.holds_plain_passwords() || users.any(User::has_plain_password)
    }

    /// Whether clients without credentials are admitted to the global account although somebody has to say who it is:
    /// with users for the system account alone, everybody else goes on as before.
    pub fn only_system_has_users(&self) -> bool {
        !self.authorization.required()
            && self.no_auth_user().is_none()
            && self
                .accounts
                .iter()
                .all(|account| account.name == self.system_account())
    }
}
