//! Bytes written out by hand, as docs/format.md describes them, are read as they are meant.

use super::*;
use crate::disk::OpenMode;

/// CRC-32 of IEEE 802.3, bit by bit, so that nothing is taken on trust from the code under test.
fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = !seed;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (0u32.wrapping_sub(crc & 1)));
        }
    }
    !crc
}

fn header_page(number: u64, nonce: [u8; 16]) -> Vec<u8> {
    let mut page = Vec::new();
    page.extend(b"NSJRNL\x1a\n");
    page.extend(1u16.to_le_bytes()); // version
    page.extend([0; 6]); // flags, zero
    page.extend(number.to_le_bytes());
    page.extend(20480u64.to_le_bytes()); // length: five pages
    page.extend(nonce);
    page.extend(41u64.to_le_bytes()); // first lsn
    page.extend(number.to_le_bytes()); // floor
    page.extend(0u64.to_le_bytes()); // previous end
    page.resize(4092, 0);
    page.extend(crc32(0, &page).to_le_bytes());
    page
}

fn frame_bytes(seed: u32, owner: u64, index: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend(crc32(seed, payload).to_le_bytes());
    rest.extend((payload.len() as u32).to_le_bytes());
    rest.extend([kind, 0, 0, 0]);
    rest.extend(owner.to_le_bytes());
    rest.extend(index.to_le_bytes());
    let mut bytes = crc32(seed, &rest).to_le_bytes().to_vec();
    bytes.extend(rest);
    bytes.extend(payload);
    bytes
}

fn commit_bytes(seed: u32, lsn: u64, synced: u64, frames: &[Vec<u8>], flags: u8) -> Vec<u8> {
    let body = frames.concat();
    let mut rest = Vec::new();
    rest.extend(lsn.to_le_bytes());
    rest.extend(synced.to_le_bytes());
    rest.extend((body.len() as u32).to_le_bytes());
    rest.extend((frames.len() as u32).to_le_bytes());
    rest.push(flags);
    rest.extend([0; 7 + 16 + 8]);
    let mut bytes = b"NSCM".to_vec();
    bytes.extend(crc32(seed, &rest).to_le_bytes());
    bytes.extend(rest);
    bytes.extend(body);
    bytes.resize(bytes.len().div_ceil(4096) * 4096, 0);
    bytes
}

#[test]
fn a_segment_written_by_hand_is_read() {
    let nonce = *b"sixteen byte key";
    let seed = crc32(0, &nonce);
    let header = header_page(3, nonce);
    let mut file = header.clone();
    file.extend(commit_bytes(
        seed,
        41,
        40,
        &[
            frame_bytes(seed, 7, 5, 1, b"five"),
            frame_bytes(seed, 7, 6, 1, b"six"),
            frame_bytes(seed, 8, 2, 3, b"vote"),
        ],
        0,
    ));
    file.extend(commit_bytes(
        seed,
        42,
        41,
        &[
            frame_bytes(seed, 7, 6, 2, b""),
            frame_bytes(seed, 7, 6, 1, b"six again"),
            frame_bytes(seed, 8, 4, 6, b"state"),
        ],
        0,
    ));
    file.extend(commit_bytes(seed, 43, 42, &[], 2));
    file.extend(&header);
    assert_eq!(file.len(), 20480);

    let disk = SimDisk::new(1);
    disk.create_directory(&directory()).unwrap();
    let path = directory().join("0000000000000003.seg");
    let handle = disk.open(&path, OpenMode::CreateNew).unwrap();
    handle.write_all_at(&file, 0).unwrap();

    let (_, mut replay) = open(&disk, options());
    assert!(replay.damage.is_empty(), "{:?}", replay.damage);
    assert!(replay.clean);
    let seven = replay.take(Owner(7));
    let entries: Vec<_> = seven
        .entries
        .iter()
        .map(|it| (it.index, &it.payload[..]))
        .collect();
    assert_eq!(entries, [(5, &b"five"[..]), (6, &b"six again"[..])]);
    let eight = replay.take(Owner(8));
    assert_eq!(eight.vote.unwrap().payload, "vote");
    let carry = eight.carry.unwrap();
    assert_eq!(
        (carry.index, carry.lsn, &carry.payload[..]),
        (4, 42, &b"state"[..])
    );
    assert_eq!(
        segments(&disk)[1],
        directory().join("0000000000000004.seg"),
        "the next segment follows"
    );
}

#[test]
fn what_is_written_is_what_the_description_says() {
    let disk = SimDisk::new(1);
    let (mut core, _) = open(&disk, options());
    append(&mut core, frame(7, 5, FrameKind::Entry, "five")).unwrap();
    append(&mut core, frame(8, 2, FrameKind::Vote, "vote")).unwrap();
    let content = disk.content(&segments(&disk)[0]).unwrap();
    let nonce: [u8; 16] = content[32..48].try_into().unwrap();
    let seed = crc32(0, &nonce);
    let first = commit_bytes(seed, 1, 0, &[frame_bytes(seed, 7, 5, 1, b"five")], 0);
    let second = commit_bytes(seed, 2, 1, &[frame_bytes(seed, 8, 2, 3, b"vote")], 0);
    assert!(content[4096..8192] == first);
    assert!(content[8192..12288] == second);
    assert!(content[..4096] == content[content.len() - 4096..]);
}
