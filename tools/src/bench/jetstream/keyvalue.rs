//! A bucket's values put and got, each client one after another.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use super::Arguments;
use super::load::{Load, Share, create_stream};
use super::publish::publish;
use crate::bench::client::{Client, push_number};
use crate::bench::latency::Latencies;

pub struct Put;
pub struct Get;

fn bucket(client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
    let more = json!({
        "subjects": [format!("$KV.{name}.>")],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_direct": true,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
    });
    create_stream(client, arguments, &format!("KV_{name}"), &more)
}

/// Appends the subject of a key.
fn push_key(line: &mut Vec<u8>, name: &str, keys: u64, at: u64) {
    for part in ["$KV.", name, ".key-"] {
        line.extend_from_slice(part.as_bytes());
    }
    push_number(line, at % keys.max(1));
}

impl Load for Put {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        bucket(client, arguments, name)
    }

    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        let one_by_one = Arguments {
            window: 1,
            ..arguments.clone()
        };
        let first = share.client * share.operations;
        let subject = |at: u64, line: &mut Vec<u8>| {
            push_key(line, name, arguments.subjects, first + at);
        };
        publish(client, &one_by_one, share, &subject)
    }

    fn stream(&self, name: &str) -> String {
        format!("KV_{name}")
    }
}

impl Load for Get {
    fn prepare(&self, client: &mut Client, arguments: &Arguments, name: &str) -> Result<()> {
        bucket(client, arguments, name)?;
        let all = Share {
            client: 0,
            operations: arguments.subjects,
        };
        publish(client, arguments, all, &|at, line| {
            push_key(line, name, arguments.subjects, at);
        })?;
        Ok(())
    }

    fn work(
        &self,
        client: &mut Client,
        arguments: &Arguments,
        name: &str,
        share: Share,
    ) -> Result<Latencies> {
        let inbox = format!("{}.g", client.inbox());
        let prefix = format!("$JS.API.DIRECT.GET.KV_{name}.");
        let mut latencies = Latencies::default();
        for at in 0..share.operations {
            let begun = Instant::now();
            let subject = |line: &mut Vec<u8>| {
                line.extend_from_slice(prefix.as_bytes());
                push_key(line, name, arguments.subjects, at * 7919 + share.client);
            };
            client.publish_on(subject, &inbox, b"");
            client.flush()?;
            client.receive(|message| {
                if message.payload.len() != arguments.size {
                    bail!("{}", String::from_utf8_lossy(message.headers).trim());
                }
                Ok(())
            })?;
            latencies.note(begun.elapsed());
        }
        Ok(latencies)
    }

    fn stream(&self, name: &str) -> String {
        format!("KV_{name}")
    }
}
