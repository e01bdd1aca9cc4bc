//! A client that asks a server one thing at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let timeout = Some(Duration::from_secs(60));
        stream.set_read_timeout(timeout).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.send("CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\n");
        client
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Asks and waits for the answer, which is JSON.
    pub fn request(&mut self, subject: &str, body: &str) -> Value {
        self.send(&format!("PUB {subject} inbox {}\r\n{body}\r\n", body.len()));
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "{subject}: closed"
            );
            if line.starts_with("PING") {
                self.send("PONG\r\n");
            }
            assert!(!line.starts_with("-ERR"), "{line}");
            if let Some(rest) = line.trim_end().strip_prefix("MSG ") {
                let length: usize = rest.rsplit(' ').next().unwrap().parse().unwrap();
                let mut body = vec![0; length + 2];
                self.0.read_exact(&mut body).unwrap();
                return serde_json::from_slice(&body[..length]).unwrap();
            }
        }
    }
}
