//! Ports that must be known before a server starts, since others are told of them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what the system gives to connections and to listeners that do not name a port: between the look and the server's start
/// nobody else takes one of these.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97)));

/// A port on the loopback that nobody listens on.
pub fn free_port() -> u16 {
    loop {
        let drawn = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(drawn).expect("it is in range");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Several of them.
pub fn free_ports<const PORTS: usize>() -> [u16; PORTS] {
    std::array::from_fn(|_| free_port())
}
