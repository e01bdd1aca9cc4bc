//! The server as a process: flags, files, signals, exit status and log lines that scripts rely on.

mod common;

use std::net::TcpListener;
use std::process::{Command, Output};

use common::{Server, ServerOptions, Wire, http_get};
use rustix::process::Signal;

fn run(arguments: &[&str]) -> Output {
    let binary = std::env::var("NATS_SERVER_UNDER_TEST")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_nats-server").to_owned());
    Command::new(binary)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_version_flag_prints_a_version_that_tools_understand() {
    for flag in ["-v", "--version"] {
        let output = run(&[flag]);
        let printed = text(&output.stdout);
        let version = printed.trim().strip_prefix("nats-server: v");
        let numbers: Vec<&str> = version.expect("`nats-server: v…`").split('.').collect();
        assert!(numbers.len() == 3, "{printed}");
        assert!(numbers[0].parse::<u32>().is_ok(), "{printed}");
        assert!(output.status.success());
    }
}

#[test]
fn the_first_line_of_a_connection_names_the_port_it_came_to() {
    let server = Server::core();
    let mut wire = Wire::connect(server.address());
    let info = wire.expect("\r\n");
    assert!(
        info.contains(&format!(r#""port":{}"#, server.address().port())),
        "{info}"
    );
}

#[test]
fn a_taken_port_is_said_and_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = run(&["-a", "127.0.0.1", "-p", &port]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("port"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_configuration_that_cannot_be_parsed_is_said_and_is_a_failure() {
    let failure = ServerOptions::default()
        .config("listen: [ this is { not closed")
        .try_start();
    assert!(failure.is_err());
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("server.conf");
    std::fs::write(&path, "max_payload: 1000\n").expect("writable");
    let path = path.to_string_lossy().into_owned();
    let good = run(&["-t", "-c", &path]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    std::fs::write(&path, "max_payload: [\n").expect("writable");
    assert!(!run(&["-t", "-c", &path]).status.success());
}

#[test]
fn a_stray_argument_is_a_failure() {
    assert!(!run(&["frobnicate"]).status.success());
}

#[test]
fn flags_win_over_the_configuration() {
    let server = ServerOptions::default()
        .config("server_name: from_file\nmax_payload: 1234\n")
        .arguments(["-n", "from_flag"])
        .start();
    let info = Wire::connect(server.address()).expect("\r\n");
    assert!(info.contains(r#""server_name":"from_flag""#), "{info}");
    assert!(info.contains(r#""max_payload":1234"#), "{info}");
}

#[test]
fn the_pid_file_holds_the_pid_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pid");
    let server = ServerOptions::default()
        .arguments(["-P".to_owned(), path.to_string_lossy().into_owned()])
        .start();
    let held = std::fs::read_to_string(&path).expect("the pid file");
    assert_eq!(held, server.process_id().to_string());
}

#[test]
fn term_and_interrupt_end_the_server_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = ServerOptions::default().jetstream().start();
        let mut wire = Wire::ready(server.address(), r#"{"verbose":false}"#);
        server.signal(signal);
        let status = server.wait_for_exit();
        assert!(status.success(), "{signal:?}: {status}");
        wire.expect_closed();
    }
}

#[test]
fn the_log_names_its_levels_and_the_store() {
    let server = ServerOptions::default()
        .jetstream()
        .arguments(["-D"])
        .start();
    let log = server.log();
    assert!(log.contains("[INF]"), "{log}");
    assert!(log.contains("Store Directory: \""), "{log}");
    Wire::ready(server.address(), r#"{"verbose":false}"#);
    server.wait_for_log("[DBG]");
}

#[test]
fn tracing_shows_the_protocol() {
    let server = ServerOptions::default().arguments(["-V"]).start();
    let mut wire = Wire::ready(server.address(), r#"{"verbose":false}"#);
    wire.send("SUB foo 1\r\n");
    wire.round_trip();
    let line = server.wait_for_log("[SUB foo 1]");
    assert!(line.contains("[TRC]"), "{line}");
}

#[test]
fn a_log_file_takes_what_stderr_would() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("server.log");
    let arguments = ["-l".to_owned(), path.to_string_lossy().into_owned()];
    let mut child = ServerProcess::spawn(&arguments);
    common::eventually("the log file says that the server is ready", || {
        let log = std::fs::read_to_string(&path).ok()?;
        log.contains("Server is ready").then_some(())
    });
    child.0.kill().expect("running");
}

/// A server that logs to a file: the harness would wait for its stderr.
struct ServerProcess(std::process::Child);

impl ServerProcess {
    fn spawn(arguments: &[String]) -> Self {
        let binary = std::env::var("NATS_SERVER_UNDER_TEST")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_nats-server").to_owned());
        let child = Command::new(binary)
            .args(["-a", "127.0.0.1", "-p", "-1"])
            .args(arguments)
            .spawn()
            .expect("the binary runs");
        Self(child)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_monitoring_port_answers() {
    let server = ServerOptions::default().monitoring().jetstream().start();
    let page = |path: &str| http_get(server.monitor_address(), path).expect("an answer");
    assert_eq!(page("/healthz").body, r#"{"status":"ok"}"#);
    let varz: serde_json::Value = serde_json::from_str(&page("/varz").body).expect("JSON");
    assert_eq!(varz["port"], server.address().port());
    let jsz: serde_json::Value = serde_json::from_str(&page("/jsz").body).expect("JSON");
    let store = server.store_directory().to_string_lossy().into_owned();
    let directory = jsz["config"]["store_dir"]
        .as_str()
        .expect("a store directory");
    assert!(directory.starts_with(&store), "{directory}");
    assert_eq!(page("/nope").status, 404);
}

#[test]
fn messages_and_bytes_are_counted_exactly() {
    let server = ServerOptions::default().monitoring().start();
    let mut wire = Wire::ready(server.address(), r#"{"verbose":false}"#);
    wire.send("SUB a 1\r\n");
    wire.send("PUB a 5\r\nhello\r\n".repeat(7));
    wire.round_trip();
    let body = http_get(server.monitor_address(), "/varz")
        .expect("an answer")
        .body;
    let varz: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let count = |key: &str| varz[key].as_u64();
    assert_eq!((count("in_msgs"), count("in_bytes")), (Some(7), Some(35)));
    assert_eq!((count("out_msgs"), count("out_bytes")), (Some(7), Some(35)));
    assert_eq!(count("connections"), Some(1));
}
