//! Publishing to a stream, with a window of messages that are not acknowledged yet.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::Arguments;
use super::load::{Load, Share, create_stream, refuse_error};
use crate::bench::client::{Client, push_number};
use crate::bench::latency::Latencies;

/// Bytes that are sent at once at most.
const SEND_BYTES_MAX: usize = 64 * 1024;

pub struct Publish;

impl Load for Publish {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        create_stream(client, arguments, name, &json!({}))
    }

    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        publish(
            client,
            arguments,
            share,
            &subjects(name, arguments.subjects),
        )
    }
}

pub struct Batch;

impl Load for Batch {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        create_stream(client, arguments, name, &json!({"allow_atomic": true}))
    }

    /// A batch begins with a message that is answered by nothing, and ends with the one that is acknowledged. Timed is a batch.
    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        let payload = vec![b'x'; arguments.size];
        let inbox = format!("{}.b", client.inbox());
        let mut latencies = Latencies::default();
        let mut sent = 0;
        while sent < share.operations {
            let begun = Instant::now();
            let count = arguments.window.min(share.operations - sent);
            for at in 1..=count {
                let is_last = at == count;
                let reply = if at == 1 || is_last { &inbox } else { "" };
                let commit = if is_last {
                    "Nats-Batch-Commit:1\r\n"
                } else {
                    ""
                };
                client.publish_with_headers(
                    &format!("{name}.{}", (sent + at) % arguments.subjects.max(1)),
                    reply,
                    format_args!(
                        "NATS/1.0\r\nNats-Batch-Id:{}-{sent}\r\nNats-Batch-Sequence:{at}\r\n{commit}\r\n",
                        share.client
                    ),
                    &payload,
                );
                if at == 1 && !is_last {
                    client.flush()?;
                    client.receive(|message| refuse_error(message.payload))?;
                }
            }
            client.flush()?;
            client.receive(|message| refuse_error(message.payload))?;
            sent += count;
            latencies.note(begun.elapsed());
        }
        Ok(latencies)
    }
}

/// A stream's subjects in turn.
pub fn subjects(name: &str, count: u64) -> impl Fn(u64, &mut Vec<u8>) {
    move |at, line| {
        line.extend_from_slice(name.as_bytes());
        line.push(b'.');
        push_number(line, at % count.max(1));
    }
}

/// Publishes and waits for all acknowledgements. They come in the order of the publishes: a stream acknowledges in its own order. `subject` appends the subject of each.
pub fn publish(
    client: &mut Client,
    arguments: &Arguments,
    share: Share,
    subject: &dyn Fn(u64, &mut Vec<u8>),
) -> Result<Latencies> {
    let payload = vec![b'x'; arguments.size];
    let inbox = format!("{}.a", client.inbox());
    let (mut sent, mut acknowledged) = (0, 0);
    let mut under_way: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut latencies = Latencies::default();
    while acknowledged < share.operations {
        let begun = sent;
        while sent < share.operations
            && sent - acknowledged < arguments.window
            && client.out.len() < SEND_BYTES_MAX
        {
            client.publish_on(|line| subject(sent, line), &inbox, &payload);
            sent += 1;
        }
        // What is sent with one write is timed as one.
        under_way.push_back((Instant::now(), sent - begun));
        client.flush()?;
        if sent < share.operations && sent - acknowledged < arguments.window {
            // There is room in the window, and the answers can wait.
            continue;
        }
        let mut came: u64 = 0;
        client.receive(|message| {
            came += 1;
            refuse_error(message.payload)
        })?;
        acknowledged += came;
        let now = Instant::now();
        while came > 0
            && let Some((at, count)) = under_way.front_mut()
        {
            let answered = came.min(*count);
            latencies.note_all(now - *at, answered);
            (came, *count) = (came - answered, *count - answered);
            if *count == 0 {
                under_way.pop_front();
            }
        }
    }
    Ok(latencies)
}
