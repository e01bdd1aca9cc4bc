//! From a replay of the journal back to a group's log.
//!
//! A group may take part only with all it has voted on: damage to its vote or its entries, or damage whose victims
//! cannot be named, is an error here, and the caller lets the server come back as a learner.

use bytes::Bytes;
use storage::journal::{Damage, FrameKind, Owner, OwnerReplay, Replay, ReplayedFrame, Victim};

use super::state::{Hole, LogImage};
use crate::codec::{DecodeError, decode_entry, decode_mark, decode_vote};
use crate::group::Position;
use crate::types::Payload;

/// Why a group cannot go on with the log it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenGroupError {
    /// Entries that were durable are gone.
    #[error("entries {first} to {last} of group {owner} are lost to damage")]
    EntriesLost {
        /// The group.
        owner: Owner,
        /// The first index of the range.
        first: u64,
        /// Its last.
        last: u64,
    },
    /// A vote or a purge mark that was durable is gone: the group may have voted in a term it no longer knows of, or its
    /// log begins nobody knows where.
    #[error("the {kind:?} mark of group {owner} is lost to damage")]
    MarkLost {
        /// The group.
        owner: Owner,
        /// Which mark.
        kind: FrameKind,
    },
    /// The journal lost frames that it cannot name; they may have been this group's.
    #[error("the journal is damaged, and what group {owner} lost cannot be told: {damage}")]
    Unknown {
        /// The group.
        owner: Owner,
        /// The damage, in words.
        damage: String,
    },
    /// A frame passed its checksum and is not what it should be.
    #[error("{kind:?} {index} of group {owner}: {error}")]
    Decode {
        /// The group.
        owner: Owner,
        /// What the frame was to be.
        kind: FrameKind,
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The entries do not follow each other.
    #[error("group {owner}: {hole}")]
    Torn {
        /// The group.
        owner: Owner,
        /// Where.
        hole: Hole,
    },
}

/// Takes the frames of `owner` out of `replay` and makes its log of them; an empty log when there are none.
pub fn recover(owner: Owner, replay: &mut Replay) -> Result<LogImage, OpenGroupError> {
    let frames = replay.owners.remove(&owner).unwrap_or_default();
    recover_from(owner, frames, &replay.damage)
}

/// The same of frames that were taken out already, and the damage of the whole journal.
pub fn recover_from(
    owner: Owner,
    frames: OwnerReplay,
    damage: &[Damage],
) -> Result<LogImage, OpenGroupError> {
    recover_after(owner, frames, damage, None)
}

/// The same of a group whose state is durable up to an entry: entries up to there may be missing, as they are when a state was received and the
/// power went before the mark that purges what it covers.
pub fn recover_after(
    owner: Owner,
    frames: OwnerReplay,
    damage: &[Damage],
    covered: Option<Position>,
) -> Result<LogImage, OpenGroupError> {
    check_damage(owner, damage)?;
    if let Some((first, last)) = frames.holes.first().copied() {
        return Err(OpenGroupError::EntriesLost { owner, first, last });
    }
    image_of(owner, frames, covered)
}

/// An entry of a group's log that is not running, for tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place.
    pub index: u64,
    /// The term that it was written in.
    pub term: u64,
    /// What was proposed; `None` for entries of Raft's own.
    pub command: Option<Bytes>,
    /// Whether this log alone tells that it is committed.
    pub committed: bool,
}

/// The entries of a group's log as they lie in the journal, in order, up to the first that does not decode.
pub fn stored_entries(owner: Owner, frames: &OwnerReplay) -> Vec<StoredEntry> {
    let committed = read(
        owner,
        FrameKind::Committed,
        frames.committed.clone(),
        decode_mark,
    );
    let committed = committed.ok().flatten().flatten();
    let committed = committed.map_or(0, |id| id.index);
    let decoded = frames
        .entries
        .iter()
        .map_while(|frame| decode_entry(frame.index, &frame.payload).ok());
    let stored = decoded.map(|entry| StoredEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        committed: entry.log_id.index <= committed,
        command: match entry.payload {
            Payload::Normal(command) => Some(command.0),
            Payload::Blank | Payload::Membership(_) => None,
        },
    });
    stored.collect()
}

fn check_damage(owner: Owner, damage: &[Damage]) -> Result<(), OpenGroupError> {
    for damage in damage {
        let of_group = |victim: &&Victim| {
            victim.owner == owner && matches!(victim.kind, FrameKind::Vote | FrameKind::Purged)
        };
        if let Some(victim) = damage.victims.iter().find(of_group) {
            let kind = victim.kind;
            return Err(OpenGroupError::MarkLost { owner, kind });
        }
        if !damage.all_named {
            let damage = damage.to_string();
            return Err(OpenGroupError::Unknown { owner, damage });
        }
    }
    Ok(())
}

