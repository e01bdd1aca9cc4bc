//! Many connections that come and go: what the server holds for them is small, and nothing of it stays.
//!
//! `SOAK_CONNECTIONS` says how many there are at one time, `SOAK_SECONDS` for how long they come and go. The figures go to standard
//! output (`cargo test --release --test soak -- --nocapture`).

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{Server, ServerOptions, eventually_async, http_get, open_descriptors, resident_bytes};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections that are opened at the same time; more would overrun the listener's queue.
const AT_ONCE: usize = 200;
/// A connection has fallen quiet, and gives memory back, after this.
const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// What one round may leave behind on top of the one before: pages of an allocator, not of connections.
const SLACK: u64 = 8 << 20;

fn number(variable: &str, default: usize) -> usize {
    let said = std::env::var(variable).ok();
    said.map_or(default, |text| text.parse().expect("a number"))
}

struct Peer {
    stream: TcpStream,
    number: usize,
}

impl Peer {
    async fn come(address: SocketAddr, number: usize) -> Self {
        let stream = TcpStream::connect(address).await.expect("it is admitted");
        let mut peer = Self { stream, number };
        peer.say(&format!(
            "CONNECT {{\"verbose\":false,\"headers\":true,\"protocol\":1,\"name\":\"soak\"}}\r\n\
             SUB soak.{number} 1\r\nPING\r\n"
        ))
        .await;
        peer.hear("PONG\r\n").await;
        // What is told after the first PONG comes now.
        peer.round_trip().await;
        peer
    }

    async fn say(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("it is open");
    }

    async fn hear(&mut self, end: &str) {
        let mut heard = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&heard).contains(end) {
                let count = self.stream.read_buf(&mut heard).await.expect("it is open");
                assert!(
                    count > 0,
                    "closed after {:?}",
                    String::from_utf8_lossy(&heard)
                );
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("it is served");
    }

    async fn round_trip(&mut self) {
        self.say("PING\r\n").await;
        self.hear("PONG\r\n").await;
    }

    /// Has a message come to it.
    async fn work(&mut self) {
        let text = format!("PUB soak.{} 100\r\n{}\r\n", self.number, "x".repeat(100));
        self.say(&text).await;
        self.hear("xxx\r\n").await;
    }
}

/// Fills `peers` up to `count`.
async fn fill(peers: &mut Vec<Peer>, address: SocketAddr, count: usize) {
    let mut next = peers.iter().map(|peer| peer.number + 1).max().unwrap_or(0);
    while peers.len() < count {
        let batch = AT_ONCE.min(count - peers.len());
        let coming = (next..next + batch).map(|number| Peer::come(address, number));
        peers.extend(join_all(coming).await);
        next += batch;
    }
}

async fn work(peers: &mut [Peer]) {
    for batch in peers.chunks_mut(AT_ONCE) {
        join_all(batch.iter_mut().map(Peer::work)).await;
    }
}

fn connected(server: &Server) -> usize {
    let answer = http_get(server.monitor_address(), "/varz").expect("monitoring answers");
    let varz: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    varz["connections"].as_u64().expect("a number") as usize
}

async fn wait_for_connections(server: &Server, count: usize) {
    eventually_async("the server knows who has gone", async || {
        (connected(server) == count).then_some(())
    })
    .await;
}

/// What is resident once nothing happens any more.
async fn resident_when_quiet(server: &Server) -> u64 {
    tokio::time::sleep(QUIET).await;
    let mut least = resident_bytes(server);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        least = least.min(resident_bytes(server));
    }
    least
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let count = number("SOAK_CONNECTIONS", 2_000);
    let span = Duration::from_secs(number("SOAK_SECONDS", 5) as u64);
    // Those that have ended are remembered on purpose, up to a limit of their own.
    let server = ServerOptions::default()
        .config("max_closed_clients: 10\nmax_connections: 200000\nping_interval: '10s'")
        .monitoring()
        .start();
    let address = server.address();
    // Threads and buffers that do not depend on connections come first.
    let mut peers = Vec::new();
    fill(&mut peers, address, AT_ONCE).await;
    work(&mut peers).await;
    peers.clear();
    wait_for_connections(&server, 0).await;
    let empty = resident_when_quiet(&server).await;
    let descriptors = open_descriptors(&server);

    fill(&mut peers, address, count).await;
    wait_for_connections(&server, count).await;
    let idle = resident_when_quiet(&server).await;
    work(&mut peers).await;
    let full = resident_when_quiet(&server).await;
    assert!(open_descriptors(&server) >= count);
    let each = |resident: u64| resident.saturating_sub(empty) / count as u64;
    println!(
        "{count} connections: {} bytes each when idle, {} after they have worked, {} KiB resident without any",
        each(idle),
        each(full),
        empty / 1024
    );

    let started = Instant::now();
    let (mut gone, mut rounds) = (0, 0);
    while started.elapsed() < span || rounds < 2 {
        // A tenth of them goes, from another place each time, and others come.
        let tenth = (count / 10).max(1);
        let at = (rounds * tenth) % count;
        drop(peers.drain(at..(at + tenth).min(peers.len())));
        gone += tenth;
        fill(&mut peers, address, count).await;
        work(&mut peers).await;
        rounds += 1;
    }
    wait_for_connections(&server, count).await;
    let churned = resident_when_quiet(&server).await;
    println!(
        "{gone} came and went in {:.0?}: {} bytes each",
        started.elapsed(),
        each(churned)
    );
    assert!(
        churned <= full + full / 10 + SLACK,
        "grown from {full} to {churned} bytes while {gone} came and went"
    );
    peers.clear();
    wait_for_connections(&server, 0).await;
    eventually_async("all descriptors are closed", async || {
        (open_descriptors(&server) <= descriptors).then_some(())
    })
    .await;
    let after = resident_when_quiet(&server).await;
    println!("{} KiB resident when all have gone", after / 1024);
    assert!(after <= full + SLACK);
    let limit = 16 * 1024;
    assert!(each(idle) < limit, "{} bytes each", each(idle));
}
