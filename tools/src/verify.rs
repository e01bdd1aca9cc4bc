//! `filestore verify`: every checksum, and indexes against records.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use storage::engine::StoreOutline;
use storage::journal::SegmentUnreadable;
use storage::seal::KeyRing;

use crate::Outcome;
use crate::arguments::Verify;
use crate::keys;
use crate::place::{self, Place};
use crate::progress::Progress;
use crate::stream::{CheckDepth, Problem, Stream};
use crate::text::{counted, grouped, size};

#[derive(Debug, Default, Serialize)]
struct Report {
    streams: usize,
    blocks: usize,
    bytes: u64,
    segments: usize,
    problems: Vec<Located>,
}

/// A problem and where it is.
#[derive(Debug, Serialize)]
struct Located {
    place: String,
    #[serde(flatten)]
    problem: Problem,
}

pub fn run(arguments: &Verify) -> Result<Outcome> {
    let scope = &arguments.scope;
    let keys = keys::open(scope)?;
    let ring = keys.as_deref();
    let place = place::find(scope, ring)?;
    let streams = place.streams(ring, scope)?;
    let mut progress = Progress::new(streams.iter().map(Stream::bytes).sum());
    let mut report = Report::default();
    for stream in &streams {
        report.stream(stream, ring, &mut progress)?;
    }
    drop(progress);
    if let Place::Store(store) = &place
        && scope.stream.is_none()
    {
        report.journal(store);
    }
    let mut out = std::io::stdout().lock();
    match arguments.json {
        true => {
            serde_json::to_writer_pretty(&mut out, &report)?;
            out.write_all(b"\n")?;
        }
        false => report.print(&mut out)?,
    }
    Ok(match report.problems.is_empty() {
        true => Outcome::AllWell,
        false => Outcome::Damage,
    })
}

impl Report {
    fn add(&mut self, place: impl Into<String>, problem: Problem) {
        self.problems.push(Located {
            place: place.into(),
            problem,
        });
    }

    fn stream(
        &mut self,
        stream: &Stream,
        ring: Option<&KeyRing>,
        progress: &mut Progress,
    ) -> Result<()> {
        self.streams += 1;
        for problem in stream.log_problems() {
            self.add(stream.directory.clone(), Problem::lost(problem));
        }
        let mut live = Some(0);
        for block in &stream.blocks {
            progress.file(&block.name);
            let problems = block.check(ring, CheckDepth::Records, &mut |at| progress.at(at))?;
            let place = block.file.path.display().to_string();
            for problem in problems {
                self.add(place.clone(), problem);
            }
            live = live.zip(stream.live_in(block, ring)).map(|(a, b)| a + b);
            self.blocks += 1;
            self.bytes += block.file.length.unwrap_or_default();
            progress.done(block.file.length.unwrap_or_default());
        }
        match &stream.outline.checkpoint {
            Err(error) => {
                let problem = match stream.is_locked() {
                    true => Problem::unchecked(error.to_string()),
                    false => Problem::damage(error.to_string()),
                };
                self.add(stream.directory.clone(), problem);
            }
            Ok(Some(checkpoint)) if stream.blocks.len() == stream.outline.blocks.len() => {
                let held = checkpoint.held.len() as u64;
                let counted = live.map(|live| live + held);
                if let Some(counted) = counted
                    && counted != checkpoint.state.messages
                {
                    let problem = Problem::damage(format!(
                        "the checkpoint counts {} messages, its blocks hold {}",
                        grouped(checkpoint.state.messages),
                        grouped(counted),
                    ));
                    self.add(stream.directory.clone(), problem);
                }
            }
            Ok(_) => {}
        }
        Ok(())
    }

    fn journal(&mut self, store: &StoreOutline) {
        for segment in &store.segments {
            self.segments += 1;
            self.bytes += segment.length;
            let place = segment.path.display().to_string();
            match &segment.content {
                Err(error @ SegmentUnreadable::Key(_)) => {
                    self.add(place, Problem::unchecked(error.to_string()));
                }
                Err(error) => self.add(place, Problem::lost(error.to_string())),
                Ok(content) => {
                    for damage in &content.damage {
                        self.add(place.clone(), Problem::lost(damage.to_string()));
                    }
                }
            }
        }
        if store.catalog_damaged {
            let problem = "a part of the list of streams is damaged".to_owned();
            self.add("journal", Problem::lost(problem));
        }
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for located in &self.problems {
            let (place, problem) = (&located.place, &located.problem);
            writeln!(
                out,
                "{place}: {}: {}",
                problem.severity, problem.description
            )?;
        }
        let verdict = match self.problems.len() as u64 {
            0 => "all is well".to_owned(),
            count => counted(count, "problem", "problems"),
        };
        writeln!(
            out,
            "{}, {}, {}, {}: {verdict}",
            counted(self.streams as u64, "stream", "streams"),
            counted(self.blocks as u64, "block", "blocks"),
            counted(self.segments as u64, "journal segment", "journal segments"),
            size(self.bytes),
        )
    }
}
