//! What differs between two configurations: which of it a running server can take up, and which not.
//!
//! Every field of [`Options`] is looked at, by name: a new one does not compile until it is decided here what a reload does with it.

use std::fmt::Debug;

use super::duration::format_duration;
use super::options::{
    AccountJetStream, Authorization, ClusterOptions, JetStreamOptions, LimitOptions, LogOptions,
    MonitorOptions, Options, Port, TimingOptions, User, WebSocketOptions,
};

/// One difference that can be taken up, as it is told in the log, and what has to be done for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The option and its new value.
    pub told: String,
    /// How the server takes it up.
    pub apply: Apply,
}

/// How a running server takes a change up. Several changes of one kind are taken up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// The log is opened again, or its levels change.
    Log,
    /// Connections change to new terms.
    Connections,
    /// Accounts may use more or less for their streams.
    JetStreamLimits,
    /// The pid file is written.
    PidFile,
    /// The ports file is written.
    PortsFile,
}

/// An option has changed that a running server cannot take up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReloadable {
    /// One with values that can be shown.
    #[error("config reload not supported for {option}: old={old}, new={new}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What the server runs with.
        old: String,
        /// What the file says now.
        new: String,
    },
    /// One whose values are long, or secret.
    #[error("config reload not supported for {0}")]
    Block(&'static str),
}

/// The differences that a running server can take up.
pub fn changes(old: &Options, new: &Options) -> Result<Vec<Change>, NotReloadable> {
    let Options {
        host,
        port,
        client_advertise,
        server_name,
        server_tags,
        monitor,
        log,
        pid_file,
        ports_file_dir,
        limits,
        timing,
        no_fast_producer_stall,
        no_header_support,
        proxy_protocol,
        tls,
        allow_non_tls,
        authorization,
        accounts,
        mappings,
        system_account: _,
        websocket,
        cluster,
        jetstream,
        config_file: _,
        config_digest: _,
        warnings: _,
    } = old;
    same("Host", host, &new.host)?;
    same_port("Port", *port, new.port)?;
    same("ServerName", server_name, &new.server_name)?;
    same("Tags", server_tags, &new.server_tags)?;
    same("NoHeaderSupport", no_header_support, &new.no_header_support)?;
    same("ProxyProtocol", proxy_protocol, &new.proxy_protocol)?;
    same("AllowNonTLS", allow_non_tls, &new.allow_non_tls)?;
    same(
        "SystemAccount",
        &old.system_account(),
        &new.system_account(),
    )?;
    same_monitor(monitor.as_ref(), new.monitor.as_ref())?;
    same_cluster(cluster, &new.cluster)?;
    same_jetstream(jetstream, &new.jetstream)?;
    same_websocket(websocket.as_ref(), new.websocket.as_ref())?;
    may_lose_default_user(authorization, new)?;

    let mut found = Found::default();
    found.log(log, &new.log)?;
    found.limits(limits, &new.limits)?;
    found.timing(timing, &new.timing)?;
    found.authorization(authorization, &new.authorization);
    if client_advertise != &new.client_advertise {
        // Other servers of a cluster have been told it.
        if new.cluster.port.is_some() {
            return Err(NotReloadable::Block("ClientAdvertise in a cluster"));
        }
        let (host, port) = new.client_advertise.clone().unwrap_or_default();
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        found.add(
            Apply::Connections,
            format!("client_advertise = {host}{port}"),
        );
    }
    if pid_file != &new.pid_file {
        found.add(
            Apply::PidFile,
            format!("pid_file = {}", shown(&new.pid_file)),
        );
    }
    if ports_file_dir != &new.ports_file_dir {
        let told = format!("ports_file_dir = {}", shown(&new.ports_file_dir));
        found.add(Apply::PortsFile, told);
    }
    if no_fast_producer_stall != &new.no_fast_producer_stall {
        let not = if new.no_fast_producer_stall {
            "not "
        } else {
            ""
        };
        found.add(
            Apply::Connections,
            format!("fast producers will {not}be stalled"),
        );
    }
    // The files that are named may hold something new.
    if tls.is_some() || new.tls.is_some() {
        let state = if new.tls.is_some() {
            "enabled"
        } else {
            "disabled"
        };
        found.add(Apply::Connections, format!("tls = {state}"));
    }
    if websocket != &new.websocket {
        found.add(Apply::Connections, "websocket".into());
    }
    if mappings != &new.mappings {
        found.add(Apply::Connections, "mappings".into());
    }
    if accounts != &new.accounts {
        found.add(Apply::Connections, "accounts".into());
        let of = |options: &Options| -> Vec<(String, AccountJetStream)> {
            let accounts = options.accounts.iter();
            let with = accounts.filter_map(|a| Some((a.name.clone(), a.jetstream?)));
            with.collect()
        };
        if of(old) != of(new) {
            found.add(
                Apply::JetStreamLimits,
                "JetStream limits of accounts".into(),
            );
        }
    }
    Ok(found.changes)
}

