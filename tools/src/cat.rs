//! `filestore cat`: the live messages, in order.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use storage::block::Record;
use storage::seal::KeyRing;

use crate::Outcome;
use crate::arguments::Cat;
use crate::present::Present;
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
    let keys = keys::open(scope)?;
    let ring = keys.as_deref();
    let streams = place::find(scope, ring)?.streams(ring, scope)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut outcome = Outcome::AllWell;
    for stream in &streams {
        cat(arguments, stream, keys.as_ref(), &mut out, &mut outcome)?;
    }
    out.flush()?;
    Ok(outcome)
}

fn cat(
    arguments: &Cat,
    stream: &Stream,
    keys: Option<&Arc<KeyRing>>,
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
    if stream.removing {
        eprintln!("nats-tool: {}: was deleted", stream.directory);
        return Ok(());
    }
    let ring = keys.map(Arc::as_ref);
    let present = stream.present(keys)?;
    let is_live = |sequence| present.as_ref().is_none_or(|now| now.is_live(sequence));
    let problems = present.iter().flat_map(|now| &now.problems).cloned();
    for problem in stream.log_problems().into_iter().chain(problems) {
        lost(format!("{}: {problem}", stream.directory));
    }
    for note in present.iter().flat_map(|now| &now.notes) {
        eprintln!("nats-tool: {}: {note}", stream.directory);
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
            let wanted = scope.wants_sequence(sequence);
            if wanted && stream.is_live(block, sequence) && is_live(sequence) {
                failed = write(arguments, stream, &record, out).err();
            }
            failed.is_none() && scope.wants_range(Some((sequence, u64::MAX)))
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    for held in stream.held(scope) {
        let sequence = held.message.sequence;
        if scope.wants_sequence(sequence) && is_live(sequence) {
            write(arguments, stream, held, out)?;
        }
    }
    let present = present.filter(|_| stream.wants_unblocked(scope));
    for record in present.iter().flat_map(Present::in_journal) {
        match record {
            Ok(record) if scope.wants_sequence(record.message.sequence) => {
                write(arguments, stream, &record, out)?;
            }
            Ok(_) => {}
            Err(error) => lost(error.to_string()),
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
