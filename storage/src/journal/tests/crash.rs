//! The power goes at every single change of the disk: what was acknowledged is there, nothing is invented, the order is kept.

use super::*;

/// A run of two owners over many segments, until the power goes. Returns for each owner the highest index that was acknowledged and the
/// highest that was submitted.
fn run_until_halt(disk: &SimDisk, options: &JournalOptions) -> [(u64, u64); 2] {
    let mut reached = [(0, 0); 2];
    let Ok((mut core, _)) = try_open(disk, options.clone()) else {
        return reached;
    };
    for round in 0..40u64 {
        let (recorder, sink) = Recorder::new();
        for (owner, (_, submitted)) in reached.iter_mut().enumerate() {
            let owner = owner as u64 + 1;
            for _ in 0..1 + (round * owner) % 4 {
                let payload = content(owner, *submitted + 1);
                let entry = frame(owner, *submitted + 1, FrameKind::Entry, payload);
                if core.stage(&entry, 0, &sink).is_err() {
                    return reached;
                }
                *submitted += 1;
            }
        }
        let committed = core.commit();
        for commit in recorder.commits.lock().iter() {
            reached[commit.owner.0 as usize - 1].0 = commit.index;
        }
        if round == 20 && core.sync().is_err() {
            return reached;
        }
        match committed {
            Ok(()) => assert!(recorder.failures.lock().is_empty()),
            Err(_) => {
                assert_eq!(recorder.failures.lock().len(), 1);
                assert!(
                    core.commit().is_err(),
                    "a failed journal takes nothing more"
                );
                return reached;
            }
        }
        if round % 8 == 7 {
            core.release(Owner(1), reached[0].0.saturating_sub(10));
            core.release(Owner(2), reached[1].0.saturating_sub(3));
        }
    }
    let _ = core.close();
    reached
}

/// `released` is the highest index that may have been released.
fn check(
    replay: &Replay,
    owner: u64,
    (acknowledged, released, submitted): (u64, u64, u64),
    context: &str,
) {
    assert!(replay.damage.is_empty(), "{context}: {:?}", replay.damage);
    let found = indexes(replay, owner);
    let last = found.last().copied().unwrap_or_default();
    assert!(
        last >= acknowledged,
        "{context}: {last} of {acknowledged} acknowledged"
    );
    assert!(last <= submitted, "{context}: {last} was never submitted");
    assert!(
        found.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{context}: {found:?}"
    );
    if let Some(&first) = found.first() {
        assert!(first <= released + 1, "{context}: {found:?}");
    }
}

/// What the power leaves of one change is not always the same.
const ACCIDENTS: u64 = 8;

fn crash_at_every_change(options: &JournalOptions, synced_only: bool) {
    let whole = SimDisk::new(0);
    run_until_halt(&whole, options);
    let changes = whole.changes();
    assert!(changes > 80, "{changes} changes only");
    for seed in 0..changes * ACCIDENTS {
        let halt = seed / ACCIDENTS;
        let disk = SimDisk::new(seed);
        disk.halt_at(halt);
        let reached = run_until_halt(&disk, options);
        disk.crash();
        // Also the recovery is interrupted once, early or late.
        disk.halt_at(disk.changes() + halt % 9);
        let _ = try_open(&disk, options.clone());
        disk.crash();
        let (core, replay) = open(&disk, options.clone());
        let context = format!("seed {seed}, halted at change {halt}");
        for (owner, (acknowledged, submitted)) in reached.into_iter().enumerate() {
            let promised = if synced_only { 0 } else { acknowledged };
            let reached = (promised, acknowledged.saturating_sub(3), submitted);
            check(&replay, owner as u64 + 1, reached, &context);
        }
        // What was found once stays.
        let lengths: Vec<_> = (1..3).map(|owner| indexes(&replay, owner)).collect();
        drop(core);
        disk.crash();
        let (_, replay) = open(&disk, options.clone());
        let again: Vec<_> = (1..3).map(|owner| indexes(&replay, owner)).collect();
        for (before, after) in lengths.iter().zip(&again) {
            assert_eq!(before.last(), after.last(), "{context}");
        }
        live_on(&disk, options, &context);
    }
}

/// After an accident the journal goes through its segments once more, and what the accident left behind hurts nothing.
fn live_on(disk: &SimDisk, options: &JournalOptions, context: &str) {
    let (mut core, replay) = open(disk, options.clone());
    let before = indexes(&replay, 1).last().copied().unwrap_or_default();
    let (mut last, mut released) = (before, before);
    // Near and far behind: whichever segment is needed when another one is written over.
    for kept in [6, 16] {
        for _ in 0..30 {
            last += 1;
            append_entry(&mut core, 1, last);
            released = released.max(last.saturating_sub(kept));
            core.release(Owner(1), released);
        }
    }
    core.sync().unwrap();
    drop(core);
    disk.crash();
    let (_, replay) = open(disk, options.clone());
    check(&replay, 1, (last, released, last), context);
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_change() {
    crash_at_every_change(&small(options()), false);
}

#[test]
fn a_lazy_journal_keeps_the_order_through_a_crash_at_every_change() {
    crash_at_every_change(&small(lazy()), true);
}

/// Segments so small that the run goes through several.
fn small(options: JournalOptions) -> JournalOptions {
    JournalOptions {
        segment_bytes: 32 * 1024,
        soft_bytes: 64 * 1024,
        ..options
    }
}

#[test]
fn what_was_synced_lazily_survives() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (mut core, _) = open(&disk, lazy());
        append_entry(&mut core, 1, 1);
        append_entry(&mut core, 1, 2);
        core.sync().unwrap();
        append_entry(&mut core, 1, 3);
        disk.crash();
        let (_, replay) = open(&disk, lazy());
        let found = indexes(&replay, 1);
        assert!(found.starts_with(&[1, 2]), "seed {seed}: {found:?}");
        assert!(replay.damage.is_empty());
    }
}

