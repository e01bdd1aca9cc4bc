//! Consuming a stream's messages: asked for with pull requests, two of them under way, or pushed with flow control.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use super::load::{Load, Share, create_stream};
use super::publish::{publish, subjects};
use super::{AckMode, Arguments, Delivery};
use crate::bench::client::{Client, Message};
use crate::bench::latency::Latencies;

/// Requests that wait at the server at one time.
const UNDER_WAY: u64 = 2;
const CONSUMER: &str = "bench";
const PUSH_SID: u64 = 9;

/// What kind of consumer it is.
pub struct Consume {
    is_ordered: bool,
}

pub const DURABLE: Consume = Consume { is_ordered: false };
pub const ORDERED: Consume = Consume { is_ordered: true };

impl Consume {
    fn acknowledges(&self, arguments: &Arguments) -> bool {
        arguments.ack == AckMode::Explicit && !self.is_ordered
    }
}

/// Where pushed messages go.
fn deliver_subject(name: &str) -> String {
    format!("_DELIVER.{name}")
}

impl Load for Consume {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        if arguments.clients > 1 && (self.is_ordered || arguments.delivery == Delivery::Push) {
            bail!("such a consumer has one client");
        }
        create_stream(client, arguments, name, &json!({}))?;
        let all = Share {
            client: 0,
            operations: arguments.messages,
        };
        let usual = Arguments {
            window: 500,
            ..arguments.clone()
        };
        publish(client, &usual, all, &subjects(name, arguments.subjects))?;
        let mut config = json!({
            "name": CONSUMER,
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
        });
        if let Some(config) = config.as_object_mut() {
            if self.acknowledges(arguments) {
                config.insert("ack_policy".to_owned(), json!("explicit"));
                config.insert("max_ack_pending".to_owned(), json!(100_000));
            }
            match self.is_ordered {
                true => {
                    config.insert("mem_storage".to_owned(), json!(true));
                    config.insert("num_replicas".to_owned(), json!(1));
                    config.insert("inactive_threshold".to_owned(), json!(300_000_000_000_u64));
                }
                false => {
                    config.insert("durable_name".to_owned(), json!(CONSUMER));
                }
            }
            if arguments.delivery == Delivery::Push {
                config.insert("deliver_subject".to_owned(), json!(deliver_subject(name)));
                config.insert("flow_control".to_owned(), json!(true));
                config.insert("idle_heartbeat".to_owned(), json!(5_000_000_000_u64));
            }
        }
        let request = json!({"stream_name": name, "config": config});
        let subject = format!("$JS.API.CONSUMER.CREATE.{name}.{CONSUMER}");
        client.request(&subject, request.to_string().as_bytes())?;
        Ok(())
    }

    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{name}.{CONSUMER}");
        let inbox = format!("{}.m", client.inbox());
        let acknowledges = self.acknowledges(arguments);
        if arguments.delivery == Delivery::Push {
            client.subscribe(&deliver_subject(name), PUSH_SID);
        }
        let mut latencies = Latencies::default();
        let (mut got, mut asked) = (0, 0);
        let mut last = Instant::now();
        let mut answers: Vec<u8> = Vec::new();
        while got < share.operations {
            while arguments.delivery == Delivery::Pull
                && asked < share.operations
                && asked < got + UNDER_WAY * arguments.batch
            {
                let batch = arguments.batch.min(share.operations - asked);
                let request = format!(r#"{{"batch":{batch},"expires":30000000000}}"#);
                client.publish(&next, &inbox, request.as_bytes());
                asked += batch;
            }
            client.flush()?;
            let before = got;
            client.receive(|message| {
                if is_status(message) {
                    return answer_status(message, &mut answers);
                }
                got += 1;
                if acknowledges {
                    publish_nothing(&mut answers, message.reply);
                }
                Ok(())
            })?;
            // What came with one read shares the time since the one before.
            if let Ok(came) = u32::try_from(got - before)
                && came > 0
            {
                let now = Instant::now();
                latencies.note_all((now - last) / came, u64::from(came));
                last = now;
            }
            client.out.append(&mut answers);
        }
        client.flush()?;
        if acknowledges && share.client == 0 {
            // What was acknowledged last has arrived when this is answered.
            client.request(&format!("$JS.API.CONSUMER.INFO.{name}.{CONSUMER}"), b"")?;
        }
        Ok(latencies)
    }
}

/// Whether this is no message of the stream.
fn is_status(message: &Message<'_>) -> bool {
    message.payload.is_empty() && message.headers.starts_with(b"NATS/1.0 ")
}

/// Flow control wants an answer, heartbeats want none; anything else is the end.
fn answer_status(message: &Message<'_>, answers: &mut Vec<u8>) -> Result<()> {
    if !message.headers.starts_with(b"NATS/1.0 100") {
        bail!("{}", String::from_utf8_lossy(message.headers).trim());
    }
    if !message.reply.is_empty() {
        publish_nothing(answers, message.reply);
    }
    Ok(())
}

fn publish_nothing(out: &mut Vec<u8>, subject: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject);
    out.extend_from_slice(b" 0\r\n\r\n");
}
