//! A journal as it lies there, for people: reads everything, changes nothing, and goes on where it is damaged.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::collect::{collect, find_holes};
use super::files::{HeaderRead, read_header};
use super::load::load;
use super::open_sealer;
use super::walk::Walk;
use crate::disk::{Disk, DiskError, OpenMode};
use crate::journal::format::SegmentHeader;
use crate::journal::ledger::Ledger;
use crate::journal::replay::{Damage, Replay};
use crate::seal::{KeyId, KeyRing};

/// What one segment file holds.
#[derive(Debug, Clone)]
pub struct SegmentSummary {
    /// The file.
    pub path: PathBuf,
    /// The number in its name.
    pub number: u64,
    /// Bytes of the file.
    pub length: u64,
    /// What its header says, when it can be read.
    pub content: Result<SegmentContent, SegmentUnreadable>,
}

/// What a readable segment holds.
#[derive(Debug, Clone)]
pub struct SegmentContent {
    /// The lsn of its first commit.
    pub first_lsn: u64,
    /// The lsn after its last good commit.
    pub next_lsn: u64,
    /// Good commits.
    pub commits: u64,
    /// Good frames.
    pub frames: u64,
    /// Where its good commits end.
    pub end: u64,
    /// The lowest segment that was needed when it was begun.
    pub floor: u64,
    /// The master key its commits are sealed under.
    pub key: Option<KeyId>,
    /// Whether its last commit closed the journal in order.
    pub closed: bool,
    /// Whether a commit stands beyond the end that was never synced.
    pub torn: bool,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Why nothing can be said of a segment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SegmentUnreadable {
    /// Both copies of its header are damaged.
    #[error("both headers are damaged")]
    Header,
    /// It is of a later version.
    #[error("format version {0} is later than this program knows")]
    LaterVersion(u16),
    /// It is encrypted and its key was not given.
    #[error("encrypted, and its key was not given: {0}")]
    Key(String),
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Summaries of all segments in a journal's directory, by number. Safe on a journal that is in use: then the newest segment may seem torn.
pub fn inspect(
    disk: &dyn Disk,
    directory: &Path,
    ring: Option<&KeyRing>,
) -> Result<Vec<SegmentSummary>, DiskError> {
    let segments = segments(disk, directory)?;
    let ends: Vec<Option<(u64, u64)>> = segments
        .iter()
        .map(|(number, path, _)| match read_header(disk, path) {
            Ok(HeaderRead::Good(header)) => Some((*number, header.previous_end)),
            _ => None,
        })
        .collect();
    let newest = segments.last().map(|(number, _, _)| *number);
    let summary = |(number, path, length): (u64, PathBuf, u64)| {
        let next = ends.iter().flatten().find(|(next, _)| *next == number + 1);
        let end = next.map(|(_, end)| *end);
        let all_synced = newest != Some(number);
        SegmentSummary {
            content: content(disk, &path, ring, end, all_synced),
            path,
            number,
            length,
        }
    };
    Ok(segments.into_iter().map(summary).collect())
}

/// What survives of every owner, as a start would find it, but without changing anything. Segments that cannot be read are
/// left out; [`inspect`] names them.
pub fn peek(
    disk: &dyn Disk,
    directory: &Path,
    ring: Option<&KeyRing>,
) -> Result<Replay, DiskError> {
    let mut headers: Vec<(PathBuf, SegmentHeader)> = Vec::new();
    for (_, path, _) in segments(disk, directory)? {
        if let HeaderRead::Good(header) = read_header(disk, &path)? {
            headers.push((path, header));
        }
    }
    let floor = headers.last().map_or(0, |(_, header)| header.floor);
    let mut replay = Replay::default();
    let mut ledger = Ledger::default();
    for (at, (path, header)) in headers.iter().enumerate() {
        let next = headers.get(at + 1).map(|(_, next)| next);
        let Ok(sealer) = open_sealer(ring, path, header) else {
            continue;
        };
        if header.number < floor {
            continue;
        }
        let end = next.filter(|next| next.number == header.number + 1);
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = load(file.as_ref(), header, end.map(|next| next.previous_end))?;
        let walk = Walk {
            header,
            sealer: sealer.as_deref(),
            all_synced: next.is_some(),
        };
        let mut walked = walk.run(&mut bytes);
        ledger.begin(header.number, header.length);
        let bytes = Bytes::from(bytes);
        collect(&mut replay, &mut ledger, &bytes, &walked.frames);
        replay.damage.append(&mut walked.damage);
        replay.clean = walked.closed;
    }
    find_holes(&mut replay);
    Ok(replay)
}

/// Number, path and length of every segment file, by number.
fn segments(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u64, PathBuf, u64)>, DiskError> {
    let mut segments = Vec::new();
    for entry in disk.list(directory)? {
        let number = entry.name.strip_suffix(".seg");
        let number = number.and_then(|stem| u64::from_str_radix(stem, 16).ok());
        if let Some(number) = number {
            segments.push((number, directory.join(&entry.name), entry.length));
        }
    }
    segments.sort();
    Ok(segments)
}

fn content(
    disk: &dyn Disk,
    path: &Path,
    ring: Option<&KeyRing>,
    end: Option<u64>,
    all_synced: bool,
) -> Result<SegmentContent, SegmentUnreadable> {
    let header = match read_header(disk, path)? {
        HeaderRead::Good(header) => header,
        HeaderRead::Damaged => return Err(SegmentUnreadable::Header),
        HeaderRead::LaterVersion(version) => return Err(SegmentUnreadable::LaterVersion(version)),
    };
    let sealer = open_sealer(ring, path, &header)
        .map_err(|error| SegmentUnreadable::Key(error.to_string()))?;
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = load(file.as_ref(), &header, end)?;
    let walk = Walk {
        header: &header,
        sealer: sealer.as_deref(),
        all_synced,
    };
    let walked = walk.run(&mut bytes);
    Ok(SegmentContent {
        first_lsn: header.first_lsn,
        next_lsn: walked.next_lsn,
        commits: walked.commits,
        frames: walked.frames.len() as u64,
        end: walked.end as u64,
        floor: header.floor,
        key: header.key.map(|key| key.master),
        closed: walked.closed,
        torn: walked.torn,
        damage: walked.damage,
    })
}
