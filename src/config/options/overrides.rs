//! The command line, laid over what the file says.

use super::super::flags::Flags;
use super::cluster::{parse_advertise, parse_route};
use super::monitoring::{MonitorOptions, base_path, monitor};
use super::{CLIENT_PORT_DEFAULT, ConfigError, Options, PeerCertificate, Port, SubsystemLevel};
use std::path::PathBuf;

/// A flag wins over the file; an empty or zero value is as if the flag were not there, as in the reference.
pub(super) fn apply(options: &mut Options, flags: &Flags) -> Result<(), ConfigError> {
    listeners(options, flags)?;
    tls(options, flags)?;
    cluster(options, flags)?;
    logging(options, flags)?;
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    if let Some(path) = text(&flags.pid) {
        options.pid_file = Some(PathBuf::from(path));
    }
    if let Some(path) = text(&flags.ports_file_dir) {
        options.ports_file_dir = Some(PathBuf::from(path));
    }
    if let Some(enabled) = flags.jetstream {
        options.jetstream.enabled = enabled;
    }
    if let Some(path) = text(&flags.store_dir) {
        options.jetstream.store_dir = Some(PathBuf::from(path));
    }
    let authorization = &mut options.authorization;
    if let Some(user) = text(&flags.user) {
        authorization.user = Some(user);
    }
    if let Some(password) = text(&flags.pass) {
        authorization.password = Some(password);
    }
    if let Some(token) = text(&flags.auth) {
        authorization.token = Some(token);
    }
    Ok(())
}

fn listeners(options: &mut Options, flags: &Flags) -> Result<(), ConfigError> {
    if let Some(host) = flags.addr.clone().filter(|host| !host.is_empty()) {
        options.host = host;
    }
    if let Some(number) = flags.port {
        options.port = match number {
            0 => Port::Fixed(CLIENT_PORT_DEFAULT),
            number => port("port", number)?,
        };
    }
    if let Some(name) = flags.server_name.clone().filter(|name| !name.is_empty()) {
        options.server_name = Some(name);
    }
    if let Some(place) = flags
        .client_advertise
        .clone()
        .filter(|text| !text.is_empty())
    {
        let advertise = parse_advertise(&place).ok_or_else(|| {
            ConfigError::Contradiction(format!("invalid ClientAdvertise value of {place}"))
        })?;
        options.client_advertise = Some(advertise);
    }
    if let Some(number) = flags.http_port {
        monitor(options).port = port("http_port", number)?;
    }
    if let Some(number) = flags.https_port {
        monitor(options).https_port = port("https_port", number)?;
    }
    if let Some(number) = flags.profile {
        let asked = port("profile", number)?;
        options.profiling_port = Some(asked).filter(|port| *port != Port::Fixed(0));
    }
    if let Some(path) = &flags.http_base_path {
        monitor(options).base_path = base_path(path);
    }
    // Port 0 is no monitor, wherever it was said.
    if options
        .monitor
        .as_ref()
        .is_some_and(MonitorOptions::is_nowhere)
    {
        options.monitor = None;
    }
    Ok(())
}

/// Any of the flags asks for TLS, and with it for a certificate.
fn tls(options: &mut Options, flags: &Flags) -> Result<(), ConfigError> {
    let path = |flag: &Option<String>| {
        let text = flag.clone().filter(|text| !text.is_empty());
        text.map(PathBuf::from)
    };
    let files = [&flags.tlscert, &flags.tlskey, &flags.tlscacert];
    let is_asked = flags.tls == Some(true) || flags.tlsverify == Some(true);
    if !is_asked && files.into_iter().all(Option::is_none) {
        return Ok(());
    }
    let tls = options.tls.get_or_insert_default();
    tls.cert_file = path(&flags.tlscert).or(tls.cert_file.take());
    tls.key_file = path(&flags.tlskey).or(tls.key_file.take());
    tls.ca_file = path(&flags.tlscacert).or(tls.ca_file.take());
    if flags.tlsverify == Some(true) {
        tls.peer_certificate = PeerCertificate::Required;
    }
    let missing = match (&tls.cert_file, &tls.key_file) {
        (None, _) => "TLS Server certificate must be present and valid",
        (_, None) => "TLS Server private key must be present and valid",
        _ => return Ok(()),
    };
    Err(ConfigError::Contradiction(missing.into()))
}