/// Collects differences.
#[derive(Default)]
struct Found {
    changes: Vec<Change>,
}

impl Found {
    fn add(&mut self, apply: Apply, told: String) {
        self.changes.push(Change { told, apply });
    }

    /// Notes a difference of values that are shown.
    fn when<T: PartialEq + std::fmt::Display>(&mut self, apply: Apply, name: &str, old: T, new: T) {
        if old != new {
            self.add(apply, format!("{name} = {new}"));
        }
    }

    fn log(&mut self, old: &LogOptions, new: &LogOptions) -> Result<(), NotReloadable> {
        let LogOptions {
            debug,
            trace,
            trace_verbose,
            trace_headers,
            timestamps,
            timestamps_utc,
            file,
            syslog,
            remote_syslog,
            levels,
            file_bytes_max,
            files_max,
            traced_message_bytes_max,
        } = old;
        same("LogSizeLimit", file_bytes_max, &new.file_bytes_max)?;
        same("LogMaxFiles", files_max, &new.files_max)?;
        self.when(Apply::Log, "debug", *debug, new.debug);
        self.when(Apply::Log, "trace", *trace, new.trace);
        self.when(
            Apply::Log,
            "trace_verbose",
            *trace_verbose,
            new.trace_verbose,
        );
        self.when(
            Apply::Log,
            "trace_headers",
            *trace_headers,
            new.trace_headers,
        );
        self.when(Apply::Log, "logtime", *timestamps, new.timestamps);
        self.when(
            Apply::Log,
            "logtime_utc",
            *timestamps_utc,
            new.timestamps_utc,
        );
        self.when(Apply::Log, "log_file", shown(file), shown(&new.file));
        self.when(Apply::Log, "syslog", *syslog, new.syslog);
        let (old_syslog, new_syslog) = (remote_syslog.as_deref(), new.remote_syslog.as_deref());
        let text = |address: Option<&str>| address.unwrap_or_default().to_owned();
        self.when(
            Apply::Log,
            "remote_syslog",
            text(old_syslog),
            text(new_syslog),
        );
        if levels != &new.levels {
            self.add(Apply::Log, "log levels of subsystems".into());
        }
        let (old, new) = (*traced_message_bytes_max, new.traced_message_bytes_max);
        self.when(Apply::Connections, "max_traced_msg_len", old, new);
        Ok(())
    }

    fn limits(&mut self, old: &LimitOptions, new: &LimitOptions) -> Result<(), NotReloadable> {
        let LimitOptions {
            control_line_bytes_max,
            payload_bytes_max,
            pending_bytes_max,
            connections_max,
            subscriptions_max,
            subscription_tokens_max,
            closed_clients_max,
            metric_series_max,
        } = old;
        same("MaxPending", pending_bytes_max, &new.pending_bytes_max)?;
        same("MaxSubs", subscriptions_max, &new.subscriptions_max)?;
        let tokens = &new.subscription_tokens_max;
        same("MaxSubTokens", subscription_tokens_max, tokens)?;
        same(
            "MaxClosedClients",
            closed_clients_max,
            &new.closed_clients_max,
        )?;
        let (from, to) = (*metric_series_max, new.metric_series_max);
        self.when(Apply::Connections, "max_metric_series", from, to);
        let (from, to) = (*control_line_bytes_max, new.control_line_bytes_max);
        self.when(Apply::Connections, "max_control_line", from, to);
        let (from, to) = (*payload_bytes_max, new.payload_bytes_max);
        self.when(Apply::Connections, "max_payload", from, to);
        let number = |limit: Option<u64>| limit.map_or("-1".into(), |limit| limit.to_string());
        let (from, to) = (number(*connections_max), number(new.connections_max));
        self.when(Apply::Connections, "max_connections", from, to);
        Ok(())
    }

