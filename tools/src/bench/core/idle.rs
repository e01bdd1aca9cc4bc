//! Connections that do nothing, and what memory each takes.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::bench::client::Client;
use crate::bench::report::median;
use crate::bench::run::in_turns;
use crate::bench::{Server, Targets};

/// How much a buffer of such a connection holds: it hears nothing but greetings and pings.
const INPUT_BYTES: usize = 4096;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    targets: Targets,
    /// How many connections; each needs a descriptor.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Subscriptions of each.
    #[arg(long, default_value_t = 1)]
    subscriptions: u64,
    /// How long they are held before the memory is looked at, in seconds.
    #[arg(long, default_value_t = 5)]
    hold: u64,
}

/// Bytes of memory for each connection.
fn measure(arguments: &Arguments, server: &Server) -> Result<f64> {
    let process = server
        .process
        .with_context(|| format!("{}: the process id is needed", server.address))?;
    let before = process.resident_bytes()?;
    let mut clients = Vec::new();
    for number in 0..arguments.connections {
        let mut client = Client::connect_with(&server.address, INPUT_BYTES)
            .with_context(|| format!("connection {number}"))?;
        for subscription in 0..arguments.subscriptions {
            client.subscribe(&format!("bench.{number}.{subscription}"), subscription + 2);
        }
        client.settle()?;
        clients.push(client);
    }
    std::thread::sleep(Duration::from_secs(arguments.hold));
    let taken = process.resident_bytes()?.saturating_sub(before);
    // Pings are answered, and whoever was thrown out is noticed.
    for client in &mut clients {
        client.settle()?;
    }
    Ok(taken as f64 / arguments.connections.max(1) as f64)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let runs = in_turns(&arguments.targets, |server, _| measure(arguments, server))?;
    // The first run is the one that counts: memory that a server has got once it may keep for the next.
    let first: Vec<f64> = runs
        .iter()
        .map(|runs| runs.first().copied().unwrap_or_default())
        .collect();
    let last = first.last().copied().unwrap_or(1.0);
    let mut out = std::io::stdout().lock();
    for ((server, own), runs) in arguments.targets.servers.iter().zip(first).zip(&runs) {
        let ratio = own / last;
        let middle = median(runs.clone());
        if arguments.targets.json {
            let line = json!({
                "server": server.address,
                "connections": arguments.connections,
                "first_bytes": own.round(),
                "median_bytes": middle.round(),
                "ratio": ratio,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{:<22} {:.1} KiB for each of {} connections {ratio:.2}x; more of it in later runs: {:.1} KiB (median)",
                server.address,
                own / 1024.0,
                arguments.connections,
                middle / 1024.0,
            )?;
        }
    }
    Ok(())
}
