//! The store of a stopped reference server: directories, accounts, streams.
//!
//! - `keys`: how its files are encrypted; `files`: a stream's files as plain bytes.
//!
//! # Invariant
//! Nothing is ever written there.

mod files;
mod keys;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use files::StreamDirectory;
pub use keys::MasterKeys;

/// What the reference calls its directory.
const SUBDIRECTORY: &str = "jetstream";
const STREAMS: &str = "streams";
const META: &str = "meta.inf";
/// Where it keeps groups of its own, in the directory of its system account.
const GROUPS: &str = "_js_";

/// A store of the reference.
pub struct ReferenceStore {
    pub root: PathBuf,
    pub streams: Vec<StreamDirectory>,
    /// Streams that were deleted, or whose files say too little to be streams, and why they are left out.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

impl ReferenceStore {
    /// Looks into a server's `store_dir`, or the `jetstream` directory in it.
    pub fn open(path: &Path) -> Result<Self> {
        let below = path.join(SUBDIRECTORY);
        let root = match below.is_dir() {
            true => below,
            false => path.to_owned(),
        };
        let mut store = Self {
            root: root.clone(),
            streams: Vec::new(),
            left_out: Vec::new(),
        };
        for account in directories(&root)? {
            let name = file_name(&account)?;
            if account.join(GROUPS).is_dir() {
                let why = "the logs of a cluster's groups, which our servers do not read";
                store.left_out.push((account.join(GROUPS), why));
            }
            if !account.join(STREAMS).is_dir() {
                continue;
            }
            for directory in directories(&account.join(STREAMS))? {
                let stream = file_name(&directory)?;
                if stream.starts_with('.') {
                    store.left_out.push((directory, "it was deleted"));
                } else if !directory.join(META).is_file() {
                    store.left_out.push((directory, "it has no meta.inf"));
                } else {
                    store.streams.push(StreamDirectory {
                        account: name.clone(),
                        name: stream,
                        path: directory,
                    });
                }
            }
        }
        if store.streams.is_empty() {
            bail!("{}: no streams of nats-server's own format", path.display());
        }
        Ok(store)
    }
}

/// The directories in a directory, by name.
fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| path.display().to_string())?;
        if entry.path().is_dir() {
            directories.push(entry.path());
        }
    }
    directories.sort();
    Ok(directories)
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{}: a name that is no text", path.display()))?;
    Ok(name.to_owned())
}
