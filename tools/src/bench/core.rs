//! Loads without streams: what a server does for messages between clients.
//!
//! - `publish`: messages that nobody listens to.
//! - `deliver`: from publishers to subscribers, each of whom gets every message.
//! - `request`: requests that another client answers.
//! - `idle`: connections that do nothing.

mod deliver;
mod idle;
mod publish;
mod request;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::Targets;
use super::report;
use super::run::in_turns;

/// What to load servers with.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Publish what nobody listens to
    #[command(name = "publish")]
    Publish(Arguments),
    /// Deliver from publishers to subscribers, each of whom gets every message; rates and times are per published message
    #[command(name = "deliver")]
    Deliver(Arguments),
    /// Ask and wait for the answer of another client
    #[command(name = "request")]
    Request(Arguments),
    /// Hold connections that do nothing, and see what memory each takes
    #[command(name = "idle")]
    Idle(idle::Arguments),
}

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    targets: Targets,
    /// Bytes of a payload; several sizes are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "128")]
    size: Vec<usize>,
    /// Who publishes, or asks, each with a connection and a thread.
    #[arg(long, default_value_t = 1)]
    publishers: u64,
    /// Who listens, or answers, each with a connection and a thread.
    #[arg(long, default_value_t = 1)]
    subscribers: u64,
    /// How long one run publishes, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Arguments {
    fn duration(&self) -> Result<Duration> {
        match Duration::try_from_secs_f64(self.seconds) {
            Ok(duration) if !duration.is_zero() => Ok(duration),
            _ => bail!("the seconds make no sense"),
        }
    }
}

/// Runs a load against all servers in turns.
pub fn run(bench: &Bench) -> Result<()> {
    let (arguments, name, measure): (_, _, Measure) = match bench {
        Bench::Publish(arguments) => (arguments, "publish", publish::measure),
        Bench::Deliver(arguments) => (arguments, "deliver", deliver::measure),
        Bench::Request(arguments) => (arguments, "request", request::measure),
        Bench::Idle(arguments) => return idle::run(arguments),
    };
    if arguments.publishers == 0 || (arguments.subscribers == 0 && name != "publish") {
        bail!("there is at least one publisher and one subscriber");
    }
    let subject = format!("bench.{}", std::process::id());
    for size in &arguments.size {
        let load = Load {
            subject: &subject,
            size: *size,
            publishers: arguments.publishers,
            subscribers: arguments.subscribers,
            duration: arguments.duration()?,
        };
        let runs = in_turns(&arguments.targets, |server, _| measure(&load, server))?;
        let what = match name {
            "publish" => format!("publish, {} clients, {size} B", load.publishers),
            _ => format!("{name} {}:{}, {size} B", load.publishers, load.subscribers),
        };
        report::print(&arguments.targets, &what, &runs)?;
    }
    Ok(())
}

type Measure = fn(&Load<'_>, &super::Server) -> Result<super::run::Run>;

/// One load.
#[derive(Debug, Clone, Copy)]
struct Load<'a> {
    subject: &'a str,
    /// Bytes of a payload.
    size: usize,
    publishers: u64,
    subscribers: u64,
    duration: Duration,
}
