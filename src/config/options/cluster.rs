//! The `cluster` block: where other servers of the cluster connect, and where this one connects to.

use super::super::value::Value;
use super::authorization::{self, Permissions};
use super::report::{Field, Report, in_file_order};
use super::tls::{self, TlsOptions};
use super::{Port, SubjectPermission, WriteTimeout, top};
use std::time::Duration;

/// Connections to each server of the cluster, the ones of single accounts aside.
pub const POOL_SIZE_DEFAULT: u32 = 3;
/// More connections to one server than this are not believed to be meant.
pub const POOL_SIZE_MAX: u32 = 1024;
/// How long a server may take to say who it is.
pub const ROUTE_AUTHORIZATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// Routes are asked for a sign of life at least this often.
pub const ROUTE_PING_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Up to these round trips nothing is compressed, little effort is made, and more.
pub const ROUND_TRIPS_DEFAULT: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
];
const ROUTE_PORT_DEFAULT: u16 = 6222;

/// Where a server of the cluster is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteUrl {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user to connect as.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

/// How what is sent over a route is compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As if nothing were known of compression.
    NotSupported,
    /// Not at all.
    Off,
    /// As the other side wishes.
    #[default]
    Accept,
    /// With little effort.
    Fast,
    /// With more effort.
    Better,
    /// With all effort.
    Best,
    /// By the round trip: the longer it is, the more effort. The thresholds stand between the levels.
    Auto(Vec<Duration>),
}

/// What the `cluster` block and its flags say.
#[derive(Clone, PartialEq)]
pub struct ClusterOptions {
    /// The cluster's name; made up without one.
    pub name: Option<String>,
    /// Host for routes.
    pub host: String,
    /// Port for routes; there are none without it.
    pub port: Option<Port>,
    /// Where other servers are told that this one listens: host, and a port unless it is the listener's.
    pub advertise: Option<(String, Option<u16>)>,
    /// Clients are not told of the other servers.
    pub no_advertise: bool,
    /// The servers that are dialled.
    pub routes: Vec<RouteUrl>,
    /// The user that other servers must name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// How long a server may take to say who it is.
    pub authorization_timeout: Duration,
    /// Which interest is passed on to other servers; all without it.
    pub import: Option<SubjectPermission>,
    /// Which interest of other servers is taken; all without it.
    pub export: Option<SubjectPermission>,
    /// How routes are encrypted; they are not without it.
    pub tls: Option<TlsOptions>,
    /// How often a server is dialled again that another one told of.
    pub connect_retries: u32,
    /// Whether the pauses between dials grow.
    pub connect_backoff: bool,
    /// Connections to each server; `None` is a single one, as servers before pools have it.
    pub pool_size: Option<u32>,
    /// Accounts with connections of their own.
    pub accounts: Vec<String>,
    /// Compression.
    pub compression: Compression,
    /// Between pings; the clients' without it.
    pub ping_interval: Option<Duration>,
    /// Unanswered pings before a route is stale; the clients' without it.
    pub pings_outstanding_max: Option<u32>,
    /// How long one write to a server may take; the clients' without it.
    pub write_deadline: Option<Duration>,
    /// What happens when a write to another server takes longer.
    pub write_timeout: Option<WriteTimeout>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            name: None,
            host: "0.0.0.0".into(),
            port: None,
            advertise: None,
            no_advertise: false,
            routes: Vec::new(),
            user: None,
            password: None,
            authorization_timeout: ROUTE_AUTHORIZATION_TIMEOUT_DEFAULT,
            import: None,
            export: None,
            tls: None,
            connect_retries: 0,
            connect_backoff: false,
            pool_size: Some(POOL_SIZE_DEFAULT),
            accounts: Vec::new(),
            compression: Compression::default(),
            ping_interval: None,
            pings_outstanding_max: None,
            write_deadline: None,
            write_timeout: None,
        }
    }
}

