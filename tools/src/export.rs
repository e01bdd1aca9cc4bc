//! `filestore export`: a stream as the reference's archive, which either server restores.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nats_server::jetstream::archive::{ArchiveWriter, StreamMeta};
use nats_server::jetstream::core::{StreamCore, StreamOutline};
use nats_server::jetstream::types::{StreamConfig, StreamState, Time, encode};
use serde::Serialize;
use storage::filter::Filter;

use crate::Outcome;
use crate::arguments::{Export, Scope};
use crate::progress::Progress;
use crate::{keys, place, text};

/// What the stock tools call an archive, and what they keep beside it.
const ARCHIVE: &str = "stream.tar.s2";
const ABOUT: &str = "backup.json";

/// What stands beside an archive.
#[derive(Serialize)]
struct About<'a> {
    config: &'a StreamConfig,
    state: &'a StreamState,
}

pub fn run(arguments: &Export) -> Result<Outcome> {
    let scope = Scope {
        path: arguments.from.clone(),
        stream: Some(arguments.stream.clone()),
        block: None,
        seq: None,
        key: arguments.key.clone(),
        key_file: arguments.key_file.clone(),
        previous_key: arguments.previous_key.clone(),
    };
    let keys = keys::open(&scope)?;
    let ring = keys.as_deref();
    let mut streams = place::find(&scope, ring)?.streams(ring, &scope)?;
    streams.retain(|stream| !stream.removing);
    let [stream] = streams.as_slice() else {
        bail!(
            "{}: {} streams of that name: say account/name",
            arguments.stream,
            streams.len()
        );
    };
    if let Err(error) = &stream.outline.checkpoint {
        bail!("{}: {error}", stream.directory);
    }
    let present = stream.present(keys.as_ref())?;
    let present =
        present.context("the stream's log is not here: name the store or its directory")?;
    let problems = stream.log_problems().into_iter();
    let problems: Vec<String> = problems.chain(present.problems.iter().cloned()).collect();
    // A backup that lacks something must not pass for a whole one.
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    for note in &present.notes {
        eprintln!("nats-tool: {}: {note}", stream.directory);
    }
    let core = present.core()?;
    // A stream that keeps its messages in memory, or whose files are not what its checkpoint lists, is not brought back: it has not even a name.
    ensure!(
        !core.config().name.is_empty(),
        "it cannot be read here: its messages are in memory, or `filestore verify` tells what is damaged"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now_ns = i64::try_from(now.as_nanos())?;
    let outline = core.outline(now_ns);
    // Sequences that are known to be unreadable are passed over by whoever reads on: a chunk of the open block, a block without its file.
    ensure!(
        outline.state.lost == 0,
        "{} cannot be read: `filestore verify` tells which",
        text::counted(outline.state.lost, "message", "messages")
    );
    let archive = match arguments.to.is_dir() {
        true => arguments.to.join(ARCHIVE),
        false => arguments.to.clone(),
    };
    let consumers = write(&archive, core, &outline, now_ns)?;
    let left_out = outline.consumers.len() - consumers;
    if left_out > 0 {
        eprintln!(
            "nats-tool: {} not in a backup, as their state is in memory only",
            text::counted(left_out as u64, "consumer is", "consumers are")
        );
    }
    if arguments.to.is_dir() {
        let about = About {
            config: &outline.config,
            state: &outline.shown,
        };
        let path = arguments.to.join(ABOUT);
        std::fs::write(&path, encode(&about)).with_context(|| path.display().to_string())?;
    }
    println!(
        "{}: {}, {}, {}",
        archive.display(),
        text::counted(outline.state.messages, "message", "messages"),
        text::size(outline.state.bytes),
        text::counted(consumers as u64, "consumer", "consumers"),
    );
    Ok(Outcome::AllWell)
}

/// Under another name until it is whole. How many consumers it has.
fn write(path: &Path, core: &StreamCore, outline: &StreamOutline, now_ns: i64) -> Result<usize> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let file = File::create(&unfinished).with_context(|| unfinished.display().to_string())?;
    let written = write_archive(BufWriter::new(file), core, outline, now_ns).and_then(|written| {
        std::fs::rename(&unfinished, path).with_context(|| path.display().to_string())?;
        Ok(written)
    });
    if written.is_err() {
        // Nobody is to take it for a backup.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

fn write_archive(
    sink: BufWriter<File>,
    core: &StreamCore,
    outline: &StreamOutline,
    now_ns: i64,
) -> Result<usize> {
    let meta = StreamMeta {
        created: Time::from_nanoseconds(outline.created_ns),
        config: outline.config.clone(),
    };
    let mut archive = ArchiveWriter::begin(sink, &meta, now_ns)?;
    let mut progress = Progress::new(outline.state.bytes);
    progress.file(&outline.config.name);
    let everything = Filter::everything();
    let mut next = outline.state.first_sequence;
    while let Some(message) = core.store().next(next, &everything)? {
        archive.message(&message)?;
        next = message.sequence + 1;
        let bytes = message.subject.len() + message.headers.len() + message.payload.len();
        progress.done(bytes as u64);
    }
    archive.end_messages(outline.state.last_sequence, outline.state.last_time_ns)?;
    let consumers = archive.consumers(&outline.consumers)?;
    let mut sink = archive.finish()?;
    sink.flush()?;
    sink.get_ref().sync_all()?;
    Ok(consumers)
}
