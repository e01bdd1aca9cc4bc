//! Commands and the state as bytes.
//!
//! A command: version u8 (1) | kind u8 | its fields. A state: version u8 (2) | its parts. Numbers are seven bits a byte, lowest first; texts and lists have their
//! length before them; times are i64, little-endian.
//!
//! # Invariant
//! A reader believes no length and no count before the bytes are there: whatever it is given, it answers with a value or an error, and holds no more than a
//! small multiple of what it was given. The same state has the same bytes on every server.

mod command;
mod state;

use raft::group::Member;

use super::assignment::ChangeKind;
use super::peer::PeerProfile;
use crate::jetstream::core::codec::{Reader, Writer};
use crate::jetstream::types::Time;

pub use crate::jetstream::core::DecodeError;
pub use command::COMMAND_BYTES_MAX;

const VERSION: u8 = 1;
/// The first one did not say which stream a released replica was of.
const STATE_VERSION: u8 = 2;

/// No counter comes this far in a lifetime.
const COUNTER_MAX: u64 = 1 << 62;

type Read<T> = Result<T, DecodeError>;

fn text(writer: &mut Writer, value: &str) {
    writer.blob(value.as_bytes());
}

fn read_text(reader: &mut Reader<'_>) -> Read<String> {
    reader.text().map(str::to_owned)
}

fn flag(writer: &mut Writer, value: bool) {
    writer.u8(u8::from(value));
}

fn read_flag(reader: &mut Reader<'_>) -> Read<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Range { what: "flag" }),
    }
}

fn time(writer: &mut Writer, value: Time) {
    writer.i64(value.nanoseconds());
}

fn read_time(reader: &mut Reader<'_>) -> Read<Time> {
    reader.i64().map(Time::from_nanoseconds)
}

/// What is counted up: never so far that it could run over.
fn read_counter(reader: &mut Reader<'_>) -> Read<u64> {
    match reader.number()? {
        counter if counter < COUNTER_MAX => Ok(counter),
        _ => Err(DecodeError::Range { what: "counter" }),
    }
}

fn list<T>(writer: &mut Writer, items: &[T], mut put: impl FnMut(&mut Writer, &T)) {
    writer.number(items.len() as u64);
    for item in items {
        put(writer, item);
    }
}

/// Reads as many items as are said to follow. Each takes a byte at least, so that a count that lies ends with the bytes.
fn read_list<T>(
    reader: &mut Reader<'_>,
    mut take: impl FnMut(&mut Reader<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    let count = reader.number()?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(take(reader)?);
    }
    Ok(items)
}

fn texts(writer: &mut Writer, items: &[String]) {
    list(writer, items, |writer, item| text(writer, item));
}

fn read_texts(reader: &mut Reader<'_>) -> Read<Vec<String>> {
    read_list(reader, read_text)
}

fn members(writer: &mut Writer, items: &[Member]) {
    list(writer, items, |writer, member| {
        writer.number(member.node);
        text(writer, &member.server);
    });
}

fn read_members(reader: &mut Reader<'_>) -> Read<Vec<Member>> {
    read_list(reader, |reader| {
        let node = reader.number()?;
        let server = read_text(reader)?;
        Ok(Member { node, server })
    })
}

fn kind(writer: &mut Writer, kind: ChangeKind) {
    writer.u8(match kind {
        ChangeKind::Scale => 1,
        ChangeKind::Move => 2,
        ChangeKind::Repair => 3,
    });
}

fn read_kind(byte: u8) -> Read<ChangeKind> {
    match byte {
        1 => Ok(ChangeKind::Scale),
        2 => Ok(ChangeKind::Move),
        3 => Ok(ChangeKind::Repair),
        _ => Err(DecodeError::Range { what: "change" }),
    }
}

fn profile(writer: &mut Writer, profile: &PeerProfile) {
    text(writer, &profile.server);
    text(writer, &profile.cluster);
    text(writer, &profile.domain);
    texts(writer, &profile.tags);
    writer.number(profile.memory_bytes_max);
    writer.number(profile.storage_bytes_max);
    flag(writer, profile.jetstream);
}

fn read_profile(reader: &mut Reader<'_>) -> Read<PeerProfile> {
    Ok(PeerProfile {
        server: read_text(reader)?,
        cluster: read_text(reader)?,
        domain: read_text(reader)?,
        tags: read_texts(reader)?,
        memory_bytes_max: reader.number()?,
        storage_bytes_max: reader.number()?,
        jetstream: read_flag(reader)?,
    })
}

/// Reads a version, which is one up to that.
fn version(reader: &mut Reader<'_>, newest: u8) -> Read<u8> {
    match reader.u8()? {
        known if (1..=newest).contains(&known) => Ok(known),
        other => Err(DecodeError::Version(other)),
    }
}

fn at_end(reader: &Reader<'_>) -> Read<()> {
    match reader.is_empty() {
        true => Ok(()),
        false => Err(DecodeError::Range { what: "length" }),
    }
}
