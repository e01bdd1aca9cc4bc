//! What a reload can take up, and what not.

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
        ("", "jetstream: enabled", Apply::JetStream, "JetStream"),
        (
            "jetstream {store_dir: a, max_mem: 1MB, domain: ''}",
            "jetstream: disabled",
            Apply::JetStream,
            "JetStream",
        ),
        (
            "jetstream {max_file: 1MB}",
            "jetstream {max_file: 64MB}",
            Apply::JetStream,
            "JetStream max_file_store = 64.00 MB",
        ),
        (
            "cluster { port: 1 }",
            "cluster { port: 1, compression: off }",
            Apply::Routes,
            "cluster",
        ),
        (
            "cluster { port: 1 }",
            "cluster { port: 1, routes: ['nats://h:2'] }",
            Apply::Routes,
            "cluster routes",
        ),
        (
            "server_tags: a",
            "server_tags: [b, a]",
            Apply::Description,
            "tags = [a b]",
        ),
        (
            "",
            "server_metadata { a: b }",
            Apply::Description,
            "metadata",
        ),
        (
            "",
            "connect_error_reports: 7",
            Apply::Routes,
            "connect_error_reports = 7, reconnect_error_reports = 1",
        ),
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
    assert_eq!(kinds, [Apply::Connections, Apply::JetStream]);
}

#[test]
fn what_cannot_change_is_refused_by_name() {
    for (old, new, name) in [
        ("", "port: 4333", "Port"),
        ("", "host: localhost", "Host"),
        ("", "server_name: n", "ServerName"),
        ("", "http: 8222", "HTTPPort"),
        ("", "prof_port: 6060", "ProfPort"),
        ("", "no_system_account: true", "NoSystemAccount"),
        ("", "max_pending: 5MB", "MaxPending"),
        ("", "max_subs: 5", "MaxSubs"),
        ("", "lame_duck_duration: '3m'", "LameDuckDuration"),
        ("", "log_size_limit: 5MB", "LogSizeLimit"),
        (
            "jetstream {max_mem: 2MB}",
            "jetstream {max_mem: 1MB}",
            "decreasing jetstream max memory and store",
        ),
        (
            "jetstream {max_file: 2MB}",
            "jetstream {}",
            "jetstream max memory and max store",
        ),
        (
            "jetstream {}",
            "jetstream {max_mem: 2MB}",
            "jetstream dynamic max memory and store",
        ),
        (
            "jetstream {store_dir: a}",
            "jetstream {store_dir: b}",
            "jetstream storage directory",
        ),
        (
            "jetstream {store_dir: a}",
            "jetstream {}",
            "jetstream storage dir",
        ),
        ("", "jetstream {domain: d}", "JetStreamDomain"),
        (
            "jetstream {}",
            "jetstream {unique_tag: az}",
            "JetStreamUniqueTag",
        ),
        (
            "jetstream {max_concurrent_io: 128}",
            "jetstream {max_concurrent_io: 256}",
            "JetStreamConcurrentIOs",
        ),
        (
            "jetstream {}",
            "jetstream {limits {max_ack_pending: 5}}",
            "JetStreamLimits",
        ),
        (
            "",
            "cluster { port: 6222 }",
            "cluster port: old=0, new=6222",
        ),
        (
            "cluster { listen: 'a:1' }",
            "cluster { listen: 'b:1' }",
            "cluster host: old=a, new=b",
        ),
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
