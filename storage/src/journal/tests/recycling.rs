//! Segments come back into use, and nothing of their earlier life does.

use super::*;

#[test]
fn released_segments_are_recycled_and_the_journal_stays_small() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    for index in 1..1000 {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
    }
    let all = disk.list(&directory()).unwrap();
    assert!(all.len() <= 4, "{all:?}");
    assert!(core.pressure().level == PressureLevel::None);
}

#[test]
fn a_server_that_is_killed_again_and_again_does_not_take_its_journal_for_full() {
    let disk = SimDisk::new(1);
    for index in 1..=8 {
        let (mut core, _) = open(&disk, options());
        append_entry(&mut core, 1, index);
        let pressure = core.pressure();
        assert!(
            pressure.level < PressureLevel::Hard,
            "start {index}: {pressure:?}"
        );
        drop(core);
        disk.kill();
    }
    let (_core, replay) = open(&disk, options());
    assert_eq!(indexes(&replay, 1), (1..=8).collect::<Vec<_>>());
}

#[test]
fn segments_that_kills_left_and_nobody_needs_go_before_the_newest_is_full() {
    let disk = SimDisk::new(1);
    for index in 1..=20 {
        let (mut core, _) = open(&disk, options());
        // What a checkpoint of an earlier run covers.
        core.release(Owner(1), index - 1);
        append_entry(&mut core, 1, index);
        let files = disk.list(&directory()).unwrap();
        let segments = files.iter().filter(|file| file.name.ends_with(".seg"));
        let count = segments.count();
        assert!(count <= 5, "start {index}: {count}");
        drop(core);
        disk.kill();
    }
    let (_core, replay) = open(&disk, options());
    assert_eq!(indexes(&replay, 1).last(), Some(&20));
}

#[test]
fn on_a_full_device_no_segment_is_begun_for_the_sake_of_tidiness() {
    let disk = SimDisk::new(1);
    for index in 1..=8 {
        let (mut core, _) = open(&disk, options());
        append_entry(&mut core, 1, index);
        drop(core);
        disk.kill();
    }
    let (mut core, _) = open(&disk, options());
    disk.set_capacity(Some(disk.used_bytes() + SEGMENT_BYTES / 2));
    core.release(Owner(1), 8);
    append_entry(&mut core, 1, 9);
    core.release(Owner(1), 9);
    append_entry(&mut core, 1, 10);
    disk.set_capacity(None);
    append_entry(&mut core, 1, 11);
    let files = disk.list(&directory()).unwrap();
    let segments = files.iter().filter(|file| file.name.ends_with(".seg"));
    assert_eq!(segments.count(), 2);
}

#[test]
fn frames_of_an_earlier_incarnation_never_pass() {
    // The same frames at the same places, again and again: only the nonce tells them apart.
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut last = 0;
        for round in 0..4 {
            let (mut core, replay) = open(&disk, options());
            assert!(replay.damage.is_empty(), "seed {seed}: {:?}", replay.damage);
            assert!(replay.torn.is_none(), "seed {seed}");
            let found = indexes(&replay, 1);
            assert_eq!(
                found.last().copied().unwrap_or_default(),
                last,
                "seed {seed}"
            );
            for _ in 0..(seed % 7) * 6 + round {
                last += 1;
                append_entry(&mut core, 1, last);
                core.release(Owner(1), last - 1);
            }
            drop(core);
            disk.kill();
        }
    }
}

#[test]
fn marks_are_carried_out_of_old_segments() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append(&mut core, frame(5, 3, FrameKind::Vote, "vote")).unwrap();
    append(&mut core, frame(5, 9, FrameKind::Carry, "small state")).unwrap();
    append(&mut core, frame(6, 1, FrameKind::Carry, "to be replaced")).unwrap();
    for index in 1..1000 {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
        if index == 500 {
            append(&mut core, frame(6, 2, FrameKind::Carry, "newer")).unwrap();
        }
        if index == 700 {
            core.forget(Owner(6));
        }
        assert!(core.pressure().level < PressureLevel::Hard);
    }
    assert_eq!(core.owners(), [Owner(5)]);
    drop(core);
    disk.crash();
    let (_, mut replay) = open(&disk, options());
    let five = replay.take(Owner(5));
    let (vote, carry) = (five.vote.unwrap(), five.carry.unwrap());
    assert_eq!((vote.index, &vote.payload[..]), (3, &b"vote"[..]));
    assert_eq!((carry.index, &carry.payload[..]), (9, &b"small state"[..]));
}

