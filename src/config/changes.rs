//! What differs between two configurations: which of it a running server can take up, and which not.
//!
//! Every field of [`Options`] is looked at, by name: a new one does not compile until it is decided here what a reload does with it.

mod jetstream;

use std::fmt::{Debug, Display};

use super::duration::format_duration;
use super::options::{
    AccountJetStream, Authorization, ClusterOptions, LimitOptions, LogOptions, MonitorOptions,
    Options, Port, TimingOptions, User, WebSocketOptions,
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
    /// JetStream begins or ends, or may hold more, or others have it.
    JetStream,
    /// Whoever asks reads it anew.
    Description,
    /// Routes are closed, dialled or changed.
    Routes,
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
    /// An account is to have routes of its own and is not there.
    #[error("unable to add account {0:?} to the list of dedicated routes: account missing")]
    PinnedAccount(String),
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
        server_metadata,
        feature_flags,
        monitor,
        profiling_port,
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
        ocsp,
        ocsp_cache,
        authorization,
        accounts,
        mappings,
        default_domains,
        system_account: _,
        no_system_account,
        dial_reports,
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
    same("NoHeaderSupport", no_header_support, &new.no_header_support)?;
    same("ProxyProtocol", proxy_protocol, &new.proxy_protocol)?;
    same("FeatureFlags", feature_flags, &new.feature_flags)?;
    same("AllowNonTLS", allow_non_tls, &new.allow_non_tls)?;
    same(
        "SystemAccount",
        &old.system_account(),
        &new.system_account(),
    )?;
    same("NoSystemAccount", no_system_account, &new.no_system_account)?;
    same_monitor(monitor.as_ref(), new.monitor.as_ref())?;
    match (profiling_port, new.profiling_port) {
        (Some(old), Some(new)) => same_port("ProfPort", *old, new)?,
        (old, new) => same("ProfPort", old, &new)?,
    }
    same_place(cluster, &new.cluster)?;
    has_pinned_accounts(cluster, new)?;
    same_websocket(websocket.as_ref(), new.websocket.as_ref())?;
    may_lose_default_user(authorization, new)?;

    let mut found = Found::default();
    found.log(log, &new.log)?;
    found.limits(limits, &new.limits)?;
    found.timing(timing, &new.timing)?;
    found.authorization(authorization, &new.authorization);
    found.jetstream(jetstream, &new.jetstream)?;
    if client_advertise != &new.client_advertise {
        let (host, port) = new.client_advertise.clone().unwrap_or_default();
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        found.add(
            Apply::Connections,
            format!("client_advertise = {host}{port}"),
        );
    }
    if server_tags != &new.server_tags {
        let told = format!("tags = [{}]", new.server_tags.join(" "));
        found.add(Apply::Description, told);
    }
    if server_metadata != &new.server_metadata {
        found.add(Apply::Description, "metadata".into());
    }
    if dial_reports != &new.dial_reports {
        let (first, again) = (
            new.dial_reports.connect_every,
            new.dial_reports.reconnect_every,
        );
        let told = format!("connect_error_reports = {first}, reconnect_error_reports = {again}");
        found.add(Apply::Routes, told);
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
    let without_routes = |options: &ClusterOptions| ClusterOptions {
        routes: Vec::new(),
        port: None,
        ..options.clone()
    };
    if new.cluster.tls.is_some() || without_routes(cluster) != without_routes(&new.cluster) {
        found.add(Apply::Routes, "cluster".into());
    }
    if cluster.routes != new.cluster.routes {
        found.add(Apply::Routes, "cluster routes".into());
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
    if ocsp != &new.ocsp || ocsp_cache != &new.ocsp_cache {
        found.add(Apply::Connections, "ocsp".into());
    }
    if websocket != &new.websocket {
        found.add(Apply::Connections, "websocket".into());
    }
    if default_domains != &new.default_domains {
        found.add(Apply::Connections, "default_js_domain".into());
    }
    if mappings != &new.mappings {
        found.add(Apply::Connections, "mappings".into());
    }
    if accounts != &new.accounts {
        found.add(Apply::Connections, "accounts".into());
        let of = |options: &Options| -> Vec<(String, AccountJetStream, _)> {
            let accounts = options.accounts.iter();
            let with = accounts
                .filter_map(|a| Some((a.name.clone(), a.jetstream?, a.jetstream_tiers.clone())));
            with.collect()
        };
        if of(old) != of(new) {
            found.add(Apply::JetStream, "JetStream of accounts".into());
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
            write_timeout,
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
        same("WriteTimeout", write_timeout, &new.write_timeout)?;
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
            same_port("HTTPSPort", old.https_port, new.https_port)?;
            same("HTTPBasePath", &old.base_path, &new.base_path)
        }
        (old, new) => same(
            "HTTPPort",
            &old.map(MonitorOptions::listens_on),
            &new.map(MonitorOptions::listens_on),
        ),
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

/// Where routes listen cannot change.
fn same_place(old: &ClusterOptions, new: &ClusterOptions) -> Result<(), NotReloadable> {
    let refused = |option, old: &dyn Display, new: &dyn Display| {
        Err(NotReloadable::Option {
            option,
            old: old.to_string(),
            new: new.to_string(),
        })
    };
    if old.host != new.host {
        return refused("cluster host", &old.host, &new.host);
    }
    let number = |port: Option<Port>| match port {
        None => 0,
        Some(Port::Random) => -1,
        Some(Port::Fixed(port)) => i32::from(port),
    };
    match (old.port, new.port) {
        (old, new) if old == new => Ok(()),
        // Any free port is the one that routes have.
        (Some(_), Some(Port::Random)) => Ok(()),
        (old, new) => refused("cluster port", &number(old), &number(new)),
    }
}

/// Only an account that is there can get connections of its own.
fn has_pinned_accounts(old: &ClusterOptions, new: &Options) -> Result<(), NotReloadable> {
    let is_known = |name: &str| {
        name == "$G"
            || name == new.system_account()
            || new.accounts.iter().any(|account| account.name == name)
    };
    let mut added = new.cluster.accounts.iter();
    match added.find(|name| !old.accounts.contains(name) && !is_known(name)) {
        Some(name) => Err(NotReloadable::PinnedAccount(name.clone())),
        None => Ok(()),
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
#[path = "changes_tests.rs"]
mod tests;
