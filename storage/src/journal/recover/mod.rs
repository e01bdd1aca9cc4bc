//! Opening a journal: from files back to frames.
//!
//! - `load`: reading as much of a segment as holds commits.
//! - `walk`: one segment's bytes: good frames, damage, the torn tail.
//! - `collect`: what each owner has left.
//! - `inspect`: the same, read-only and for people.
//!
//! What is replayed is what the device holds: all segments are synced and dropped from the page cache before they are read, because
//! after an unclean stop the cache may show what a failed sync has lost.

mod collect;
mod files;
mod inspect;
mod load;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use inspect::{SegmentContent, SegmentSummary, SegmentUnreadable, inspect, peek};

use super::core::{Retired, Start};
use super::format::SegmentHeader;
use super::frame::Owner;
use super::ledger::Ledger;
use super::options::JournalOptions;
use super::replay::{Damage, DamageCause, Replay, TornTail};
use super::segment::Segment;
use super::spares::Spare;
use crate::disk::{Advice, Disk, DiskError, DiskErrorKind, OpenMode};
use crate::seal::{KeyRing, Sealer, UnwrapError, sealer};
use files::{Files, HeaderRead, read_header};
use walk::Walk;

/// Why a journal could not be opened. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenJournalError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Written by a later version of this program.
    #[error("journal segment {} has format version {version}, this program reads up to {}", path.display(), super::format::VERSION)]
    LaterVersion {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        version: u16,
    },
    /// The journal is encrypted and no key was given.
    #[error("journal segment {} is encrypted and no key is configured", .0.display())]
    KeyNeeded(PathBuf),
    /// The journal is encrypted under another key.
    #[error("journal segment {}: {error}", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// Why its key could not be unwrapped.
        error: UnwrapError,
    },
    /// The new segment could not be begun.
    #[error(transparent)]
    Begin(#[from] super::frame::JournalError),
}

/// A segment file that is still needed.
struct Live {
    number: u64,
    path: PathBuf,
    length: u64,
    /// `None` when both copies are damaged.
    header: Option<SegmentHeader>,
}

/// Reads the journal in `directory` (created when missing) and says how the next segment is to begin.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    options: &JournalOptions,
) -> Result<(Start, Replay), OpenJournalError> {
    disk.create_directory(directory)?;
    let parent = directory.parent();
    if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_directory(parent)?;
    }
    let files = Files::list(disk.as_ref(), directory, options.segment_bytes)?;
    let mut live = Vec::new();
    for (number, path, length) in &files.segments {
        live.push(Live {
            number: *number,
            path: path.clone(),
            length: *length,
            header: header_of(disk.as_ref(), *number, path)?,
        });
    }
    let newest_header = live.iter().rev().find_map(|live| live.header.as_ref());
    let floor_known = newest_header.is_some();
    let floor = newest_header.map_or(1, |header| header.floor);
    let leftovers: Vec<Live> = live.extract_if(.., |live| live.number < floor).collect();
    let leftovers = remove_second_names(disk.as_ref(), leftovers)?;
    let spares = remove_second_names_of(disk.as_ref(), files.spares, &live)?;

    let mut recovery = Recovery {
        disk,
        directory,
        ring: options.encryption.as_deref(),
        replay: Replay {
            clean: live.is_empty(),
            ..Replay::default()
        },
        ledger: Ledger::default(),
        retired: Vec::new(),
        next_lsn: 1,
        end: 0,
    };
    recovery.read_all(&live, floor, floor_known)?;
    for damage in &recovery.replay.damage {
        tracing::error!("{damage}");
    }
    collect::find_holes(&mut recovery.replay);
    let newest = files.segments.last().map_or(0, |(number, _, _)| *number);
    let start = Start {
        number: newest + 1,
        previous_end: recovery.end,
        next_lsn: recovery.next_lsn,
        ledger: recovery.ledger,
        retired: recovery.retired,
        leftovers,
        spares,
        next_name: files.next_name,
    };
    Ok((start, recovery.replay))
}

