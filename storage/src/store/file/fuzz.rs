//! Checkpoint decoders for fuzzers: the file, and the cut behind its checksums.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{self, FRAME_HEADER_BYTES, HEADER_BYTES};
use super::cut::Cut;
use super::name::CHECKPOINT;
use crate::disk::sim::SimDisk;
use crate::engine::{Engine, EngineOptions, StoreOptions, Threads};
use crate::entropy::SeededEntropy;
use crate::fuzz::Target;
use crate::store::{Deletion, Expiry, FileStore, NewMessage, Store};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "checkpoint_cut",
        run: cut,
        seeds: cuts,
    },
    Target {
        name: "checkpoint_file",
        run: file,
        seeds: files,
    },
];

const DIRECTORY: &str = "/store";

/// The checkpoint files of a stream that grows, with blocks, deletes, expiries and messages that are in no block.
fn checkpoints() -> Option<Vec<(u64, Vec<u8>)>> {
    let disk = SimDisk::new(1);
    let options = EngineOptions {
        carry_bytes_max: 0,
        reserve_bytes: 0,
        threads: Threads::None,
        ..EngineOptions::new(DIRECTORY)
    };
    let entropy = Arc::new(SeededEntropy::new(1));
    let opened = Engine::<FileStore>::open(Arc::new(disk.clone()), options, entropy).ok()?;
    let options = StoreOptions {
        block_bytes: Some(20_000),
        ..StoreOptions::default()
    };
    let (id, mut store) = opened.engine.create("account", "stream", options).ok()?;
    let directory = Path::new(DIRECTORY).join("streams");
    let path = directory.join(id.directory_name()).join(CHECKPOINT);
    let mut found = Vec::new();
    for sequence in 1..=900u64 {
        let message = NewMessage {
            sequence,
            time_ns: sequence as i64,
            subject: b"orders.1",
            headers: b"",
            payload: &[7; 40],
            expiry: match sequence % 50 {
                0 => Expiry::At(1 << 60),
                1 => Expiry::Never,
                _ => Expiry::ByAge,
            },
        };
        store.append(&message, &mut ()).ok()?;
        if sequence % 3 == 0 {
            store.delete(sequence / 3, Deletion::Unlink, &mut ()).ok()?;
        }
        if [5, 500, 900].contains(&sequence) {
            let core = Bytes::from_static(b"core");
            let _ = opened.engine.checkpoint(id, &mut store, sequence, core);
            found.extend(disk.content(&path).map(|content| (id.0, content)));
        }
    }
    Some(found)
}

fn files() -> Vec<Vec<u8>> {
    let checkpoints = checkpoints().unwrap_or_default();
    checkpoints
        .into_iter()
        .map(|(_, content)| content)
        .collect()
}

fn file(input: &[u8]) {
    for stream in [0, 16] {
        let bytes = Bytes::copy_from_slice(input);
        let _ = checkpoint::decode(Path::new("checkpoint"), bytes, stream, None);
    }
}

/// The first cut of each file.
fn cuts() -> Vec<Vec<u8>> {
    let first = |file: Vec<u8>| {
        let frame = file.get(HEADER_BYTES..)?;
        let length = u32::from_le_bytes(*frame.first_chunk::<4>()?) as usize;
        frame
            .get(FRAME_HEADER_BYTES..)?
            .get(..length)
            .map(<[u8]>::to_vec)
    };
    files().into_iter().filter_map(first).collect()
}

fn cut(input: &[u8]) {
    let Ok(cut) = Cut::decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    for held in &cut.held {
        let _ = held.as_new();
    }
    let Ok(again) = Cut::decode(cut.encode().into()) else {
        unreachable!("what was decoded encodes to what can be decoded");
    };
    let mut whole = again;
    whole.follow(cut);
}
