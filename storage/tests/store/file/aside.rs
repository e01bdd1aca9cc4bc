//! What a start sets aside is kept until nothing can need it any more, and no longer.

use storage::store::inspect::{BlockRole, StreamOutline};

use super::*;

fn aside() -> PathBuf {
    Path::new(DIRECTORY).join("set-aside")
}

fn set_aside(disk: &SimDisk) -> Vec<String> {
    let entries = disk.list(&aside()).unwrap_or_default();
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

/// A server that was killed long after its checkpoint, and the names of the blocks that it had begun since.
fn killed() -> (Server, Vec<String>) {
    killed_with(small_shape(), 300)
}

fn killed_with(shape: Shape, messages: u16) -> (Server, Vec<String>) {
    let mut server = filled(shape, messages);
    let before = block_files(&server.disk);
    write_blocks(&mut server, 2 * messages);
    let beyond: Vec<String> = block_files(&server.disk)
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert!(beyond.len() > 1, "{beyond:?}");
    // The system had written them by itself, so that they survive a power cut as well.
    for name in &beyond {
        let path = Path::new(DIRECTORY).join(name);
        let file = server.disk.open(&path, storage::disk::OpenMode::Write);
        file.unwrap().sync_data().unwrap();
    }
    server.disk.sync_directory(Path::new(DIRECTORY)).unwrap();
    server.disk.kill();
    (server, beyond)
}

fn write_blocks(server: &mut Server, messages: u16) {
    for at in 0..messages {
        server.change(&append((at % 16) as u8, 150));
        server.run_jobs();
    }
}

fn with_suffix(names: &[String], index: u64) -> Vec<String> {
    let names = names.iter().map(|name| format!("{name}.{index}-0"));
    names.collect()
}

#[test]
fn blocks_that_no_checkpoint_lists_are_set_aside_until_the_next_one_is_durable() {
    let (mut server, beyond) = killed();
    let index = server.durable;
    server.recover();
    let moved = with_suffix(&beyond, index);
    assert_eq!(set_aside(&server.disk), moved);
    for name in &beyond {
        let path = Path::new(DIRECTORY).join(name);
        assert!(server.disk.content(&path).is_none(), "{name}");
    }
    // Tools see them, too.
    let outline = StreamOutline::read(&server.disk, Path::new(DIRECTORY), None, None).unwrap();
    let shown = outline.blocks.iter();
    let shown = shown.filter(|block| block.role == BlockRole::SetAside);
    assert_eq!(shown.count(), moved.len());
    server.run_jobs();
    server.freeze();
    assert_eq!(set_aside(&server.disk), moved);
    server.save();
    assert_eq!(set_aside(&server.disk), [""; 0]);
    server.disk.crash();
    server.recover();
}

#[test]
fn without_word_that_the_log_was_whole_nothing_that_was_set_aside_is_removed() {
    let (mut server, beyond) = killed();
    let index = server.durable;
    server.reopen();
    server.checkpoint();
    assert_eq!(set_aside(&server.disk), with_suffix(&beyond, index));
    // A later start begins at another checkpoint, and proves nothing of them.
    server.disk.kill();
    server.recover();
    server.change(&append(1, 10));
    server.checkpoint();
    assert_eq!(set_aside(&server.disk), with_suffix(&beyond, index));
}

#[test]
fn what_several_starts_set_aside_for_want_of_one_checkpoint_goes_with_the_next() {
    let (mut server, beyond) = killed();
    for _ in 0..2 {
        server.recover();
        write_blocks(&mut server, 600);
        server.disk.kill();
    }
    server.recover();
    assert!(set_aside(&server.disk).len() > 2 * beyond.len());
    server.checkpoint();
    assert_eq!(set_aside(&server.disk), [""; 0]);
}

#[test]
fn while_a_listed_block_is_damaged_what_was_set_aside_stays() {
    let (mut server, beyond) = killed();
    let index = server.durable;
    let listed = block_files(&server.disk);
    let listed = listed.iter().find(|name| !beyond.contains(name)).unwrap();
    let path = Path::new(DIRECTORY).join(listed);
    server.disk.flip_bit(&path, 20, 3);
    let opened = server.open().unwrap();
    server.store = opened.store;
    for change in &server.log[opened.index as usize..] {
        apply(&mut server.store, change).0.ok();
    }
    server.store.caught_up(server.log.len() as u64);
    assert!(!server.store.lost_ranges().is_empty());
    server.run_jobs();
    server.freeze();
    server.save();
    assert_eq!(server.durable, server.log.len() as u64);
    assert_eq!(set_aside(&server.disk), with_suffix(&beyond, index));
}

#[test]
fn a_file_that_is_not_what_its_name_says_stays() {
    let (mut server, beyond) = killed();
    let index = server.durable;
    server.recover();
    let [first, second] = &with_suffix(&beyond, index)[..2] else {
        panic!("{beyond:?}");
    };
    let content = |name: &str| server.disk.content(&aside().join(name)).unwrap();
    // Another block, a damaged header, another start's, and something that is no block at all.
    let others = [
        (format!("{}.{index}-1", beyond[0]), content(second)),
        (format!("{}.{index}-2", beyond[0]), vec![7; 9000]),
        (format!("{}.0", beyond[0]), content(first)),
        ("notes".to_owned(), b"mine".to_vec()),
    ];
    for (name, bytes) in &others {
        let mode = storage::disk::OpenMode::CreateNew;
        let file = server.disk.open(&aside().join(name), mode).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }
    server.disk.kill();
    server.recover();
    server.checkpoint();
    let mut expected: Vec<String> = others.into_iter().map(|(name, _)| name).collect();
    expected.sort();
    assert_eq!(set_aside(&server.disk), expected);
}

#[test]
fn messages_that_the_log_does_not_have_keep_their_file() {
    let (mut server, beyond) = killed();
    let index = server.durable;
    // As when the log's end was never synced: what the last block has was not applied.
    server.log.truncate(server.log.len() - 100);
    let mut model = ModelStore::new(Limits::default());
    for change in &server.log {
        apply(&mut model, change).0.ok();
    }
    server.model = model;
    server.recover();
    server.checkpoint();
    let kept = set_aside(&server.disk);
    let last = with_suffix(&beyond, index).pop().unwrap();
    assert!(
        kept.contains(&last) && kept.len() < beyond.len(),
        "{kept:?}"
    );
}

/// Recovers, goes on and takes a checkpoint, until the machine stops. Says whether the store could be opened before.
fn go_on(server: &mut Server) -> bool {
    if server.try_reopen().is_err() {
        return false;
    }
    server.store.caught_up(server.log.len() as u64);
    if !server.disk.is_halted() {
        server.change(&append(3, 100));
        server.freeze();
        server.save();
    }
    true
}

#[test]
fn a_crash_at_any_change_loses_nothing_and_removes_nothing_before_its_checkpoint_is_durable() {
    let mut ends = std::collections::BTreeSet::new();
    // Keys of their own tell blocks apart that have the same name and the same messages.
    let shape = Shape {
        block_bytes: 8_192 + 6_000,
        flush_bytes: 2_000,
        cipher: Some(Cipher::Aes256Gcm),
        ..small_shape()
    };
    for halt in 0.. {
        let (mut server, beyond) = killed_with(shape, 40);
        let index = server.durable;
        let content = |server: &Server, name: &str| {
            let path = Path::new(DIRECTORY).join(name);
            server.disk.content(&path)
        };
        let before: Vec<_> = beyond.iter().map(|name| content(&server, name)).collect();
        let left = |server: &Server| {
            let files = beyond.iter().zip(&before);
            let there = files.filter(|(name, before)| {
                let moved = format!("set-aside/{name}.{index}-0");
                content(server, name) == **before || content(server, &moved) == **before
            });
            there.count()
        };
        let covered = server.log.len() as u64;
        server.disk.halt_at(server.disk.changes() + halt);
        let was_opened = go_on(&mut server);
        let halted = server.disk.is_halted();
        let left_behind = left(&server);
        server.disk.crash();
        // A disk that stops while it moves a file from one directory to another may forget both names.
        let survived = left(&server);
        server.recover();
        let is_covered = server.durable >= covered;
        assert!(
            left_behind == beyond.len() || is_covered,
            "halted at {halt}"
        );
        if was_opened {
            assert!(survived == beyond.len() || is_covered, "halted at {halt}");
        }
        ends.insert((left_behind == beyond.len(), is_covered));
        // Whatever it was, it goes on from there.
        write_blocks(&mut server, 10);
        server.checkpoint();
        server.disk.crash();
        server.recover();
        if !halted {
            assert_eq!((left_behind, survived), (0, 0));
            break;
        }
    }
    assert!(ends.contains(&(true, false)) && ends.contains(&(false, true)));
}
