//! Publishing to a stream, with a window of messages that are not acknowledged yet.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::Arguments;
use super::load::{Load, Share, create_stream, refuse_error};
use crate::bench::client::Client;
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
        let subject = |at: u64| format!("{name}.{}", at % arguments.subjects.max(1));
        publish(client, arguments, share, &subject)
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

/// Publishes and waits for all acknowledgements. They come in the order of the publishes: a stream acknowledges in its own order.
pub fn publish(
    client: &mut Client,
    arguments: &Arguments,
    share: Share,
    subject: &dyn Fn(u64) -> String,
) -> Result<Latencies> {
    let payload = vec![b'x'; arguments.size];
    let inbox = format!("{}.a", client.inbox());
    let (mut sent, mut acknowledged) = (0, 0);
    let mut under_way: VecDeque<Instant> = VecDeque::new();
    let mut latencies = Latencies::default();
    while acknowledged < share.operations {
        while sent < share.operations
            && sent - acknowledged < arguments.window
            && client.out.len() < SEND_BYTES_MAX
        {
            client.publish(&subject(sent), format_args!("{inbox}"), &payload);
            under_way.push_back(Instant::now());
            sent += 1;
        }
        client.flush()?;
        if sent < share.operations && sent - acknowledged < arguments.window {
            // There is room in the window, and the answers can wait.
            continue;
        }
        client.receive(|message| {
            refuse_error(message.payload)?;
            acknowledged += 1;
            if let Some(at) = under_way.pop_front() {
                latencies.note(at.elapsed());
            }
            Ok(())
        })?;
    }
    Ok(latencies)
}