/// Keeps of the segments that nobody needs those that may be written again.
///
/// When the power goes between two renames, a file system may keep the second and lose the first: then one file has the name of the segment that it was and that of the
/// segment it has become. Written again under the one name, it would be written over under the other. A file that does not say it is what its name says gets no further use.
fn remove_second_names(
    disk: &dyn Disk,
    leftovers: Vec<Live>,
) -> Result<Vec<(PathBuf, u64)>, DiskError> {
    let mut kept = Vec::with_capacity(leftovers.len());
    for leftover in leftovers {
        match leftover.header {
            Some(_) => kept.push((leftover.path, leftover.length)),
            None => disk.remove_file(&leftover.path)?,
        }
    }
    Ok(kept)
}

/// The same of spares: none that is a segment too.
fn remove_second_names_of(
    disk: &dyn Disk,
    spares: Vec<Spare>,
    live: &[Live],
) -> Result<Vec<Spare>, DiskError> {
    let mut kept = Vec::with_capacity(spares.len());
    for spare in spares {
        let is_segment = match read_header(disk, &spare.path)? {
            HeaderRead::Good(header) => live.iter().any(|one| one.header.as_ref() == Some(&header)),
            HeaderRead::Damaged | HeaderRead::LaterVersion(_) => false,
        };
        match is_segment {
            true => disk.remove_file(&spare.path)?,
            false => kept.push(spare),
        }
    }
    Ok(kept)
}

fn header_of(
    disk: &dyn Disk,
    number: u64,
    path: &Path,
) -> Result<Option<SegmentHeader>, OpenJournalError> {
    match read_header(disk, path)? {
        HeaderRead::Good(header) if header.number == number => Ok(Some(header)),
        HeaderRead::Good(_) | HeaderRead::Damaged => Ok(None),
        HeaderRead::LaterVersion(version) => Err(OpenJournalError::LaterVersion {
            path: path.to_owned(),
            version,
        }),
    }
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    directory: &'a Path,
    ring: Option<&'a KeyRing>,
    replay: Replay,
    ledger: Ledger,
    retired: Vec<Retired>,
    next_lsn: u64,
    /// Where the newest segment was cut.
    end: u64,
}

