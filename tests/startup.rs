//! How the server starts, says where it is, takes signals and ends: what scripts around nats-server rely on.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use common::{Server, ServerOptions, Wire, eventually, http_get};
use rustix::process::Signal;

/// Runs the binary to its end, for command lines that do not start a server.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nats-server"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn config_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it is writable");
    file
}

fn json(server: &Server, path: &str) -> serde_json::Value {
    let answer = http_get(server.monitor_address(), path).expect("monitoring answers");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_version_is_the_references_on_the_first_line() {
    for flag in ["-v", "--version", "version"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        let text = stdout(&output);
        assert_eq!(text.lines().next(), Some("nats-server: v2.14.5"));
        assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

#[test]
fn help_goes_to_stdout_and_what_is_no_flag_fails_with_the_usage() {
    let help = run(&["--help"]);
    assert!(help.status.success() && stdout(&help).contains("--store_dir"));
    let unknown = run(&["--nonsense"]);
    assert!(!unknown.status.success());
    assert!(stderr(&unknown).contains("flag provided but not defined: -nonsense"));
    assert!(stdout(&unknown).contains("Usage: nats-server"));
    let stray = run(&["run"]);
    assert!(!stray.status.success() && stderr(&stray).contains("unrecognized command"));
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let sound = config_file("port: 4333\njetstream { store_dir: '/nowhere/at/all' }\n");
    let path = sound.path().to_str().expect("UTF-8");
    let output = run(&["-t", "-c", path]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&format!("configuration file {path} is valid (sha256:")),
        "{said}"
    );

    for (text, complaint) in [
        ("port: [", ":1:7: Parse error on line 1"),
        ("\n\nnonsense: 1", ":3:1: unknown field \"nonsense\""),
        (
            "gateway { name: c }",
            ":1:1: \"gateway\" is not supported by this server yet",
        ),
        (
            "ping_interval: 5",
            "ping_interval should be converted to a duration",
        ),
        ("", "config has no values or is empty"),
    ] {
        let file = config_file(text);
        let output = run(&["-t", "-c", file.path().to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            stderr(&output).contains(complaint),
            "{text}: {}",
            stderr(&output)
        );
    }
    assert_eq!(run(&["-t"]).status.code(), Some(1));
}

#[test]
fn a_start_that_cannot_work_fails_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let not_a_directory = file.path().to_str().expect("UTF-8");
    let busy = ["-a", "127.0.0.1", "-p", &port];
    let table: [(&[&str], &str); 6] = [
        (&busy, "port"),
        (&["-a", "203.0.113.77", "-p", "-1"], "port"),
        (&["-c", "/nowhere/at/all.conf"], "/nowhere/at/all.conf"),
        (
            &["-p", "-1", "-js", "-sd", not_a_directory],
            "storage directory is not a directory",
        ),
        (
            &["-p", "-1", "-P", "/nowhere/at/all.pid"],
            "Could not write pidfile",
        ),
        (
            &["-p", "-1", "--remote_syslog", "ftp://127.0.0.1:1"],
            "could not open the log",
        ),
    ];
    for (arguments, complaint) in table {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            stderr(&output).contains(complaint),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn log_lines_have_the_references_shape() {
    let server = ServerOptions::default().arguments(["-n", "shaped"]).start();
    let process = server.process_id();
    let log = server.log();
    let line = log.lines().last().expect("it has logged");
    let rest = line
        .strip_prefix(&format!("[{process}] "))
        .expect("the process id first");
    let (stamp, text) = rest.split_at("2026/11/23 12:00:00.000000".len());
    let shape: String = stamp
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(
        (shape.as_str(), text),
        ("0000/00/00 00:00:00.000000", " [INF] Server is ready")
    );
    let position = |needle: &str| {
        log.find(needle)
            .unwrap_or_else(|| panic!("{needle}: {log}"))
    };
    assert!(position("Version:  2.14.5") < position("Name:     shaped"));
    assert!(
        position("Listening for client connections on 127.0.0.1:") < position("Server is ready")
    );
}

#[test]
fn the_protocol_is_logged_without_its_secrets() {
    let mut server = ServerOptions::default()
        .arguments(["-DV", "-T=false"])
        .start();
    let mut wire = Wire::connect(server.address());
    wire.send(
        "CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"s3cret\"}\r\nSUB foo 1\r\nPING\r\n",
    );
    let line = server.wait_for_log("[SUB foo 1]");
    assert!(
        line.starts_with(&format!("[{}] [TRC] ", server.process_id())),
        "{line}"
    );
    assert!(!server.log().contains("s3cret"));
    assert!(server.stop().success());
}

#[test]
fn what_the_server_says_itself_is_logged_for_who_asks_for_all_of_it() {
    for (flag, is_shown) in [("-VV", true), ("-V", false)] {
        let mut server = ServerOptions::default()
            .arguments([flag, "-T=false"])
            .start();
        let mut wire = Wire::connect(server.address());
        wire.send("CONNECT {}\r\nSUB r 1\r\nPUB $SYS.REQ.USER.INFO r 0\r\n\r\n");
        wire.expect("MSG r 1 ");
        // What was logged before this has come, too.
        wire.send("SUB last 2\r\n");
        server.wait_for_log("[SUB last 2]");
        let log = server.log();
        let lines = [
            "[TRC] SYSTEM - <<- [SUB $SYS.REQ.SERVER.PING.VARZ  ",
            "[TRC] SYSTEM - <<- [PUB r  ",
            "[TRC] SYSTEM - <<- MSG_PAYLOAD: [\"{",
        ];
        for line in lines {
            assert_eq!(log.contains(line), is_shown, "{flag}: {line}\n{log}");
        }
        assert!(log.contains("[SUB r 1]"), "{log}");
        assert!(server.stop().success());
    }
}

#[test]
fn the_pid_file_and_the_ports_file_say_where_the_server_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pid_file = directory.path().join("nats.pid");
    let mut server = ServerOptions::default()
        .monitoring()
        .arguments(["-P", pid_file.to_str().expect("UTF-8")])
        .arguments([
            "--ports_file_dir",
            directory.path().to_str().expect("UTF-8"),
        ])
        .start();
    let process = server.process_id();
    let written = std::fs::read_to_string(&pid_file).expect("the pid file");
    assert_eq!(written, process.to_string());
    let ports_file = directory
        .path()
        .join(format!("nats-server_{process}.ports"));
    let ports: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&ports_file).expect("the ports file")).expect("JSON");
    let client = format!("nats://127.0.0.1:{}", server.address().port());
    let monitor = format!("http://127.0.0.1:{}", server.monitor_address().port());
    assert_eq!(
        ports,
        serde_json::json!({"nats": [client], "monitoring": [monitor]})
    );
    assert!(server.stop().success());
    assert!(!ports_file.exists());
}

#[test]
fn interrupt_and_terminate_end_the_server_with_status_zero() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut server = Server::core();
        let mut wire = Wire::connect(server.address());
        wire.send("CONNECT {}\r\nPING\r\n");
        wire.expect("PONG");
        server.signal(signal);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{signal:?}");
        wire.expect_closed();
        assert!(
            TcpListener::bind(server.address()).is_ok(),
            "the port is free again"
        );
    }
}