#[test]
fn a_newer_mark_wins_over_the_copy_of_the_older_one() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append(&mut core, frame(5, 1, FrameKind::Carry, "old")).unwrap();
    let mut index = 0;
    while core.pressure().level == PressureLevel::None {
        index += 1;
        append_entry(&mut core, 1, index);
    }
    core.release(Owner(1), index);
    // Staged before the commit in which the old one would be carried.
    append(&mut core, frame(5, 2, FrameKind::Carry, "new")).unwrap();
    append_entry(&mut core, 1, index + 1);
    drop(core);
    disk.crash();
    let (_, mut replay) = open(&disk, options());
    assert_eq!(replay.take(Owner(5)).carry.unwrap().payload, "new");
}

#[test]
fn pressure_names_who_holds_the_oldest_segment() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append_entry(&mut core, 7, 1);
    let mut index = 0;
    let mut levels = Vec::new();
    while levels.last() != Some(&PressureLevel::Hard) {
        index += 1;
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
        let pressure = core.pressure();
        if pressure.level > PressureLevel::None {
            assert_eq!(pressure.owners, [Owner(7)]);
        }
        if levels.last() != Some(&pressure.level) {
            levels.push(pressure.level);
        }
    }
    assert_eq!(
        levels,
        [
            PressureLevel::None,
            PressureLevel::Soft,
            PressureLevel::Hard
        ]
    );
    core.release(Owner(7), 1);
    assert_eq!(core.pressure().level, PressureLevel::None);
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append_entry(&mut core, 1, 1);
    let large = Bytes::from(vec![b'x'; 3 * SEGMENT_BYTES as usize]);
    append(&mut core, frame(2, 1, FrameKind::Entry, large.clone())).unwrap();
    append_entry(&mut core, 1, 2);
    drop(core);
    disk.crash();
    let (mut core, mut replay) = open(&disk, options());
    assert_eq!(replay.take(Owner(2)).entries[0].payload, large);
    assert_eq!(indexes(&replay, 1), [1, 2]);
    core.release(Owner(2), 1);
    for index in 3..200 {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
    }
    let lengths = disk.list(&directory()).unwrap();
    assert!(lengths.iter().all(|entry| entry.length == SEGMENT_BYTES));
}

#[test]
fn a_committed_frame_can_be_read_again_until_it_is_recycled() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    let commit = append(&mut core, frame(1, 1, FrameKind::Entry, "payload")).unwrap();
    assert_eq!(core.read(commit.location).unwrap(), "payload");
    let mut index = 1;
    while core.read(commit.location).is_ok() {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
        index += 1;
    }
    let gone = core.read(commit.location);
    assert!(matches!(gone, Err(JournalError::Unreadable(_))));
}

#[test]
fn restarts_without_any_load_do_not_pile_up_segments() {
    let disk = SimDisk::new(1);
    for _ in 0..20 {
        let (core, _) = open(&disk, options());
        drop(core);
        disk.kill();
    }
    let names = disk.list(&directory()).unwrap();
    assert!(names.len() <= 4, "{names:?}");
}

#[test]
fn an_end_in_order_does_not_rotate_away_what_is_needed() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    // Half a segment, and all of it is needed.
    let mut index = 0;
    while index * 4096 < SEGMENT_BYTES / 2 {
        index += 1;
        append_entry(&mut core, 1, index);
    }
    let before = segments(&disk).len();
    core.close().unwrap();
    assert_eq!(segments(&disk).len(), before, "no segment for nothing");
    let (_core, replay) = open(&disk, options());
    assert_eq!(indexes(&replay, 1), (1..=index).collect::<Vec<_>>());
}

#[test]
fn behind_the_mark_of_an_orderly_end_nothing_is_read() {
    let disk = SimDisk::new(1);
    let options = JournalOptions {
        segment_bytes: 8 << 20,
        ..options()
    };
    let reads_of_a_start = || {
        let before = disk.reads();
        let (core, replay) = open(&disk, options.clone());
        (core, disk.reads() - before, replay.clean)
    };
    let (mut core, _, _) = reads_of_a_start();
    append_entry(&mut core, 1, 1);
    core.close().unwrap();
    let (mut core, reads, clean) = reads_of_a_start();
    assert!(clean);
    assert!(reads < 16, "{reads} reads after an orderly end");
    // Without the mark it is looked for commits everywhere.
    append_entry(&mut core, 1, 2);
    drop(core);
    disk.kill();
    let (_core, more, clean) = reads_of_a_start();
    assert!(!clean);
    assert!(
        more >= reads + 7,
        "{more} reads after a kill, {reads} before"
    );
}

