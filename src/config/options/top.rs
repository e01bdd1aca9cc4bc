//! The top level of a configuration file.

use super::super::duration::format_duration;
use super::super::value::Map;
use super::report::{Field, Problems, Report, in_file_order};
use super::{
    Options, PAYLOAD_BYTES_ADVISED_MAX, Port, WriteTimeout, accounts, authorization, cluster,
    description, domains, jetstream, mappings, monitoring, ocsp, tls, unsupported, websocket,
};
use std::path::PathBuf;
use std::time::Duration;

/// Shortest time that lame duck mode may be spread over.
const LAME_DUCK_DURATION_MIN: Duration = Duration::from_secs(30);
/// Sizes of lines and messages are 32-bit numbers on the wire.
const WIRE_SIZE_MAX: i64 = i32::MAX as i64;

/// Reads a whole file.
pub(super) fn read(map: &Map) -> Result<Options, Problems> {
    let mut options = Options::default();
    let mut report = Report::default();
    for field in in_file_order(map) {
        one(&mut options, &field, &mut report);
    }
    options.warnings = report.finish()?;
    Ok(options)
}

fn one(options: &mut Options, field: &Field<'_>, report: &mut Report) {
    let key = field.key();
    let known = listeners(options, &key, field, report)
        || monitoring::read(options, &key, field, report)
        || description::read(options, &key, field, report)
        || logging(options, &key, field, report)
        || limits(options, &key, field, report)
        || timing(options, &key, field, report)
        || services(options, &key, field, report);
    if !known && !unsupported::refuse_top(&key, field, report) {
        field.unknown(report);
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn path(field: &Field<'_>, report: &mut Report) -> Option<PathBuf> {
    field.string(report).map(PathBuf::from)
}

fn listeners(options: &mut Options, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    match key {
        "listen" => {
            if let Some((host, port)) = field.listen(report) {
                set(&mut options.host, host);
                options.port = default_port(port);
            }
        }
        "client_advertise" => {
            if let Some(text) = field.string(report).filter(|text| !text.is_empty()) {
                options.client_advertise = cluster::parse_advertise(&text);
                if options.client_advertise.is_none() {
                    field.invalid(report, format!("invalid ClientAdvertise value of {text}"));
                }
            }
        }
        "host" | "net" => set(&mut options.host, field.string(report)),
        "port" => {
            let port = field.integer(report).and_then(|n| field.port(report, n));
            set(&mut options.port, port.map(default_port));
        }
        "server_name" => match field.string(report) {
            Some(name) if name.contains(' ') => {
                field.invalid(report, "server name cannot contain spaces");
            }
            Some(name) => options.server_name = Some(name).filter(|name| !name.is_empty()),
            None => {}
        },
        "pidfile" | "pid_file" => options.pid_file = path(field, report),
        "ports_file_dir" => options.ports_file_dir = path(field, report),
        _ => return false,
    }
    true
}

/// Port 0 in a file is the default port.
fn default_port(port: Port) -> Port {
    match port {
        Port::Fixed(0) => Port::Fixed(super::CLIENT_PORT_DEFAULT),
        port => port,
    }
}

/// More ended connections are not kept, whatever the file says: each takes some 500 bytes.
const CLOSED_CLIENTS_MAX: i64 = 10_000_000;

fn logging(options: &mut Options, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    let log = &mut options.log;
    match key {
        "debug" => set(&mut log.debug, field.bool(report)),
        "trace" => set(&mut log.trace, field.bool(report)),
        "trace_verbose" => {
            set(&mut log.trace_verbose, field.bool(report));
            log.trace = log.trace_verbose;
        }
        "trace_headers" => {
            set(&mut log.trace_headers, field.bool(report));
            log.trace = log.trace_headers;
        }
        "logtime" => set(&mut log.timestamps, field.bool(report)),
        "logtime_utc" => set(&mut log.timestamps_utc, field.bool(report)),
        "logfile" | "log_file" => log.file = path(field, report),
        "syslog" => set(&mut log.syslog, field.bool(report)),
        "remote_syslog" => {
            if let Some(address) = field.string(report) {
                log.remote_syslog = Some(address).filter(|address| !address.is_empty());
            }
        }
        "logfile_size_limit" | "log_size_limit" => {
            set(&mut log.file_bytes_max, field.within(report, 0, i64::MAX));
        }
        "logfile_max_num" | "log_max_num" => {
            set(&mut log.files_max, field.within(report, 0, i64::MAX));
        }
        "max_traced_msg_len" => {
            let most = i64::from(i32::MAX);
            set(
                &mut log.traced_message_bytes_max,
                field.within(report, 0, most),
            );
        }
        _ => return false,
    }
    true
}

fn limits(options: &mut Options, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    let limits = &mut options.limits;
    match key {
        "max_control_line" => {
            let value = field.within(report, 1, WIRE_SIZE_MAX);
            set(&mut limits.control_line_bytes_max, value);
        }
        "max_payload" => {
            let value = field.within(report, 1, WIRE_SIZE_MAX);
            set(&mut limits.payload_bytes_max, value);
            if value.is_some_and(|bytes| bytes > PAYLOAD_BYTES_ADVISED_MAX) {
                let reason = format!(
                    "message limits above {PAYLOAD_BYTES_ADVISED_MAX} bytes cost memory and latency"
                );
                report.warn(&field.node.position, field.name, reason);
            }
        }
        "max_pending" => set(
            &mut limits.pending_bytes_max,
            field.within(report, 1, i64::MAX),
        ),
        "max_connections" | "max_conn" => {
            if let Some(count) = field.within::<i64>(report, -1, i64::MAX) {
                limits.connections_max = Some(u64::try_from(count).unwrap_or(0));
            }
        }
        "max_subscriptions" | "max_subs" => {
            if let Some(count) = field.within::<i64>(report, -1, i64::MAX) {
                limits.subscriptions_max = u64::try_from(count).ok().filter(|count| *count > 0);
            }
        }
        "max_sub_tokens" | "max_subscription_tokens" => {
            limits.subscription_tokens_max = field.within(report, 1, 255);
        }
        // A key of this server alone: the reference has no such endpoint.
        "max_metric_series" => {
            let most = field.within(report, 0, i64::from(u32::MAX));
            set(&mut limits.metric_series_max, most);
        }
        "max_closed_clients" => {
            // As everywhere in the reference, 0 is the default.
            let most = field.within::<usize>(report, 0, CLOSED_CLIENTS_MAX);
            let most = most.filter(|most| *most > 0);
            set(&mut limits.closed_clients_max, most);
        }
        _ => return false,
    }
    true
}

fn timing(options: &mut Options, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    let timing = &mut options.timing;
    match key {
        "ping_interval" => {
            let interval = field
                .duration(report)
                .filter(|interval| !interval.is_zero());
            set(&mut timing.ping_interval, interval);
        }
        "ping_max" => {
            let most = field.within(report, 0, i64::from(i32::MAX));
            set(
                &mut timing.pings_outstanding_max,
                most.filter(|most| *most > 0),
            );
        }
        "write_deadline" => {
            let deadline = field
                .duration(report)
                .filter(|deadline| !deadline.is_zero());
            set(&mut timing.write_deadline, deadline);
        }
        "lame_duck_duration" => {
            if let Some(duration) = field.duration(report) {
                if duration < LAME_DUCK_DURATION_MIN {
                    let written = format_duration(duration);
                    let reason =
                        format!("invalid lame_duck_duration of {written}, minimum is 30 seconds");
                    field.invalid(report, reason);
                }
                timing.lame_duck_duration = duration;
            }
        }
        "write_timeout" => timing.write_timeout = write_timeout(field, report),
        "lame_duck_grace_period" => {
            set(&mut timing.lame_duck_grace_period, field.duration(report));
        }
        _ => return false,
    }
    true
}

/// Reads `default`, `close` or `retry`.
pub(super) fn write_timeout(field: &Field<'_>, report: &mut Report) -> Option<WriteTimeout> {
    match field.string(report)?.as_str() {
        "default" => None,
        "close" => Some(WriteTimeout::Close),
        "retry" => Some(WriteTimeout::Retry),
        _ => {
            field.invalid(
                report,
                "write_timeout must be 'default', 'close' or 'retry'",
            );
            None
        }
    }
}

fn services(options: &mut Options, key: &str, field: &Field<'_>, report: &mut Report) -> bool {
    match key {
        "authorization" => authorization::read(&mut options.authorization, field, report),
        "cluster" => cluster::read(&mut options.cluster, field, report),
        "accounts" => options.accounts = accounts::read(field, report),
        "mappings" | "maps" => options.mappings = mappings::read(field, report),
        "default_js_domain" => options.default_domains = domains::read_defaults(field, report),
        "system_account" | "system" => {
            options.system_account = field.string(report).filter(|name| !name.is_empty());
        }
        "no_system_account" | "no_system" | "no_sys_acc" => {
            set(&mut options.no_system_account, field.bool(report));
        }
        "connect_error_reports" => {
            let every = field.within(report, 0, i64::from(i32::MAX));
            // As everywhere in the reference, 0 is the default.
            let every = every.filter(|every| *every > 0);
            set(&mut options.dial_reports.connect_every, every);
        }
        "reconnect_error_reports" => {
            let every = field.within(report, 0, i64::from(i32::MAX));
            let every = every.filter(|every| *every > 0);
            set(&mut options.dial_reports.reconnect_every, every);
        }
        "ocsp" => options.ocsp = ocsp::read(field, report),
        "ocsp_cache" => options.ocsp_cache = ocsp::cache(field, report),
        "no_auth_user" => {
            options.authorization.no_auth_user =
                field.string(report).filter(|user| !user.is_empty());
        }
        "tls" => {
            options.tls = tls::read(field, report);
            if let Some(tls) = &options.tls {
                tls::refuse_for_servers_only(tls, field, report);
            }
        }
        "websocket" | "ws" => options.websocket = Some(websocket::read(field, report)),
        "allow_non_tls" => set(&mut options.allow_non_tls, field.bool(report)),
        "no_fast_producer_stall" => {
            set(&mut options.no_fast_producer_stall, field.bool(report));
        }
        "proxy_protocol" => set(&mut options.proxy_protocol, field.bool(report)),
        "no_header_support" => set(&mut options.no_header_support, field.bool(report)),
        "jetstream" => jetstream::read(&mut options.jetstream, field, report),
        "store_dir" | "storedir" => {
            if let Some(path) = path(field, report) {
                jetstream::store_dir(&mut options.jetstream, path, field, report);
            }
        }
        _ => return false,
    }
    true
}
