//! How a journal is to behave.

use std::sync::Arc;
use std::time::Duration;

use super::meter::JournalMeter;
use crate::executor::{Executor, InlineExecutor};
use crate::seal::KeyRing;

const MEBIBYTE: u64 = 1024 * 1024;

/// When a frame counts as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is synced.
    Always,
    /// When it is written; the journal is synced at this interval, and votes at once.
    Interval(Duration),
}

/// How a journal is to behave. [`JournalOptions::default`] is what a server uses.
#[derive(Clone)]
pub struct JournalOptions {
    /// When a frame counts as committed.
    pub durability: Durability,
    /// Encrypts commits under keys of this ring.
    pub encryption: Option<Arc<KeyRing>>,
    /// Bytes of a segment file, a multiple of 4,096.
    pub segment_bytes: u64,
    /// A commit that has grown to this is closed and the next one begun.
    pub commit_bytes_max: usize,
    /// When live segments take more than this, owners are asked for checkpoints and marks are carried forward.
    pub soft_bytes: u64,
    /// When live segments take more than this, [`PressureLevel::Hard`](super::PressureLevel::Hard) is reported: submitters should wait.
    pub hard_bytes: u64,
    /// Fills new segments with zeros.
    pub background: Arc<dyn Executor>,
    /// Writing may wait for others at the disk: then the journal's thread does all of it.
    pub takes_turns: bool,
    /// Counts what is done.
    pub meter: Arc<JournalMeter>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Always,
            encryption: None,
            segment_bytes: 64 * MEBIBYTE,
            commit_bytes_max: 4 * MEBIBYTE as usize,
            soft_bytes: 128 * MEBIBYTE,
            hard_bytes: 256 * MEBIBYTE,
            background: Arc::new(InlineExecutor),
            takes_turns: false,
            meter: Arc::default(),
        }
    }
}
