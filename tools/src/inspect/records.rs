//! `filestore inspect --records`: one line per record.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use storage::block::Record;
use storage::seal::KeyRing;
use storage::store::Expiry;

use crate::Outcome;
use crate::arguments::Inspect;
use crate::present::{JOURNAL, Present};
use crate::stream::Stream;
use crate::text::{grouped, printable, time};

#[derive(Debug, Serialize)]
struct Line<'a> {
    stream: Option<u64>,
    /// The file; `checkpoint` for messages that are in no block, `journal` for those that are in no checkpoint either.
    file: &'a str,
    sequence: u64,
    time: String,
    subject: String,
    headers_bytes: usize,
    payload_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    live: bool,
}

/// Lists the records of all streams; what cannot be read is named in its place.
pub fn list(
    arguments: &Inspect,
    streams: &[Stream],
    keys: Option<&Arc<KeyRing>>,
) -> Result<Outcome> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut listing = Listing {
        arguments,
        out: &mut out,
        outcome: Outcome::AllWell,
    };
    if !arguments.json {
        listing.heading()?;
    }
    for stream in streams {
        listing.stream(stream, keys)?;
    }
    let outcome = listing.outcome;
    out.flush()?;
    Ok(outcome)
}

struct Listing<'a> {
    arguments: &'a Inspect,
    out: &'a mut dyn Write,
    outcome: Outcome,
}

impl Listing<'_> {
    fn heading(&mut self) -> Result<()> {
        writeln!(
            self.out,
            "{:>12}  {:<30}  {:>7}  {:>10}  {:<4}  {:<19}  subject",
            "seq", "time", "headers", "payload", "live", "in"
        )?;
        Ok(())
    }

    fn stream(&mut self, stream: &Stream, keys: Option<&Arc<KeyRing>>) -> Result<()> {
        let scope = &self.arguments.scope;
        let present = match stream.removing {
            true => None,
            false => stream.present(keys)?,
        };
        let is_live =
            |sequence| !stream.removing && present.as_ref().is_none_or(|now| now.is_live(sequence));
        let problems = present.iter().flat_map(|now| &now.problems).cloned();
        for problem in stream.log_problems().into_iter().chain(problems) {
            self.unreadable(JOURNAL, &problem)?;
        }
        self.blocks(stream, keys.map(Arc::as_ref), &is_live)?;
        for held in stream.held(scope) {
            let sequence = held.message.sequence;
            if scope.wants_sequence(sequence) {
                self.record(stream, "checkpoint", held, is_live(sequence))?;
            }
        }
        let present = present.filter(|_| stream.wants_unblocked(scope));
        for record in present.iter().flat_map(Present::in_journal) {
            match record {
                Ok(record) if scope.wants_sequence(record.message.sequence) => {
                    self.record(stream, JOURNAL, &record, true)?;
                }
                Ok(_) => {}
                Err(error) => self.unreadable(JOURNAL, &error.to_string())?,
            }
        }
        Ok(())
    }

    fn blocks(
        &mut self,
        stream: &Stream,
        ring: Option<&KeyRing>,
        is_live: &dyn Fn(u64) -> bool,
    ) -> Result<()> {
        let scope = &self.arguments.scope;
        let from = scope.seq.map_or(0, |wanted| wanted.first);
        for block in &stream.blocks {
            if let Err(problem) = &block.outline {
                self.unreadable(&block.name, problem)?;
                continue;
            }
            let mut failed = None;
            block.records(from, ring, &mut |record| {
                let written = match record {
                    Ok(record) if scope.wants_sequence(record.message.sequence) => {
                        let sequence = record.message.sequence;
                        let live = stream.is_live(block, sequence) && is_live(sequence);
                        self.record(stream, &block.name, &record, live)
                    }
                    Ok(record) => {
                        return scope.wants_range(Some((record.message.sequence, u64::MAX)));
                    }
                    Err(error) => self.unreadable(&block.name, &error.to_string()),
                };
                failed = written.err();
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    fn record(&mut self, stream: &Stream, file: &str, record: &Record, live: bool) -> Result<()> {
        let message = &record.message;
        let line = Line {
            stream: stream.id,
            file,
            sequence: message.sequence,
            time: time(message.time_ns),
            subject: String::from_utf8_lossy(&message.subject).into_owned(),
            headers_bytes: message.headers.len(),
            payload_bytes: message.payload.len(),
            expires: match record.expiry {
                Expiry::ByAge => None,
                Expiry::Never => Some("never".to_owned()),
                Expiry::At(at) => Some(time(at)),
            },
            live,
        };
        if self.arguments.json {
            serde_json::to_writer(&mut self.out, &line)?;
            self.out.write_all(b"\n")?;
        } else {
            writeln!(
                self.out,
                "{:>12}  {:<30}  {:>7}  {:>10}  {:<4}  {:<19}  {}",
                grouped(line.sequence),
                line.time,
                grouped(line.headers_bytes as u64),
                grouped(line.payload_bytes as u64),
                if live { "yes" } else { "no" },
                file,
                printable(&message.subject),
            )?;
        }
        Ok(())
    }

    fn unreadable(&mut self, file: &str, problem: &str) -> Result<()> {
        self.outcome = Outcome::Damage;
        if self.arguments.json {
            let line = serde_json::json!({ "file": file, "problem": problem });
            writeln!(self.out, "{line}")?;
        } else {
            writeln!(self.out, "  ! {file}: {problem}")?;
        }
        Ok(())
    }
}
