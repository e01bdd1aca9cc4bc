//! Consuming a stream's messages with pull requests, two of them under way.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use super::client::Client;
use super::latency::Latencies;
use super::load::{Load, Share, create_stream};
use super::publish::publish;
use super::{AckMode, Arguments};

/// Requests that wait at the server at one time.
const UNDER_WAY: u64 = 2;

pub struct Consume;

impl Load for Consume {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        create_stream(client, arguments, name, &json!({}))?;
        let all = Share {
            client: 0,
            operations: arguments.messages,
        };
        let usual = Arguments {
            window: 500,
            ..arguments.clone()
        };
        let subject = |at: u64| format!("{name}.{}", at % arguments.subjects.max(1));
        publish(client, &usual, all, &subject)?;
        let policy = match arguments.ack {
            AckMode::Explicit => "explicit",
            AckMode::None => "none",
        };
        let config = json!({
            "stream_name": name,
            "config": {
                "durable_name": "bench",
                "deliver_policy": "all",
                "ack_policy": policy,
                "replay_policy": "instant",
                "max_ack_pending": match arguments.ack {
                    AckMode::Explicit => 100_000,
                    AckMode::None => 0,
                },
            },
        });
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.bench");
        client.request(&subject, config.to_string().as_bytes())?;
        Ok(())
    }

    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{name}.bench");
        let inbox = format!("{}.m", client.inbox());
        let mut latencies = Latencies::default();
        let (mut got, mut asked) = (0, 0);
        let mut last = Instant::now();
        let mut acks: Vec<String> = Vec::new();
        while got < share.operations {
            while asked < share.operations && asked < got + UNDER_WAY * arguments.batch {
                let batch = arguments.batch.min(share.operations - asked);
                let request = format!(r#"{{"batch":{batch},"expires":30000000000}}"#);
                client.publish(&next, format_args!("{inbox}"), request.as_bytes());
                asked += batch;
            }
            client.flush()?;
            client.receive(|message| {
                if message.reply.is_empty() {
                    bail!("{}", String::from_utf8_lossy(message.headers).trim());
                }
                got += 1;
                let now = Instant::now();
                latencies.note(now - last);
                last = now;
                if arguments.ack == AckMode::Explicit {
                    acks.push(message.reply.to_owned());
                }
                Ok(())
            })?;
            for ack in acks.drain(..) {
                client.out.extend_from_slice(b"PUB ");
                client.out.extend_from_slice(ack.as_bytes());
                client.out.extend_from_slice(b" 0\r\n\r\n");
            }
        }
        client.flush()?;
        if arguments.ack == AckMode::Explicit && share.client == 0 {
            // What was acknowledged last has arrived when this is answered.
            client.request(&format!("$JS.API.CONSUMER.INFO.{name}.bench"), b"")?;
        }
        Ok(latencies)
    }
}