#[test]
fn a_vote_is_synced_although_the_journal_is_lazy() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (mut core, _) = open(&disk, lazy());
        append_entry(&mut core, 1, 1);
        append(&mut core, frame(1, 0, FrameKind::Vote, "term 3")).unwrap();
        disk.crash();
        let (_, replay) = open(&disk, lazy());
        let vote = replay.owners[&Owner(1)].vote.as_ref().unwrap();
        assert_eq!(vote.payload, "term 3", "seed {seed}");
        assert_eq!(
            indexes(&replay, 1),
            [1],
            "what stood before it is synced with it"
        );
    }
}

#[test]
fn a_failed_sync_is_final_and_nothing_after_it_is_acknowledged() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (mut core, _) = open(&disk, options());
        append_entry(&mut core, 1, 1);
        // The first change of a commit is its write (with the zeros ahead of it done), the second its sync.
        disk.fail_change(disk.changes() + 1, crate::disk::sim::Fault::Error);
        let failed = append(&mut core, frame(1, 2, FrameKind::Entry, content(1, 2)));
        assert!(matches!(failed, Err(JournalError::Failed(_))));
        let after = append(&mut core, frame(1, 3, FrameKind::Entry, content(1, 3)));
        assert!(matches!(after, Err(JournalError::Failed(_))));
        drop(core);
        disk.kill();
        let (_, replay) = open(&disk, options());
        let found = indexes(&replay, 1);
        assert!(found == [1] || found == [1, 2], "seed {seed}: {found:?}");
        // What is replayed is what the disk holds, not what the cache pretended.
        disk.crash();
        assert_eq!(indexes(&open(&disk, options()).1, 1), found, "seed {seed}");
    }
}

#[test]
fn a_full_device_is_told_before_the_journal_needs_more() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(SEGMENT_BYTES + 1000));
    let (mut core, _) = open(&disk, options());
    assert!(core.has_room());
    let mut index = 0;
    while core.has_room() {
        index += 1;
        append_entry(&mut core, 1, index);
    }
    // There is still room for what frees space.
    for _ in 0..8 {
        index += 1;
        append_entry(&mut core, 1, index);
    }
    disk.set_capacity(None);
    append_entry(&mut core, 1, index + 1);
    assert!(core.has_room());
}

/// Marks that stay, entries that are all released, and an end in order. How many marks were acknowledged.
fn close_until_halt(disk: &SimDisk) -> u64 {
    let mut marks = 0;
    let Ok((mut core, _)) = try_open(disk, options()) else {
        return marks;
    };
    for index in 1..80 {
        if index % 20 == 1 {
            let mark = frame(100 + index, index, FrameKind::Carry, "small state");
            if append(&mut core, mark).is_err() {
                return marks;
            }
            marks += 1;
        }
        let entry = frame(1, index, FrameKind::Entry, content(1, index));
        if append(&mut core, entry).is_err() {
            return marks;
        }
    }
    core.release(Owner(1), 79);
    let _ = core.close();
    marks
}

#[test]
fn marks_survive_a_crash_at_every_change_of_a_close() {
    let whole = SimDisk::new(0);
    close_until_halt(&whole);
    for halt in 0..whole.changes() {
        let disk = SimDisk::new(halt * 7 + 1);
        disk.halt_at(halt);
        let marks = close_until_halt(&disk);
        disk.crash();
        for _ in 0..2 {
            let (core, mut replay) = open(&disk, options());
            assert!(replay.damage.is_empty(), "{halt}: {:?}", replay.damage);
            for mark in 0..marks {
                let carry = replay.take(Owner(101 + mark * 20)).carry;
                assert!(carry.is_some(), "halted at change {halt}: mark {mark}");
            }
            // The second time after an end in order.
            let _ = core.close();
        }
    }
}

#[test]
fn the_newest_segment_has_two_headers_at_every_change_of_a_close() {
    let whole = SimDisk::new(0);
    close_until_halt(&whole);
    assert_eq!(files(&whole, "free").len(), 1, "otherwise nothing is cut");
    for halt in 0..whole.changes() {
        let disk = SimDisk::new(halt * 5 + 2);
        disk.halt_at(halt);
        let marks = close_until_halt(&disk);
        disk.crash();
        if disk.list(&directory()).is_err() {
            continue;
        }
        let Some(newest) = segments(&disk).pop() else {
            continue;
        };
        disk.flip_bit(&newest, 100, 0);
        let (_core, mut replay) = open(&disk, options());
        assert!(replay.damage.is_empty(), "{halt}: {:?}", replay.damage);
        for mark in 0..marks {
            let carry = replay.take(Owner(101 + mark * 20)).carry;
            assert!(carry.is_some(), "halted at change {halt}: mark {mark}");
        }
    }
}
