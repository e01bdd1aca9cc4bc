use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::{Advice, Disk, DiskErrorKind, DiskFile, OpenMode};

const SEEDS: u64 = 200;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn durable_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path(name), OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory(path("/")).unwrap();
    file
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        durable_file(&disk, "/file", b"kept");
        disk.crash();
        assert_eq!(disk.content(path("/file")).unwrap(), b"kept", "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_is_lost_kept_torn_and_reordered() {
    let (old, new) = ([b'o'; 2048], [b'n'; 1024]);
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = durable_file(&disk, "/file", &old);
        file.write_all_at(&new, 0).unwrap();
        file.write_all_at(&new, 1024).unwrap();
        disk.crash();
        let content = disk.content(path("/file")).unwrap();
        let sectors: String = content
            .chunks(512)
            .map(|sector| sector[0] as char)
            .collect();
        outcomes.insert(sectors);
    }
    for outcome in ["oooo", "nnnn", "nnoo", "oonn", "nnno", "nono"] {
        assert!(
            outcomes.contains(outcome),
            "{outcome} is missing in {outcomes:?}"
        );
    }
}

#[test]
fn names_that_were_not_synced_stay_or_go_and_a_rename_is_one_step() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        durable_file(&disk, "/target", b"old");
        let new = disk.open(path("/new"), OpenMode::CreateNew).unwrap();
        new.write_all_at(b"new", 0).unwrap();
        new.sync_data().unwrap();
        disk.rename(path("/new"), path("/target")).unwrap();
        disk.crash();
        let target = disk.content(path("/target")).expect("one of the two");
        let left = disk.content(path("/new")).is_some();
        outcomes.insert((String::from_utf8(target).unwrap(), left));
    }
    let expected = [("new", false), ("old", false), ("old", true)];
    let expected = expected.map(|(target, left)| (target.to_owned(), left));
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn a_halted_machine_does_nothing_more_and_is_dead_after_the_crash() {
    let disk = SimDisk::new(4);
    let file = durable_file(&disk, "/file", b"kept");
    disk.halt_at(disk.changes() + 1);
    file.write_all_at(b"1", 0).unwrap();
    assert!(file.write_all_at(b"2", 0).is_err());
    assert!(disk.is_halted());
    assert!(file.sync_data().is_err());
    assert!(file.length().is_err());
    disk.crash();
    assert!(!disk.is_halted());
    assert!(
        file.write_all_at(b"3", 0).is_err(),
        "a handle of an earlier boot"
    );
    let file = disk.open(path("/file"), OpenMode::Write).unwrap();
    file.write_all_at(b"4", 0).unwrap();
}

#[test]
fn a_killed_process_loses_no_write() {
    let disk = SimDisk::new(4);
    let file = durable_file(&disk, "/file", b"kept");
    let lock = disk.lock(path("/lock")).unwrap();
    file.write_all_at(b"K", 0).unwrap();
    disk.kill();
    assert_eq!(disk.content(path("/file")).unwrap(), b"Kept");
    let again = disk.lock(path("/lock")).unwrap();
    drop(lock);
    assert!(
        disk.lock(path("/lock")).is_err(),
        "the old guard frees nothing"
    );
    drop(again);
    disk.lock(path("/lock")).unwrap();
}

#[test]
fn a_failed_sync_loses_data_for_good_although_the_cache_shows_it() {
    let lost = (0..SEEDS).filter(|&seed| {
        let disk = SimDisk::new(seed);
        let file = durable_file(&disk, "/file", b"old");
        file.write_all_at(b"new", 0).unwrap();
        disk.fail_change(disk.changes(), Fault::Error);
        assert!(file.sync_data().is_err());
        assert_eq!(disk.content(path("/file")).unwrap(), b"new");
        file.sync_data().unwrap();
        disk.crash();
        disk.content(path("/file")).unwrap() == b"old"
    });
    assert!(lost.count() > 0);
}

#[test]
fn a_lost_write_shows_old_content_once_the_cache_is_dropped() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/file", b"old");
    disk.fail_change(disk.changes(), Fault::LostWrite);
    file.write_all_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"new");
    file.advise(0, 3, Advice::DontNeed);
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"old");
}

#[test]
fn reads_fail_where_and_when_they_are_told_to() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/file", b"0123456789");
    let read = |from: u64, length: usize| file.read_exact_at(&mut vec![0; length], from);
    disk.fail_reads_of(path("/file"), 4);
    read(0, 4).unwrap();
    assert!(read(0, 5).is_err());
    read(5, 5).unwrap();
    assert_eq!(read(5, 6).unwrap_err().kind, DiskErrorKind::UnexpectedEnd);
    disk.fail_read(disk.reads());
    assert!(read(5, 5).is_err());
    read(5, 5).unwrap();
}

#[test]
fn a_full_device_still_takes_overwrites() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/file", b"0123456789");
    disk.set_capacity(Some(12));
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 2);
    file.write_all_at(b"ab", 10).unwrap();
    let more = file.write_all_at(b"c", 12).unwrap_err();
    assert_eq!(more.kind, DiskErrorKind::Full);
    file.write_all_at(b"xyz", 0).unwrap();
    disk.remove_file(path("/file")).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 12);
}

#[test]
fn the_same_seed_gives_the_same_accidents() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = durable_file(&disk, "/file", &[0; 4096]);
        for number in 0..8u8 {
            file.write_all_at(&[number; 700], u64::from(number) * 311)
                .unwrap();
        }
        disk.crash();
        disk.content(path("/file"))
    };
    assert_eq!(run(9), run(9));
    assert!((0..20).any(|seed| run(seed) != run(9)));
}
