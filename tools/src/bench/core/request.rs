//! Requests, one after another for each client, each with a reply subject of its own as libraries make them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use super::Load;
use crate::bench::Server;
use crate::bench::client::Client;
use crate::bench::latency::Latencies;
use crate::bench::run::{Run, together};

const SID: u64 = 7;
/// Those who answer share the requests.
const QUEUE: &str = "bench";

pub fn measure(load: &Load<'_>, server: &Server) -> Result<Run> {
    let mut answering = Vec::new();
    for _ in 0..load.subscribers {
        let mut client = Client::connect(&server.address)?;
        client.subscribe(&format!("{} {QUEUE}", load.subject), SID);
        // One of its own by which it learns that it is over.
        client.subscribe(&over(load), SID + 1);
        client.settle()?;
        answering.push(client);
    }
    let mut asking = Vec::new();
    for _ in 0..load.publishers {
        asking.push(Client::connect(&server.address)?);
    }
    let mut last = Client::connect(&server.address)?;
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let works = answering
                .into_iter()
                .map(|client| move || answer(client, load));
            together(works)
        });
        let run = Run::of(server.process, || {
            let works = asking.into_iter().map(|client| move || ask(client, load));
            let mut all = Latencies::default();
            let mut count = 0;
            for (asked, latencies) in together(works)? {
                count += asked;
                all.append(latencies);
            }
            Ok((count, all))
        });
        last.publish(&over(load), "", b"");
        last.settle()?;
        match answers.join() {
            Ok(answered) => answered?,
            Err(_) => bail!("a client's thread panicked"),
        };
        run
    })
}

fn over(load: &Load<'_>) -> String {
    format!("{}.over", load.subject)
}

fn ask(mut client: Client, load: &Load<'_>) -> Result<(u64, Latencies)> {
    let payload = vec![b'x'; load.size];
    let inbox = client.inbox().to_owned();
    let end = Instant::now() + load.duration;
    let mut latencies = Latencies::default();
    let mut count = 0;
    loop {
        let begun = Instant::now();
        if begun >= end {
            return Ok((count, latencies));
        }
        client.publish(load.subject, &format!("{inbox}.{count}"), &payload);
        client.flush()?;
        client.receive(|message| match message.payload.len() == load.size {
            true => Ok(()),
            false => bail!("{}", String::from_utf8_lossy(message.headers).trim()),
        })?;
        latencies.note(begun.elapsed());
        count += 1;
    }
}

fn answer(mut client: Client, load: &Load<'_>) -> Result<()> {
    let payload = vec![b'y'; load.size];
    let is_over = AtomicBool::new(false);
    let mut replies: Vec<Vec<u8>> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        client.receive(|message| {
            match message.reply {
                b"" => is_over.store(true, Ordering::Relaxed),
                reply => replies.push(reply.to_vec()),
            }
            Ok(())
        })?;
        for reply in replies.drain(..) {
            client.publish_on(|line| line.extend_from_slice(&reply), "", &payload);
        }
        client.flush()?;
    }
    Ok(())
}
