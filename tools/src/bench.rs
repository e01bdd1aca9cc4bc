//! `nats-tool bench`: the same load against one server or several in turn, and how they compare.
//!
//! - `client`: a connection of its own, so that no library's cost is measured.
//! - `publish`, `consume`, `keyvalue`: the loads.
//! - `load`: what a load is, and what came of one run.
//! - `latency`: how long each operation took.
//! - `process`: the processor time of a server on this machine.
//! - `report`: what came out, side by side.
//!
//! # Invariant
//! Servers are measured in turns, so that whatever else the machine does falls on all of them. Streams are made under names of their own and removed
//! afterwards; nothing else of a server is touched.

mod client;
mod consume;
mod keyvalue;
mod latency;
mod load;
mod process;
mod publish;
mod report;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use load::{Load, Run};
use process::Process;

/// What to load servers with.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Publish to a stream and wait for the acknowledgements.
    #[command(name = "publish")]
    Publish(Arguments),
    /// Consume a stream's messages with pull requests.
    #[command(name = "consume")]
    Consume(Arguments),
    /// Put values into a bucket, one after another for each client.
    #[command(name = "kv-put")]
    KeyValuePut(Arguments),
    /// Get values out of a bucket, one after another for each client.
    #[command(name = "kv-get")]
    KeyValueGet(Arguments),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    /// On disk.
    File,
    /// In memory.
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AckMode {
    /// Each message is acknowledged.
    Explicit,
    /// None is.
    None,
}

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// A server as host:port, and its process for the processor time: host:port=PID. May be given several times: ratios are to the last one.
    #[arg(
        long = "server",
        value_name = "HOST:PORT[=PID]",
        default_value = "127.0.0.1:4222"
    )]
    servers: Vec<String>,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Operations of one run.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Publishes in flight per client; 1 waits for each.
    #[arg(long, default_value_t = 500)]
    window: u64,
    /// Clients, each with a connection and a thread.
    #[arg(long, default_value_t = 1)]
    clients: u64,
    /// Messages of a pull request.
    #[arg(long, default_value_t = 500)]
    batch: u64,
    /// Subjects, or keys, in turn.
    #[arg(long, default_value_t = 16)]
    subjects: u64,
    /// Replicas of the stream.
    #[arg(long, default_value_t = 1)]
    replicas: u64,
    /// Where the stream is kept.
    #[arg(long, value_enum, default_value = "file")]
    storage: StorageKind,
    /// Whether consumed messages are acknowledged.
    #[arg(long, value_enum, default_value = "explicit")]
    ack: AckMode,
    /// Runs against each server, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One line of JSON for each server.
    #[arg(long)]
    json: bool,
}

struct Server {
    address: String,
    process: Option<Process>,
}

impl Server {
    fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix("nats://").unwrap_or(text);
        let (address, process) = match text.split_once('=') {
            Some((address, id)) => (address, Some(Process::new(id.parse()?)?)),
            None => (text, None),
        };
        Ok(Self {
            address: address.to_owned(),
            process,
        })
    }
}

/// Runs a load against all servers in turns.
pub fn run(bench: &Bench) -> Result<()> {
    let (arguments, load): (&Arguments, &dyn Load) = match bench {
        Bench::Publish(arguments) => (arguments, &publish::Publish),
        Bench::Consume(arguments) => (arguments, &consume::Consume),
        Bench::KeyValuePut(arguments) => (arguments, &keyvalue::Put),
        Bench::KeyValueGet(arguments) => (arguments, &keyvalue::Get),
    };
    if arguments.messages == 0 || arguments.clients == 0 || arguments.window == 0 {
        bail!("messages, clients and window are at least 1");
    }
    let servers = arguments.servers.iter().map(|text| Server::parse(text));
    let servers = servers.collect::<Result<Vec<Server>>>()?;
    let mut runs: Vec<Vec<Run>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..arguments.rounds.max(1) {
        for (server, runs) in servers.iter().zip(&mut runs) {
            let name = format!("BENCH_{}_{round}", std::process::id());
            runs.push(load::measure(
                load,
                arguments,
                &name,
                &server.address,
                &server.process,
            )?);
        }
    }
    let names: Vec<&str> = servers
        .iter()
        .map(|server| server.address.as_str())
        .collect();
    report::print(&names, &runs, arguments.json)
}
