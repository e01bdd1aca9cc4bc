//! What a path is: a store, the directory of one stream, or one block.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use storage::seal::KeyRing;

use crate::arguments::Scope;
use crate::stream::Stream;

/// What is looked at.
#[derive(Debug)]
pub enum Place {
    Store(Store),
    Stream(PathBuf),
    Block(PathBuf),
}

/// A whole store directory.
#[derive(Debug)]
pub struct Store {
    pub journal: Option<PathBuf>,
    /// The streams' directories, by name.
    pub streams: Vec<PathBuf>,
}

const JOURNAL: &str = "journal";
const STREAMS: &str = "streams";
/// Where a server keeps its store within the directory it is given.
const SERVER_SUBDIRECTORY: &str = "jetstream";

impl Place {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Stream(_) => "stream",
            Self::Block(_) => "block",
        }
    }

    /// The streams in it that `--stream` asks for, with the blocks that the other options ask for.
    pub fn streams(&self, ring: Option<&KeyRing>, scope: &Scope) -> Result<Vec<Stream>> {
        let streams = match self {
            Self::Store(store) => store
                .streams
                .iter()
                .map(|directory| Stream::open(directory, ring, scope))
                .collect::<Result<_>>()?,
            Self::Stream(directory) => vec![Stream::open(directory, ring, scope)?],
            Self::Block(path) => vec![Stream::of_block(path, ring, scope)?],
        };
        let Some(wanted) = &scope.stream else {
            return Ok(streams);
        };
        let streams: Vec<Stream> = streams
            .into_iter()
            .filter(|stream| stream.is_called(wanted))
            .collect();
        if streams.is_empty() {
            bail!("{}: no stream `{wanted}`", scope.path.display());
        }
        Ok(streams)
    }
}

pub fn find(scope: &Scope) -> Result<Place> {
    let path = &scope.path;
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if metadata.is_file() {
        return Ok(Place::Block(path.clone()));
    }
    if let Some(store) = store(path)? {
        return Ok(Place::Store(store));
    }
    if let Some(store) = store(&path.join(SERVER_SUBDIRECTORY))? {
        return Ok(Place::Store(store));
    }
    if is_stream(path)? {
        return Ok(Place::Stream(path.clone()));
    }
    bail!(
        "{}: neither a store, nor a stream's directory, nor a block",
        path.display()
    )
}

fn store(directory: &Path) -> Result<Option<Store>> {
    let journal = directory.join(JOURNAL);
    let streams = directory.join(STREAMS);
    if !journal.is_dir() && !streams.is_dir() {
        return Ok(None);
    }
    let mut found = Vec::new();
    if streams.is_dir() {
        for entry in std::fs::read_dir(&streams)? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(Some(Store {
        journal: journal.is_dir().then_some(journal),
        streams: found,
    }))
}

fn is_stream(directory: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == "checkpoint" || name.ends_with(".block") {
            return Ok(true);
        }
    }
    Ok(false)
}
