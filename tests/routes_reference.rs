//! Our server and a reference server in one cluster. The reference's program is looked for on the machine; without it the tests say so and pass.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Clients that say nothing of who they are belong to the first.
const ACCOUNTS: &str = "accounts { A { users: [{user: a, password: p}] }, B { users: [{user: b, password: p}] } }\nno_auth_user: a\n";
const QUIET: Duration = Duration::from_millis(300);

/// A reference server; dropping it kills the process.
struct Reference {
    process: Child,
    client: SocketAddr,
    route_port: u16,
    directory: TempDir,
    begin: String,
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

/// Whether the program is of a version from 2.10 on: it has routes for single accounts, and takes up permissions that another server has changed.
fn is_current(program: &PathBuf) -> bool {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let minor = text.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let is_current = minor.is_some_and(|minor: u32| minor >= 10);
    if !is_current {
        eprintln!("SKIPPED: {} is too old", text.trim());
    }
    is_current
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
        let begin = format!(
            "server_name: {name}\nlisten: '127.0.0.1:{port}'\n\
             cluster {{ name: c, listen: '127.0.0.1:{route_port}', routes: [{}]\n",
            routes.join(",")
        );
        std::fs::write(&config, format!("{begin} }}\n{ACCOUNTS}")).unwrap();
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
            directory,
            begin,
        }
    }

    /// Takes up a configuration with this in its `cluster` block.
    fn reload(&self, block: &str) {
        let config = self.directory.path().join("reference.conf");
        std::fs::write(&config, format!("{}{block} }}\n{ACCOUNTS}", self.begin)).unwrap();
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::HUP).unwrap();
    }
}

fn ours(routes: &[u16]) -> (Server, u16) {
    let routes: Vec<_> = routes
        .iter()
        .map(|port| format!("'nats-route://127.0.0.1:{port}'"))
        .collect();
    let config = format!(
        "server_name: ours\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{}] }}\n{ACCOUNTS}",
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

/// Ours takes up a configuration with this in its `cluster` block.
fn reload_ours(server: &mut Server, reference: &Reference, block: &str) {
    let port = reference.route_port;
    server.reload(&format!(
        "server_name: ours\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: ['nats-route://127.0.0.1:{port}']\n{block} }}\n{ACCOUNTS}"
    ));
}

#[test]
fn accounts_move_to_routes_of_their_own_and_back_and_permissions_change_with_a_reference_server() {
    let Some(program) = program().filter(is_current) else {
        return;
    };
    let reference = Reference::start(&program, "theirs", &[]);
    let (mut server, _) = ours(&[reference.route_port]);
    exchange(server.address(), reference.client);
    for theirs_first in [true, false] {
        let own = "accounts: [A]";
        if theirs_first {
            reference.reload(own);
            reload_ours(&mut server, &reference, own);
        } else {
            reload_ours(&mut server, &reference, own);
            reference.reload(own);
        }
        exchange(server.address(), reference.client);
        reference.reload("");
        reload_ours(&mut server, &reference, "");
        exchange(server.address(), reference.client);
    }
    // What the reference lets through, ours tells again, and the other way round.
    let (mut here, mut there) = (client(server.address()), client(reference.client));
    here.send("SUB x.here 1\r\n");
    there.send("SUB x.there 1\r\n");
    here.round_trip();
    there.round_trip();
    let narrow = "permissions { import: 'y.>', export: 'y.>' }";
    let is_lost = |publisher: &mut Wire, subject: &str| {
        eventually("nobody hears it", || {
            publisher.send(format!("SUB nobody 9\r\nPUB {subject} nobody 0\r\n\r\n"));
            publisher.round_trip().contains("503").then_some(())
        });
    };
    let reaches = |publisher: &mut Wire, listener: &mut Wire, subject: &str| {
        eventually("a message gets through", || {
            publisher.send(format!("PUB {subject} 5\r\nready\r\n"));
            let heard = listener.read_until(Duration::from_millis(100), |bytes, _| {
                bytes.windows(5).any(|window| window == b"ready")
            });
            heard.then_some(())
        });
        listener.settle(QUIET);
        listener.take();
    };
    reload_ours(&mut server, &reference, narrow);
    is_lost(&mut here, "x.there");
    is_lost(&mut there, "x.here");
    reload_ours(&mut server, &reference, "");
    reaches(&mut here, &mut there, "x.there");
    reaches(&mut there, &mut here, "x.here");
    reference.reload(narrow);
    is_lost(&mut here, "x.there");
    is_lost(&mut there, "x.here");
    reference.reload("");
    reaches(&mut here, &mut there, "x.there");
    reaches(&mut there, &mut here, "x.here");
}

fn ours_named(name: &str) -> (Server, u16) {
    let config =
        format!("server_name: {name}\ncluster {{ name: c, listen: '127.0.0.1:-1' }}\n{ACCOUNTS}");
    let server = ServerOptions::default().config(&config).start();
    let line = server.wait_for_log("Listening for route connections on");
    let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    (server, port)
}
