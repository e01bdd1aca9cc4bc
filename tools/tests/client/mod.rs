//! A server over a store, and a client that asks it one thing at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub struct Server {
    process: Child,
    pub address: String,
}

impl Server {
    /// The server binary that was built beside the tool; none when it was not.
    pub fn start(store: &Path) -> Option<Self> {
        let tool = Path::new(env!("CARGO_BIN_EXE_nats-tool"));
        let binary = tool.with_file_name("nats-server");
        if !binary.exists() {
            println!("skipped: {} was not built", binary.display());
            return None;
        }
        let mut process = Command::new(binary)
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(store)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = "Listening for client connections on ";
        let address = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, address) = line.split_once(listening)?;
            Some(address.trim().to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            address: address.expect("it listens"),
            process,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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
