//! From the bytes of one segment to its frames: what is good, what is damaged, what is a torn tail.
//!
//! A bad commit is *damage* when it is known to have been synced: a later commit says so with its `synced_lsn`, or a later segment
//! exists at all. Otherwise it is a *torn tail*, and so is everything after it.

use std::ops::Range;

use crate::journal::format::{
    COMMIT_HEADER_BYTES, CommitHeader, FRAME_HEADER_BYTES, FrameHeader, PAGE_BYTES, SegmentHeader,
    crc_seeded,
};
use crate::journal::frame::Location;
use crate::journal::replay::{Damage, DamageCause, Victim};
use crate::seal::Sealer;

/// A segment to be walked.
pub(super) struct Walk<'a> {
    pub header: &'a SegmentHeader,
    pub sealer: Option<&'a dyn Sealer>,
    /// A later segment exists: all commits of this one were synced.
    pub all_synced: bool,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Walked {
    pub frames: Vec<FoundFrame>,
    pub damage: Vec<Damage>,
    pub commits: u64,
    /// Where the good commits end.
    pub end: usize,
    /// The lsn that comes next.
    pub next_lsn: u64,
    /// The last commit closed the journal in order.
    pub closed: bool,
    /// Whether a commit stands beyond `end` that was never synced.
    pub torn: bool,
}

/// A good frame, by where it stands in the segment's bytes.
#[derive(Debug)]
pub(super) struct FoundFrame {
    pub header: FrameHeader,
    pub payload: Range<usize>,
    pub lsn: u64,
    pub location: Location,
}

/// What is wrong with the frames of a commit.
struct BadFrames {
    cause: DamageCause,
    victims: Vec<Victim>,
    all_named: bool,
}

