//! `nats-tool bench`: the same load against one server or several in turn, and how they compare.
//!
//! - `core`: messages between clients, requests, idle connections.
//! - `jetstream`: streams, consumers, buckets, and what a store costs.
//! - `client`: a connection of its own, so that no library's cost is measured.
//! - `run`: runs in turns, and what came of one.
//! - `latency`: how long each operation took.
//! - `process`: the processor time and memory of a server on this machine.
//! - `report`: what came out, side by side.
//!
//! # Invariant
//! Servers are measured in turns, so that whatever else the machine does falls on all of them. Streams are made under names of their own and removed
//! afterwards; nothing else of a server is touched.

mod client;
mod core;
mod jetstream;
mod latency;
mod process;
mod report;
mod run;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use process::Process;

/// What to load servers with.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Messages between clients: publishing, one to many, requests, idle connections
    #[command(subcommand)]
    Core(core::Bench),
    /// JetStream: publishing, consuming, key-value buckets, what a store costs
    #[command(subcommand)]
    Js(jetstream::Bench),
}

/// Which servers are measured, and how often.
#[derive(Debug, Clone, Args)]
pub struct Targets {
    /// A server as host:port, and its process for the processor time: host:port=PID. May be given several times: ratios are to the last one.
    #[arg(
        long = "server",
        value_name = "HOST:PORT[=PID]",
        default_value = "127.0.0.1:4222",
        value_parser = parse_server
    )]
    servers: Vec<Server>,
    /// Runs against each server, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One line of JSON for each server.
    #[arg(long)]
    json: bool,
}

/// A server that is measured.
#[derive(Debug, Clone)]
pub struct Server {
    address: String,
    process: Option<Process>,
}

fn parse_server(text: &str) -> Result<Server> {
    let text = text.strip_prefix("nats://").unwrap_or(text);
    let (address, process) = match text.split_once('=') {
        Some((address, id)) => (address, Some(Process::new(id.parse()?)?)),
        None => (text, None),
    };
    if address.is_empty() {
        bail!("an address is missing");
    }
    Ok(Server {
        address: address.to_owned(),
        process,
    })
}

/// Runs a load against all servers in turns.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Core(bench) => core::run(bench),
        Bench::Js(bench) => jetstream::run(bench),
    }
}
