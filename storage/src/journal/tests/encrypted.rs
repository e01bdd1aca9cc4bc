//! With a key ring, nothing of a frame is readable on disk, and everything else holds as before.

use super::*;
use crate::seal::{Cipher, KeyRing};

fn sealed(disk: &SimDisk, passphrase: &str, cipher: Cipher) -> JournalOptions {
    let entropy = SeededEntropy::new(disk.changes());
    let ring = KeyRing::open(
        disk,
        Path::new("/"),
        passphrase.as_bytes(),
        None,
        cipher,
        &entropy,
    );
    JournalOptions {
        encryption: Some(Arc::new(ring.unwrap())),
        ..options()
    }
}

#[test]
fn sealed_commits_come_back_and_show_nothing_on_disk() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let disk = SimDisk::new(1);
        let (mut core, _) = open(&disk, sealed(&disk, "secret", cipher));
        let mut last = None;
        for index in 1..80 {
            let payload = content(1, index);
            let commit = append(&mut core, frame(1, index, FrameKind::Entry, payload)).unwrap();
            last = Some(commit.location);
        }
        assert_eq!(core.read(last.unwrap()).unwrap(), content(1, 79));
        drop(core);
        disk.crash();
        for segment in segments(&disk) {
            assert_eq!(find(&disk, &segment, b"1/7"), None);
        }
        let (_, replay) = open(&disk, sealed(&disk, "secret", cipher));
        assert_eq!(indexes(&replay, 1), (1..80).collect::<Vec<_>>());
    }
}

#[test]
fn marks_are_carried_in_sealed_journals_too() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    append(&mut core, frame(5, 9, FrameKind::Carry, "small state")).unwrap();
    for index in 1..500 {
        append_entry(&mut core, 1, index);
        core.release(Owner(1), index);
    }
    drop(core);
    let (_, mut replay) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    assert_eq!(replay.take(Owner(5)).carry.unwrap().payload, "small state");
}

#[test]
fn a_flipped_bit_in_a_sealed_commit_is_damage() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    for index in 1..4 {
        append_entry(&mut core, 1, index);
    }
    drop(core);
    disk.flip_bit(&segments(&disk)[0], 2 * 4096 + 100, 0);
    let (_, replay) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    assert_eq!(replay.damage[0].cause, DamageCause::Seal);
    assert_eq!(indexes(&replay, 1), [1, 3]);
    assert_eq!(replay.owners[&Owner(1)].holes, [(2, 2)]);
}

#[test]
fn an_encrypted_journal_does_not_open_without_its_key() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    append_entry(&mut core, 1, 1);
    drop(core);
    let changes = segments(&disk);
    assert!(matches!(
        try_open(&disk, options()),
        Err(OpenJournalError::KeyNeeded(_))
    ));
    assert_eq!(segments(&disk), changes);
}

#[test]
fn encryption_can_be_switched_on_for_a_plain_journal() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append_entry(&mut core, 1, 1);
    drop(core);
    let (mut core, _) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    append_entry(&mut core, 1, 2);
    drop(core);
    let (_, replay) = open(&disk, sealed(&disk, "secret", Cipher::Aes256Gcm));
    assert_eq!(indexes(&replay, 1), [1, 2]);
}