impl Recovery<'_> {
    fn read_all(
        &mut self,
        live: &[Live],
        floor: u64,
        floor_known: bool,
    ) -> Result<(), OpenJournalError> {
        let mut expected = floor;
        for (at, segment) in live.iter().enumerate() {
            let next = live.get(at + 1);
            if floor_known && segment.number > expected {
                self.lost_segments(expected, DamageCause::MissingSegment);
            }
            expected = segment.number + 1;
            match &segment.header {
                Some(header) => self.read_segment(segment, header, next)?,
                None => {
                    self.lost_segments(segment.number, DamageCause::SegmentHeader);
                    self.end = 0;
                    self.ledger.begin(segment.number, segment.length);
                    self.retired.push(Retired {
                        number: segment.number,
                        path: segment.path.clone(),
                        length: segment.length,
                        end: 0,
                        damaged: true,
                        segment: None,
                    });
                }
            }
        }
        Ok(())
    }

    fn lost_segments(&mut self, segment: u64, cause: DamageCause) {
        self.replay.damage.push(Damage {
            segment,
            offset: 0,
            lsns: (self.next_lsn, u64::MAX),
            cause,
            victims: Vec::new(),
            all_named: false,
        });
    }

    fn read_segment(
        &mut self,
        live: &Live,
        header: &SegmentHeader,
        next: Option<&Live>,
    ) -> Result<(), OpenJournalError> {
        let sealer = self.sealer(live, header)?;
        let file = self.disk.open(&live.path, OpenMode::Write)?;
        file.sync_data()?;
        file.advise(0, live.length, Advice::DontNeed);
        let neighbour = next.filter(|next| next.number == header.number + 1);
        let next_header = neighbour.and_then(|next| next.header.as_ref());
        let known_end = next_header.map(|next| next.previous_end);
        let mut bytes = load::load(file.as_ref(), header, known_end)?;
        let walk = Walk {
            header,
            sealer: sealer.as_deref(),
            all_synced: next.is_some(),
        };
        self.lost_between(header);
        let mut walked = walk.run(&mut bytes);
        if let Some(next) = next_header
            && walked.next_lsn < next.first_lsn
        {
            walked.damage.push(Damage {
                segment: header.number,
                offset: walked.end as u64,
                lsns: (walked.next_lsn, next.first_lsn - 1),
                cause: DamageCause::CommitHeader,
                victims: Vec::new(),
                all_named: false,
            });
        }
        let bytes = Bytes::from(bytes);
        if walked.torn {
            let cut = bytes.slice(walked.end.min(bytes.len())..);
            self.keep_torn(header.number, walked.end as u64, &cut)?;
        }
        // Nothing more is written to it. By what it has room for, a server that is killed a few times would take its journal for full while there is next to nothing in it.
        let held = match walked.damage.is_empty() {
            true => walked.end as u64,
            false => header.length,
        };
        self.ledger.begin(header.number, held);
        collect::collect(&mut self.replay, &mut self.ledger, &bytes, &walked.frames);
        self.retired.push(Retired {
            number: header.number,
            path: live.path.clone(),
            length: live.length,
            end: walked.end as u64,
            damaged: !walked.damage.is_empty(),
            segment: Some(Arc::new(Segment::found(
                header,
                live.path.clone(),
                file,
                sealer,
            ))),
        });
        self.replay.damage.append(&mut walked.damage);
        self.replay.clean = walked.closed;
        self.next_lsn = walked.next_lsn;
        self.end = walked.end as u64;
        Ok(())
    }

    /// Bounds the damage of lost segments by the first commit after them.
    fn lost_between(&mut self, header: &SegmentHeader) {
        for damage in &mut self.replay.damage {
            if damage.lsns.1 == u64::MAX {
                damage.lsns.1 = header.first_lsn.saturating_sub(1);
            }
        }
    }

    fn sealer(
        &self,
        live: &Live,
        header: &SegmentHeader,
    ) -> Result<Option<Box<dyn Sealer>>, OpenJournalError> {
        open_sealer(self.ring, &live.path, header)
    }

    /// Keeps the cut bytes in a file of their own. They were never acknowledged, but whoever looks for a lost write may want them.
    fn keep_torn(&mut self, segment: u64, offset: u64, cut: &[u8]) -> Result<(), DiskError> {
        let kept = self
            .directory
            .join(format!("{segment:016x}-{offset:08x}.torn"));
        match self.disk.remove_file(&kept) {
            Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.open(&kept, OpenMode::CreateNew)?;
        file.write_all_at(cut, 0)?;
        file.sync_data()?;
        let length = cut.len() as u64;
        tracing::warn!(segment, offset, length, "cut a torn journal tail");
        self.replay.torn = Some(TornTail {
            segment,
            offset,
            length,
            kept,
        });
        Ok(())
    }
}

fn open_sealer(
    ring: Option<&KeyRing>,
    path: &Path,
    header: &SegmentHeader,
) -> Result<Option<Box<dyn Sealer>>, OpenJournalError> {
    let Some(wrapped) = &header.key else {
        return Ok(None);
    };
    let ring = ring.ok_or_else(|| OpenJournalError::KeyNeeded(path.to_owned()))?;
    let context = SegmentHeader::key_context(header.number, &header.nonce);
    match ring.unwrap(wrapped, &context) {
        Ok(key) => Ok(Some(sealer(wrapped.data_cipher, &key))),
        Err(error) => Err(OpenJournalError::WrongKey {
            path: path.to_owned(),
            error,
        }),
    }
}

impl Replay {
    /// Takes what survived of an owner out; nothing when it is unknown.
    pub fn take(&mut self, owner: Owner) -> super::replay::OwnerReplay {
        self.owners.remove(&owner).unwrap_or_default()
    }
}