impl Walk<'_> {
    /// Walks the commits in `bytes`, which begin with the segment's first byte. Sealed commits are opened in place.
    pub fn run(&self, bytes: &mut [u8]) -> Walked {
        let mut walked = Walked {
            frames: Vec::new(),
            damage: Vec::new(),
            commits: 0,
            end: PAGE_BYTES,
            next_lsn: self.header.first_lsn,
            closed: false,
            torn: false,
        };
        while walked.end < bytes.len() {
            let (at, expected) = (walked.end, walked.next_lsn);
            let commit = self.commit_at(bytes, at);
            let commit = commit.filter(|commit| commit.lsn == expected);
            let bad = match &commit {
                None => BadFrames {
                    cause: DamageCause::CommitHeader,
                    victims: Vec::new(),
                    all_named: false,
                },
                Some(commit) => {
                    let good_before = walked.frames.len();
                    match self.frames_of(bytes, at, commit, &mut walked.frames) {
                        None => {
                            walked.commits += 1;
                            walked.end = at + commit.stored_bytes();
                            walked.next_lsn = expected.saturating_add(1);
                            walked.closed = commit.closing;
                            continue;
                        }
                        Some(bad) if self.was_synced(bytes, at, expected) => bad,
                        Some(_) => {
                            walked.frames.truncate(good_before);
                            walked.torn = true;
                            break;
                        }
                    }
                }
            };
            if !self.was_synced(bytes, at, expected) {
                walked.torn = self.next_commit(bytes, at, 0).is_some();
                break;
            }
            self.step_over(bytes, commit.is_some(), bad, &mut walked);
        }
        walked
    }

    /// Records the damage at `walked.end` and goes on with the next commit that can be read.
    fn step_over(&self, bytes: &[u8], has_header: bool, bad: BadFrames, walked: &mut Walked) {
        let (at, expected) = (walked.end, walked.next_lsn);
        let next = self.next_commit(bytes, at, expected);
        let next_lsn = match (&next, has_header) {
            (Some((_, commit)), _) => commit.lsn,
            (None, _) => expected.saturating_add(1),
        };
        walked.damage.push(Damage {
            segment: self.header.number,
            offset: at as u64,
            lsns: (expected, next_lsn.saturating_sub(1)),
            cause: bad.cause,
            victims: bad.victims,
            // More than this one commit is lost when the next one is not its neighbour.
            all_named: bad.all_named && next_lsn == expected.saturating_add(1),
        });
        walked.closed = false;
        walked.next_lsn = next_lsn;
        walked.end = next.map_or(bytes.len(), |(at, _)| at);
    }

    /// The commit header of this incarnation at `at`, if its frames fit into what was read.
    fn commit_at(&self, bytes: &[u8], at: usize) -> Option<CommitHeader> {
        let commit = CommitHeader::decode(bytes.get(at..)?, self.header.seed())?;
        let fits = at.checked_add(commit.stored_bytes())? <= bytes.len();
        let known = commit.lsn >= self.header.first_lsn
            && commit.synced_lsn < commit.lsn
            && commit.tag.is_some() == self.sealer.is_some();
        (fits && known).then_some(commit)
    }

    /// Every commit header at or after `at`.
    fn commits_from<'b>(
        &'b self,
        bytes: &'b [u8],
        at: usize,
    ) -> impl Iterator<Item = (usize, CommitHeader)> + 'b {
        (at..bytes.len())
            .step_by(PAGE_BYTES)
            .filter_map(|at| Some((at, self.commit_at(bytes, at)?)))
    }

    /// The first commit at or after `at` with an lsn above `above`.
    fn next_commit(&self, bytes: &[u8], at: usize, above: u64) -> Option<(usize, CommitHeader)> {
        let mut commits = self.commits_from(bytes, at);
        commits.find(|(_, commit)| commit.lsn > above)
    }

    fn was_synced(&self, bytes: &[u8], at: usize, lsn: u64) -> bool {
        self.all_synced
            || self
                .commits_from(bytes, at)
                .any(|(_, commit)| commit.synced_lsn >= lsn)
    }

    /// Collects the good frames of a commit, and says what is bad if anything is.
    fn frames_of(
        &self,
        bytes: &mut [u8],
        commit_at: usize,
        commit: &CommitHeader,
        frames: &mut Vec<FoundFrame>,
    ) -> Option<BadFrames> {
        let from = commit_at + COMMIT_HEADER_BYTES;
        let to = from + commit.length as usize;
        let unnamed = |cause| BadFrames {
            cause,
            victims: Vec::new(),
            all_named: false,
        };
        if let (Some(sealer), Some(tag)) = (self.sealer, &commit.tag) {
            let head = bytes.get(commit_at..from).and_then(<[u8]>::first_chunk);
            let head: Option<[u8; COMMIT_HEADER_BYTES]> = head.copied();
            let (Some(head), Some(body)) = (head, bytes.get_mut(from..to)) else {
                return Some(unnamed(DamageCause::CommitHeader));
            };
            let nonce = CommitHeader::nonce(commit.lsn);
            let opened = sealer.open(&nonce, CommitHeader::associated(&head), body, tag);
            if opened.is_err() {
                return Some(unnamed(DamageCause::Seal));
            }
        }
        let seed = self.header.seed();
        let mut victims = Vec::new();
        let mut at = from;
        for _ in 0..commit.frames {
            let header = bytes.get(at..to);
            let header = header.and_then(|bytes| FrameHeader::decode(bytes, seed));
            let payload = header.and_then(|header| {
                let from = at + FRAME_HEADER_BYTES;
                let range = from..from.checked_add(header.length as usize)?;
                (range.end <= to).then_some((header, range))
            });
            let Some((header, payload)) = payload else {
                return Some(BadFrames {
                    victims,
                    ..unnamed(DamageCause::FrameHeader)
                });
            };
            let content = bytes.get(payload.clone()).unwrap_or_default();
            if crc_seeded(seed, content) == header.payload_crc {
                frames.push(FoundFrame {
                    header,
                    payload: payload.clone(),
                    lsn: commit.lsn,
                    location: Location {
                        segment: self.header.number,
                        commit_at: commit_at as u32,
                        frame_at: (at - commit_at) as u32,
                    },
                });
            } else {
                victims.push(Victim {
                    owner: header.owner,
                    kind: header.kind,
                    index: header.index,
                });
            }
            at = payload.end;
        }
        if at != to {
            return Some(BadFrames {
                victims,
                ..unnamed(DamageCause::FrameHeader)
            });
        }
        (!victims.is_empty()).then_some(BadFrames {
            cause: DamageCause::Payload,
            victims,
            all_named: true,
        })
    }
}
