//! A client that sees bytes: no library between the test and the protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// One raw connection and all it has received that nobody took yet.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    closed: bool,
}

impl Wire {
    /// Opens a connection; nothing is sent or read yet.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_nodelay(true).expect("a connected socket");
        stream
            .set_read_timeout(Some(POLL))
            .expect("a connected socket");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a connected socket");
        Self {
            stream,
            received: Vec::new(),
            closed: false,
        }
    }

    /// Opens a connection, reads INFO, sends CONNECT with `options` and waits for the PONG behind it.
    pub fn ready(address: SocketAddr, options: &str) -> Self {
        let mut wire = Self::connect(address);
        wire.expect("INFO ");
        wire.send(format!("CONNECT {options}\r\nPING\r\n"));
        wire.expect("PONG\r\n");
        wire.settle(Duration::from_millis(20));
        wire.take();
        wire
    }

    /// Sends bytes. A peer that has closed is not an error here: what came back tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if self.stream.write_all(bytes.as_ref()).is_err() {
            self.closed = true;
        }
    }

    /// Reads until `done` holds, the peer closes or `patience` is over; tells whether `done` held.
    pub fn read_until(&mut self, patience: Duration, done: impl Fn(&[u8], bool) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if done(&self.received, self.closed) {
                return true;
            }
            if self.closed || Instant::now() >= deadline {
                return false;
            }
            self.read_once();
        }
    }

    /// Reads until nothing has come for `quiet`.
    pub fn settle(&mut self, quiet: Duration) {
        let mut silent_since = Instant::now();
        while !self.closed && silent_since.elapsed() < quiet {
            if self.read_once() {
                silent_since = Instant::now();
            }
        }
    }

    /// Waits until `text` has been received; what came up to its end is taken and returned.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let found = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .position(|window| window == text.as_bytes())
        };
        let arrived = self.read_until(PATIENCE, |bytes, _| found(bytes).is_some());
        assert!(
            arrived,
            "never received {text:?}; received {:?}, closed: {}",
            String::from_utf8_lossy(&self.received),
            self.closed
        );
        let end = found(&self.received).expect("just found") + text.len();
        let taken: Vec<u8> = self.received.drain(..end).collect();
        String::from_utf8_lossy(&taken).into_owned()
    }

    /// Sends PING and returns all that came before its PONG: what the server had to say so far.
    #[track_caller]
    pub fn round_trip(&mut self) -> String {
        self.send("PING\r\n");
        let mut text = self.expect("PONG\r\n");
        text.truncate(text.len() - "PONG\r\n".len());
        text
    }

    /// Waits until the server has closed the connection and returns what it said last.
    #[track_caller]
    pub fn expect_closed(&mut self) -> String {
        self.read_until(PATIENCE, |_, _| false);
        assert!(
            self.closed,
            "still open; received {:?}",
            String::from_utf8_lossy(&self.received)
        );
        self.take_text()
    }

    /// Whether the peer has closed, as far as has been read.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What has been received and not taken.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes all that has been received.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Takes the first `count` bytes.
    pub fn take_first(&mut self, count: usize) -> Vec<u8> {
        self.received.drain(..count).collect()
    }

    /// Takes all that has been received, as text.
    pub fn take_text(&mut self) -> String {
        String::from_utf8_lossy(&self.take()).into_owned()
    }

    /// One read; true when bytes came.
    fn read_once(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                return true;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => self.closed = true,
        }
        false
    }
}
