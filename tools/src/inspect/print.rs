//! What an inspection found, for people.

use std::io::{self, Write};

use super::report::{BlockReport, ContentReport, Report, SegmentReport, StreamReport};
use crate::table::{Align, Table};
use crate::text::{counted, grouped, size};

pub fn report(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{} {}", report.kind, report.path)?;
    for stream in &report.streams {
        writeln!(out)?;
        print_stream(out, stream)?;
    }
    if report.streams.is_empty() {
        writeln!(out, "\nno streams")?;
    }
    if report.locked {
        writeln!(out, "\nencrypted: give its key to see everything")?;
    }
    if report.catalog_damaged {
        writeln!(out, "\n! a part of the list of streams is damaged")?;
    }
    if !report.journal.is_empty() {
        writeln!(out, "\njournal")?;
        segments(&report.journal).print(out, 2)?;
        for segment in &report.journal {
            for problem in &segment.problems {
                writeln!(out, "  ! {}: {problem}", segment.file)?;
            }
        }
    }
    Ok(())
}

fn print_stream(out: &mut dyn Write, stream: &StreamReport) -> io::Result<()> {
    let id = stream.id.map_or(String::new(), |id| format!(" {id}"));
    let name = match (&stream.account, &stream.name) {
        (Some(account), Some(name)) => format!(" {account}/{name}"),
        _ => String::new(),
    };
    writeln!(out, "stream{id}{name}  {}", stream.directory)?;
    match &stream.checkpoint {
        Some(checkpoint) => {
            writeln!(
                out,
                "  {} messages, {}, sequences {} to {}, last at {}",
                grouped(checkpoint.messages),
                size(checkpoint.bytes),
                grouped(checkpoint.first_sequence),
                grouped(checkpoint.last_sequence),
                checkpoint.last_time,
            )?;
            writeln!(
                out,
                "  checkpoint at log index {}; {} messages in no block",
                grouped(checkpoint.log_index),
                grouped(checkpoint.messages_held as u64),
            )?;
        }
        None if stream.locked => writeln!(out, "  its checkpoint is encrypted")?,
        None => writeln!(out, "  no checkpoint")?,
    }
    if stream.removing {
        writeln!(out, "  being removed")?;
    }
    if let Some(replica) = &stream.replica {
        writeln!(
            out,
            "  replica {:x} of group {}",
            replica.node, replica.group
        )?;
    }
    if stream.log.entries > 0 {
        writeln!(
            out,
            "  {} ({}) only in the journal",
            counted(stream.log.entries, "log entry", "log entries"),
            size(stream.log.bytes),
        )?;
    }
    for moved in &stream.log.moved {
        let state = if moved.intact { "intact" } else { "damaged" };
        writeln!(
            out,
            "  ! it could not take a checkpoint: log entries up to {} are in {} ({}, {state})",
            grouped(moved.last_entry),
            moved.file,
            size(moved.bytes),
        )?;
    }
    for (first, last) in &stream.log.holes {
        writeln!(out, "  ! log entries {first} to {last} are lost")?;
    }
    if let Some(problem) = &stream.problem {
        writeln!(out, "  ! {problem}")?;
    }
    let table = blocks(&stream.blocks);
    if !table.is_empty() {
        writeln!(out)?;
        table.print(out, 2)?;
    }
    for block in &stream.blocks {
        for problem in &block.problems {
            let (file, severity) = (&block.file, problem.severity);
            writeln!(out, "  ! {file}: {severity}: {}", problem.description)?;
        }
    }
    Ok(())
}

/// What most people want to know of a block; the rest is in the JSON.
const BLOCK_COLUMNS: [(&str, Align); 14] = [
    ("block", Align::Left),
    ("state", Align::Left),
    ("sequences", Align::Right),
    ("from", Align::Left),
    ("to", Align::Left),
    ("live", Align::Right),
    ("dead", Align::Right),
    ("raw", Align::Right),
    ("stored", Align::Right),
    ("codec", Align::Left),
    ("cipher", Align::Left),
    ("key", Align::Left),
    ("footer", Align::Left),
    ("checksums", Align::Left),
];

fn blocks(blocks: &[BlockReport]) -> Table {
    let mut table = Table::new(&BLOCK_COLUMNS);
    for block in blocks {
        match &block.content {
            Some(content) => table.row(block_cells(block, content)),
            None => {
                let state = match block.file_bytes {
                    Some(_) => "unreadable",
                    None => "missing",
                };
                table.row([block.file.clone(), state.to_owned()]);
            }
        }
    }
    table
}

fn block_cells(block: &BlockReport, content: &ContentReport) -> Vec<String> {
    let unknown = |number: Option<u64>| number.map_or("?".to_owned(), grouped);
    let state = match (block.role, content.sealed) {
        ("unknown", true) => "sealed",
        ("unknown", false) => "open",
        ("unlisted", true) => "sealed, unlisted",
        ("unlisted", false) => "open, unlisted",
        (role, _) => role,
    };
    let sequences = content.first_sequence.zip(content.last_sequence);
    let sequences = sequences.map(|(first, last)| format!("{}–{}", grouped(first), grouped(last)));
    let unless_none = |text: &str| match text {
        "none" => String::new(),
        text => text.to_owned(),
    };
    // Nanoseconds matter to programs, which read them in the JSON.
    let time = |time: &Option<String>| {
        let time = time.as_deref().unwrap_or_default();
        time.get(..19).unwrap_or(time).replace('T', " ")
    };
    vec![
        block.file.clone(),
        state.to_owned(),
        sequences.unwrap_or_default(),
        time(&content.first_time),
        time(&content.last_time),
        unknown(content.live),
        unknown(content.dead),
        size(content.raw_bytes),
        size(content.stored_bytes),
        unless_none(&content.compression),
        unless_none(content.cipher),
        content.key_ids.join(" "),
        content.footer.to_owned(),
        content.checksums.to_owned(),
    ]
}

fn segments(segments: &[SegmentReport]) -> Table {
    let mut table = Table::new(&[
        ("segment", Align::Left),
        ("state", Align::Left),
        ("first lsn", Align::Right),
        ("next lsn", Align::Right),
        ("commits", Align::Right),
        ("frames", Align::Right),
        ("used", Align::Right),
        ("file", Align::Right),
        ("key", Align::Left),
    ]);
    for segment in segments {
        let number = |number: Option<u64>| number.map_or(String::new(), grouped);
        table.row([
            segment.file.clone(),
            segment.state.to_owned(),
            number(segment.first_lsn),
            number(segment.next_lsn),
            number(segment.commits),
            number(segment.frames),
            segment.bytes_used.map_or(String::new(), size),
            size(segment.bytes),
            segment.key_id.clone().unwrap_or_default(),
        ]);
    }
    table
}
