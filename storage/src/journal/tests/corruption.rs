//! Damage below what was synced is named and kept; above it is a torn tail.

use super::*;
use crate::disk::sim::Fault;

/// Three commits of two frames each; the frame of owner 9 in the second one can be found by its content.
fn three_commits(disk: &SimDisk) {
    let (mut core, _) = open(disk, options());
    for round in 1..4u64 {
        let (_, sink) = Recorder::new();
        core.stage(
            &frame(1, round, FrameKind::Entry, content(1, round)),
            0,
            &sink,
        )
        .unwrap();
        let marker = format!("marker {round}");
        core.stage(&frame(9, round, FrameKind::Entry, marker), 0, &sink)
            .unwrap();
        core.commit().unwrap();
    }
}

fn owner_nine(replay: &Replay) -> (Vec<u64>, Vec<(u64, u64)>) {
    let owner = &replay.owners[&Owner(9)];
    let entries = owner.entries.iter().map(|entry| entry.index).collect();
    (entries, owner.holes.clone())
}

#[test]
fn a_flipped_payload_bit_costs_one_frame_and_names_it() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = &segments(&disk)[0];
    let before = disk.content(segment).unwrap();
    let at = find(&disk, segment, b"marker 2").unwrap();
    disk.flip_bit(segment, at, 0);
    let damaged = disk.content(segment).unwrap();

    let (_, replay) = open(&disk, options());
    assert_eq!(replay.damage.len(), 1);
    let damage = &replay.damage[0];
    assert_eq!(
        (damage.cause, damage.all_named),
        (DamageCause::Payload, true)
    );
    assert_eq!(damage.lsns, (2, 2));
    let victim = Victim {
        owner: Owner(9),
        kind: FrameKind::Entry,
        index: 2,
    };
    assert_eq!(damage.victims, [victim]);
    assert_eq!(indexes(&replay, 1), [1, 2, 3]);
    assert_eq!(owner_nine(&replay), (vec![1, 3], vec![(2, 2)]));
    assert!(replay.torn.is_none());
    assert_eq!(
        disk.content(segment).unwrap(),
        damaged,
        "damage is kept as it is"
    );
    assert_eq!(before.len(), damaged.len());
}

#[test]
fn a_flipped_bit_anywhere_below_the_synced_lsn_is_damage_and_never_truncation() {
    let intact = SimDisk::new(1);
    three_commits(&intact);
    let segment = segments(&intact)[0].clone();
    let content = intact.content(&segment).unwrap();
    let third = find(&intact, &segment, b"marker 3").unwrap() / 4096 * 4096;
    let first = 4096;
    let used = |at: u64| {
        content[at as usize..]
            .iter()
            .take(600)
            .any(|&byte| byte != 0)
    };
    let mut tried = 0;
    for at in (first..third)
        .filter(|&at| at % 4096 < 900 && used(at))
        .step_by(7)
    {
        let disk = SimDisk::new(1);
        three_commits(&disk);
        disk.flip_bit(&segment, at, (at % 8) as u8);
        let (_, replay) = open(&disk, options());
        tried += 1;
        assert!(replay.torn.is_none(), "byte {at}");
        let (last_one, last_nine) = (indexes(&replay, 1), owner_nine(&replay).0);
        assert_eq!(last_one.last(), Some(&3), "byte {at}: {last_one:?}");
        assert_eq!(last_nine.last(), Some(&3), "byte {at}: {last_nine:?}");
        let missing = last_one.len() < 3 || last_nine.len() < 3;
        assert_eq!(missing, !replay.damage.is_empty(), "byte {at}");
        if missing {
            let named = replay.owners.values().any(|owner| !owner.holes.is_empty())
                || replay.damage.iter().any(|damage| !damage.all_named);
            assert!(named, "byte {at}");
        }
    }
    assert!(tried > 50);
}

#[test]
fn the_last_commit_is_torn_when_it_is_bad() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = &segments(&disk)[0];
    let at = find(&disk, segment, b"marker 3").unwrap();
    disk.flip_bit(segment, at, 0);
    let (_, replay) = open(&disk, options());
    assert!(replay.damage.is_empty());
    assert_eq!(indexes(&replay, 1), [1, 2]);
    let torn = replay.torn.unwrap();
    assert_eq!((torn.segment, torn.offset), (1, at / 4096 * 4096));
    let kept = disk.content(&torn.kept).unwrap();
    assert_eq!(kept.len() as u64, torn.length);
    let flipped = disk.content(segment).unwrap();
    assert_eq!(kept, flipped[torn.offset as usize..][..kept.len()]);
}

