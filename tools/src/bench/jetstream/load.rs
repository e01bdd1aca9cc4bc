//! What a load is, and one run of it.

use anyhow::{Result, anyhow};
use memchr::memmem;
use serde_json::{Value, json};

use super::{Arguments, StorageKind};
use crate::bench::Server;
use crate::bench::client::Client;
use crate::bench::latency::Latencies;
use crate::bench::run::{Run, together};

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

/// Runs a load once.
pub fn measure(load: &dyn Load, arguments: &Arguments, name: &str, server: &Server) -> Result<Run> {
    let mut first = Client::connect(&server.address)?;
    let run = prepared(load, arguments, name, server, &mut first);
    // Also what a run that failed has left.
    let stream = load.stream(name);
    let removed = first.request(&format!("$JS.API.STREAM.DELETE.{stream}"), b"");
    let run = run?;
    removed?;
    Ok(run)
}

fn prepared(
    load: &dyn Load,
    arguments: &Arguments,
    name: &str,
    server: &Server,
    first: &mut Client,
) -> Result<Run> {
    load.prepare(first, arguments, name)?;
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        clients.push(Client::connect(&server.address)?);
    }
    Run::of(server.process, || {
        let works = (0..).zip(clients).map(|(number, mut client)| {
            let share = Share {
                client: number,
                operations: arguments.messages / arguments.clients
                    + u64::from(number < arguments.messages % arguments.clients),
            };
            move || load.work(&mut client, arguments, name, share)
        });
        let mut all = Latencies::default();
        for latencies in together(works)? {
            all.append(latencies);
        }
        Ok((arguments.messages, all))
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
    // What an acknowledgement begins with.
    if payload.starts_with(br#"{"stream":"#) {
        return Ok(());
    }
    match memmem::find(payload, br#""error""#) {
        Some(_) => Err(anyhow!("{}", String::from_utf8_lossy(payload))),
        None => Ok(()),
    }
}
