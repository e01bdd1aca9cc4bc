//! Our server and a reference server in one cluster. The reference's program is looked for on the machine; without it the tests say so and pass.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually};
use tempfile::TempDir;

const QUIET: Duration = Duration::from_millis(300);

/// A reference server; dropping it kills the process.
struct Reference {
    process: Child,
    client: SocketAddr,
    route_port: u16,
    _directory: TempDir,
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("REFERENCE_NATS_SERVER").map(PathBuf::from);
    let places = ["/usr/sbin/nats-server", "/usr/local/bin/nats-server"].map(PathBuf::from);
    let found = named.into_iter().chain(places).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no reference server on this machine");
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Reference {
    fn start(program: &PathBuf, name: &str, routes: &[u16]) -> Self {
        let directory = TempDir::new().unwrap();
        let (port, route_port) = (free_port(), free_port());
        let routes: Vec<_> = routes
            .iter()
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let config = directory.path().join("reference.conf");
        let text = format!(
            "server_name: {name}\nlisten: '127.0.0.1:{port}'\n\
             cluster {{ name: c, listen: '127.0.0.1:{route_port}', routes: [{}] }}\n",
            routes.join(",")
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the reference starts");
        let client = (Ipv4Addr::LOCALHOST, port).into();
        eventually("the reference listens", || TcpStream::connect(client).ok());
        Self {
            process,
            client,
            route_port,
            _directory: directory,
        }
    }
}

fn ours(routes: &[u16]) -> (Server, u16) {
    let routes: Vec<_> = routes
        .iter()
        .map(|port| format!("'nats-route://127.0.0.1:{port}'"))
        .collect();
    let config = format!(
        "server_name: ours\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{}] }}",
        routes.join(",")
    );
    let server = ServerOptions::default().config(&config).start();
    let line = server.wait_for_log("Listening for route connections on");
    let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    (server, port)
}

fn client(address: SocketAddr) -> Wire {
    Wire::ready(
        address,
        r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#,
    )
}

/// Messages, headers, queue groups, requests and ends of interest in both directions.
fn exchange(one: SocketAddr, other: SocketAddr) {
    for (from, to) in [(one, other), (other, one)] {
        let (mut publisher, mut listener) = (client(from), client(to));
        listener.send("SUB orders.* 1\r\nSUB jobs workers 2\r\nSUB jobs workers 3\r\n");
        eventually("a message gets through", || {
            publisher.send("PUB orders.warm 5\r\nready\r\n");
            listener
                .read_until(Duration::from_millis(100), |bytes, _| {
                    bytes.windows(5).any(|window| window == b"ready")
                })
                .then_some(())
        });
        publisher.round_trip();
        listener.settle(QUIET);
        listener.take();
        let large = "x".repeat(200_000);
        publisher.send("HPUB orders.new inbox 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        publisher.send(format!("PUB orders.big {}\r\n{large}\r\n", large.len()));
        for _ in 0..20 {
            publisher.send("PUB jobs inbox 3\r\njob\r\n");
        }
        publisher.round_trip();
        listener.expect("HMSG orders.new 1 inbox 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        listener.expect(&format!("MSG orders.big 1 200000\r\n{large}\r\n"));
        listener.settle(QUIET);
        assert_eq!(listener.take_text().matches("MSG jobs").count(), 20);
        publisher.send("SUB inbox 9\r\nPUB orders.ask inbox 1\r\n?\r\n");
        listener.expect("MSG orders.ask 1 inbox 1\r\n?\r\n");
        listener.send("PUB inbox 1\r\n!\r\n");
        publisher.expect("MSG inbox 9 1\r\n!\r\n");
        listener.send("UNSUB 1\r\n");
        listener.round_trip();
        eventually("interest ends", || {
            publisher.send("PUB orders.ask inbox 0\r\n\r\n");
            publisher.round_trip().contains("503").then_some(())
        });
    }
}

#[test]
fn a_reference_server_dials_ours() {
    let Some(program) = program() else { return };
    let (server, port) = ours(&[]);
    let reference = Reference::start(&program, "theirs", &[port]);
    exchange(server.address(), reference.client);
}

#[test]
fn our_server_dials_a_reference_server() {
    let Some(program) = program() else { return };
    let reference = Reference::start(&program, "theirs", &[]);
    let (server, _) = ours(&[reference.route_port]);
    exchange(server.address(), reference.client);
}

#[test]
fn a_server_that_only_one_of_them_knows_is_found_by_the_other() {
    let Some(program) = program() else { return };
    let seed = Reference::start(&program, "seed", &[]);
    let (server, _) = ours(&[seed.route_port]);
    let third = Reference::start(&program, "third", &[seed.route_port]);
    exchange(server.address(), third.client);
    let (seed, (second, second_port)) = (server, ours_named("second"));
    drop(seed);
    let late = Reference::start(&program, "late", &[second_port]);
    exchange(second.address(), late.client);
}

fn ours_named(name: &str) -> (Server, u16) {
    let config = format!("server_name: {name}\ncluster {{ name: c, listen: '127.0.0.1:-1' }}");
    let server = ServerOptions::default().config(&config).start();
    let line = server.wait_for_log("Listening for route connections on");
    let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    (server, port)
}