#[test]
fn a_start_can_be_given_up_at_any_moment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = Command::new(env!("CARGO_BIN_EXE_nats-server"))
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
        .arg(directory.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut process = Reaped(process);
    let mut lines = BufReader::new(process.0.stderr.take().expect("it is piped")).lines();
    let first = lines.next().expect("it logs").expect("text");
    assert!(first.ends_with("Starting nats-server"), "{first}");
    let id = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(
        process.0.wait().expect("a child of ours").success(),
        "{rest:?}"
    );
}

#[test]
fn signals_are_sent_by_the_binary_itself() {
    let mut server = Server::core();
    let process = server.process_id();
    let output = run(&["--signal", &format!("reload={process}")]);
    assert!(output.status.success(), "{}", stderr(&output));
    server.wait_for_log("can only reload config when a file is provided using -c or --config");
    assert!(run(&[&format!("--signal=quit={process}")]).status.success());
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!run(&["--signal", "nonsense=1"]).status.success());
}

#[test]
fn lame_duck_mode_tells_clients_and_lets_them_go_before_it_ends() {
    let mut server = ServerOptions::default()
        .config("lame_duck_duration: \"30s\", lame_duck_grace_period: \"10ms\"")
        .start();
    let mut wire = Wire::connect(server.address());
    wire.send("CONNECT {\"protocol\":1}\r\nPING\r\n");
    wire.expect("PONG");
    server.signal(Signal::USR2);
    wire.expect("\"ldm\":true");
    wire.expect_closed();
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn lame_duck_mode_without_clients_ends_at_once() {
    let mut server = Server::core();
    server.signal(Signal::USR2);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn who_waits_for_messages_and_who_watches_hear_that_the_server_goes() {
    let config = "lame_duck_duration: \"30s\", lame_duck_grace_period: \"10ms\"
        accounts { SYS { users: [ {user: s, password: s} ] }
                   A { jetstream: enabled, users: [ {user: a, password: a} ] } }
        system_account: SYS";
    let body = |text: &str| format!("{}\r\n{text}\r\n", text.len());
    for signal in [Signal::USR2, Signal::TERM] {
        let mut server = ServerOptions::default().jetstream().config(config).start();
        let mut admin = Wire::ready(
            server.address(),
            r#"{"user":"s","pass":"s","verbose":false}"#,
        );
        admin.send("SUB $SYS.SERVER.*.* 1\r\n");
        admin.round_trip();
        let mut client = Wire::ready(
            server.address(),
            r#"{"user":"a","pass":"a","verbose":false,"headers":true,"protocol":1}"#,
        );
        client.send("SUB _INBOX.> 1\r\n");
        let stream = body(r#"{"name":"S","subjects":["s"]}"#);
        client.send(format!("PUB $JS.API.STREAM.CREATE.S _INBOX.s {stream}"));
        client.expect("did_create");
        let consumer =
            r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
        let consumer = body(consumer);
        client.send(format!(
            "PUB $JS.API.CONSUMER.DURABLE.CREATE.S.C _INBOX.c {consumer}"
        ));
        client.expect("consumer_create_response");
        let next = body(r#"{"batch":3,"max_bytes":100,"expires":60000000000}"#);
        client.send(format!(
            "PUB $JS.API.CONSUMER.MSG.NEXT.S.C _INBOX.next {next}"
        ));
        client.round_trip();
        server.signal(signal);
        client.expect(
            "NATS/1.0 409 Server Shutdown\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 100\r\n",
        );
        if signal == Signal::USR2 {
            admin.expect(".LAMEDUCK 1 ");
        }
        client.expect_closed();
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn a_log_file_that_was_moved_away_is_opened_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nats.log");
    let moved = directory.path().join("moved.log");
    let process = Command::new(env!("CARGO_BIN_EXE_nats-server"))
        .args(["-a", "127.0.0.1", "-p", "-1", "-l"])
        .arg(&path)
        .spawn()
        .expect("the binary runs");
    let mut process = Reaped(process);
    let logged = |path: &std::path::Path, needle: &str| {
        std::fs::read_to_string(path)
            .ok()
            .filter(|text| text.contains(needle))
    };
    eventually("ready in the log file", || logged(&path, "Server is ready"));
    std::fs::rename(&path, &moved).expect("our own directory");
    let id = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(id, Signal::USR1).expect("it runs");
    eventually("a new log file", || logged(&path, "File log re-opened"));
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    assert!(process.0.wait().expect("a child of ours").success());
    assert!(logged(&path, "Server Exiting").is_some() && logged(&moved, "Exiting").is_none());
}

#[test]
fn a_server_with_streams_says_where_they_are_and_how_they_are_kept() {
    let server = ServerOptions::default()
        .monitoring()
        .config("jetstream { store_dir: \"@DIR@/js\", max_mem: 64MB, max_file: 1GB, sync_interval: \"5s\", strict: false, limits { max_ack_pending: 10, batch { max_inflight_per_stream: 5, max_inflight_total: 6, max_msgs: 7, timeout: \"8s\" } } }")
        .start();
    let directory = server.directory().join("js/jetstream");
    let log = server.log();
    assert!(
        log.contains(&format!("Store Directory: \"{}\"", directory.display())),
        "{log}"
    );
    assert!(!log.contains("Temporary storage directory"), "{log}");
    let varz = json(&server, "/varz");
    let expected = serde_json::json!({
        "max_memory": 64 << 20, "max_storage": 1 << 30, "store_dir": directory,
        "sync_interval": 5_000_000_000u64, "compress_ok": true
    });
    assert_eq!(varz["jetstream"]["config"], expected);
    assert_eq!(
        varz["jetstream"]["limits"],
        serde_json::json!({
            "max_ack_pending": 10, "max_batch_inflight_per_stream": 5, "max_batch_inflight_total": 6,
            "max_batch_size": 7, "max_batch_timeout": 8_000_000_000u64
        })
    );
    let mut wire = Wire::connect(server.address());
    wire.expect("INFO ");
    assert!(wire.expect("\r\n").contains("\"jetstream\":true"));
}

#[test]
fn durable_before_ack_is_what_a_server_does_unasked() {
    let server = ServerOptions::default().monitoring().jetstream().start();
    let config = &json(&server, "/jsz")["config"];
    assert_eq!(config["sync_always"], true);
    assert_eq!(config["strict"], true);
}

#[test]
fn streams_are_seen_in_jsz_and_their_health_is_told() {
    let server = ServerOptions::default().monitoring().jetstream().start();
    let mut wire = Wire::ready(server.address(), "{\"verbose\":false}");
    wire.send("SUB r 1\r\n");
    for (api, body) in [
        ("STREAM.CREATE.S", "{\"name\":\"S\",\"subjects\":[\"s\"]}"),
        (
            "CONSUMER.CREATE.S.C",
            "{\"stream_name\":\"S\",\"config\":{\"name\":\"C\",\"durable_name\":\"C\",\"ack_policy\":\"explicit\"}}",
        ),
    ] {
        wire.send(format!("PUB $JS.API.{api} r {}\r\n{body}\r\n", body.len()));
        wire.expect("_response\"");
    }
    wire.send("PUB s r 5\r\nhello\r\n");
    wire.expect("\"seq\":1}");
    let totals = json(&server, "/jsz");
    assert_eq!(
        (&totals["streams"], &totals["consumers"]),
        (&1.into(), &1.into())
    );
    assert_eq!(totals["messages"], 1);
    assert!(totals["account_details"].is_null());
    let account =
        |query: &str| json(&server, &format!("/jsz?{query}"))["account_details"][0].clone();
    assert_eq!(account("accounts=1")["name"], "$G");
    let stream = account("acc=$G&streams=1")["stream_detail"][0].clone();
    assert_eq!(
        (&stream["name"], &stream["state"]["messages"]),
        (&"S".into(), &1.into())
    );
    assert!(stream["config"].is_null() && stream["consumer_detail"].is_null());
    let stream = account("consumers=true&config=true")["stream_detail"][0].clone();
    assert_eq!(stream["config"]["subjects"], serde_json::json!(["s"]));
    assert_eq!(
        stream["consumer_detail"][0]["config"]["ack_policy"],
        "explicit"
    );
    let stats = &json(&server, "/varz")["jetstream"]["stats"];
    assert_eq!(
        (&stats["api"]["total"], &stats["api"]["errors"]),
        (&2.into(), &0.into())
    );
    for (query, status) in [
        ("", 200),
        ("?js-enabled-only=true", 200),
        ("?account=$G&stream=S&consumer=C", 200),
        ("?account=$G&stream=S&consumer=D", 404),
        ("?account=$G&stream=T", 404),
        ("?account=NOBODY", 404),
        ("?stream=S", 400),
    ] {
        let answer = http_get(server.monitor_address(), &format!("/healthz{query}"));
        assert_eq!(
            answer.expect("monitoring answers").status,
            status,
            "{query}"
        );
    }
}

#[test]
fn a_store_directory_in_use_is_refused() {
    let server = Server::jetstream();
    let store = server.store_directory();
    let output = run(&["-p", "-1", "-js", "-sd", store.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("in use by another server"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_references_own_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stream = directory.path().join("jetstream/$G/streams/ORDERS");
    std::fs::create_dir_all(&stream).expect("our own directory");
    std::fs::write(stream.join("meta.inf"), "{}").expect("our own directory");
    let output = run(&[
        "-p",
        "-1",
        "-js",
        "-sd",
        directory.path().to_str().expect("UTF-8"),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("nats-tool filestore import"),
        "{}",
        stderr(&output)
    );
    let left: Vec<_> = std::fs::read_dir(directory.path().join("jetstream"))
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(left, ["$G"]);
}

#[test]
fn the_default_store_is_named_as_a_temporary_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = Command::new(env!("CARGO_BIN_EXE_nats-server"))
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-l"])
        .arg(directory.path().join("log"))
        .env("TMPDIR", directory.path())
        .spawn()
        .expect("the binary runs");
    let process = Reaped(process);
    let log = eventually("it is ready", || {
        let log = std::fs::read_to_string(directory.path().join("log")).ok()?;
        log.contains("Server is ready").then_some(log)
    });
    drop(process);
    assert!(
        log.contains("[WRN] Temporary storage directory used"),
        "{log}"
    );
    assert!(directory.path().join("nats/jetstream").is_dir());
}

/// A child that does not outlive its test.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let server = ServerOptions::default()
        .monitoring()
        .config("port: 1, server_name: file, max_payload: 2000, max_connections: 12, http_base_path: /nats")
        .arguments(["--name=flag"])
        .start();
    let mut wire = Wire::connect(server.address());
    wire.expect("INFO ");
    let info = wire.expect("\r\n");
    assert!(
        info.contains("\"server_name\":\"flag\"") && info.contains("\"max_payload\":2000"),
        "{info}"
    );
    let varz = json(&server, "/nats/varz");
    assert_eq!(varz["server_name"], "flag");
    assert_eq!(varz["max_connections"], 12);
    assert_eq!(varz["port"], server.address().port());
    assert!(
        varz["config_digest"]
            .as_str()
            .expect("text")
            .starts_with("sha256:")
    );
}

#[test]
fn the_sixth_version_of_ip_is_logged_in_brackets() {
    if TcpListener::bind("[::]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let server = ServerOptions::default().arguments(["-a", "::"]).start();
    assert!(
        server
            .log()
            .contains("Listening for client connections on [::]:")
    );
    // One listener serves both versions: the harness connects over the fourth.
    Wire::connect(server.address()).expect("INFO ");
}

#[test]
fn a_profile_of_the_processors_is_given_on_a_port_of_its_own() {
    let server = ServerOptions::default().arguments(["--profile=-1"]).start();
    let line = server.wait_for_log("profiling port: ");
    let port: u16 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let get = |path: &str| -> (String, Vec<u8>) {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        (head, bytes[end + 4..].to_vec())
    };
    let (head, profile) = get("/debug/pprof/profile?seconds=1");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert_eq!(profile.get(..2), Some(&[0x1f, 0x8b][..]), "gzip");
    let (_, words) = get("/debug/pprof/cmdline");
    assert!(String::from_utf8(words).unwrap().contains("--profile=-1"));
    let (head, index) = get("/debug/pprof/");
    assert!(head.contains("text/html") && String::from_utf8(index).unwrap().contains("profile"));
    assert!(get("/debug/pprof/goroutine").0.contains("404"));
    assert!(get("/debug/pprof/profile?seconds=x").0.contains("400"));
    assert!(get("/debug/vars").0.contains("200 OK"));
    // The server goes on, with a signal's handler that is no longer there.
    let mut wire = Wire::connect(server.address());
    wire.send("CONNECT {}\r\nPING\r\n");
    wire.expect("PONG");
}

#[test]
fn monitoring_counts_what_clients_do() {
    let server = ServerOptions::default().monitoring().start();
    let health = http_get(server.monitor_address(), "/healthz").expect("monitoring answers");
    assert_eq!(
        (health.status, health.body.as_str()),
        (200, "{\"status\":\"ok\"}")
    );
    assert!(
        health
            .headers
            .to_ascii_lowercase()
            .contains("access-control-allow-origin: *")
    );
    // The server's own services listen, too.
    let own = json(&server, "/varz")["subscriptions"].as_u64().unwrap();
    let mut wire = Wire::connect(server.address());
    wire.send("CONNECT {}\r\nSUB a 1\r\nPUB a 5\r\nhello\r\nPUB b 3\r\nyes\r\nPING\r\n");
    wire.expect("PONG");
    let varz = eventually("the counters follow", || {
        let varz = json(&server, "/varz");
        (varz["in_msgs"] == 2 && varz["out_msgs"] == 1).then_some(varz)
    });
    assert_eq!(
        (&varz["in_bytes"], &varz["out_bytes"]),
        (&8.into(), &5.into())
    );
    assert_eq!(
        (&varz["connections"], &varz["total_connections"]),
        (&1.into(), &1.into())
    );
    assert_eq!(varz["subscriptions"], own + 1);
    assert_eq!(
        varz["server_name"], varz["server_id"],
        "the id is the default name"
    );
    assert_eq!(json(&server, "/jsz")["disabled"], true);
    let missing = http_get(server.monitor_address(), "/nope").expect("monitoring answers");
    assert_eq!(
        (missing.status, missing.body.as_str()),
        (404, "404 page not found\n")
    );
}

#[test]
fn lines_go_to_a_remote_syslog_and_the_service_manager_is_told() {
    let log = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let patience = Some(std::time::Duration::from_secs(20));
    log.set_read_timeout(patience).unwrap();
    manager.set_read_timeout(patience).unwrap();
    let address = format!("udp://{}", log.local_addr().unwrap());
    let child = Command::new(env!("CARGO_BIN_EXE_nats-server"))
        .args(["-a", "127.0.0.1", "-p", "-1", "-r", &address])
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Reaped(child);
    let mut buffer = [0; 4096];
    let mut heard = |socket: &dyn Fn(&mut [u8]) -> std::io::Result<usize>, wanted: &str| loop {
        let length = socket(&mut buffer).expect("something is said in time");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    };
    let line = heard(&|bytes| log.recv(bytes), "Server is ready");
    assert!(
        line.starts_with("<29>") && line.contains("nats-server["),
        "{line}"
    );
    let told = heard(&|bytes| manager.recv(bytes), "READY=1");
    assert!(
        told.contains(&format!("MAINPID={}", process.0.id())),
        "{told}"
    );
    let id = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    heard(&|bytes| manager.recv(bytes), "STOPPING=1");
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn of_traced_messages_as_much_is_shown_as_was_asked_for() {
    let server = ServerOptions::default()
        .arguments(["-V", "--max_traced_msg_len", "3"])
        .start();
    let mut wire = Wire::ready(server.address(), "{\"verbose\":false}");
    wire.send("PUB a 6\r\nabcdef\r\n");
    server.wait_for_log("MSG_PAYLOAD: [\"abc\"...]");
    let server = ServerOptions::default()
        .config("trace_headers: true")
        .start();
    let connect = "{\"verbose\":false,\"headers\":true}";
    let mut wire = Wire::ready(server.address(), connect);
    wire.send("HPUB a 18 24\r\nNATS/1.0\r\nA: b\r\n\r\nsecret\r\n");
    let line = server.wait_for_log("MSG_HEADERS: [");
    assert!(
        line.contains("A: b") && !server.log().contains("secret"),
        "{line}"
    );
}