impl std::fmt::Debug for ClusterOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClusterOptions")
            .field("name", &self.name)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl ClusterOptions {
    /// Whether the parts go together.
    pub(super) fn check(&self, jetstream: bool, server_name: Option<&str>) -> Result<(), String> {
        if !self.routes.is_empty() && self.port.is_none() {
            return Err("solicited routes require cluster capabilities, e.g. --cluster".into());
        }
        if !self.accounts.is_empty() && self.pool_size.is_none() {
            return Err("pool_size cannot be set to -1 if pinned accounts are configured".into());
        }
        if self.port.is_some() && jetstream {
            if server_name.is_none() {
                return Err("jetstream cluster requires `server_name` to be set".into());
            }
            if self.name.is_none() {
                return Err("jetstream cluster requires `cluster.name` to be set".into());
            }
            if self.routes.is_empty() {
                return Err("JetStream cluster requires configured routes".into());
            }
        }
        Ok(())
    }
}

/// Reads the block.
pub(super) fn read(target: &mut ClusterOptions, field: &Field<'_>, report: &mut Report) {
    let Some(map) = field.map(report) else {
        return;
    };
    for member in in_file_order(map) {
        let key = member.key();
        let known = places(target, &key, &member, report) || manners(target, &key, &member, report);
        if !known {
            member.unknown(report);
        }
    }
}

fn places(target: &mut ClusterOptions, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    match key {
        "name" => match field.string(report) {
            Some(name) if name.contains(char::is_whitespace) => {
                field.invalid(report, "cluster name cannot contain spaces or new lines");
            }
            name => target.name = name.filter(|name| !name.is_empty()),
        },
        "listen" => {
            if let Some((host, port)) = field.listen(report) {
                target.host = host.unwrap_or_else(|| std::mem::take(&mut target.host));
                target.port = listening(port);
            }
        }
        "host" | "net" => {
            if let Some(host) = field.string(report) {
                target.host = host;
            }
        }
        "port" => {
            let port = field.integer(report).and_then(|n| field.port(report, n));
            target.port = port.and_then(listening);
        }
        "advertise" | "cluster_advertise" => {
            if let Some(text) = field.string(report).filter(|text| !text.is_empty()) {
                match parse_advertise(&text) {
                    Some(advertise) => target.advertise = Some(advertise),
                    None => field.invalid(report, format!("{text:?} is not host or host:port")),
                }
            }
        }
        "routes" => {
            for text in field.strings(report).unwrap_or_default() {
                match parse_route(&text) {
                    Ok(route) if target.routes.contains(&route) => {
                        let reason = format!("Duplicate route entry detected: {text}");
                        report.warn(&field.node.position, field.name, reason);
                    }
                    Ok(route) => target.routes.push(route),
                    Err(reason) => field.invalid(report, reason),
                }
            }
        }
        _ => return false,
    }
    true
}

fn manners(target: &mut ClusterOptions, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    match key {
        "authorization" => authorization(target, field, report),
        "permissions" => {
            let permissions = authorization::permissions(field, report);
            permit(target, permissions, field, report);
        }
        "tls" => target.tls = tls::read_mutual(field, report),
        "no_advertise" => target.no_advertise = field.bool(report) == Some(true),
        "connect_retries" => {
            let retries = field.within(report, 0, i64::from(i32::MAX));
            target.connect_retries = retries.unwrap_or(target.connect_retries);
        }
        "connect_backoff" => target.connect_backoff = field.bool(report) == Some(true),
        "pool_size" => {
            if let Some(size) = field.within::<i64>(report, -1, i64::from(POOL_SIZE_MAX)) {
                target.pool_size = match size {
                    -1 => None,
                    0 => Some(POOL_SIZE_DEFAULT),
                    size => u32::try_from(size).ok(),
                };
            }
        }
        "accounts" => target.accounts = field.strings(report).unwrap_or_default(),
        "compression" => {
            if let Some(compression) = compression(field, report) {
                target.compression = compression;
            }
        }
        "ping_interval" => {
            let interval = field.duration(report);
            if interval.is_some_and(|interval| interval > ROUTE_PING_INTERVAL_MAX) {
                let reason =
                    "Cluster 'ping_interval' will reset to 30s which is the max for routes";
                report.warn(&field.node.position, field.name, reason.into());
            }
            target.ping_interval = interval
                .map(|interval| interval.min(ROUTE_PING_INTERVAL_MAX))
                .filter(|interval| !interval.is_zero());
        }
        "ping_max" => {
            let most = field.within(report, 0, i64::from(i32::MAX));
            target.pings_outstanding_max = most.filter(|most| *most > 0);
        }
        "write_deadline" => {
            let deadline = field.duration(report);
            target.write_deadline = deadline.filter(|deadline| !deadline.is_zero());
        }
        "write_timeout" => target.write_timeout = top::write_timeout(field, report),
        _ => return false,
    }
    true
}