#[test]
fn a_closed_journal_leaves_little_to_read_for_the_next_start() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append(&mut core, frame(5, 3, FrameKind::Vote, "vote")).unwrap();
    for index in 1..500 {
        append_entry(&mut core, 1, index);
        if index % 100 == 0 {
            append(&mut core, frame(index, 1, FrameKind::Carry, "small state")).unwrap();
        }
        core.release(Owner(1), index);
    }
    core.close().unwrap();
    let mut spent = Vec::new();
    for round in 0..5 {
        let (core, mut replay) = open(&disk, options());
        assert_eq!(replay.take(Owner(5)).vote.unwrap().payload, "vote");
        for owner in [100, 200, 300, 400] {
            let carry = replay.take(Owner(owner)).carry.unwrap();
            assert_eq!(carry.payload, "small state", "round {round}");
        }
        assert!(indexes(&replay, 1).is_empty(), "round {round}");
        spent.push(segments(&disk).len());
        core.close().unwrap();
    }
    assert!(spent.iter().all(|segments| *segments <= 4), "{spent:?}");
}

/// Entries over several segments, all of them released: spares are there. Closed in order.
fn run_and_close(disk: &SimDisk) {
    let (mut core, _) = open(disk, options());
    append(&mut core, frame(5, 3, FrameKind::Vote, "vote")).unwrap();
    for index in 1..200 {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index - 1);
    }
    core.close().unwrap();
}

fn bytes_of_files(disk: &SimDisk) -> u64 {
    let files = disk.list(&directory()).unwrap();
    files.iter().map(|file| file.length).sum()
}

#[test]
fn an_end_in_order_leaves_what_is_needed_and_one_short_spare() {
    let disk = SimDisk::new(1);
    for round in 0..5 {
        run_and_close(&disk);
        let mut expected = spares::short_bytes(SEGMENT_BYTES);
        for segment in inspect(&disk, &directory(), None).unwrap() {
            let end = segment.content.unwrap().end;
            assert_eq!(segment.length, end + 4096, "round {round}");
            expected += segment.length;
        }
        assert_eq!(bytes_of_files(&disk), expected, "round {round}");
        let (core, mut replay) = open(&disk, options());
        assert!(replay.clean && replay.damage.is_empty() && replay.torn.is_none());
        assert_eq!(replay.take(Owner(5)).vote.unwrap().payload, "vote");
        assert_eq!(indexes(&replay, 1).last(), Some(&199));
        drop(core);
        disk.kill();
    }
}

#[test]
fn what_an_end_in_order_leaves_is_enough_for_a_start_on_a_full_device() {
    let disk = SimDisk::new(1);
    run_and_close(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    let (mut core, replay) = open(&disk, options());
    assert!(replay.clean);
    // What frees space can be said.
    append_entry(&mut core, 1, 200);
    core.release(Owner(1), 200);
    drop(core);
    disk.crash();
    disk.set_capacity(None);
    let (_core, replay) = open(&disk, options());
    assert_eq!(indexes(&replay, 1).last(), Some(&200));
}

#[test]
fn without_a_spare_an_end_in_order_leaves_the_newest_segment_to_become_one() {
    let disk = SimDisk::new(1);
    let options = JournalOptions {
        segment_bytes: 1 << 20,
        ..options()
    };
    let (mut core, _) = open(&disk, options.clone());
    append_entry(&mut core, 1, 1);
    core.release(Owner(1), 1);
    core.close().unwrap();
    assert_eq!(bytes_of_files(&disk), options.segment_bytes);
    for round in 0..5 {
        let (mut core, replay) = open(&disk, options.clone());
        assert!(replay.clean, "round {round}");
        core.release(Owner(1), 1);
        core.close().unwrap();
        let bytes = bytes_of_files(&disk);
        assert!(bytes <= options.segment_bytes / 4, "round {round}: {bytes}");
    }
}
