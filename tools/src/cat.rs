//! `filestore cat`: the live messages, in order.

use std::io::{BufWriter, Write};

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use storage::block::Record;
use storage::seal::KeyRing;

use crate::Outcome;
use crate::arguments::Cat;
use crate::stream::Stream;
use crate::{keys, place, text};

/// A message as a line of JSON, with the names that the server's API gives to its parts.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    subject: String,
    seq: u64,
    time: String,
    /// Base64, as headers may hold anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    /// Base64.
    data: String,
}

pub fn run(arguments: &Cat) -> Result<Outcome> {
    let scope = &arguments.scope;
    let ring = keys::open(scope)?;
    let ring = ring.as_ref();
    let streams = place::find(scope, ring)?.streams(ring, scope)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut outcome = Outcome::AllWell;
    for stream in &streams {
        cat(arguments, stream, ring, &mut out, &mut outcome)?;
    }
    out.flush()?;
    Ok(outcome)
}

fn cat(
    arguments: &Cat,
    stream: &Stream,
    ring: Option<&KeyRing>,
    out: &mut dyn Write,
    outcome: &mut Outcome,
) -> Result<()> {
    let scope = &arguments.scope;
    let mut lost = |problem: String| {
        *outcome = Outcome::Damage;
        eprintln!("nats-tool: {problem}");
    };
    if let Err(error) = &stream.outline.checkpoint {
        lost(format!(
            "{error}; all records are written, deleted ones too"
        ));
    }
    if stream.log.entries > 0 {
        eprintln!(
            "nats-tool: {}: the journal has {} after the checkpoint; a server applies them when it starts",
            stream.name.as_deref().unwrap_or(&stream.directory),
            text::counted(stream.log.entries, "log entry", "log entries"),
        );
    }
    let from = scope.seq.map_or(0, |wanted| wanted.first);
    for block in &stream.blocks {
        if let Err(problem) = &block.outline {
            lost(format!("{}: {problem}", block.name));
            continue;
        }
        let mut failed = None;
        block.records(from, ring, &mut |record| {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    lost(format!("{}: {error}", block.name));
                    return true;
                }
            };
            let sequence = record.message.sequence;
            if scope.wants_sequence(sequence) && stream.is_live(block, sequence) {
                failed = write(arguments, stream, &record, out).err();
            }
            failed.is_none() && scope.wants_range(Some((sequence, u64::MAX)))
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    for held in stream.held(scope) {
        if scope.wants_sequence(held.message.sequence) {
            write(arguments, stream, held, out)?;
        }
    }
    Ok(())
}

fn write(arguments: &Cat, stream: &Stream, record: &Record, out: &mut dyn Write) -> Result<()> {
    let message = &record.message;
    if arguments.raw {
        out.write_all(&message.payload)?;
    } else {
        let line = Line {
            stream: stream.name.as_deref(),
            subject: String::from_utf8_lossy(&message.subject).into_owned(),
            seq: message.sequence,
            time: text::time(message.time_ns),
            hdrs: BASE64_STANDARD.encode(&message.headers),
            data: BASE64_STANDARD.encode(&message.payload),
        };
        serde_json::to_writer(&mut *out, &line)?;
    }
    out.write_all(b"\n")?;
    Ok(())
}
