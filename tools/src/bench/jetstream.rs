//! Loads of streams: publishing, consuming, buckets, and what a store costs.
//!
//! - `load`: what a load is, and one run of it.
//! - `publish`, `consume`, `keyvalue`: the loads.
//! - `store`: servers that are started for it: memory, bytes on disk, how long a start takes.

mod consume;
mod keyvalue;
mod load;
mod publish;
mod store;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::Targets;
use super::report;
use super::run::in_turns;
use load::Load;

/// What to load servers with.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Publish to a stream and wait for the acknowledgements
    #[command(name = "publish")]
    Publish(Arguments),
    /// Publish to a stream in atomic batches of a window's size, one after another
    #[command(name = "batch")]
    Batch(Arguments),
    /// Consume a stream's messages with pull requests
    #[command(name = "consume")]
    Consume(Arguments),
    /// Consume a stream's messages as the ordered consumer of libraries does: kept in memory, without acknowledgements
    #[command(name = "ordered")]
    Ordered(Arguments),
    /// Put values into a bucket, one after another for each client
    #[command(name = "kv-put")]
    KeyValuePut(Arguments),
    /// Get values out of a bucket, one after another for each client
    #[command(name = "kv-get")]
    KeyValueGet(Arguments),
    /// Start servers, fill a stream, and see what it takes: memory, disk, a clean start and one after a kill
    #[command(name = "store")]
    Store(store::Arguments),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// When they are asked for.
    Pull,
    /// By themselves, with flow control.
    Push,
}

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    targets: Targets,
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
    /// How a consumer's messages come.
    #[arg(long, value_enum, default_value = "pull")]
    delivery: Delivery,
    /// Whether consumed messages are acknowledged.
    #[arg(long, value_enum, default_value = "explicit")]
    ack: AckMode,
}

/// Runs a load against all servers in turns.
pub fn run(bench: &Bench) -> Result<()> {
    let (arguments, load): (&Arguments, &dyn Load) = match bench {
        Bench::Publish(arguments) => (arguments, &publish::Publish),
        Bench::Batch(arguments) => (arguments, &publish::Batch),
        Bench::Consume(arguments) => (arguments, &consume::DURABLE),
        Bench::Ordered(arguments) => (arguments, &consume::ORDERED),
        Bench::KeyValuePut(arguments) => (arguments, &keyvalue::Put),
        Bench::KeyValueGet(arguments) => (arguments, &keyvalue::Get),
        Bench::Store(arguments) => return store::run(arguments),
    };
    if arguments.messages == 0 || arguments.clients == 0 || arguments.window == 0 {
        bail!("messages, clients and window are at least 1");
    }
    let runs = in_turns(&arguments.targets, |server, round| {
        let name = format!("BENCH_{}_{round}", std::process::id());
        load::measure(load, arguments, &name, server)
    })?;
    report::print(&arguments.targets, "", &runs)
}