/// Port 0 is the port that routes have by custom.
fn listening(port: Port) -> Option<Port> {
    Some(match port {
        Port::Fixed(0) => Port::Fixed(ROUTE_PORT_DEFAULT),
        port => port,
    })
}

fn authorization(target: &mut ClusterOptions, field: &Field<'_>, report: &mut Report) {
    let Some(map) = field.map(report) else {
        return;
    };
    for member in in_file_order(map) {
        match member.key().as_str() {
            "user" | "username" => {
                target.user = member.string(report).filter(|user| !user.is_empty());
            }
            "pass" | "password" => {
                target.password = member.string(report).filter(|word| !word.is_empty());
            }
            "timeout" => {
                if let Some(timeout) = authorization::timeout(&member, report) {
                    target.authorization_timeout = timeout;
                }
            }
            "permissions" => {
                let permissions = authorization::permissions(&member, report);
                permit(target, permissions, &member, report);
            }
            "token" => member.invalid(report, "Cluster authorization does not support tokens"),
            "users" => member.invalid(
                report,
                "Cluster authorization does not allow multiple users",
            ),
            "auth_callout" | "auth_hook" => {
                member.invalid(report, "Cluster authorization does not support callouts");
            }
            _ => member.unknown(report),
        }
    }
}

fn permit(
    target: &mut ClusterOptions,
    permissions: Option<Permissions>,
    field: &Field<'_>,
    report: &mut Report,
) {
    let Some(permissions) = permissions else {
        return;
    };
    if permissions.responses.is_some() {
        field.invalid(report, "permissions of routes cannot allow responses");
    }
    target.import = permissions.publish;
    target.export = permissions.subscribe;
}

fn compression(field: &Field<'_>, report: &mut Report) -> Option<Compression> {
    match field.value() {
        Value::Bool(true) => Some(Compression::Fast),
        Value::Bool(false) => Some(Compression::Off),
        Value::String(word) => {
            let mode = compression_mode(word);
            if mode.is_none() {
                field.invalid(report, format!("unsupported compression mode {word:?}"));
            }
            mode
        }
        Value::Map(map) => {
            let mut mode = Compression::Auto(ROUND_TRIPS_DEFAULT.into());
            let mut thresholds = Vec::new();
            for member in in_file_order(map) {
                match member.key().as_str() {
                    "mode" => {
                        let word = member.string(report)?;
                        match compression_mode(&word) {
                            Some(named) => mode = named,
                            None => member
                                .invalid(report, format!("unsupported compression mode {word:?}")),
                        }
                    }
                    "rtt_thresholds" | "thresholds" | "rtts" | "rtt" => {
                        thresholds = round_trips(&member, report)?;
                    }
                    _ => member.unknown(report),
                }
            }
            match &mut mode {
                Compression::Auto(known) if !thresholds.is_empty() => *known = thresholds,
                _ => {}
            }
            Some(mode)
        }
        _ => {
            field.wrong_type(report, "a boolean, a string or a map");
            None
        }
    }
}

