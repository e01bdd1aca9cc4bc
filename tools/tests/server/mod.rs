//! A server over a store.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Server {
    pub process: Child,
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
