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
    if report.catalog_damaged {
        writeln!(out, "\n! a part of the list of streams is unreadable")?;
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
        None => writeln!(out, "  no checkpoint")?,
    }
    if stream.removing {
        writeln!(out, "  being removed")?;
    }
    if stream.log.entries > 0 {
        writeln!(
            out,
            "  {} ({}) after it, only in the journal",
            counted(stream.log.entries, "log entry", "log entries"),
            size(stream.log.bytes),
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

fn blocks(blocks: &[BlockReport]) -> Table {
    let mut table = Table::new(&[
        ("block", Align::Left),
        ("state", Align::Left),
        ("first seq", Align::Right),
        ("last seq", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("live", Align::Right),
        ("dead", Align::Right),
        ("subjects", Align::Right),
        ("chunks", Align::Right),
        ("raw", Align::Right),
        ("stored", Align::Right),
        ("file", Align::Right),
        ("codec", Align::Left),
        ("cipher", Align::Left),
        ("key", Align::Left),
        ("footer", Align::Left),
        ("checksums", Align::Left),
    ]);
    for block in blocks {
        let file_bytes = block.file_bytes.map_or("missing".to_owned(), size);
        let Some(content) = &block.content else {
            let mut cells = vec![String::new(); 18];
            cells[0] = block.file.clone();
            cells[1] = "unreadable".to_owned();
            cells[12] = file_bytes;
            table.row(cells);
            continue;
        };
        table.row(block_cells(block, content, file_bytes));
    }
    table
}

fn block_cells(block: &BlockReport, content: &ContentReport, file_bytes: String) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or(String::new(), grouped);
    let unknown = |number: Option<u64>| number.map_or("?".to_owned(), grouped);
    let state = match (block.role, content.sealed) {
        ("unlisted", true) => "sealed, unlisted",
        ("unlisted", false) => "open, unlisted",
        (role, _) => role,
    };
    let unless_none = |text: &str| match text {
        "none" => String::new(),
        text => text.to_owned(),
    };
    vec![
        block.file.clone(),
        state.to_owned(),
        number(content.first_sequence),
        number(content.last_sequence),
        content.first_time.clone().unwrap_or_default(),
        content.last_time.clone().unwrap_or_default(),
        unknown(content.live),
        unknown(content.dead),
        number(content.subjects.map(u64::from)),
        grouped(content.chunks as u64),
        size(content.raw_bytes),
        size(content.stored_bytes),
        file_bytes,
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