#[test]
fn the_last_commit_is_protected_too_once_the_journal_was_closed() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append_entry(&mut core, 1, 1);
    append(&mut core, frame(9, 1, FrameKind::Entry, "marker 1")).unwrap();
    core.close().unwrap();
    let segment = &segments(&disk)[0];
    disk.flip_bit(segment, find(&disk, segment, b"marker 1").unwrap(), 0);
    let (_, replay) = open(&disk, options());
    assert!(replay.torn.is_none());
    assert_eq!(replay.damage.len(), 1);
    assert_eq!(replay.owners[&Owner(9)].holes, [(1, 1)]);
}

#[test]
fn a_lost_write_is_damage_although_the_device_said_it_was_done() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append_entry(&mut core, 1, 1);
    disk.fail_change(disk.changes(), Fault::LostWrite);
    append_entry(&mut core, 1, 2);
    append_entry(&mut core, 1, 3);
    disk.crash();
    let (_, replay) = open(&disk, options());
    assert_eq!(replay.damage.len(), 1);
    assert_eq!(replay.damage[0].cause, DamageCause::CommitHeader);
    assert_eq!(indexes(&replay, 1), [1, 3]);
    assert_eq!(replay.owners[&Owner(1)].holes, [(2, 2)]);
}

#[test]
fn a_bad_sector_costs_what_stands_in_it() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = &segments(&disk)[0];
    let at = find(&disk, segment, b"marker 2").unwrap();
    disk.fail_reads_of(segment, at);
    let (_, replay) = open(&disk, options());
    assert_eq!(replay.damage.len(), 1);
    assert_eq!(indexes(&replay, 1), [1, 3]);
    assert_eq!(owner_nine(&replay), (vec![1, 3], vec![(2, 2)]));
}

#[test]
fn one_damaged_header_is_replaced_by_its_copy_and_two_are_damage() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = segments(&disk)[0].clone();
    disk.flip_bit(&segment, 20, 0);
    let (mut core, replay) = open(&disk, options());
    assert!(replay.damage.is_empty());
    assert_eq!(indexes(&replay, 1), [1, 2, 3]);
    append_entry(&mut core, 1, 4);
    drop(core);

    disk.flip_bit(&segment, SEGMENT_BYTES - 4096 + 20, 0);
    let (mut core, replay) = open(&disk, options());
    assert_eq!(replay.damage[0].cause, DamageCause::SegmentHeader);
    assert_eq!(replay.damage[0].segment, 1);
    assert_eq!(indexes(&replay, 1), [4]);
    // The file is set aside, not recycled, once nothing older is needed.
    let mut index = 4;
    while files(&disk, "damaged").is_empty() {
        index += 1;
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
        assert!(index < 2000);
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    for index in 1..60 {
        append_entry(&mut core, 1, index);
    }
    drop(core);
    let all = segments(&disk);
    assert!(all.len() > 3);
    disk.remove_file(&all[1]).unwrap();
    let (_, replay) = open(&disk, options());
    assert_eq!(replay.damage.len(), 1);
    assert_eq!(replay.damage[0].cause, DamageCause::MissingSegment);
    let found = indexes(&replay, 1);
    assert_eq!((found[0], *found.last().unwrap()), (1, 59));
    assert_eq!(replay.owners[&Owner(1)].holes.len(), 1);
}

#[test]
fn a_later_version_is_refused_by_name_and_left_alone() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = segments(&disk)[0].clone();
    let mut content = disk.content(&segment).unwrap();
    content[8] = 2;
    let crc = crc32fast::hash(&content[..4092]);
    content[4092..4096].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(&segment, &content);
    let refused = try_open(&disk, options());
    assert!(matches!(
        refused,
        Err(OpenJournalError::LaterVersion { version: 2, .. })
    ));
    assert_eq!(disk.content(&segment).unwrap(), content);
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn inspect_reads_a_damaged_journal_and_changes_nothing() {
    let disk = SimDisk::new(1);
    three_commits(&disk);
    let segment = segments(&disk)[0].clone();
    disk.flip_bit(&segment, find(&disk, &segment, b"marker 2").unwrap(), 0);
    let changes = disk.changes();
    let summaries = inspect(&disk, &directory(), None).unwrap();
    assert_eq!(disk.changes(), changes);
    let content = summaries[0].content.as_ref().unwrap();
    assert_eq!((content.commits, content.frames), (2, 5));
    assert_eq!(content.damage.len(), 1);
    assert_eq!((content.first_lsn, content.next_lsn), (1, 4));
}
