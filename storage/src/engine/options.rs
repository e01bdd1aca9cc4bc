//! How an engine is to behave.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DiskTurns;
use crate::journal::{Durability, JournalOptions};
use crate::seal::Cipher;

/// How an engine is to behave.
#[derive(Clone)]
pub struct EngineOptions {
    /// The store directory. Created with its last component when it does not exist.
    pub directory: PathBuf,
    /// When an entry counts as committed.
    pub durability: Durability,
    /// Encrypts everything that is written from now on.
    pub encryption: Option<EncryptionOptions>,
    /// The rest of the journal's options; durability, encryption and background are taken from here and replaced.
    pub journal: JournalOptions,
    /// A stream whose whole state is no more than this is carried in the journal instead of having files.
    pub carry_bytes_max: usize,
    /// When all carried states together are more than this, streams get files however small they are.
    pub carried_total_bytes_max: u64,
    /// Bytes of decoded chunks that are kept in memory for reading, for all streams together.
    pub cache_bytes: usize,
    /// Free bytes on the device below which [`Engine::has_room`](super::Engine::has_room) says no.
    pub reserve_bytes: u64,
    /// Which threads the engine has.
    pub threads: Threads,
    /// How much is asked of the disk at a time; without it, as much as there are threads.
    pub disk_turns: Option<Arc<DiskTurns>>,
}

/// Which threads an engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One for the journal (two in lazy mode), and this many for background jobs.
    Own(usize),
    /// None: every submit commits before it returns, and jobs run at once on the caller's thread. For simulations.
    None,
}

/// Encrypts everything that is written from now on.
#[derive(Clone)]
pub struct EncryptionOptions {
    /// What the master key is derived from.
    pub passphrase: Vec<u8>,
    /// The one before, while a change of passphrase is under way.
    pub previous: Option<Vec<u8>>,
    /// The cipher of what is written from now on.
    pub cipher: Cipher,
}

impl std::fmt::Debug for EncryptionOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "EncryptionOptions({:?})", self.cipher)
    }
}

impl Drop for EncryptionOptions {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.passphrase.zeroize();
        self.previous.zeroize();
    }
}

impl EngineOptions {
    /// What a server uses for a store directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Always,
            encryption: None,
            journal: JournalOptions::default(),
            carry_bytes_max: 64 * 1024,
            carried_total_bytes_max: 32 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            reserve_bytes: 16 * 1024 * 1024,
            threads: Threads::Own(2),
            disk_turns: None,
        }
    }
}