    fn timing(&mut self, old: &TimingOptions, new: &TimingOptions) -> Result<(), NotReloadable> {
        let TimingOptions {
            ping_interval,
            pings_outstanding_max,
            write_deadline,
            lame_duck_duration,
            lame_duck_grace_period,
        } = old;
        same(
            "LameDuckDuration",
            lame_duck_duration,
            &new.lame_duck_duration,
        )?;
        let (from, to) = (lame_duck_grace_period, &new.lame_duck_grace_period);
        same("LameDuckGracePeriod", from, to)?;
        let text = |duration| format_duration(duration);
        let (from, to) = (text(*ping_interval), text(new.ping_interval));
        self.when(Apply::Connections, "ping_interval", from, to);
        let (from, to) = (*pings_outstanding_max, new.pings_outstanding_max);
        self.when(Apply::Connections, "ping_max", from, to);
        let (from, to) = (text(*write_deadline), text(new.write_deadline));
        self.when(Apply::Connections, "write_deadline", from, to);
        Ok(())
    }

    fn authorization(&mut self, old: &Authorization, new: &Authorization) {
        let Authorization {
            user,
            password,
            token,
            timeout,
            users,
            nkeys,
            no_auth_user: _,
        } = old;
        let mut differ = |differs: bool, told: &str| {
            if differs {
                self.add(Apply::Connections, format!("authorization {told}"));
            }
        };
        differ(user != &new.user, "username");
        differ(password != &new.password, "password");
        differ(token != &new.token, "token");
        differ(users != &new.users, "users");
        differ(nkeys != &new.nkeys, "nkey users");
        let told = format!("timeout = {}", new.timeout.as_secs_f64());
        differ(timeout != &new.timeout, &told);
    }
}

fn shown(path: &Option<std::path::PathBuf>) -> String {
    path.as_ref()
        .map_or(String::new(), |path| path.display().to_string())
}

fn same<T: PartialEq + Debug>(option: &'static str, old: &T, new: &T) -> Result<(), NotReloadable> {
    match old == new {
        true => Ok(()),
        false => Err(NotReloadable::Option {
            option,
            old: format!("{old:?}"),
            new: format!("{new:?}"),
        }),
    }
}

/// Any free port is the one that the server has.
fn same_port(option: &'static str, old: Port, new: Port) -> Result<(), NotReloadable> {
    match new {
        Port::Random => Ok(()),
        new => same(option, &old, &new),
    }
}

fn same_monitor(
    old: Option<&MonitorOptions>,
    new: Option<&MonitorOptions>,
) -> Result<(), NotReloadable> {
    match (old, new) {
        (Some(old), Some(new)) => {
            same("HTTPHost", &old.host, &new.host)?;
            same_port("HTTPPort", old.port, new.port)?;
            same("HTTPBasePath", &old.base_path, &new.base_path)
        }
        (old, new) => same("HTTPPort", &old.map(|m| m.port), &new.map(|m| m.port)),
    }
}

fn same_websocket(
    old: Option<&WebSocketOptions>,
    new: Option<&WebSocketOptions>,
) -> Result<(), NotReloadable> {
    match (old, new) {
        (Some(old), Some(new)) => {
            same("Websocket.Host", &old.host, &new.host)?;
            same_port("Websocket.Port", old.port, new.port)?;
            same("Websocket.TLS", &old.tls.is_some(), &new.tls.is_some())
        }
        (old, new) => same("Websocket", &old.is_some(), &new.is_some()),
    }
}

fn same_cluster(old: &ClusterOptions, new: &ClusterOptions) -> Result<(), NotReloadable> {
    same("Cluster.Name", &old.name, &new.name)?;
    same("Cluster.Host", &old.host, &new.host)?;
    match (old.port, new.port) {
        (Some(old), Some(new)) => same_port("Cluster.Port", old, new)?,
        (old, new) => same("Cluster.Port", &old, &new)?,
    }
    let routes = |options: &ClusterOptions| {
        let routes = options.routes.iter();
        let places = routes.map(|route| format!("{}:{}", route.host, route.port));
        places.collect::<Vec<_>>()
    };
    same("Routes", &routes(old), &routes(new))?;
    same("Cluster.PoolSize", &old.pool_size, &new.pool_size)?;
    same("Cluster.PinnedAccounts", &old.accounts, &new.accounts)?;
    same("Cluster.NoAdvertise", &old.no_advertise, &new.no_advertise)?;
    let port_of_now = ClusterOptions {
        port: old.port,
        ..new.clone()
    };
    match *old == port_of_now {
        true => Ok(()),
        false => Err(NotReloadable::Block("Cluster")),
    }
}

fn same_jetstream(old: &JetStreamOptions, new: &JetStreamOptions) -> Result<(), NotReloadable> {
    same("JetStream", &old.enabled, &new.enabled)?;
    same(
        "jetstream storage directory",
        &old.store_dir,
        &new.store_dir,
    )?;
    same("jetstream max memory", &old.memory_max, &new.memory_max)?;
    same("jetstream max store", &old.file_max, &new.file_max)?;
    match old == new {
        true => Ok(()),
        false => Err(NotReloadable::Block("jetstream")),
    }
}

