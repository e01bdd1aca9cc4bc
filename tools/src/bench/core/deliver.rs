//! From publishers to subscribers: everything that was published must arrive at everybody.

use anyhow::{Result, bail};

use super::{Load, publish::publish};
use crate::bench::Server;
use crate::bench::client::Client;
use crate::bench::latency::Latencies;
use crate::bench::run::{Run, together};

const SID: u64 = 7;
/// Bytes of the message with which a publisher ends, or this and one more where measured ones are of this size.
const LAST_BYTES: usize = 1;

/// What a thread came to.
enum Done {
    Published(u64),
    Received(u64),
}

pub fn measure(load: &Load<'_>, server: &Server) -> Result<Run> {
    let mut subscribers = Vec::new();
    for _ in 0..load.subscribers {
        let mut client = Client::connect(&server.address)?;
        client.subscribe(load.subject, SID);
        client.settle()?;
        subscribers.push(client);
    }
    let mut publishers = Vec::new();
    for _ in 0..load.publishers {
        publishers.push(Client::connect(&server.address)?);
    }
    Run::of(server.process, || {
        let publishing = publishers.into_iter().map(Role::Publish);
        let receiving = subscribers.into_iter().map(Role::Receive);
        let works = receiving
            .chain(publishing)
            .map(|role| move || role.play(load));
        let done = together(works)?;
        let of = |count: &Done| match count {
            Done::Published(count) => *count,
            Done::Received(_) => 0,
        };
        let published: u64 = done.iter().map(of).sum();
        for done in &done {
            if let Done::Received(received) = done
                && *received != published
            {
                bail!("of {published} messages {received} have arrived");
            }
        }
        Ok((published, Latencies::default()))
    })
}

enum Role {
    Publish(Client),
    Receive(Client),
}

impl Role {
    fn play(self, load: &Load<'_>) -> Result<Done> {
        match self {
            Self::Publish(mut client) => {
                let published = publish(&mut client, load)?;
                let last = vec![b'.'; last_bytes(load)];
                client.publish(load.subject, "", &last);
                client.flush()?;
                client.settle()?;
                Ok(Done::Published(published))
            }
            Self::Receive(mut client) => Ok(Done::Received(receive(&mut client, load)?)),
        }
    }
}

fn last_bytes(load: &Load<'_>) -> usize {
    match load.size {
        LAST_BYTES => LAST_BYTES + 1,
        _ => LAST_BYTES,
    }
}

/// Receives until every publisher has said that this was all.
fn receive(client: &mut Client, load: &Load<'_>) -> Result<u64> {
    let line = format!("MSG {} {SID} {}\r\n", load.subject, load.size);
    let message_bytes = line.len() + load.size + 2;
    let (mut received, mut ended) = (0, 0);
    while ended < load.publishers {
        received += client.count(line.as_bytes(), message_bytes, |message| {
            if message.payload.len() != last_bytes(load) {
                let subject = String::from_utf8_lossy(message.subject);
                bail!("{} bytes on {subject}", message.payload.len());
            }
            ended += 1;
            Ok(())
        })?;
    }
    Ok(received)
}
