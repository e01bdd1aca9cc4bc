//! What a load is, and what came of one run.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::client::Client;
use super::latency::Latencies;
use super::process::Process;
use super::{Arguments, StorageKind};

/// A load: it prepares what it needs, and does its operations.
pub trait Load: Sync {
    /// Makes the stream and what else is needed. Not measured.
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()>;
    /// Does so many operations as the client of that number. Measured.
    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies>;
    /// The stream that is removed afterwards.
    fn stream(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// What one client does of a run.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Its number.
    pub client: u64,
    /// How many operations.
    pub operations: u64,
}

/// What came of one run.
#[derive(Debug, Clone)]
pub struct Run {
    pub operations: u64,
    pub took: Duration,
    pub latencies: Latencies,
    /// What the server's process used meanwhile.
    pub server: Option<Duration>,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }

    /// Nanoseconds of the server's processor time for each operation.
    pub fn server_nanos(&self) -> Option<f64> {
        let used = self.server?.as_nanos() as f64;
        Some(used / self.operations as f64)
    }
}

/// Runs a load once.
pub fn measure(
    load: &dyn Load,
    arguments: &Arguments,
    name: &str,
    address: &str,
    process: &Option<Process>,
) -> Result<Run> {
    let mut first = Client::connect(address)?;
    load.prepare(&mut first, arguments, name)?;
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        clients.push(Client::connect(address)?);
    }
    let used =
        |process: &Option<Process>| process.as_ref().map(Process::processor_time).transpose();
    let before = used(process)?;
    let begun = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, mut client) in (0..).zip(clients) {
            let share = Share {
                client: number,
                operations: arguments.messages / arguments.clients
                    + u64::from(number < arguments.messages % arguments.clients),
            };
            threads.push(scope.spawn(move || load.work(&mut client, arguments, name, share)));
        }
        let mut all = Latencies::default();
        for thread in threads {
            let latencies = thread
                .join()
                .map_err(|_| anyhow!("a client's thread panicked"))?;
            all.append(latencies?);
        }
        Ok::<_, anyhow::Error>(all)
    });
    let took = begun.elapsed();
    let after = used(process)?;
    let stream = load.stream(name);
    let removed = first.request(&format!("$JS.API.STREAM.DELETE.{stream}"), b"");
    let latencies = latencies?;
    removed?;
    Ok(Run {
        operations: arguments.messages,
        took,
        latencies,
        server: before
            .zip(after)
            .map(|(before, after)| after.saturating_sub(before)),
    })
}

/// Makes a stream for a run.
pub fn create_stream(
    client: &mut Client,
    arguments: &Arguments,
    name: &str,
    more: &Value,
) -> Result<()> {
    let storage = match arguments.storage {
        StorageKind::File => "file",
        StorageKind::Memory => "memory",
    };
    let mut config = json!({
        "name": name,
        "subjects": [format!("{name}.>")],
        "num_replicas": arguments.replicas,
        "storage": storage,
        "retention": "limits",
        "discard": "old",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
    });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    let subject = format!("$JS.API.STREAM.CREATE.{name}");
    client.request(&subject, config.to_string().as_bytes())?;
    Ok(())
}

/// The error in an answer, if it is one.
pub fn refuse_error(payload: &[u8]) -> Result<()> {
    let is_error = payload
        .windows(7)
        .take(64)
        .any(|window| window == b"\"error\"");
    match is_error {
        true => Err(anyhow!("{}", String::from_utf8_lossy(payload))),
        false => Ok(()),
    }
}