/// Whoever is taken for a user without having said so stays that, as long as there is the user.
fn may_lose_default_user(old: &Authorization, new: &Options) -> Result<(), NotReloadable> {
    let (before, after) = (&old.no_auth_user, &new.authorization.no_auth_user);
    if before == after {
        return Ok(());
    }
    let in_accounts = new.accounts.iter().flat_map(|account| &account.users);
    let mut users = new.authorization.users.iter().chain(in_accounts);
    let is_there = |user: &User| Some(&user.name) == before.as_ref();
    match after.is_none() && !users.any(is_there) {
        true => Ok(()),
        false => same("NoAuthUser", before, after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parser::Surroundings;
    use std::io;
    use std::path::Path;

    struct Nothing;

    impl Surroundings for Nothing {
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn between(old: &str, new: &str) -> Result<Vec<Change>, NotReloadable> {
        let read = |text| Options::from_text(text, &Nothing).unwrap();
        changes(&read(old), &read(new))
    }

    #[test]
    fn what_can_change_is_told_with_how_it_is_taken_up() {
        assert_eq!(between("max_payload: 10", "max_payload: 10"), Ok(vec![]));
        for (old, new, apply, told) in [
            ("", "debug: true", Apply::Log, "debug = true"),
            ("", "log_file: x.log", Apply::Log, "log_file = x.log"),
            (
                "",
                "remote_syslog: 'udp://h:1'",
                Apply::Log,
                "remote_syslog = udp://h:1",
            ),
            (
                "",
                "max_payload: 10",
                Apply::Connections,
                "max_payload = 10",
            ),
            (
                "max_conn: 5",
                "max_conn: -1",
                Apply::Connections,
                "max_connections = 0",
            ),
            (
                "",
                "ping_interval: '5m'",
                Apply::Connections,
                "ping_interval = 5m0s",
            ),
            (
                "",
                "authorization { token: t }",
                Apply::Connections,
                "authorization token",
            ),
            ("", "accounts { A {} }", Apply::Connections, "accounts"),
            ("", "mappings { a: b }", Apply::Connections, "mappings"),
            ("", "pid_file: p", Apply::PidFile, "pid_file = p"),
            (
                "",
                "ports_file_dir: d",
                Apply::PortsFile,
                "ports_file_dir = d",
            ),
        ] {
            let told = told.to_owned();
            assert_eq!(between(old, new), Ok(vec![Change { told, apply }]), "{new}");
        }
        let limits = between(
            "accounts { A { jetstream: {max_streams: 1} } }",
            "accounts { A { jetstream: {max_streams: 2} } }",
        );
        let kinds: Vec<Apply> = limits.unwrap().iter().map(|change| change.apply).collect();
        assert_eq!(kinds, [Apply::Connections, Apply::JetStreamLimits]);
    }

    #[test]
    fn what_cannot_change_is_refused_by_name() {
        for (old, new, name) in [
            ("", "port: 4333", "Port"),
            ("", "host: localhost", "Host"),
            ("", "server_name: n", "ServerName"),
            ("", "http: 8222", "HTTPPort"),
            ("", "max_pending: 5MB", "MaxPending"),
            ("", "max_subs: 5", "MaxSubs"),
            ("", "lame_duck_duration: '3m'", "LameDuckDuration"),
            ("", "log_size_limit: 5MB", "LogSizeLimit"),
            ("", "jetstream: enabled", "JetStream"),
            (
                "jetstream {max_mem: 1MB}",
                "jetstream {max_mem: 2MB}",
                "jetstream max memory",
            ),
            ("", "cluster { port: 6222 }", "Cluster.Port"),
            ("", "websocket { port: 8080, no_tls: true }", "Websocket"),
            (
                "authorization { users: [{user: a, password: a}] }",
                "authorization { users: [{user: a, password: a}] }, no_auth_user: a",
                "NoAuthUser",
            ),
        ] {
            let refused = between(old, new).unwrap_err().to_string();
            let expected = format!("config reload not supported for {name}");
            assert!(refused.starts_with(&expected), "{new}: {refused}");
        }
        let gone = between(
            "authorization { users: [{user: a, password: a}, {user: b, password: b}] }, no_auth_user: a",
            "authorization { users: [{user: b, password: b}] }",
        );
        assert!(gone.is_ok());
        assert_eq!(between("port: 4222", "port: -1"), Ok(vec![]));
    }
}
