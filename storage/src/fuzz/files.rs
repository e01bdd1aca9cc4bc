//! Targets over whole files, through what the crate offers to everyone.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::Target;
use crate::codec::Compression;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::entropy::SeededEntropy;
use crate::journal::format::{CommitHeader, FrameHeader, SegmentHeader};
use crate::journal::{
    Commit, CommitSink, Frame, FrameKind, JournalCore, JournalError, JournalOptions, Owner, inspect,
};
use crate::seal::{Cipher, KeyRing, WrappedKey};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "journal_segment",
        run: journal_segment,
        seeds: journal_segments,
    },
    Target {
        name: "journal_headers",
        run: journal_headers,
        seeds: journal_segments,
    },
    Target {
        name: "key_file",
        run: key_file,
        seeds: key_files,
    },
    Target {
        name: "compressed",
        run: compressed,
        seeds: compressed_texts,
    },
];

const JOURNAL: &str = "/journal";
const SEGMENT_BYTES: u64 = 32 * 1024;
/// Longer files would only make the fuzzer slow.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Nobody waits for these frames.
struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _commits: &[Commit]) {}

    fn failed(&self, _error: &JournalError) {}
}

fn journal_options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        ..JournalOptions::default()
    }
}

fn open_journal(disk: &SimDisk) -> Option<JournalCore> {
    let entropy = Arc::new(SeededEntropy::new(disk.changes()));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = JournalCore::open(disk, Path::new(JOURNAL), journal_options(), entropy);
    opened.ok().map(|(core, _)| core)
}

fn segments(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    let entries = disk.list(Path::new(JOURNAL)).unwrap_or_default();
    let names = entries.into_iter().map(|entry| entry.name);
    names.map(|name| Path::new(JOURNAL).join(name)).collect()
}

fn journal_segments() -> Vec<Vec<u8>> {
    let disk = SimDisk::new(1);
    if disk.create_directory(Path::new(JOURNAL)).is_err() {
        return Vec::new();
    }
    let Some(mut core) = open_journal(&disk) else {
        return Vec::new();
    };
    let sink: Arc<dyn CommitSink> = Arc::new(Nobody);
    let kinds = [
        FrameKind::Entry,
        FrameKind::Vote,
        FrameKind::Committed,
        FrameKind::Truncate,
        FrameKind::Purged,
        FrameKind::Carry,
    ];
    for (index, kind) in (1..).zip(kinds.into_iter().cycle().take(18)) {
        let frame = Frame {
            owner: Owner(16 + index % 3),
            index,
            kind,
            payload: Bytes::from(format!("frame {index}")).into(),
        };
        let _ = core.stage(&frame, 0, &sink);
        if index % 4 == 0 {
            let _ = core.commit();
        }
    }
    let files = segments(&disk);
    let _ = core.close();
    files
        .iter()
        .chain(&segments(&disk))
        .filter_map(|path| disk.content(path))
        .map(|content| content.iter().copied().take(FILE_BYTES_MAX).collect())
        .collect()
}

/// Opens a journal that consists of this one segment, as a server and as a tool would.
fn journal_segment(input: &[u8]) {
    let disk = SimDisk::new(1);
    if disk.create_directory(Path::new(JOURNAL)).is_err() {
        return;
    }
    drop(open_journal(&disk));
    let Some(segment) = segments(&disk).into_iter().next() else {
        return;
    };
    disk.set_content(&segment, input.get(..FILE_BYTES_MAX).unwrap_or(input));
    let _ = inspect(&disk, Path::new(JOURNAL), None);
    drop(open_journal(&disk));
}

fn journal_headers(input: &[u8]) {
    let _ = SegmentHeader::decode(input);
    for seed in [0, 1] {
        let _ = CommitHeader::decode(input, seed);
        let _ = FrameHeader::decode(input, seed);
    }
}

fn key_files() -> Vec<Vec<u8>> {
    let disk = SimDisk::new(1);
    let entropy = SeededEntropy::new(1);
    let root = Path::new("/");
    let path = root.join(crate::seal::KEY_FILE_NAME);
    let mut files = Vec::new();
    for (key, previous) in [(&b"first"[..], None), (b"second", Some(&b"first"[..]))] {
        let _ = KeyRing::open(&disk, root, key, previous, Cipher::Aes256Gcm, &entropy);
        files.extend(disk.content(&path));
    }
    files
}

fn key_file(input: &[u8]) {
    let disk = SimDisk::new(1);
    let entropy = SeededEntropy::new(1);
    let root = Path::new("/");
    let open = |key: &[u8]| KeyRing::open(&disk, root, key, None, Cipher::Aes256Gcm, &entropy);
    let Ok(ring) = open(b"first") else { return };
    if let Some(wrapped) = WrappedKey::decode(input) {
        let _ = ring.unwrap(&wrapped, b"context");
    }
    disk.set_content(&root.join(crate::seal::KEY_FILE_NAME), input);
    let _ = KeyRing::read(&disk, root, &[b"first"]);
    let _ = open(b"first");
}

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::S2, Compression::Lz4];

/// Four bytes of length, then what is to be unpacked into so many bytes.
fn compressed_texts() -> Vec<Vec<u8>> {
    let text = b"a text that repeats, a text that repeats, a text that repeats".repeat(9);
    let packed = COMPRESSIONS.map(|compression| compression.compress(&text));
    let with_length = |packed: Vec<u8>| [&(text.len() as u32).to_le_bytes(), &packed[..]].concat();
    packed.into_iter().flatten().map(with_length).collect()
}

fn compressed(input: &[u8]) {
    let Some((length, packed)) = input.split_first_chunk::<4>() else {
        return;
    };
    // A chunk's header bounds this number in the same way.
    let length = u32::from_le_bytes(*length).min(1 << 20) as usize;
    for compression in COMPRESSIONS {
        if let Ok(plain) = compression.decompress(packed, length) {
            assert_eq!(plain.len(), length);
        }
    }
}
