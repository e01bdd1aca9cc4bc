//! Whatever stands in a segment: opening answers, and never panics, hangs or invents a frame.

use super::*;
use crate::entropy::Entropy;
use crate::seal::{Cipher, KeyRing};

/// How many mutations are tried; more with `STORAGE_MUTATIONS`.
fn mutations() -> u64 {
    let wanted = std::env::var("STORAGE_MUTATIONS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1500)
}

fn mutate(content: &mut Vec<u8>, entropy: &SeededEntropy) {
    let length = content.len() as u64;
    for _ in 0..=entropy.below(3) {
        let page = entropy.below(length / 4096).min(6) * 4096;
        let at = (page + entropy.below(160)) as usize;
        match entropy.below(5) {
            0 => content[at] ^= 1 << entropy.below(8),
            1 => content[at] = entropy.next_u64() as u8,
            2 => content[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes()),
            3 => {
                let from = (entropy.below(length / 4096).min(6) * 4096) as usize;
                content.copy_within(from..from + 4096, page as usize);
            }
            _ => content.truncate(entropy.below(length) as usize),
        }
        if content.len() < length as usize {
            return;
        }
    }
}

fn check(options: impl Fn(&SimDisk) -> JournalOptions) {
    let disk = SimDisk::new(3);
    let (mut core, _) = open(&disk, options(&disk));
    for index in 1..6 {
        append_entry(&mut core, 1, index);
        append_entry(&mut core, 2, index);
    }
    drop(core);
    let segment = segments(&disk)[0].clone();
    let intact = disk.content(&segment).unwrap();
    for seed in 0..mutations() {
        let entropy = SeededEntropy::new(seed);
        let mut content = intact.clone();
        mutate(&mut content, &entropy);
        disk.set_content(&segment, &content);
        let Ok((core, replay)) = try_open(&disk, options(&disk)) else {
            continue;
        };
        for owner in 1..3 {
            // The contents are compared inside.
            let found = indexes(&replay, owner);
            assert!(
                found.windows(2).all(|pair| pair[0] < pair[1]),
                "seed {seed}"
            );
            assert!(found.iter().all(|&index| index < 6), "seed {seed}");
        }
        drop(core);
        let _ = inspect(&disk, &directory(), None).unwrap();
        for path in disk.list(&directory()).unwrap() {
            let path = directory().join(path.name);
            if path != segment {
                disk.remove_file(&path).unwrap();
            }
        }
    }
}

#[test]
fn mutated_segments_never_panic_and_never_invent_frames() {
    check(|_| options());
}

#[test]
fn mutated_sealed_segments_never_panic_and_never_invent_frames() {
    let ring = |disk: &SimDisk| {
        let entropy = SeededEntropy::new(1);
        KeyRing::open(
            disk,
            Path::new("/"),
            b"key",
            None,
            Cipher::Aes256Gcm,
            &entropy,
        )
        .unwrap()
    };
    check(|disk| JournalOptions {
        encryption: Some(Arc::new(ring(disk))),
        ..options()
    });
}