fn compression_mode(word: &str) -> Option<Compression> {
    Some(match word.to_ascii_lowercase().as_str() {
        "not supported" | "not_supported" => Compression::NotSupported,
        "disabled" | "disable" | "off" | "false" => Compression::Off,
        "accept" => Compression::Accept,
        "enabled" | "enable" | "on" | "true" | "fast" | "s2_fast" => Compression::Fast,
        "better" | "s2_better" => Compression::Better,
        "best" | "s2_best" => Compression::Best,
        "auto" | "s2_auto" => Compression::Auto(ROUND_TRIPS_DEFAULT.into()),
        _ => return None,
    })
}

/// One to three durations, each later one longer than those before; 0 leaves a level out.
fn round_trips(field: &Field<'_>, report: &mut Report) -> Option<Vec<Duration>> {
    let texts = field.strings(report)?;
    let mut thresholds: Vec<Duration> = Vec::new();
    for text in &texts {
        let nanoseconds = match super::super::duration::parse_nanoseconds(text) {
            Ok(nanoseconds) => u64::try_from(nanoseconds).ok(),
            Err(_) => None,
        };
        let threshold = nanoseconds.map(Duration::from_nanos);
        let longest = thresholds.iter().max().copied().unwrap_or_default();
        match threshold {
            Some(threshold) if threshold.is_zero() || threshold > longest => {
                thresholds.push(threshold);
            }
            _ => {
                field.invalid(
                    report,
                    format!("round trip threshold {text:?} is no duration or out of order"),
                );
                return None;
            }
        }
    }
    let useful = thresholds.iter().any(|threshold| !threshold.is_zero());
    if thresholds.len() > 3 || !useful {
        field.invalid(report, "one to three round trip thresholds are needed");
        return None;
    }
    Some(thresholds)
}

/// `nats-route://[user[:password]@]host[:port]`.
pub(crate) fn parse_route(text: &str) -> Result<RouteUrl, String> {
    let wrong = || format!("error parsing route url {:?}", redacted(text));
    let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "nats-route" | "nats" | "tls") {
        return Err(wrong());
    }
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let (host, port) = parse_advertise(place).ok_or_else(wrong)?;
    let (user, password) =
        match credentials.map(|words| words.split_once(':').unwrap_or((words, ""))) {
            Some((user, password)) => (unescape(user), unescape(password)),
            None => (None, None),
        };
    Ok(RouteUrl {
        host,
        port: port.unwrap_or(ROUTE_PORT_DEFAULT),
        user,
        password,
    })
}

/// Whatever stands before the host is not for a log.
fn redacted(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = match escaped {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

/// `host` or `host:port`, with IPv6 addresses in brackets.
pub(super) fn parse_advertise(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return None,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_name_a_host_and_perhaps_a_port_and_a_user() {
        let route = parse_route("nats-route://a%40b:p%3Aw@[::1]:6000/").unwrap();
        assert_eq!((route.host.as_str(), route.port), ("::1", 6000));
        assert_eq!(route.user.as_deref(), Some("a@b"));
        assert_eq!(route.password.as_deref(), Some("p:w"));
        let route = parse_route("nats://host").unwrap();
        assert_eq!((route.host.as_str(), route.port), ("host", 6222));
        assert_eq!(route.user, None);
        for wrong in [
            "host:1",
            "http://a:1",
            "nats://",
            "nats://a:x",
            "nats://u:p@:1",
        ] {
            let refused = parse_route(wrong).unwrap_err();
            assert!(!refused.contains("u:p"), "{refused}");
        }
    }

    #[test]
    fn an_address_to_advertise_may_leave_the_port_out() {
        assert_eq!(parse_advertise("h"), Some(("h".into(), None)));
        assert_eq!(parse_advertise("h:1"), Some(("h".into(), Some(1))));
        assert_eq!(parse_advertise("[::1]"), Some(("::1".into(), None)));
        assert_eq!(parse_advertise("h:0"), None);
        assert_eq!(parse_advertise(":1"), None);
    }
}