fn image_of(
    owner: Owner,
    frames: OwnerReplay,
    covered: Option<Position>,
) -> Result<LogImage, OpenGroupError> {
    let mut image = LogImage::default();
    image.vote = read(owner, FrameKind::Vote, frames.vote, decode_vote)?;
    image.committed = read(owner, FrameKind::Committed, frames.committed, decode_mark)?.flatten();
    if let Some(purged) = read(owner, FrameKind::Purged, frames.purged, decode_mark)?.flatten() {
        image.purge(purged);
    }
    let mut first = image.purged.map_or(0, |purged| purged.index + 1);
    for frame in frames.entries {
        // A log that is empty so far begins wherever its first entry stands.
        let begun = image.purged.is_some() || image.next_index() > image.first_index();
        if let Some(covered) = covered
            && begun
            && frame.index > image.next_index()
            && image.next_index() >= first
            && frame.index <= covered.index + 1
        {
            // Whatever is missing here is covered.
            image.purge(covered.log_id());
            first = covered.index + 1;
        }
        if frame.index < first {
            continue;
        }
        // The copy frees the segment that the replayed payload is a slice of.
        let bytes = bytes::Bytes::copy_from_slice(&frame.payload);
        let entry = decode_entry(frame.index, &bytes).map_err(|error| OpenGroupError::Decode {
            owner,
            kind: FrameKind::Entry,
            index: frame.index,
            error,
        })?;
        let pushed = image.push_stored(entry, frame.location);
        pushed.map_err(|hole| OpenGroupError::Torn { owner, hole })?;
    }
    Ok(image)
}

fn read<T>(
    owner: Owner,
    kind: FrameKind,
    frame: Option<ReplayedFrame>,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, OpenGroupError> {
    let Some(frame) = frame else { return Ok(None) };
    match decode(&frame.payload) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(OpenGroupError::Decode {
            owner,
            kind,
            index: frame.index,
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use storage::journal::{Damage, DamageCause};

    use super::*;
    use crate::codec::log_id;

    const GROUP: Owner = Owner(5);

    fn damaged(victims: Vec<Victim>, all_named: bool) -> Replay {
        let damage = Damage {
            segment: 1,
            offset: 4096,
            lsns: (1, 1),
            cause: DamageCause::Payload,
            victims,
            all_named,
        };
        Replay {
            damage: vec![damage],
            ..Replay::default()
        }
    }

    fn victim(owner: Owner, kind: FrameKind) -> Victim {
        let index = 0;
        Victim { owner, kind, index }
    }

    #[test]
    fn a_lost_vote_or_purge_mark_bars_the_group() {
        for kind in [FrameKind::Vote, FrameKind::Purged] {
            let mut replay = damaged(vec![victim(GROUP, kind)], true);
            let error = recover(GROUP, &mut replay).unwrap_err();
            assert_eq!(error, OpenGroupError::MarkLost { owner: GROUP, kind });
        }
    }

    #[test]
    fn what_others_lost_and_a_lost_commit_mark_bar_nobody() {
        for victim in [
            victim(Owner(6), FrameKind::Vote),
            victim(GROUP, FrameKind::Committed),
        ] {
            let recovered = recover(GROUP, &mut damaged(vec![victim], true));
            assert_eq!(recovered.unwrap().next_index(), 0);
        }
    }

    #[test]
    fn damage_without_a_name_bars_every_group() {
        let error = recover(GROUP, &mut damaged(Vec::new(), false)).unwrap_err();
        assert!(matches!(error, OpenGroupError::Unknown { .. }), "{error}");
    }

    fn entry(index: u64) -> ReplayedFrame {
        let entry = crate::types::Entry {
            log_id: log_id(1, index),
            payload: Payload::Blank,
        };
        let (payload, _) = crate::codec::entry_parts(&entry);
        ReplayedFrame {
            index,
            lsn: 1,
            payload,
            location: storage::journal::Location {
                segment: 1,
                commit_at: 0,
                frame_at: 0,
            },
        }
    }

    #[test]
    fn what_is_missing_may_be_covered_by_a_state_that_was_received() {
        let frames = |indices: &[u64]| OwnerReplay {
            entries: indices.iter().map(|index| entry(*index)).collect(),
            ..OwnerReplay::default()
        };
        let after = |indices: &[u64], index| {
            let covered = Some(Position { term: 1, index });
            recover_after(GROUP, frames(indices), &[], covered)
        };
        let torn = recover_from(GROUP, frames(&[3, 4, 9, 10]), &[]);
        assert!(matches!(torn, Err(OpenGroupError::Torn { .. })));
        let image = after(&[3, 4, 9, 10], 8).unwrap();
        assert_eq!((image.first_index(), image.next_index()), (9, 11));
        // The state has moved on since.
        let image = after(&[3, 4, 9, 10], 9).unwrap();
        assert_eq!((image.first_index(), image.next_index()), (10, 11));
        let image = after(&[3, 4, 9, 10], 12).unwrap();
        assert_eq!((image.first_index(), image.next_index()), (13, 13));
        assert!(after(&[3, 4, 9, 10], 7).is_err());
        let whole = after(&[3, 4, 5], 4).unwrap();
        assert_eq!((whole.first_index(), whole.next_index()), (3, 6));
    }

    #[test]
    fn lost_entries_are_named() {
        let mut replay = Replay::default();
        let holes = vec![(3, 9)];
        let frames = OwnerReplay {
            holes,
            ..OwnerReplay::default()
        };
        replay.owners.insert(GROUP, frames);
        let (owner, first, last) = (GROUP, 3, 9);
        let lost = OpenGroupError::EntriesLost { owner, first, last };
        assert_eq!(recover(GROUP, &mut replay).unwrap_err(), lost);
    }
}
