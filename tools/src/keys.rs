//! The passphrase of an encrypted store.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use storage::disk::RealDisk;
use storage::seal::{KEY_FILE_NAME, KeyRing};

use crate::arguments::Scope;
use crate::place::SERVER_SUBDIRECTORY;

/// Where a passphrase is looked for when none is given.
const KEY_VARIABLE: &str = "NATS_JETSTREAM_KEY";

/// The keys of the store that `path` lies in; `None` when no passphrase was given.
///
/// The key file is looked for in `path`, in the store below it and in the directories above it, so that one block of a store can be
/// opened.
pub fn open(scope: &Scope) -> Result<Option<Arc<KeyRing>>> {
    let Some(passphrase) = passphrase(scope)? else {
        return Ok(None);
    };
    let path = std::path::absolute(&scope.path)?;
    let below = path.join(SERVER_SUBDIRECTORY);
    let store = std::iter::once(below.as_path())
        .chain(path.ancestors())
        .find(|directory| directory.join(KEY_FILE_NAME).is_file())
        .context("a key was given, but there is no key file here or above")?;
    let passphrases = [Some(passphrase), scope.previous_key.clone()];
    let passphrases: Vec<&[u8]> = passphrases.iter().flatten().map(String::as_bytes).collect();
    let ring = KeyRing::read(&RealDisk, store, &passphrases)
        .with_context(|| format!("key file in {}", store.display()))?;
    Ok(Some(Arc::new(ring)))
}

fn passphrase(scope: &Scope) -> Result<Option<String>> {
    if let Some(key) = &scope.key {
        return Ok(Some(key.clone()));
    }
    if let Some(path) = &scope.key_file {
        return first_line(path).map(Some);
    }
    Ok(std::env::var(KEY_VARIABLE)
        .ok()
        .filter(|key| !key.is_empty()))
}

fn first_line(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = text.lines().next().unwrap_or_default();
    anyhow::ensure!(!line.is_empty(), "{}: no key in it", path.display());
    Ok(line.to_owned())
}
