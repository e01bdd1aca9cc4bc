//! From the frames of all segments, in order, to what each owner has left.

use bytes::Bytes;

use super::walk::FoundFrame;
use crate::journal::frame::FrameKind;
use crate::journal::ledger::Ledger;
use crate::journal::replay::{Damage, OwnerReplay, Replay, ReplayedFrame};

/// Takes the frames of the next segment. The ledger's newest segment is that one.
pub(super) fn collect(
    replay: &mut Replay,
    ledger: &mut Ledger,
    bytes: &Bytes,
    frames: &[FoundFrame],
) {
    for found in frames {
        let header = &found.header;
        let owner = replay.owners.entry(header.owner).or_default();
        let frame = ReplayedFrame {
            index: header.index,
            lsn: found.lsn,
            payload: bytes.slice(found.payload.clone()),
            location: found.location,
        };
        match header.kind {
            FrameKind::Entry => {
                take_back(owner, header.index);
                owner.entries.push(frame);
                ledger.entry(header.owner, header.index);
            }
            FrameKind::Truncate => {
                take_back(owner, header.index);
                ledger.truncate(header.owner.0, header.index);
            }
            FrameKind::Vote | FrameKind::Committed | FrameKind::Purged | FrameKind::Carry => {
                if let Some(mark) = owner.mark_mut(header.kind) {
                    *mark = Some(frame);
                }
                ledger.mark(header.owner, header.kind, found.location);
            }
        }
    }
}

fn take_back(owner: &mut OwnerReplay, index: u64) {
    while owner.entries.last().is_some_and(|last| last.index >= index) {
        owner.entries.pop();
    }
}

/// Names the entries that damage has cost each owner: those that were recognised, and the gaps in the indexes that damage lies in.
pub(super) fn find_holes(replay: &mut Replay) {
    let Replay { owners, damage, .. } = replay;
    if damage.is_empty() {
        return;
    }
    for (owner, replayed) in owners.iter_mut() {
        let mut holes: Vec<(u64, u64)> = gaps(&replayed.entries, damage);
        for victim in damage.iter().flat_map(|damage| &damage.victims) {
            let known = |&(first, last): &(u64, u64)| (first..=last).contains(&victim.index);
            let is_entry = victim.owner == *owner && victim.kind == FrameKind::Entry;
            if is_entry && !holes.iter().any(known) {
                holes.push((victim.index, victim.index));
            }
        }
        holes.sort_unstable();
        replayed.holes = holes;
    }
    // An owner of which nothing but a victim is left.
    for victim in damage.iter().flat_map(|damage| &damage.victims) {
        if victim.kind == FrameKind::Entry && !owners.contains_key(&victim.owner) {
            let lost = owners.entry(victim.owner).or_default();
            lost.holes.push((victim.index, victim.index));
        }
    }
}

fn gaps(entries: &[ReplayedFrame], damage: &[Damage]) -> Vec<(u64, u64)> {
    let pairs = entries.iter().zip(entries.iter().skip(1));
    pairs
        .filter(|(before, after)| {
            let spans = |damage: &Damage| damage.lsns.1 >= before.lsn && damage.lsns.0 <= after.lsn;
            after.index > before.index + 1 && damage.iter().any(spans)
        })
        .map(|(before, after)| (before.index + 1, after.index - 1))
        .collect()
}