/// `--cluster` is a URL: where to listen, and perhaps as which user others must connect.
fn cluster(options: &mut Options, flags: &Flags) -> Result<(), ConfigError> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let wrong =
        |flag: &str, reason: String| ConfigError::Contradiction(format!("flag --{flag}: {reason}"));
    let cluster = &mut options.cluster;
    if let Some(url) = text(&flags.cluster) {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", &url));
        let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (host, number) = place
            .trim_end_matches('/')
            .rsplit_once(':')
            .ok_or_else(|| wrong("cluster", format!("{place:?} is not host:port")))?;
        let number = number
            .parse()
            .map_err(|_| wrong("cluster", format!("{number:?} is not a port")))?;
        cluster.port = Some(port("cluster", number)?);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if !host.is_empty() {
            cluster.host = host.to_owned();
        }
        if !credentials.is_empty() {
            let named = parse_route(&format!("{scheme}://{credentials}@host"))
                .map_err(|reason| wrong("cluster", reason))?;
            cluster.user = named.user;
            cluster.password = named.password;
        }
    }
    if let Some(name) = text(&flags.cluster_name) {
        if name.contains(char::is_whitespace) {
            let reason = "cluster name cannot contain spaces or new lines";
            return Err(wrong("cluster_name", reason.into()));
        }
        cluster.name = Some(name);
    }
    if let Some(place) = text(&flags.cluster_advertise) {
        let advertise = parse_advertise(&place).ok_or_else(|| {
            wrong(
                "cluster_advertise",
                format!("{place:?} is not host or host:port"),
            )
        })?;
        cluster.advertise = Some(advertise);
    }
    if let Some(urls) = text(&flags.routes) {
        let routes: Result<Vec<_>, _> = urls.split(',').map(parse_route).collect();
        cluster.routes = routes.map_err(|reason| wrong("routes", reason))?;
    }
    if let Some(silent) = flags.no_advertise {
        cluster.no_advertise = silent;
    }
    if let Some(retries) = flags.connect_retries.filter(|retries| *retries != 0) {
        cluster.connect_retries = u32::try_from(retries)
            .map_err(|_| wrong("connect_retries", format!("{retries} is out of range")))?;
    }
    Ok(())
}

fn port(flag: &str, number: i64) -> Result<Port, ConfigError> {
    match number {
        -1 => Ok(Port::Random),
        _ => u16::try_from(number).map(Port::Fixed).map_err(|_| {
            ConfigError::Contradiction(format!("flag --{flag}: {number} is not a port"))
        }),
    }
}

fn logging(options: &mut Options, flags: &Flags) -> Result<(), ConfigError> {
    let log = &mut options.log;
    if let Some(debug) = flags.debug {
        log.debug = debug;
    }
    if let Some(trace) = flags.trace {
        log.trace = trace;
    }
    if let Some(verbose) = flags.trace_verbose {
        log.trace = verbose;
        log.trace_verbose = verbose;
    }
    if let Some(both) = flags.debug_trace {
        log.debug = both;
        log.trace = both;
    }
    if let Some(all) = flags.debug_trace_verbose {
        log.debug = all;
        log.trace = all;
        log.trace_verbose = all;
    }
    if let Some(timestamps) = flags.logtime {
        log.timestamps = timestamps;
    }
    if let Some(utc) = flags.logtime_utc {
        log.timestamps_utc = utc;
    }
    if let Some(path) = flags.log.clone().filter(|path| !path.is_empty()) {
        log.file = Some(PathBuf::from(path));
    }
    if let Some(syslog) = flags.syslog {
        log.syslog = syslog;
    }
    if let Some(address) = flags.remote_syslog.clone().filter(|text| !text.is_empty()) {
        log.remote_syslog = Some(address);
    }
    for text in &flags.log_level_override {
        let level = SubsystemLevel::parse(text).ok_or_else(|| {
            ConfigError::Contradiction(format!(
                "flag --log_level_override: {text:?} is not <subsystem>=<error, warn, info, debug or trace>"
            ))
        })?;
        log.levels.push(level);
    }
    if let Some(limit) = flags.log_size_limit {
        log.file_bytes_max = u64::try_from(limit).unwrap_or(0);
    }
    if let Some(length) = flags.max_traced_msg_len {
        log.traced_message_bytes_max = usize::try_from(length).unwrap_or(0);
    }
    Ok(())
}
