//! Publishing without waiting: blocks of the same message, made once and sent again and again.

use std::time::Instant;

use anyhow::Result;

use super::Load;
use crate::bench::Server;
use crate::bench::client::Client;
use crate::bench::latency::Latencies;
use crate::bench::run::{Run, together};

/// Bytes that are sent at once, if one message is not more.
const BLOCK_BYTES: usize = 64 * 1024;

pub fn measure(load: &Load<'_>, server: &Server) -> Result<Run> {
    let mut clients = Vec::new();
    for _ in 0..load.publishers {
        clients.push(Client::connect(&server.address)?);
    }
    Run::of(server.process, || {
        let works = clients
            .into_iter()
            .map(|mut client| move || publish(&mut client, load));
        Ok((together(works)?.into_iter().sum(), Latencies::default()))
    })
}

/// Publishes until the time is over and the server has taken everything; how many messages.
pub fn publish(client: &mut Client, load: &Load<'_>) -> Result<u64> {
    let line = format!("PUB {} {}\r\n", load.subject, load.size);
    let message = [line.as_bytes(), &vec![b'x'; load.size], b"\r\n"].concat();
    let messages = (BLOCK_BYTES / message.len()).max(1);
    let block = message.repeat(messages);
    let end = Instant::now() + load.duration;
    let mut sent = 0;
    while Instant::now() < end {
        client.send(&block)?;
        sent += messages as u64;
    }
    client.settle()?;
    Ok(sent)
}
