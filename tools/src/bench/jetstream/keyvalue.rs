//! A bucket's values put and got, each client one after another.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use super::Arguments;
use super::load::{Load, Share, create_stream};
use super::publish::publish;
use crate::bench::client::Client;
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

fn key(name: &str, keys: u64, at: u64) -> String {
    format!("$KV.{name}.key-{}", at % keys.max(1))
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
        let subject = |at: u64| {
            key(
                name,
                arguments.subjects,
                at + share.client * share.operations,
            )
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
        publish(client, arguments, all, &|at| {
            key(name, arguments.subjects, at)
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
        let mut latencies = Latencies::default();
        for at in 0..share.operations {
            let key = key(name, arguments.subjects, at * 7919 + share.client);
            let begun = Instant::now();
            client.publish(
                &format!("$JS.API.DIRECT.GET.KV_{name}.{key}"),
                format_args!("{inbox}"),
                b"",
            );
            client.flush()?;
            client.receive(|message| {
                if message.payload.len() != arguments.size {
                    bail!("{key}: {}", String::from_utf8_lossy(message.headers).trim());
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
