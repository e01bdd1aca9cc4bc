//! What a store costs: servers that are started for it, with a directory of their own, one after another.
//!
//! A stream is filled, and then looked at: memory, bytes on disk, the time from the start of the process to the first answer about the stream,
//! after it was told to end and after it was killed.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::load::{Share, create_stream};
use super::publish::publish;
use super::{AckMode, Delivery, StorageKind};
use crate::bench::Targets;
use crate::bench::client::Client;
use crate::bench::process::Process;

const STREAM: &str = "BENCH";
/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(120);
/// How long after the last message its memory is looked at.
const REST: Duration = Duration::from_secs(3);
/// How many messages follow before a server is killed.
const BEFORE_KILL: u64 = 10_000;

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// A server's program; it is started with `-a -p -js -sd`. May be given several times: ratios are to the last one.
    #[arg(long = "program", value_name = "PATH", required = true)]
    programs: Vec<PathBuf>,
    /// Where the directories of the servers are made, and removed afterwards.
    #[arg(long)]
    directory: PathBuf,
    /// Messages of the stream.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Subjects in turn; with one, it is `rec`, otherwise `rec.` and a number.
    #[arg(long, default_value_t = 1)]
    subjects: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// How often a server is started after it ended, and after it was killed.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// One line of JSON for each program.
    #[arg(long)]
    json: bool,
}

/// What one server came to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    resident_bytes: f64,
    restarted_bytes: f64,
    disk_bytes: f64,
    start: f64,
    start_after_kill: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.messages == 0 || arguments.subjects == 0 {
        bail!("messages and subjects are at least 1");
    }
    let mut all = Vec::new();
    for (number, program) in arguments.programs.iter().enumerate() {
        let directory = arguments
            .directory
            .join(format!("bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let figures = measure(arguments, program, &directory);
        std::fs::remove_dir_all(&directory)?;
        all.push(figures?);
    }
    print(arguments, &all)
}

fn measure(arguments: &Arguments, program: &Path, directory: &Path) -> Result<Figures> {
    let (mut server, _) = Server::start(program, directory, None)?;
    let mut client = Client::connect(&server.address)?;
    let usual = publishing(arguments);
    // With the shortest window there is, nothing is left to be brought back from it at a start.
    let more = json!({"subjects": ["rec.>", "rec"], "duplicate_window": 100_000_000});
    create_stream(&mut client, &usual, STREAM, &more)?;
    fill(&mut client, &usual, arguments.messages)?;
    std::thread::sleep(REST);
    let resident_bytes = server.resident_bytes()?;
    let mut starts = Vec::new();
    let mut expected = arguments.messages;
    let mut restarted_bytes = 0.0;
    let mut disk_bytes = 0.0;
    for _ in 0..arguments.starts.max(1) {
        server.end("-TERM")?;
        disk_bytes = bytes_below(directory)? as f64;
        let (started, took) = Server::start(program, directory, Some(expected))?;
        server = started;
        restarted_bytes = server.resident_bytes()?;
        starts.push(took);
    }
    let mut starts_after_kill = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        let mut client = Client::connect(&server.address)?;
        fill(&mut client, &usual, BEFORE_KILL)?;
        expected += BEFORE_KILL;
        server.end("-KILL")?;
        let (started, took) = Server::start(program, directory, Some(expected))?;
        server = started;
        starts_after_kill.push(took);
    }
    server.end("-TERM")?;
    Ok(Figures {
        resident_bytes,
        restarted_bytes,
        disk_bytes,
        start: crate::bench::report::median(starts),
        start_after_kill: crate::bench::report::median(starts_after_kill),
    })
}

fn publishing(arguments: &Arguments) -> super::Arguments {
    super::Arguments {
        targets: Targets {
            servers: Vec::new(),
            rounds: 1,
            json: false,
        },
        size: arguments.size,
        messages: arguments.messages,
        window: 5_000,
        clients: 1,
        batch: 1,
        subjects: arguments.subjects,
        replicas: 1,
        storage: StorageKind::File,
        delivery: Delivery::Pull,
        ack: AckMode::None,
    }
}

fn fill(client: &mut Client, arguments: &super::Arguments, messages: u64) -> Result<()> {
    let share = Share {
        client: 0,
        operations: messages,
    };
    let subject = |at: u64, line: &mut Vec<u8>| {
        // Writing into memory does not fail.
        let _ = match arguments.subjects {
            1 => write!(line, "rec"),
            subjects => write!(line, "rec.{:06}", at % subjects),
        };
    };
    publish(client, arguments, share, &subject)?;
    Ok(())
}

/// A server that runs; it is killed when it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server and waits until it answers, about the stream with so many messages if one is expected; how many seconds it took.
    fn start(program: &Path, directory: &Path, messages: Option<u64>) -> Result<(Self, f64)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let begun = Instant::now();
        let child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut server = Self {
            child,
            address: format!("127.0.0.1:{port}"),
        };
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} has ended: {status}", program.display());
            }
            match server.ask(messages) {
                Ok(()) => return Ok((server, begun.elapsed().as_secs_f64())),
                Err(error) if begun.elapsed() > START_MAX => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn ask(&self, messages: Option<u64>) -> Result<()> {
        let mut client = Client::connect(&self.address)?;
        let Some(expected) = messages else {
            client.request("$JS.API.INFO", b"")?;
            return Ok(());
        };
        let info = client.request(&format!("$JS.API.STREAM.INFO.{STREAM}"), b"")?;
        match info.pointer("/state/messages").and_then(Value::as_u64) {
            Some(found) if found == expected => Ok(()),
            found => bail!("of {expected} messages {found:?} are there"),
        }
    }

    fn resident_bytes(&self) -> Result<f64> {
        Ok(Process::new(self.child.id())?.resident_bytes()? as f64)
    }

    /// Sends a signal and waits for the end.
    fn end(&mut self, signal: &str) -> Result<()> {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()?;
        if !sent.success() {
            bail!("the server could not be told to end");
        }
        self.child.wait()?;
        Ok(())
    }
}

/// Bytes that the files take, as their blocks are allocated.
fn bytes_below(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}

fn print(arguments: &Arguments, all: &[Figures]) -> Result<()> {
    let Some(last) = all.last() else {
        return Ok(());
    };
    let mut out = std::io::stdout().lock();
    let messages = arguments.messages as f64;
    for (program, own) in arguments.programs.iter().zip(all) {
        if arguments.json {
            let line = json!({
                "program": program.display().to_string(),
                "resident_bytes": own.resident_bytes,
                "restarted_bytes": own.restarted_bytes,
                "disk_bytes_each": own.disk_bytes / messages,
                "start_seconds": own.start,
                "start_after_kill_seconds": own.start_after_kill,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        writeln!(out, "{}", program.display())?;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let rows = [
            (
                "memory when filled, MiB",
                mib(own.resident_bytes),
                mib(last.resident_bytes),
            ),
            (
                "memory after a start, MiB",
                mib(own.restarted_bytes),
                mib(last.restarted_bytes),
            ),
            (
                "disk for each message, B",
                own.disk_bytes / messages,
                last.disk_bytes / messages,
            ),
            ("start, ms", own.start * 1e3, last.start * 1e3),
            (
                "start after a kill, ms",
                own.start_after_kill * 1e3,
                last.start_after_kill * 1e3,
            ),
        ];
        for (what, own, last) in rows {
            writeln!(out, "  {what:<28} {own:>10.1} {:>6.2}x", own / last)?;
        }
    }
    Ok(())
}
